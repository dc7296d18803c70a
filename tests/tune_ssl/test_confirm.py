"""What confirm does around the engine: what is retrained, in which order the test is opened, once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from contextlib import contextmanager

import numpy as np
import pytest
from optuna.trial import TrialState
from rich.console import Console

from ssl_core.errors import StoppedError, UserError
from tests.tune_ssl.fakes import (
    FakeFactory,
    Fault,
    Run,
    draws_of,
    drive_without_cluster,
    outcome,
    small_config,
    tiny_images,
    tree,
)
from tune_ssl import cli
from tune_ssl.best import rank_trials
from tune_ssl.run import RunDirectory, run_lock
from tune_ssl.sealed import Opened
from tune_ssl.storage import RunStorage, root_below
from tune_ssl.study import read_trials
from tune_ssl.trial import pack_correct
from tune_ssl.workflows import confirm as workflow
from tune_ssl.workflows import opening, retrain
from tune_ssl.workflows.driving import DONE, DRAINED, INTERNAL, Invocation
from tune_ssl.workflows.results import status

pytestmark = pytest.mark.usefixtures("no_fsync")

IMAGES = 50


class KilledError(BaseException):
    """In the place of a signal, which pytest would take for its own."""


class FakeSealedTest:
    """A test set of which an image is classified by chance, as the weights' bytes decide."""

    def __init__(self, directory) -> None:
        self.opened = 0
        self.measured = 0
        self.directory = directory
        self.broken = False
        self.skipped = ()

    def open(self):
        assert (self.directory / "winner.json").exists(), "opened before the winner was named"
        self.opened += 1
        return Opened("f" * 64, [0] * IMAGES, ["a"], self.skipped)

    def measure(self, weights):
        for stored in weights:
            if self.broken:
                raise KilledError
            data = RunStorage(stored.root).read(stored.path)
            assert hashlib.sha256(data).hexdigest() == stored.sha256
            self.measured += 1
            random = np.random.RandomState(int(stored.sha256[:6], 16))
            yield pack_correct(random.rand(IMAGES) < 0.8)


@pytest.fixture
def search(tmp_path):
    """Return a finished search of ``runs/search``."""
    return Run(tmp_path / "runs" / "search", small_config(metric="accuracy", trials=8)).finish()


@pytest.fixture
def confirming(search, monkeypatch):
    """Return a confirmation of that search on three draws; no cluster, no test set, as many times
    as it is called."""
    return Confirming(search, monkeypatch)


class Confirming:
    def __init__(self, search, monkeypatch, name="top2-seeds3") -> None:
        self.search = search
        self.directory = RunDirectory(search.directory.path / "confirm" / name)
        self.ledger = search.directory.path.parent / "test_openings.jsonl"
        self.sealed = FakeSealedTest(self.directory.path)
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(workflow, "draw_images", draws_of)
        monkeypatch.setattr(retrain, "sealed_test", self._sealed_test)

    @contextmanager
    def _sealed_test(self, place, processes):
        yield self.sealed

    def prepared(self, **wishes):
        wished = workflow.Wishes(**{"top": 2, "seeds": 3, **wishes})
        return workflow.prepare_confirm(self.search.directory, wished, here=True)

    def __call__(self, wishes=None, **engine):
        """Confirm once; ``engine`` says what happens to the retrainings."""
        drive = functools.partial(drive_without_cluster, **engine)
        self._monkeypatch.setattr(retrain, "run_job", drive)
        self.console = Console(file=io.StringIO(), width=300)
        return workflow.confirm(self.prepared(**(wishes or {})), Invocation(), self.console)

    def said(self) -> str:
        return self.console.file.getvalue()

    def openings(self) -> list[dict]:
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [json.loads(line) for line in lines]

    def trials(self):
        return read_trials(self.directory.journal_path)[0]


def figures(result):
    """Return a result without what is of one machine at one time."""
    kept = json.loads(json.dumps(result))
    kept.pop("origin")
    kept["test"].pop("opening")
    for row in kept["configurations"]:
        for one in row["retrainings"]:
            del one["device_seconds"], one["weights"]
    return kept


