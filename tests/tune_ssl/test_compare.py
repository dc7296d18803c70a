"""What compare does around the engine: cells share the workers, what is done stays, one opening for all."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import shutil
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from rich.console import Console

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import (
    draws_of,
    drive_all_without_cluster,
    drive_without_cluster,
    outcome,
    small_config,
    tiny_images,
    tree,
)
from tests.tune_ssl.test_confirm import IMAGES, FakeSealedTest, KilledError
from tune_ssl import cli
from tune_ssl import comparison as judging
from tune_ssl.driver import Limits
from tune_ssl.on_ray.cluster import Cluster
from tune_ssl.retraining import Configuration
from tune_ssl.run import RunDirectory, run_lock, write_yaml
from tune_ssl.study import SECONDS, WITHOUT_PROGRESS, read_trials
from tune_ssl.trial import pack_correct
from tune_ssl.views import compared as view
from tune_ssl.views import tables
from tune_ssl.views.judged import interval_text
from tune_ssl.workflows import compare as workflow
from tune_ssl.workflows import confirm, plan, results, retrain
from tune_ssl.workflows import search as search_workflow
from tune_ssl.workflows.driving import (
    ALL_FAILED,
    DONE,
    DRAINED,
    INTERNAL,
    LIMIT,
    Invocation,
)

pytestmark = pytest.mark.usefixtures("no_fsync")


class FakeSealed(FakeSealedTest):
    """Classifies by the weights' bytes; reference lines get half of the images right."""

    def refer(self, models):
        assert self.opened == 1
        for _ in models:
            yield pack_correct(np.arange(IMAGES) < IMAGES // 2)


class Comparing:
    """A comparison without cluster or test set, as many times as it is called."""

    def __init__(self, folder, monkeypatch, **asked) -> None:
        self.output = folder / "runs"
        self._monkeypatch = monkeypatch
        settings = small_config(alg=("mean_teacher",), metric="accuracy", trials=4)
        changes = asked.pop("settings", {})
        self.settings = dataclasses.replace(settings, **changes)
        self.asked = {"claim": "cells", "budget_per_cell": None, "seeds": 3, "repeats": 1} | asked
        self.name = self.asked.pop("name", "it")
        self.directory = RunDirectory(self.output / self.name)
        self.own = RunDirectory(self.directory.path / "retrainings")
        self.sealed = FakeSealed(self.own.path)
        self.connected = 0
        self.gpus = 0.0
        self.images = tiny_images()
        monkeypatch.setattr(workflow, "prepare", self._prepare)
        monkeypatch.setattr(workflow, "prepare_draws", self._prepare_draws)
        monkeypatch.setattr(workflow, "draw_images", self._draws_of)
        monkeypatch.setattr(workflow, "connected_for", self._connected)
        monkeypatch.setattr(retrain, "sealed_test", self._sealed_test)

    def _prepare(self, data):
        return dataclasses.replace(self.images, fingerprint=f"{data.split_seed:064x}")

    def _draws_of(self, retrainings):
        return {
            seed: dataclasses.replace(drawn, images=self.images.images, labels=self.images.labels)
            for seed, drawn in draws_of(retrainings).items()
        }

    def _prepare_draws(self, data, split_seeds):
        return {
            seed: self._prepare(dataclasses.replace(data, split_seed=seed)) for seed in split_seeds
        }

    @contextmanager
    def _connected(self, invocation, image_bytes):
        self.connected += 1
        yield Cluster(local=True, address="here", dashboard=None, cpus=4.0, gpus=self.gpus)

    @contextmanager
    def _sealed_test(self, place, processes):
        yield self.sealed

    def prepared(self, **changes):
        asked = workflow.comparison_of(dataclasses.replace(self.settings, **changes), **self.asked)
        return workflow.prepare_compare(asked, name=self.name, output=str(self.output), here=True)

    def engine(self, **options) -> None:
        """Say what happens to the trials: ``interrupted_after`` reports of all cells together."""
        after = options.pop("interrupted_after", None)
        self.driven: list[str] = []

        def drive_all(*arguments, **more):
            return drive_all_without_cluster(
                *arguments, **more, driven=self.driven, interrupted_after=after, **options
            )

        def drive(job, directory, invocation, console, *, fresh, cluster=None):
            begun = len(self.driven)
            self.driven.append(directory.name)
            now = after is not None and begun + 1 >= after[0]
            return drive_without_cluster(
                job,
                directory,
                invocation,
                console,
                fresh=fresh,
                **({"interrupted_after": after[1]} if now else {}),
                **options,
            )

        self._monkeypatch.setattr(workflow, "run_jobs", drive_all)
        self._monkeypatch.setattr(retrain, "run_job", drive)

    def __call__(self, **engine):
        self.engine(**engine)
        self.console = Console(file=io.StringIO(), width=300)
        return workflow.compare(self.prepared(), Invocation(), self.console)

    def said(self) -> str:
        return self.console.file.getvalue()

    def openings(self) -> list[dict]:
        path = self.output / "test_openings.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def is_done(self, name: str) -> bool:
        cells = workflow.read_comparison(self.directory).cells()
        (cell,) = [one for one in cells if one.folder == name]
        return workflow._is_done(RunDirectory(self.directory.path / "cells" / name), cell)

    def trials(self, folder: str):
        return read_trials(self.directory.path / folder / "study.journal")[0]


@pytest.fixture
def comparing(tmp_path, monkeypatch):
    return functools.partial(Comparing, tmp_path, monkeypatch)


def figures(result):
    """Return a result without what is of one machine at one time."""
    kept = json.loads(json.dumps(result))
    kept["test"].pop("opening")
    for row in kept["cells"]:
        del row["device_seconds"]
        for one in row["searched"]:
            del one["origin"]["device_seconds"], one["origin"]["training_seconds"]
            for retraining in one["retrainings"]:
                del retraining["device_seconds"], retraining["weights"]
    return kept


NAMES = ("supervised", "mean_teacher-mse")
CELLS = tuple(f"cells/{name}" for name in NAMES)


class TestRun:
    def test_every_cell_is_searched_then_all_winners_are_tested_once(self, comparing):
        it = comparing()
        ended = it()
        assert ended.exit_code == DONE
        assert it.driven == ["supervised", "mean_teacher-mse", "retrainings"]
        assert [len(it.trials(cell)) for cell in CELLS] == [4, 4]
        assert (it.sealed.opened, it.sealed.measured) == (1, 6)
        (opening,) = it.openings()
        assert opening["configurations"] == ["supervised", "mean_teacher / mse"]
        assert json.loads((it.directory.path / "result.json").read_text()) == ended.result
        assert it.connected == 1, "all cells share one cluster"

    def test_a_winner_is_retrained_as_its_search_trained_it_on_other_draws(self, comparing):
        it = comparing()
        it()
        for row in it().result["cells"]:
            (found,) = row["searched"]
            record = it.directory.path / found["origin"]["run"] / "trials"
            trained = (record / f"{found['origin']['trial']:04d}" / "config.yaml").read_text()
            for name, value in found["parameters"].items():
                assert f"{name}: {value}" in trained
            assert [one["split_seed"] for one in found["retrainings"]] == [1000, 1001, 1002]

    def test_a_cell_is_an_ordinary_run(self, comparing):
        it = comparing()
        it()
        run = RunDirectory.open("it/cells/mean_teacher-mse", str(it.output))
        assert results.status(run).counts.finished == 4
        assert results.best_records(run, 1)[0]["algorithm"] == "mean_teacher"

    def test_the_reference_lines_are_measured_on_the_same_draws(self, comparing):
        lines = comparing()().result["references"]
        assert [(line["name"], len(line["correct"])) for line in lines] == [
            ("1-NN", 3),
            ("LabelSpreading", 3),
        ]
        assert lines[0]["test"]["mean"] == 0.5

    def test_repeated_it_tells_the_same_and_touches_nothing(self, comparing):
        it = comparing()
        first = it().result
        before = tree(it.directory.path)
        again = it(interrupted_after=(1, 0))
        assert again.result == first
        assert (it.driven, it.connected, it.sealed.opened) == ([], 1, 1)
        assert tree(it.directory.path) == before

    @pytest.mark.parametrize("cell", [1, 2, 3])
    @pytest.mark.parametrize("lost", [False, True])
    def test_interrupted_in_any_part_it_ends_the_same(self, comparing, cell, lost):
        whole = comparing(name="whole")
        expected = whole().result
        it = comparing()
        if lost:
            with pytest.raises(KeyboardInterrupt):
                it(interrupted_after=(cell, 2), lost=True)
        else:
            ended = it(interrupted_after=(cell, 2))
            assert (ended.exit_code, ended.result) == (DRAINED, None)
            assert ended.message.endswith(f"resume {it.directory.path}")
        assert it.sealed.opened == 0
        left = [name for name in NAMES if not it.is_done(name)]
        finished = {
            folder: tree(it.directory.path / folder)
            for folder, name in zip(CELLS, NAMES, strict=True)
            if name not in left
        }
        assert len(left) >= min(3 - cell, 2)
        it.engine()
        ended = workflow.resume_compare(
            it.directory, Invocation(), Console(file=io.StringIO()), concurrency=None, data_dir=None
        )
        assert ended.exit_code == DONE
        assert it.driven == [*left, "retrainings"]
        for folder, before in finished.items():
            assert tree(it.directory.path / folder) == before
        assert figures(ended.result) == figures(expected)
        for folder in (*CELLS, "retrainings"):
            assert outcome(it.trials(folder)) == outcome(whole.trials(folder))

    @pytest.mark.parametrize(
        ("why", "code", "said"),
        [
            ("SIGTERM", DRAINED, "interrupted by SIGTERM"),
            ("time limit reached", LIMIT, "interrupted by time limit reached"),
            (None, INTERNAL, "the searches ended early"),
        ],
    )
    def test_ended_when_one_cell_is_done_and_the_next_has_not_begun(
        self, comparing, monkeypatch, why, code, said
    ):
        it = comparing()
        it.engine()

        def drive_one(runs, *arguments, **more):
            drive_all_without_cluster([next(iter(runs))], *arguments, **more)
            return why

        monkeypatch.setattr(workflow, "run_jobs", drive_one)
        ended = workflow.compare(it.prepared(), Invocation(), Console(file=io.StringIO()))
        assert (ended.exit_code, ended.result) == (code, None)
        assert ended.message.startswith(f"{said}; continue with: ")
        assert it.is_done("supervised")
        assert it.driven == []
        assert it().exit_code == DONE
        assert it.driven == ["mean_teacher-mse", "retrainings"]

    def test_a_signal_after_the_last_search_is_no_leave_to_retrain(self, comparing, monkeypatch):
        it = comparing()
        it.engine()

        def drive_all(*arguments, **more):
            drive_all_without_cluster(*arguments, **more)
            return "SIGTERM"

        monkeypatch.setattr(workflow, "run_jobs", drive_all)
        ended = workflow.compare(it.prepared(), Invocation(), Console(file=io.StringIO()))
        assert (ended.exit_code, ended.result) == (DRAINED, None)
        assert not it.own.path.exists()

    def test_a_cell_that_cannot_be_opened_lets_the_others_store_and_counts_against_none(
        self, comparing
    ):
        it = comparing()
        usual = search_workflow.SearchJob.open_study

        def refuse(job, directory, *given):
            if directory.name == NAMES[1]:
                raise UserError("its files have changed")
            return usual(job, directory, *given)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(search_workflow.SearchJob, "open_study", refuse)
            with pytest.raises(UserError, match="its files have changed"):
                it(seconds_per_step=30.0)
        running = [trial for trial in it.trials(CELLS[0]) if not trial.state.is_finished()]
        assert running
        told = (it.directory.path / CELLS[0] / "events.jsonl").read_text()
        assert "what comes next cannot be begun: its files have changed" in told
        assert all(trial.system_attrs.get(WITHOUT_PROGRESS, 0) == 0 for trial in running)
        assert it().exit_code == DONE

    @pytest.mark.parametrize("concurrency", [1, None])
    def test_resumed_with_another_pace_all_cells_have_it(self, comparing, concurrency):
        it = comparing(settings={"concurrency": 2})
        it(interrupted_after=(1, 2))
        asked = []
        run_jobs = workflow.run_jobs

        def noting(runs, *arguments, **more):
            runs = list(runs)
            asked.extend(run.job.settings.concurrency for run in runs)
            return run_jobs(iter(runs), *arguments, **more)

        it._monkeypatch.setattr(workflow, "run_jobs", noting)
        prepared = it.prepared(concurrency=concurrency)
        workflow.compare(prepared, Invocation(), Console(file=io.StringIO()))
        assert asked == [concurrency, concurrency]

    @pytest.mark.parametrize("part", [1, 2, 3])
    def test_killed_when_it_had_just_made_a_journal_it_goes_on(self, comparing, part):
        it = comparing()
        it(interrupted_after=(part, 0))
        folder = it.directory.path / (*CELLS, "retrainings")[part - 1]
        (folder / "study.journal").write_bytes(b"")
        assert it().exit_code == DONE

    def test_killed_while_it_tests_it_does_not_count_again(self, comparing):
        it = comparing()
        it.sealed.broken = True
        with pytest.raises(KilledError):
            it()
        it.sealed.broken = False
        it.sealed.opened = 0
        assert it().result["test"]["opening"] == 1
        assert len(it.openings()) == 1

    def test_repeats_are_searches_of_their_own_on_draws_of_their_own(self, comparing):
        it = comparing(repeats=3)
        result = it().result
        assert it.driven == [
            f"{cell}-search-{repeat}"
            for repeat in (1, 2, 3)
            for cell in ("supervised", "mean_teacher-mse")
        ] + ["retrainings"]
        settings = [
            RunDirectory(it.directory.path / f"cells/supervised-search-{repeat}").read_config()
            for repeat in (1, 2, 3)
        ]
        assert [(one.split_seed, one.seed) for one in settings] == [(0, 0), (1, 1), (2, 2)]
        assert it.sealed.measured == 18
        assert it.sealed.opened == 1
        row = result["cells"][0]
        draws = [one["split_seed"] for found in row["searched"] for one in found["retrainings"]]
        assert len(set(draws)) == 9

    def test_a_claim_about_methods_has_one_joint_search_for_each(self, comparing):
        it = comparing(claim="methods", settings={"divergence": ("mse", "kl")})
        result = it().result
        assert it.driven[:2] == ["supervised", "mean_teacher"]
        assert [len(it.trials(f"cells/{name}")) for name in it.driven[:2]] == [8, 8]
        assert {row["name"] for row in result["cells"]} == {"supervised", "mean_teacher"}


class TestBudgetInDeviceTime:
    def test_every_cell_ends_when_it_is_used_up(self, comparing):
        it = comparing(budget_per_cell=100.0)
        assert it().exit_code == DONE
        for cell in CELLS:
            spent = sum(trial.user_attrs.get(SECONDS, 0.0) for trial in it.trials(cell))
            assert 100.0 <= spent < 120.0  # two slots, slices of five seconds
        assert it().exit_code == DONE
        assert it.driven == []

    def test_a_cell_that_used_it_up_is_told_as_done(self, comparing, capsys, monkeypatch):
        it = comparing(budget_per_cell=100.0)
        it.engine(interrupted_after=(1, 4))
        workflow.compare(it.prepared(), Invocation(), Console(file=io.StringIO()))
        cell = RunDirectory(it.directory.path / CELLS[0])
        tables.print_status(results.status(cell))
        shown = " ".join(capsys.readouterr().out.split())
        assert "of 1 min 40 s" in shown
        assert f"nobody drives it now; continue with: tune-ssl resume {it.directory.path}" in shown
        it()
        tables.print_status(results.status(cell))
        shown = " ".join(capsys.readouterr().out.split())
        assert "nobody drives" not in shown
        assert "10000" not in shown
        assert "of 1 min 40 s" in shown
        assert ", done; device time" in shown
        monkeypatch.setattr(confirm, "draw_images", draws_of)
        bill = confirm.prepare_confirm(cell, confirm.Wishes(seeds=3), here=True).bill
        assert not any("can be resumed" in line for line in bill)

    def test_too_little_for_a_training_of_the_control_ends_all_and_a_larger_one_goes_on(
        self, comparing
    ):
        it = comparing(budget_per_cell=10.0)
        ended = it(seconds_per_step=1.0)  # a training takes 27
        assert (ended.exit_code, ended.result) == (ALL_FAILED, None)
        assert "cell supervised, which all others are compared with, has used up" in ended.message
        assert "with --name it and a larger --budget-per-cell" in ended.message
        assert not it.is_done("mean_teacher-mse"), "no other cell is searched for nothing"
        assert "(27 steps, about 27 s; " in ended.message
        cell = RunDirectory(it.directory.path / CELLS[0])
        for refused in (
            lambda: results.best_records(cell, 1),
            lambda: confirm.prepare_confirm(cell, confirm.Wishes(seeds=3), here=True),
        ):
            with pytest.raises(UserError, match=r"yet \(\d finished\).*--name it and a larger"):
                refused()
        begun = it.trials(CELLS[0])
        before = tree(it.directory.path)
        with pytest.raises(UserError, match="has used up 10 s of device time without a trial"):
            it(seconds_per_step=1.0)
        assert tree(it.directory.path) == before
        it.asked["budget_per_cell"] = 200.0
        assert it(seconds_per_step=1.0).exit_code == DONE
        assert workflow.read_comparison(it.directory).budget_per_cell == 200.0
        kept = it.trials(CELLS[0])[: len(begun)]
        assert [trial.params for trial in kept] == [trial.params for trial in begun]
        assert it().exit_code == DONE

    @pytest.mark.parametrize("budget", [90.0, 110.0])
    def test_once_winners_are_retrained_no_other_budget_goes_on(self, comparing, budget):
        it = comparing(budget_per_cell=100.0)
        it()
        it.asked["budget_per_cell"] = budget
        with pytest.raises(UserError, match="was begun with other budget_per_cell"):
            it()

    def test_a_smaller_budget_does_not_go_on(self, comparing):
        it = comparing(budget_per_cell=100.0)
        it(interrupted_after=(1, 2))
        it.asked["budget_per_cell"] = 90.0
        with pytest.raises(UserError, match="was begun with other budget_per_cell"):
            it()

    def test_a_time_limit_ends_the_command_and_not_the_budget(self, comparing, monkeypatch):
        it = comparing()
        it.engine(seconds_per_step=1.0)
        invocation = Invocation(limits=Limits(seconds=30.0))
        ended = workflow.compare(it.prepared(), invocation, Console(file=io.StringIO()))
        assert (ended.exit_code, ended.result) == (LIMIT, None)
        assert "cell supervised: time limit reached; continue with" in ended.message


class TestRefused:
    def test_another_comparison_under_the_same_name(self, comparing):
        it = comparing()
        it(interrupted_after=(1, 2))
        with pytest.raises(UserError, match="'it' was begun with other cells, trials"):
            it.prepared(trials=5)

    def test_pace_and_place_may_change(self, comparing):
        it = comparing()
        it(interrupted_after=(1, 2))
        assert it.prepared(concurrency=1).comparison.settings.concurrency == 1

    def test_a_second_driver(self, comparing):
        it = comparing()
        it(interrupted_after=(1, 2))
        with run_lock(it.directory), pytest.raises(UserError, match="held by another driver"):
            it()

    def test_a_cell_that_was_given_more_than_the_others(self, comparing):
        it = comparing()
        it(interrupted_after=(3, 0))
        (it.own.path / "config.yaml").unlink()
        cell = RunDirectory(it.directory.path / CELLS[0])
        cell.write_config(dataclasses.replace(cell.read_config(), trials=9))
        with pytest.raises(UserError, match="cell supervised has 9 trials and its budget is 4"):
            it()

    def test_cells_that_were_begun_on_different_machines(self, comparing):
        it = comparing()
        it(interrupted_after=(2, 1))
        cell = RunDirectory(it.directory.path / CELLS[1])
        cell.write_config(dataclasses.replace(cell.read_config(), precision="bfloat16"))
        before = tree(it.directory.path)
        with pytest.raises(UserError, match=r"mean_teacher / mse was begun with .*bfloat16.* anew"):
            it()
        assert tree(it.directory.path) == before

    def test_a_cell_that_has_begun_with_another_budget(self, comparing):
        it = comparing()
        it(interrupted_after=(2, 1))
        cell = RunDirectory(it.directory.path / CELLS[1])
        cell.write_config(dataclasses.replace(cell.read_config(), trials=3))
        with pytest.raises(UserError, match="has 3 trials and its budget is 4"):
            it()

    def test_a_winner_that_was_written_otherwise(self, comparing):
        it = comparing()
        it()
        path = it.own.path / "winner.json"
        path.write_text(path.read_text().replace('"winner": "', '"winner": "another '))
        remedy = f"remove {it.own.path} and resume {it.directory.path}, whose searches are kept"
        with pytest.raises(UserError, match=f"names another winner .*{remedy}"):
            it()

    @pytest.mark.parametrize("interrupted_after", [None, (3, 0), (3, 2), (2, 0)])
    @pytest.mark.parametrize("what", ["pixels", "labels"])
    def test_other_images_than_it_began_with(self, comparing, interrupted_after, what):
        """All is told, all searches are done, retrainings have begun, one search is done."""
        it = comparing()
        it(**({} if interrupted_after is None else {"interrupted_after": interrupted_after}))
        if interrupted_after == (3, 0):
            shutil.rmtree(it.own.path)
        before = tree(it.directory.path)
        images = it.images
        other = {
            "pixels": {"images": images.images + 1},
            "labels": {"labels": np.roll(images.labels, 1)},
        }
        it.images = dataclasses.replace(images, **other[what])
        with pytest.raises(UserError, match=f"data of run 'supervised' have changed .*{what}"):
            it()
        assert tree(it.directory.path) == before
        it.images = images
        assert it().exit_code == DONE

    @pytest.mark.parametrize("what", ["gone", "others"])
    def test_by_its_folder_a_finished_one_is_told_without_its_images(
        self, comparing, monkeypatch, what
    ):
        it = comparing()

        def again():
            console = Console(file=io.StringIO())
            return workflow.resume_compare(
                it.directory, Invocation(), console, concurrency=None, data_dir=None
            )

        def gone(*_):
            raise UserError("data-dir '/photos' is no folder")

        it(interrupted_after=(3, 2))
        begun = it.images
        it.images = dataclasses.replace(begun, images=begun.images + 1)
        with pytest.raises(UserError, match="data of run 'supervised' have changed"):
            again()
        it.images = begun
        finished = it().result
        if what == "gone":
            monkeypatch.setattr(workflow, "prepare_draws", gone)
        else:
            it.images = dataclasses.replace(begun, images=begun.images + 1)
        ended = again()
        assert (ended.exit_code, ended.result) == (DONE, finished)
        assert ended.message.startswith("warning: these figures are told as they were kept")

    def test_a_folder_of_images_is_part_of_the_name(self, comparing):
        names = {
            workflow._fingerprint(
                workflow.comparison_of(
                    small_config(alg=("ict",), dataset=dataset, data_dir=place),
                    **{"claim": "cells", "budget_per_cell": None, "seeds": 3, "repeats": 1},
                )
            )
            for dataset in ("folder", "cifar10")
            for place in ("/a", "/b")
        }
        assert len(names) == 3

    def test_nothing_is_written_before_it_begins(self, comparing, tmp_path):
        it = comparing()
        it.prepared()
        assert tree(tmp_path) == {}


class TestBill:
    def test_it_says_cells_budgets_and_trainings(self, comparing):
        bill = "\n".join(comparing(settings={"divergence": ("mse", "kl")}).prepared().bill)
        assert "comparing: supervised, mean_teacher / mse, mean_teacher / kl" in bill
        assert "claim: about cells, each with a search of 4 trials" in bill
        assert "retrainings: 9, each search's best on 3 fresh draws" in bill
        assert "warning: 3 draws are indicative only" in bill
        assert "protocol: default (" in bill
        assert "network: wrn-10-1" in bill
        assert "full length 27" in bill

    def test_so_does_a_warning_where_a_collapse_may_go_unseen(self, comparing):
        many = {"divergence": ("mse", "kl")}
        few = "\n".join(comparing(seeds=10, settings=many).prepared().bill)
        assert "may show none of it in 10 retrainings" in few
        enough = "\n".join(comparing(name="b", seeds=20, settings=many).prepared().bill)
        two_cells = "\n".join(comparing(name="c", seeds=10).prepared().bill)
        assert "retrainings, and then tables claim" not in enough + two_cells

    def test_of_repeats_and_device_time(self, comparing):
        bill = "\n".join(comparing(repeats=3, budget_per_cell=600.0).prepared().bill)
        assert "each with 3 searches of 10 min 00 s of device time" in bill
        assert "retrainings: 18" in bill
        assert "warning: 3 searches are indicative only" in bill

    def test_and_what_is_done_already(self, comparing):
        it = comparing()
        assert "searched so far" not in "\n".join(it.prepared().bill)
        it(interrupted_after=(2, 1), slots=1)
        assert "searched so far: 1 of 2" in "\n".join(it.prepared().bill)

    def test_a_rough_time_of_searches_and_retrainings(self, comparing):
        seconds = {"supervised": 1.0, "mean_teacher": 2.0}
        it = comparing(settings={"trials": 9})
        asked = it.prepared().comparison
        searched = plan.planned_steps(asked.search_settings(asked.cells()[0], 0))
        assert searched == 9 * 3 + 3 * 6 + 1 * 18  # rungs at 3, 9, 27; a third goes on
        assert workflow.rough_device_seconds(asked, seconds) == 3 * searched + 3 * 27 * 3
        timed = dataclasses.replace(asked, budget_per_cell=100.0, repeats=3)
        assert workflow.rough_device_seconds(timed, seconds) == 3 * (200 + 3 * 27 * 3)

    def test_steps_of_each_method_are_timed_here(self, comparing, monkeypatch):
        monkeypatch.setattr(workflow, "TIMED_STEPS", 1)
        it = comparing()
        asked = it.prepared().comparison
        monkeypatch.undo()
        monkeypatch.setattr(workflow, "TIMED_STEPS", 1)
        (line,) = workflow.time_lines(asked)
        assert line.startswith("time: about ")
        assert "of device time" in line
        long = {"supervised": 1.0, "mean_teacher": 2.0}
        monkeypatch.setattr(workflow, "_seconds_per_step", lambda _, name, __: long[name])
        timed = dataclasses.replace(asked, budget_per_cell=30.0)  # of 27 and 54 s
        _, warning = workflow.time_lines(timed)
        assert warning.startswith("warning: mean_teacher / mse has 30 s of device time, and one")
        assert "full length takes about 54 s" in warning


class TestCommand:
    ARGUMENTS = ("compare", "--alg", "mt", "--trials", "4", "--max-steps", "27", "--seeds", "3")

    @pytest.fixture
    def command(self, comparing, monkeypatch, capsys, tmp_path):
        monkeypatch.chdir(tmp_path)

        def run(*arguments: str) -> tuple[int, str, str]:
            code = cli._run(list(arguments), debug=False)
            return code, *capsys.readouterr()

        return run

    def it(self, comparing, name="it"):
        it = comparing(name=name)
        it.engine()
        return it

    def test_stdout_is_the_result_and_resume_tells_it_again(self, command, comparing):
        self.it(comparing)
        code, out, err = command(*self.ARGUMENTS, "--name", "it", "--format", "json")
        assert code == 0, err
        assert json.loads(out)["control"] == "supervised"
        assert "cell 2 of 2: mean_teacher / mse, 4 trials" in err
        assert command("resume", "it", "--format", "json")[:2] == (0, out)
        code, out, _ = command("resume", "it", "--format", "latex")
        assert code == 0
        assert out.startswith(r"\begin{table}")

    @pytest.mark.parametrize("part", [1, 2, 3])
    def test_resumed_by_a_part_it_goes_on_as_a_whole(self, command, comparing, part):
        it = self.it(comparing)
        it.engine(interrupted_after=(part, 2))
        code, _, err = command(*self.ARGUMENTS, "--name", "it")
        assert code == DRAINED
        assert err.rstrip().endswith(f"resume {it.directory.path}")
        left = [name for name in NAMES if not it.is_done(name)]
        it.engine()
        folder = (*CELLS, "retrainings")[part - 1]
        code, out, err = command("resume", f"it/{folder}", "--format", "json")
        assert code == 0, err
        assert f"{it.directory.path / folder} is a part of comparison 'it'" in err
        assert it.driven == [*left, "retrainings"]
        result = json.loads(out)
        assert result["control"] == "supervised"
        assert [row["name"] for row in result["references"]] == ["1-NN", "LabelSpreading"]
        assert [line["run"] for line in it.openings()][-1] == str(it.own.path)

    def test_a_part_is_not_extended(self, command, comparing):
        self.it(comparing)
        assert command(*self.ARGUMENTS, "--name", "it")[0] == 0
        code, _, err = command("resume", "it/cells/supervised", "--trials", "9")
        assert code == 2
        assert "its budgets are equal and fixed" in err

    def test_status_of_a_part_names_the_whole_to_resume(self, command, comparing):
        it = self.it(comparing)
        it.engine(interrupted_after=(1, 2))
        command(*self.ARGUMENTS, "--name", "it")
        out = command("status", "it/cells/supervised")[1]
        assert f"resume {it.directory.path}\n" in out

    def test_without_a_name_the_same_command_goes_on(
        self, command, comparing, tmp_path, monkeypatch
    ):
        settings = small_config(alg=("supervised", "mean_teacher"), trials=4)
        asked = workflow.comparison_of(
            settings, claim="cells", budget_per_cell=None, seeds=3, repeats=1
        )
        it = self.it(comparing)
        names = [
            workflow.prepare_compare(one, name=None, output="runs", here=True).directory.name
            for one in (asked, asked, dataclasses.replace(asked, seeds=4))
        ]
        assert names[0] == names[1] != names[2]
        assert names[0] == "compare-digits-482b7339", "as older versions made it"
        assert not it.output.exists()

    @pytest.mark.parametrize("place", [0, 1])
    def test_with_a_condition_it_is_another_comparison(self, comparing, place):
        settings = small_config(alg=("supervised", "mean_teacher"), trials=4)
        asked = [
            workflow.comparison_of(
                dataclasses.replace(settings, unlabeled=unlabeled),
                claim="cells",
                budget_per_cell=None,
                seeds=3,
                repeats=1,
            )
            for unlabeled in (None, 100)
        ]
        it = comparing(name="it")
        begun = RunDirectory(it.output / "it")
        begun.path.mkdir(parents=True)
        write_yaml(begun.path / "compare.yaml", asked[place].to_mapping())
        assert workflow._continued(begun, asked[place]) == asked[place]
        with pytest.raises(UserError, match="was begun with other unlabeled"):
            workflow._continued(begun, asked[1 - place])

    def test_trials_and_device_time_are_not_both_a_budget(self, command):
        code, _, err = command(*self.ARGUMENTS, "--budget-per-cell", "10m")
        assert code == 2
        assert "allowed: one of the two" in err

    def test_a_budget_that_is_no_time(self, command):
        code, _, err = command("compare", "--alg", "mt", "--budget-per-cell", "soon")
        assert code == 2
        assert "budget-per-cell is 'soon'; allowed: a duration" in err

    def test_a_comparison_cannot_be_given_more_trials(self, command, comparing):
        self.it(comparing)
        command(*self.ARGUMENTS, "--name", "it")
        code, _, err = command("resume", "it", "--trials", "9")
        assert code == 2
        assert "its budgets are equal and fixed" in err

    def test_status_tells_of_every_part(self, command, comparing):
        it = self.it(comparing)
        it.engine(interrupted_after=(2, 2))
        assert command(*self.ARGUMENTS, "--name", "it")[0] == DRAINED
        code, out, _ = command("status", "it")
        assert code == 0
        assert "supervised: 4 of 4 finished" in out
        assert "mean_teacher-mse: 0 of 4 finished" in out
        assert "to come: retrainings" in out
        told = json.loads(command("status", "it", "--format", "json")[1])
        assert [one["name"] for one in told["begun"]] == [f"it/{cell}" for cell in CELLS]

    def test_a_dry_run_writes_nothing(self, command, comparing, tmp_path, monkeypatch):
        self.it(comparing)
        monkeypatch.setattr(workflow, "time_lines", lambda asked: ["time: long"])
        code, out, _ = command(*self.ARGUMENTS, "--dry-run")
        assert code == 0
        assert "retrainings: 6" in out
        assert "time: long" in out
        assert tree(tmp_path) == {}
        told = json.loads(command(*self.ARGUMENTS, "--dry-run", "--format", "json")[1])
        assert told["time"] == "long"
        assert told["warning"].startswith("3 draws are indicative")
        code, _, err = command(*self.ARGUMENTS, "--dry-run", "--format", "latex")
        assert code == 2
        assert "format is 'latex' with --dry-run; allowed: table, json," in err

    def test_trials_of_a_file_beside_device_time_are_named(self, command, comparing, tmp_path):
        self.it(comparing)
        (tmp_path / "it.yaml").write_text("trials: 7\n")
        arguments = [*self.ARGUMENTS]
        place = arguments.index("--trials")
        del arguments[place : place + 2]
        more = ("--config", str(tmp_path / "it.yaml"), "--budget-per-cell", "1m", "--name", "b")
        _, _, err = command(*arguments, *more, "--dry-run")
        assert "trials of" in err
        assert "are left out: --budget-per-cell counts device time." in err


class TestShareOfAGpu:
    """Whatever the machine decides is one and the same for all cells."""

    @pytest.fixture
    def decided(self, comparing, monkeypatch):
        """Return what is decided for a cell of a comparison on a GPU, and for which methods it was measured."""

        def of(**settings):
            asked = []

            def measured(config, cluster, shared, console):
                asked.append(config.alg)
                return dataclasses.replace(config, gpus_per_trial=0.25)

            monkeypatch.setattr(search_workflow, "with_measured_share", measured)
            it = comparing(settings={"alg": ("supervised", "ict", "mixmatch"), **settings})
            it.gpus = 1.0
            asked_for = {"claim": "cells", "budget_per_cell": None, "seeds": 3, "repeats": 1}
            compared = workflow.comparison_of(it.settings, **asked_for)
            console = Console(file=io.StringIO())
            with ExitStack() as stack:
                cluster = workflow._Cluster(stack, Invocation())
                searches = workflow._Searches(
                    compared, it.directory, {}, Invocation(), cluster, console
                )
                cell = compared.search_settings(compared.cells()[1], 0)
                return it, searches._decided_for_all(cell, tiny_images()), asked

        return of

    def test_a_share_that_all_methods_can_do_with(self, decided):
        _, found, asked = decided(gpus_per_trial="auto", device="auto")
        assert asked == [("supervised", "ict", "mixmatch")]
        assert found == {
            "device": "cuda",
            "gpus_per_trial": 0.25,
            "threads": 1,
            "precision": "float32",
        }

    def test_gone_on_with_on_another_machine_as_it_was_for_the_cells_before(self, decided):
        it, _, _ = decided()
        cell = RunDirectory(it.directory.path / "cells/supervised")
        cell.path.mkdir(parents=True)
        before = {
            "device": "cpu",
            "gpus_per_trial": 0.0,
            "threads": 3,
            "precision": "bfloat16",
        }
        cell.write_config(small_config(alg=("supervised",), **before))
        _, found, asked = decided(gpus_per_trial="auto", device="auto")
        assert (found, asked) == (before, [])

    def test_the_retrainings_have_it_measured_for_all_methods_too(self):
        asked = workflow.comparison_of(
            small_config(alg=("ict",), gpus_per_trial="auto", device="cuda"),
            **{"claim": "cells", "budget_per_cell": None, "seeds": 3, "repeats": 1},
        )
        of_a_cell = dataclasses.replace(asked.settings, gpus_per_trial=0.125)
        configurations = [
            Configuration(name=name, algorithm=name, divergence=None, parameters={}, origin={})
            for name in ("supervised", "ict")
        ]
        table = judging.table(asked, configurations, of_a_cell, storage=None, origin="it")
        assert table.settings.gpus_per_trial == "auto"


class TestView:
    @pytest.fixture
    def result(self, comparing):
        return comparing(settings={"divergence": ("kl",)})().result

    def test_a_row_for_each_cell_and_line_in_every_form(self, result, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "60")
        view.print_compared(result)
        shown = {form: view.format_compared(result, form) for form in ("csv", "markdown", "latex")}
        shown["table"] = capsys.readouterr().out
        for form, text in shown.items():
            for name in ("supervised", "mean_teacher / kl", "1-NN", "LabelSpreading"):
                name = name.replace("_", r"\_") if form == "latex" else name
                assert name in text, form
        assert json.loads(view.format_compared(result, "json")) == result
        for form in ("markdown", "latex", "table"):
            assert "opening 1" in shown[form]
            assert "onditional on the configuration found by one search" in shown[form]

    def test_rows_are_as_wide_as_the_headings(self, result):
        for row in view.rows(result):
            assert len(row) == len(view.headings(result)) == len(view._sides(result))

    def test_of_a_balanced_metric_so_are_those_with_accuracy_beside(self, result):
        rows = [*result["cells"], *result["references"]]
        found = result | {"metric": "balanced_accuracy", "conditions": {"imbalance": 5.0}}
        for row in rows:
            row["accuracy"] = {"mean": 0.5, "low": 0.4, "high": 0.6}
        assert "test accuracy, opening 1\n(95 %)" in view.headings(found)
        for row in view.rows(found):
            assert len(row) == len(view.headings(found)) == len(view._sides(found))
            assert row[5] == "50.0 % (40.0 to 60.0)"
        assert any("imbalance 5.0" in note for note in view.notes(found))
        assert view.format_compared(found, "csv").count(",0.5,0.4,0.6,") == len(rows)

    def test_it_says_which_difference_it_could_tell(self, result):
        row = next(row for row in result["cells"] if row["minus_control"])
        row["minus_control"] = {"mean": 0.01, "low": -0.03, "high": 0.05}
        assert any("had to be 4.0 points to be told from none" in n for n in view.notes(result))
        other = row | {"minus_control": {"mean": 0.0, "low": -0.1, "high": 0.1}}
        several = result | {"cells": [*result["cells"], other]}
        said = "had to be 4.0 to 10.0 points, by cell (median 7.0), to be told"
        assert any(said in note for note in view.notes(several))

    @pytest.mark.parametrize(
        ("weight", "said"),
        [(0.3, "too, with weight 0.3."), ("search", "too, its weight searched.")],
    )
    def test_entropy_minimisation_is_told(self, result, weight, said):
        assert not any("entropy" in note for note in view.notes(result))
        result["settings"]["entropy_min"] = weight
        assert any(
            note == f"All cells but supervised minimise entropy, {said}"
            for note in view.notes(result)
        )

    def test_a_reference_line_that_is_left_out_is_named(self, result):
        assert not any("LabelSpreading is left out" in note for note in view.notes(result))
        result["references"] = [row for row in result["references"] if row["name"] == "1-NN"]
        assert any("more than 10,000 images" in note for note in view.notes(result))

    def test_the_record_has_the_settings_of_all_searches(self, result):
        assert result["settings"]["seed"] == 0
        assert result["settings"]["protocol"] == "default"

    def test_figures_are_those_of_the_result(self, result):
        first = result["cells"][0]
        row = view.rows(result)[0]
        assert row[1] == f"4 ({first['complete']})"
        assert row[4] == interval_text(first["test"])
        assert row[5] == " ".join(first["letters"])

    def test_latex_escapes_what_it_would_read_otherwise(self):
        assert view._escaped("a_b 5 % {x} \\") == r"a\_b 5 \% \{x\} \textbackslash{}"

    def test_csv_is_a_row_each_with_equal_columns(self, result):
        import csv

        rows = list(csv.DictReader(io.StringIO(view.format_compared(result, "csv"))))
        assert len(rows) == 4
        assert sum(row["winner"] == "True" for row in rows) == 1
        assert {row["opening"] for row in rows} == {"1"}
        assert float(rows[0]["test.mean"]) == result["cells"][0]["test"]["mean"]

    def test_configurations_that_collapse_on_few_draws_are_named(self, result):
        lines = [one for row in result["cells"] for one in row["searched"][0]["retrainings"]]
        for line in lines:
            line["test_accuracy"] = 0.8
        assert not any("below the median" in note for note in view.notes(result))
        name = result["cells"][1]["name"]
        result["cells"][1]["searched"][0]["retrainings"][2]["test_accuracy"] = 0.599
        (said,) = [note for note in view.notes(result) if "below the median" in note]
        assert "more than 20 points" in said
        assert f": {name} 1 of 3 (worst 59.9 %). Where one" in said

    def test_warnings_are_printed(self, result):
        result["left_out"] = ["vat / js"]
        result["cells"][0]["diverged"] = 2
        result["test"]["opening"] = 3
        notes = "\n".join(view.notes(result))
        assert "vat / js is left out" in notes
        assert "2 of 3 retrainings" in notes
        assert "judged 2 times before" in notes

    def test_a_joint_search_says_what_it_found(self, comparing):
        it = comparing(claim="methods", settings={"divergence": ("mse", "kl")})
        result = it().result
        result["cells"].sort(key=lambda row: row["name"])  # mean_teacher first
        assert "(found: mean_teacher / " in view.notes(result)[0]