class TestWhatIsRetrained:
    def test_the_best_and_the_published_default_which_is_not_counted(self, search):
        ranked = rank_trials(search.trials())
        chosen = workflow.configurations_to_confirm(search.config, ranked, 10, top=2)
        default = next(one for one in ranked if one.is_default)
        others = [one for one in ranked if not one.is_default][:2]
        names = {one.name: one.origin["trial"] for one in chosen}
        assert names.pop("published default") == default.number
        assert list(names.values()) == [one.number for one in others]
        assert [one.origin["rank"] for one in chosen] == sorted(
            one.origin["rank"] for one in chosen
        )

    def test_a_default_that_is_the_best_is_not_counted_either(self, search):
        ranked = [
            dataclasses.replace(one, is_default=one.rank == 1)
            for one in rank_trials(search.trials())
        ]
        chosen = workflow.configurations_to_confirm(search.config, ranked, 10, top=2)
        assert [one.name for one in chosen] == ["published default", "rank 2", "rank 3"]

    def test_each_as_the_search_trained_it(self, search):
        ranked = rank_trials(search.trials())
        chosen = workflow.configurations_to_confirm(search.config, ranked, 10, top=3)
        for one in chosen:
            record = search.file(f"trials/{one.origin['trial']:04d}/config.yaml").read_text()
            for name, value in one.parameters.items():
                assert f"{name}: {value}" in record

    def test_of_several_defaults_that_of_the_best_one_s_method(self, tmp_path):
        run = Run(
            tmp_path / "run", small_config(alg=("supervised", "mean_teacher"), trials=8)
        ).finish()
        ranked = rank_trials(run.trials())
        chosen = workflow.configurations_to_confirm(run.config, ranked, 10, top=len(ranked))
        best = chosen[0]
        (yardstick,) = [one for one in chosen if one.name == "published default"]
        assert yardstick.algorithm == best.algorithm
        assert len(chosen) == len(ranked)

    def test_fresh_draws_of_labels_the_same_for_all(self, confirming):
        table = confirming.prepared().job.retrainings
        assert [draw.split_seed for draw in table.draws] == [1000, 1001, 1002]
        assert confirming.search.config.split_seed not in {draw.split_seed for draw in table.draws}

    @pytest.mark.parametrize(("dataset", "seeds"), [("digits", 20), ("svhn", 10)])
    def test_how_many_where_nobody_says(self, confirming, monkeypatch, dataset, seeds):
        told = dataclasses.replace(confirming.search.config, dataset=dataset)
        read = workflow.read_run(confirming.search.directory)
        monkeypatch.setattr(workflow, "read_run", lambda _: (told, *read[1:]))
        assert len(confirming.prepared(seeds=None).job.retrainings.draws) == seeds

    def test_the_bill_says_how_many_and_how_long(self, confirming):
        bill = "\n".join(confirming.prepared().bill)
        assert "trainings: 9, each of 3 configurations on the same 3 fresh draws" in bill
        assert "of device time" in bill
        assert "warning: 3 draws are indicative only" in bill

    def test_and_that_fewer_are_confirmed_than_asked_for(self, confirming):
        bill = "\n".join(confirming.prepared(top=50).bill)
        there = len(rank_trials(confirming.search.trials())) - 1
        assert f"published default {there} of the 50 asked for have a trial of full length" in bill
        assert "of full length" not in "\n".join(confirming.prepared(top=1).bill)

    def test_and_that_the_search_is_not_done(self, confirming):
        config = dataclasses.replace(confirming.search.config, trials=40)
        confirming.search.directory.write_config(config)
        assert "finished 8 of 40 trials" in "\n".join(confirming.prepared().bill)

    def test_its_own_share_of_a_node(self, confirming):
        settings = confirming.prepared(cpus_per_trial=1.0, concurrency=2).job.settings
        assert (settings.cpus_per_trial, settings.threads, settings.concurrency) == (1.0, None, 2)

    def test_a_storage_is_below_the_search_s(self):
        for given, expected in (
            (None, None),
            ("/shared/run-1", "/shared/run-1/confirm/a"),
            ("s3://bucket/run?region=x", "s3://bucket/run/confirm/a?region=x"),
        ):
            assert root_below(given, "confirm/a") == expected


class TestRefused:
    def test_too_few_draws(self, confirming):
        with pytest.raises(UserError, match="seeds is 2; allowed: at least 3"):
            confirming.prepared(seeds=2)

    @pytest.mark.parametrize("wish", [{"top": 0}, {"seeds": 0}, {"name": "a/b"}])
    def test_what_is_not_legal(self, confirming, wish):
        with pytest.raises(UserError, match="allowed"):
            confirming.prepared(**wish)

    def test_a_search_that_is_being_driven(self, confirming):
        with (
            run_lock(confirming.search.directory),
            pytest.raises(UserError, match="is being searched"),
        ):
            confirming.prepared()

    def test_images_that_have_changed_since(self, confirming, monkeypatch):
        other = dataclasses.replace(tiny_images(), images=tiny_images().images + 1)
        monkeypatch.setattr(workflow, "draw_images", lambda _: {1000: other})
        with pytest.raises(UserError, match="training images of run 'search' have changed"):
            confirming.prepared()

    def test_images_that_have_changed_since_all_was_trained(self, confirming, monkeypatch):
        confirming.sealed.broken = True
        with pytest.raises(KilledError):
            confirming()
        confirming.sealed.broken = False

        def others(retrainings):
            return {
                seed: dataclasses.replace(drawn, images=drawn.images + 1)
                for seed, drawn in draws_of(retrainings).items()
            }

        def relabeled(retrainings):
            return {
                seed: dataclasses.replace(drawn, labels=np.roll(drawn.labels, 1))
                for seed, drawn in draws_of(retrainings).items()
            }

        before = tree(confirming.directory.path)
        monkeypatch.setattr(workflow, "draw_images", relabeled)
        with pytest.raises(UserError, match=r"data of run .top2-seeds3. have changed .labels"):
            confirming()
        resume = functools.partial(
            workflow.resume_confirm, confirming.directory, Invocation(), Console(file=io.StringIO())
        )
        monkeypatch.setattr(workflow, "draw_images", others)
        with pytest.raises(UserError, match=r"data of run .top2-seeds3. have changed .*pixels"):
            resume(concurrency=None, data_dir=None)
        assert tree(confirming.directory.path) == before
        monkeypatch.setattr(workflow, "draw_images", draws_of)
        finished = resume(concurrency=None, data_dir=None)
        assert finished.exit_code == DONE
        monkeypatch.setattr(workflow, "draw_images", others)
        told = resume(concurrency=None, data_dir=None)
        assert (told.exit_code, told.result) == (DONE, finished.result)
        assert "told as they were kept" in told.message

    def test_a_folder_without_test_images(self, confirming, monkeypatch, tmp_path):
        for name in ("labeled/a", "labeled/b"):
            (tmp_path / "photos" / name).mkdir(parents=True)
        told = dataclasses.replace(
            confirming.search.config, dataset="folder", data_dir=str(tmp_path / "photos")
        )
        read = workflow.read_run(confirming.search.directory)
        monkeypatch.setattr(workflow, "read_run", lambda _: (told, *read[1:]))
        with pytest.raises(UserError, match="no test/"):
            confirming.prepared()

    def test_nothing_is_written_by_any_of_it(self, confirming):
        before = tree(confirming.search.directory.path)
        confirming.prepared()
        assert tree(confirming.search.directory.path) == before

    def test_a_search_without_a_trial_of_full_length(self, tmp_path, monkeypatch):
        run = Run(tmp_path / "runs" / "search", small_config())
        run.driver.close("the test is over")
        monkeypatch.setattr(workflow, "draw_images", draws_of)
        with pytest.raises(
            UserError, match=r"no trial of full length yet .* allowed: one at least"
        ):
            workflow.prepare_confirm(run.directory, workflow.Wishes(), here=True)


class TestConfirm:
    def test_all_are_retrained_to_the_end_then_tested_once(self, confirming):
        ended = confirming()
        assert ended.exit_code == DONE
        trials = confirming.trials()
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 9
        assert all(list(trial.intermediate_values) == [27] for trial in trials)
        assert (confirming.sealed.opened, confirming.sealed.measured) == (1, 9)
        (opening,) = confirming.openings()
        assert opening["run"] == str(confirming.directory.path)
        assert ended.result["test"]["opening"] == 1
        assert json.loads((confirming.directory.path / "result.json").read_text()) == ended.result

    def test_every_weights_file_is_kept_until_the_test(self, search, monkeypatch):
        confirming = Confirming(search, monkeypatch)
        ended = confirming({"seeds": 5, "name": "top2-seeds3"})
        assert confirming.sealed.measured == 15  # a search keeps ten
        assert ended.exit_code == DONE

    def test_the_winner_is_named_by_validation_and_said_before(self, confirming):
        result = confirming().result
        values = [row["validation"] for row in result["configurations"]]
        assert values == sorted(values, reverse=True)
        winner = json.loads((confirming.directory.path / "winner.json").read_text())
        assert winner["winner"] == result["winner"] == result["configurations"][0]["name"]
        said = confirming.said()
        assert said.index("winner, named before") < said.index(
            "opening 1 of the test set (50 images)"
        )

    def test_repeated_it_tells_the_same_and_opens_nothing(self, confirming):
        first = confirming().result
        before = tree(confirming.directory.path)
        again = confirming(interrupted_after=0).result  # an engine that would not get anywhere
        assert again == first
        assert confirming.sealed.opened == 1
        assert len(confirming.openings()) == 1
        assert tree(confirming.directory.path) == before

    def test_a_test_image_that_judges_nothing_is_named(self, confirming):
        why = "test/cat/a.png: at this size the same image as train/cat/b.png"
        confirming.sealed.skipped = (why,)
        confirming()
        assert (
            f"warning: skipped {why}\nwarning: 1 skipped in all; test.json names them.\nopening 1"
            in confirming.said()
        )

    def test_another_confirmation_is_a_second_opening(self, confirming):
        confirming()
        again = confirming({"name": "again"})
        assert again.result["test"]["opening"] == 2
        assert [name_of(line["run"]) for line in confirming.openings()] == ["top2-seeds3", "again"]

    @pytest.mark.parametrize("lost", [False, True])
    @pytest.mark.parametrize("after", [1, 4, 9])
    def test_interrupted_anywhere_it_ends_the_same(self, search, monkeypatch, after, lost):
        expected = Confirming(search, monkeypatch, "whole")({"name": "whole"}).result
        confirming = Confirming(search, monkeypatch)
        if lost:
            with pytest.raises(KeyboardInterrupt):
                confirming(interrupted_after=after, lost=True)
        else:
            ended = confirming(interrupted_after=after)
            assert (ended.exit_code, ended.result) == (DRAINED, None)
            assert f"resume {confirming.directory.path}" in ended.message
        assert confirming.sealed.opened == 0
        assert len(confirming.openings()) == 1
        ended = confirming()
        assert ended.exit_code == DONE
        assert figures(ended.result) == figures(expected)
        whole_trials = read_trials(search.file("confirm/whole/study.journal"))[0]
        assert outcome(confirming.trials()) == outcome(whole_trials)

    def test_killed_while_it_tests_it_does_not_count_again(self, confirming):
        confirming.sealed.broken = True
        with pytest.raises(KilledError):
            confirming()
        assert len(confirming.openings()) == 1
        confirming.sealed.broken = False
        ended = confirming()
        assert ended.result["test"]["opening"] == 1
        assert len(confirming.openings()) == 1

    def test_a_ledger_that_cannot_be_written_keeps_the_test_set_closed(self, confirming):
        confirming.ledger.mkdir()
        with pytest.raises(StoppedError, match="so the test set stays closed"):
            confirming()
        assert confirming.sealed.measured == 0

    def test_its_folder_goes_on_by_itself(self, confirming):
        assert confirming(interrupted_after=4).exit_code == DRAINED
        drive = drive_without_cluster
        confirming._monkeypatch.setattr(retrain, "run_job", drive)
        confirming._monkeypatch.setattr(
            workflow, "read_run", lambda _: pytest.fail("the search is not needed")
        )
        console = Console(file=io.StringIO())
        ended = workflow.resume_confirm(
            confirming.directory, Invocation(), console, concurrency=1, data_dir=None
        )
        assert ended.exit_code == DONE
        assert ended.result["optimism"]["bootstrap"] is not None

    def test_when_the_search_has_gone_on_it_says_so(self, confirming):
        confirming(interrupted_after=4)
        directory = confirming.search.directory
        config = dataclasses.replace(confirming.search.config, trials=40)
        Run(directory.path, config).finish()
        with pytest.raises(UserError, match="retrains other configurations or draws than these"):
            confirming()

    def test_a_share_it_was_not_begun_with_is_refused(self, confirming):
        confirming(interrupted_after=4)
        with pytest.raises(UserError, match=r"cpus_per_trial was 1.0 and is 2.0"):
            confirming({"cpus_per_trial": 2.0})
        assert confirming({"cpus_per_trial": 1.0, "concurrency": 1}).exit_code == DONE

    def test_a_winner_that_was_written_otherwise_is_no_winner(self, confirming):
        confirming.sealed.broken = True
        with pytest.raises(KilledError):
            confirming()
        path = confirming.directory.path / "winner.json"
        path.write_text(path.read_text().replace('"winner": "', '"winner": "another '))
        with pytest.raises(UserError, match="names another winner than the retrainings"):
            confirming()

    def test_a_retraining_that_fails_opens_nothing(self, confirming, monkeypatch):
        faulty = Fault(where="run")
        monkeypatch.setattr(
            FakeFactory,
            "__call__",
            _failing_on(1001, faulty, FakeFactory.__call__),
        )
        ended = confirming()
        assert (ended.exit_code, ended.result) == (INTERNAL, None)
        assert (
            "3 of 9 trials gave no result (trial 3: RuntimeError: the work broke)" in ended.message
        )
        assert f"resume {confirming.directory.path}" in ended.message
        told = status(confirming.directory).failed
        assert [one["trial"] for one in told] == [3, 4, 5]
        assert told[0]["reason"] == "RuntimeError: the work broke; to be trained again"
        assert confirming.sealed.opened == 0
        assert confirming.openings() == []
        monkeypatch.undo()

    def test_when_what_was_wrong_is_mended_only_what_is_missing_is_trained(self, confirming):
        with pytest.MonkeyPatch.context() as patched:
            faulty = _failing_on(1001, Fault(where="run"), FakeFactory.__call__)
            patched.setattr(FakeFactory, "__call__", faulty)
            confirming()
        done = {trial.number for trial in confirming.trials() if trial.state.is_finished()}
        assert done == {0, 1, 2, 6, 7, 8}, "one draw's failed, and held nobody up"
        before = {n: tree(confirming.directory.trial_path(n)) for n in done}
        again = confirming()
        assert again.exit_code == DONE
        assert len(again.result["configurations"][0]["retrainings"]) == 3
        assert {n: tree(confirming.directory.trial_path(n)) for n in done} == before

    def test_drivers_that_were_killed_again_and_again_are_no_retraining_s_fault(self, confirming):
        for _ in range(4):
            with pytest.raises(KeyboardInterrupt):
                confirming(interrupted_after=1, lost=True, seconds_per_step=30.0)
        assert confirming().exit_code == DONE

    def test_one_that_an_older_version_gave_up_is_refused_before_the_others_are_trained(
        self, confirming
    ):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                retrain, "study_of", lambda *given, all_needed: opening.study_of(*given)
            )
            faulty = _failing_on(1001, Fault(where="run"), FakeFactory.__call__)
            patched.setattr(FakeFactory, "__call__", faulty)
            confirming(interrupted_after=24)
        states = [trial.state.name for trial in confirming.trials()]
        assert "FAIL" in states
        assert "WAITING" in states
        before = tree(confirming.directory.path)
        with pytest.raises(UserError, match="of 9 retrainings gave no result"):
            confirming()
        assert tree(confirming.directory.path) == before

    @pytest.mark.parametrize(
        "error",
        [RuntimeError("CUDA error: out of memory"), RuntimeError("CUDA error: an illegal access")],
    )
    def test_so_is_one_whose_device_failed(self, confirming, error):
        with pytest.MonkeyPatch.context() as patched:
            faulty = _failing_on(1001, Fault(where="run", error=error), FakeFactory.__call__)
            patched.setattr(FakeFactory, "__call__", faulty)
            ended = confirming()
            assert ended.exit_code == INTERNAL
        assert ("too little memory" in ended.message) == ("out of memory" in str(error))
        assert not any(trial.state.name in ("FAIL", "PRUNED") for trial in confirming.trials())
        assert confirming().exit_code == DONE


class TestCommand:
    @pytest.fixture
    def command(self, confirming, monkeypatch, capsys):
        """Return what runs a command line where the search is; it gives code, stdout and stderr."""
        monkeypatch.chdir(confirming.search.directory.path.parents[1])
        monkeypatch.setattr(retrain, "run_job", drive_without_cluster)

        def run(*arguments: str) -> tuple[int, str, str]:
            code = cli._run(list(arguments), debug=False)
            return code, *capsys.readouterr()

        return run

    SMALL = ("confirm", "search", "--top", "2", "--seeds", "3")

    def test_stdout_is_the_result_and_nothing_else(self, command, confirming):
        code, out, err = command(*self.SMALL, "--format", "json")
        assert code == 0, err
        assert json.loads(out)["test"]["opening"] == 1
        for text in ("trainings: 9", "winner, named before", "9 retrainings finished and tested"):
            assert text in err

    @pytest.mark.parametrize("form", ["table", "csv", "markdown"])
    def test_other_forms_name_the_winner_and_the_opening(self, command, form):
        code, out, _ = command(*self.SMALL, "--format", form)
        assert code == 0
        assert "winner" in out
        assert "opening" in out

    def test_repeated_or_resumed_it_prints_the_same(self, command, confirming):
        first = command(*self.SMALL, "--format", "json")[1]
        folder = "search/confirm/top2-seeds3"
        assert command(*self.SMALL, "--format", "json")[:2] == (0, first)
        assert command("resume", folder, "--format", "json")[:2] == (0, first)
        assert command("resume", folder, "--format", "markdown")[1].startswith("| configuration |")
        code, _, err = command("resume", folder, "--format", "latex")
        assert code == 2
        assert "format is 'latex' with a confirmation; allowed: table, json, csv, markdown" in err
        assert len(confirming.openings()) == 1
        assert "9 of 9 finished" in command("status", folder)[1]

    def test_a_dry_run_writes_nothing(self, command, confirming):
        before = tree(confirming.search.directory.path)
        code, out, _ = command(*self.SMALL, "--dry-run")
        assert code == 0
        assert "trainings: 9" in out
        assert tree(confirming.search.directory.path) == before

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("confirm", "serach"), "is no run"),
            (("confirm", "search", "--seeds", "2"), "seeds is 2; allowed: at least 3"),
            (("confirm", "search", "--top", "0"), "top is 0"),
            (("confirm", "search", "--device", "cuda"), "GPUs were asked for"),
            (("confirm", "search", "--format", "yaml"), "markdown"),
        ],
    )
    def test_what_cannot_be_done_is_one_line(self, command, arguments, words):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert words in err

    def test_what_holds_retrainings_is_no_search(self, command):
        command(*self.SMALL)
        for words in (("export",), ("confirm",), ("resume", "--trials", "5")):
            code, _, err = command(*words[:1], "search/confirm/top2-seeds3", *words[1:])
            assert code == 2
            assert "allowed" in err


def name_of(path: str) -> str:
    return path.rsplit("/", 1)[1]


def _failing_on(split_seed, fault, make):
    def call(self, record):
        work = make(self, record)
        if record["split_seed"] == split_seed:
            work._fault = fault
        return work

    return call


def test_a_cell_of_a_comparison_is_counted_in_the_ledger_of_all(tmp_path):
    runs, whole = tmp_path / "runs", tmp_path / "runs" / "whole"
    alone = RunDirectory(runs / "ict" / "confirm" / "top3")
    cell = RunDirectory(whole / "cells" / "ict-mse" / "confirm" / "top3")
    assert workflow._ledger(alone) == runs / "test_openings.jsonl"
    whole.mkdir(parents=True)
    (whole / "compare.yaml").touch()
    assert workflow._ledger(cell) == runs / "test_openings.jsonl"
