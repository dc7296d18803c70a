"""What people see: text, tables, the live view."""

from __future__ import annotations

import dataclasses
import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests.tune_ssl.fakes import FakeClock, Fault, Run, begin, small_config
from tune_ssl.drivers import Drivers
from tune_ssl.run import RunDirectory
from tune_ssl.text import duration, method_text, percent, size
from tune_ssl.views import live, tables
from tune_ssl.views.live import LINE_SECONDS, REFRESH_SECONDS, ROWS_SHOWN, LiveView
from tune_ssl.workflows import results
from tune_ssl.workflows.doctor import Finding
from tune_ssl.workflows.train import Trained

pytestmark = pytest.mark.usefixtures("no_fsync")

STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


class TestText:
    @pytest.mark.parametrize(
        ("share", "text"),
        [(0.0, "0.0 %"), (1.0, "100.0 %"), (0.8766, "87.7 %"), (0.99949, "99.9 %")],
    )
    def test_percent(self, share, text):
        assert percent(share) == text

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0, "0 s"),
            (0.4, "0 s"),
            (42, "42 s"),
            (59.4, "59 s"),
            (59.6, "1 min 00 s"),
            (185, "3 min 05 s"),
            (3599.6, "1 h 00 min"),
            (7800, "2 h 10 min"),
            (86399, "23 h 59 min"),
            (86400, "1 d 0 h"),
            (100800, "1 d 4 h"),
            (10 * 86400, "10 d 0 h"),
        ],
    )
    def test_duration(self, seconds, text):
        assert duration(seconds) == text

    @pytest.mark.parametrize(
        ("count", "text"),
        [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (92_000, "92 kB"), (5_400_000, "5 MB")],
    )
    def test_size(self, count, text):
        assert size(count) == text

    @pytest.mark.parametrize(("count", "text"), [(1e9, "1.0 GB"), (150.25e9, "150.2 GB")])
    def test_size_of_much(self, count, text):
        assert size(count) == text

    def test_a_method_and_its_divergence(self):
        assert method_text("ict", "mse") == "ict / mse"
        assert method_text("supervised", None) == "supervised"


class Screen:
    """A live view on a console that is text, with a clock of its own."""

    def __init__(
        self, run: Run, monkeypatch, *, terminal: bool, slots: int = 2, drivers=None
    ) -> None:
        name = run.directory.name if drivers is None else "whole"
        self.now = FakeClock()
        monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=self.now))
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=terminal, width=160, height=60)
        self.view = LiveView(drivers or Drivers.of(run.driver), console, name=name, slots=slots)

    def after(self, seconds: float) -> str:
        """Return what a tick shows after so many seconds."""
        self.now.advance(seconds)
        self.file.seek(0)
        self.file.truncate()
        self.view.tick()
        return STYLES.sub("", self.file.getvalue())


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path / "ict-7", small_config(trials=6))


class TestLines:
    """Where there is no terminal: a line a minute."""

    def test_one_is_printed_a_minute_and_not_more_often(self, run, monkeypatch):
        screen = Screen(run, monkeypatch, terminal=False)
        with screen.view:
            assert screen.after(0.0) == ""
            assert screen.after(LINE_SECONDS - 1) == ""
            assert screen.after(1.0).count("\n") == 1
            assert screen.after(0.5) == ""
            assert screen.after(LINE_SECONDS).count("\n") == 1

    def line(self, run, monkeypatch) -> str:
        screen = Screen(run, monkeypatch, terminal=False)
        screen.after(0.0)
        return screen.after(LINE_SECONDS)

    def test_it_says_how_far_the_search_is(self, run, monkeypatch):
        line = self.line(run, monkeypatch)
        assert line.startswith("ict-7: 0/6 finished (0 complete, 0 pruned, 0 running)")
        assert "none has reached the full length yet" in line
        assert "time left unknown" in line

    def test_it_names_the_best_trial_with_its_error(self, run, monkeypatch):
        run.finish()
        line = self.line(run, monkeypatch)
        best = max((t for t in run.trials() if t.state.name == "COMPLETE"), key=lambda t: t.value)
        assert f"best so far: {percent(best.value)} ± " in line
        assert f"(validation images only), trial {best.number}" in line
        assert "6/6 finished" in line
        assert "about 0 s left" in line

    def test_failures_are_counted_where_there_are_any(self, run, monkeypatch):
        run.finish(factory=run.factory(faults={1: Fault(where="run")}))
        assert "1 failed" in self.line(run, monkeypatch)

    def test_time_left_is_the_mean_of_what_is_done_shared_by_the_slots(self, run, monkeypatch):
        workers = run.workers()
        while run.driver.counts().finished < 3:
            workers.fill()
            workers.turn()
        mean = run.driver.device_seconds() / 3
        line = self.line(run, monkeypatch)
        assert f"about {duration(mean * 3 / 2)} left" in line
        assert f"device time {duration(run.driver.device_seconds())}" in line

    @pytest.mark.parametrize(
        "reason", ["SIGTERM", "ValueError: [/x] is no layer", "KeyError: [bold]", "a [red]b[/red]"]
    )
    def test_why_the_search_ends_is_said_in_its_own_words(self, run, monkeypatch, reason):
        run.driver.drain(reason)
        assert f"ending: {reason}" in self.line(run, monkeypatch)


class TestTable:
    """In a terminal: a table that redraws itself."""

    def test_it_is_redrawn_twice_a_second(self, run, monkeypatch):
        screen = Screen(run, monkeypatch, terminal=True)
        with screen.view:
            assert "0/6 finished" in screen.after(REFRESH_SECONDS)
            assert screen.after(REFRESH_SECONDS / 2) == ""
            assert "0/6 finished" in screen.after(REFRESH_SECONDS)

    def test_running_trials_have_a_row_with_step_value_and_host(self, run, monkeypatch):
        workers = run.workers(slots=2)
        workers.fill()
        reports = workers.turn()
        run.driver.next()  # handed out, but not running
        screen = Screen(run, monkeypatch, terminal=True)
        with screen.view:
            shown = screen.after(1.0)
        rows = [line.split() for line in shown.splitlines() if "mean_teacher" in line]
        assert [row[:4] for row in rows] == [
            ["0", "mean_teacher", "mse", "3/27"],
            ["1", "mean_teacher", "mse", "3/27"],
        ]
        assert rows[0][4:6] == percent(reports[0].value).split()
        assert rows[0][6] == reports[0].host
        assert "2 running" in shown

    def test_a_trial_without_divergence_has_a_dash(self, tmp_path, monkeypatch):
        run = Run(tmp_path / "run", small_config(alg=("supervised",)))
        workers = run.workers()
        workers.fill()
        screen = Screen(run, monkeypatch, terminal=True)
        with screen.view:
            (row,) = [line for line in screen.after(1.0).splitlines() if "supervised" in line]
        assert row.split()[:4] == ["0", "supervised", "-", "0/27"]

    def test_more_rows_than_fit_are_summed_up(self, tmp_path, monkeypatch):
        run = Run(tmp_path / "run", small_config(trials=40))
        run.workers(slots=ROWS_SHOWN + 5).fill()
        screen = Screen(run, monkeypatch, terminal=True)
        with screen.view:
            shown = screen.after(1.0)
        assert shown.count("0/27") == ROWS_SHOWN
        assert "and 5 more" in shown

    @pytest.mark.parametrize("reason", ["SIGTERM", "ValueError: [/x] is no layer"])
    def test_it_says_why_the_search_ends(self, run, monkeypatch, reason):
        run.driver.drain(reason)
        screen = Screen(run, monkeypatch, terminal=True)
        with screen.view:
            assert f"ending: {reason}" in screen.after(1.0)

    def test_it_shows_the_best_so_far(self, run, monkeypatch):
        screen = Screen(run, monkeypatch, terminal=True)
        with screen.view:
            assert "none has reached the full length yet" in screen.after(1.0)
            run.finish()
            assert "best so far: " in screen.after(1.0)


class TestSeveral:
    """Searches that are parts of a whole."""

    def shown(self, tmp_path, monkeypatch, *, terminal: bool) -> str:
        runs = [Run(tmp_path / name, small_config(trials=4)) for name in ("one", "other", "third")]
        drivers = Drivers(iter([run.driver for run in runs]), count=4, done=1)
        drivers.open_next()
        drivers.open_next()
        runs[0].finish()
        drivers.tend()
        drivers.open_next()
        screen = Screen(runs[1], monkeypatch, terminal=terminal, drivers=drivers)
        with screen.view:
            screen.after(0.0)
            return screen.after(LINE_SECONDS)

    @pytest.mark.parametrize("terminal", [True, False])
    def test_each_that_is_under_way_is_told(self, tmp_path, monkeypatch, terminal):
        shown = self.shown(tmp_path, monkeypatch, terminal=terminal)
        assert "whole" in shown
        assert "2 of 4 searches done" in shown
        assert "other: 0/4 finished" in shown.replace("  ", ": ")
        assert "third: 0/4 finished" in shown.replace("  ", ": ")
        assert "4/4 finished" not in shown

    def test_time_left_is_by_the_searches_that_are_done(self, tmp_path, monkeypatch):
        run = Run(tmp_path / "one", small_config(trials=4))
        drivers = Drivers(iter([run.driver, Run(tmp_path / "b").driver]), count=4, done=1)
        drivers.open_next()
        assert "time left unknown" in self.line(run, monkeypatch, drivers)
        run.finish()
        drivers.open_next()
        drivers.tend()
        spent = run.driver.device_seconds()
        assert f"about {duration(2 * spent / 2)} left" in self.line(run, monkeypatch, drivers)

    def line(self, run, monkeypatch, drivers) -> str:
        screen = Screen(run, monkeypatch, terminal=False, drivers=drivers)
        screen.after(0.0)
        return screen.after(LINE_SECONDS)


def rendered(table) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return [line.strip() for line in console.file.getvalue().splitlines() if line.strip()]


def record(rank: int, **changes):
    return {
        "rank": rank,
        "metric": "accuracy",
        "trial": 10 + rank,
        "algorithm": "ict",
        "divergence": "mse",
        "validation_accuracy": 0.9 - rank / 100,
        "validation_standard_error": 0.018,
        "tied_with": [],
        "published_default": False,
        "recommended": False,
        "parameters": {"learning_rate": 0.00123456},
    } | changes


class TestBestTable:
    def test_a_row_each_best_first(self):
        lines = rendered(tables.best_table([record(1), record(2, algorithm="vat")]))
        assert re.split(r"\s{2,}", lines[-2]) == ["1", "11", "ict / mse", "89.0 % ± 1.8 %"]
        assert "vat / mse" in lines[-1]
        assert "88.0 % ± 1.8 %" in lines[-1]

    def test_notes_say_what_is_tied_published_and_recommended(self):
        lines = rendered(
            tables.best_table(
                [
                    record(1, tied_with=[12, 13]),
                    record(2, tied_with=[11], published_default=True, recommended=True),
                    record(3),
                ]
            )
        )
        assert lines[-3].endswith("tied with 2 more")
        assert lines[-2].endswith("tied with rank 1, published default, recommended")
        assert lines[-1].endswith("87.0 % ± 1.8 %")

    def test_only_the_first_rows_are_shown(self):
        lines = rendered(tables.best_table([record(rank) for rank in range(1, 30)]))
        assert sum("ict / mse" in line for line in lines) == tables.ROWS_SHOWN

    def test_printed_it_goes_to_stdout_with_the_parameters_of_those_that_matter(self, capsys):
        tables.print_best(
            [
                record(1, parameters={"learning_rate": 0.1}),
                record(2, recommended=True, parameters={"learning_rate": 0.2}),
                record(3, parameters={"learning_rate": 0.3}),
            ]
        )
        out, err = capsys.readouterr()
        assert err == ""
        assert re.search(r"hyperparameter +rank 1 +recommended, rank 2", out)
        assert re.search(r"learning_rate +0\.1 +0\.2 *\n", out)
        assert "0.3" not in out
        assert "validation images only" in out

    def test_a_hyperparameter_another_method_lacks_is_left_blank(self):
        shown = [
            record(1, parameters={"learning_rate": 0.012345, "mixup_alpha": 1.0}),
            record(2, recommended=True, parameters={"learning_rate": 0.2, "teacher_horizon": 9}),
        ]
        lines = rendered(tables.parameters_table(shown))
        assert [line.split() for line in lines[-3:]] == [
            ["learning_rate", "0.01235", "0.2"],
            ["mixup_alpha", "1"],
            ["teacher_horizon", "9"],
        ]


class TestStatus:
    def test_a_run_s_counts_and_best(self, run, capsys):
        run.finish()
        tables.print_status(results.status(run.directory))
        out = capsys.readouterr().out
        assert out.startswith("ict-7: 6 of 6 finished")
        assert "best: trial " in out
        assert "validation images only" in out

    def test_a_search_nobody_drives_names_what_continues_it(self, run, capsys):
        begin(run.study)
        tables.print_status(results.status(run.directory))
        assert f"tune-ssl resume {run.directory.path}\n" in capsys.readouterr().out

    def test_of_retrainings_it_says_when_a_winner_is_named(self, run, capsys):
        run.finish()
        done = dataclasses.replace(results.status(run.directory), retrains="runs/ict")
        more = dataclasses.replace(done, counts=dataclasses.replace(done.counts, asked=7))
        for status, words in ((more, "; no winner before all are finished"), (done, "")):
            tables.print_status(status)
            assert f"retrainings of runs/ict{words}\n" in capsys.readouterr().out

    def test_what_runs_is_named_with_its_last_rung_and_what_waits_is_not(self, run, capsys):
        workers = run.workers(slots=2)
        workers.fill()
        workers.turn()
        run.driver.next()  # handed out, but no worker has it yet
        status = results.status(run.directory)
        assert (status.counts.running, status.counts.waiting) == (2, 1)
        assert [trial["trial"] for trial in status.running] == [0, 1]
        value = percent(run.trials()[0].intermediate_values[3])
        for driver, words in (
            ("4711 at here", "is running"),
            (None, "was running when its driver"),
        ):
            tables.print_status(dataclasses.replace(status, driver=driver))
            out = capsys.readouterr().out
            assert f"trial 0 {words}" in out
            assert f": rung 3, {value} there\n" in out
        assert "best: no trial has reached the full length yet" in out

    def test_failures_are_told_in_their_own_words(self, run, capsys):
        fault = Fault(where="run", error=ValueError("[/x] is [bold]no layer"))
        run.finish(factory=run.factory(faults={1: fault}))
        tables.print_status(results.status(run.directory))
        assert "trial 1 failed: ValueError: [/x] is [bold]no layer\n" in capsys.readouterr().out

    def test_as_plain_values_it_is_what_was_printed(self, run):
        run.finish()
        status = results.status(run.directory)
        mapping = status.to_mapping()
        assert mapping["name"] == "ict-7"
        assert mapping["counts"]["finished"] == 6
        assert mapping["best"]["rank"] == 1
        assert mapping["device_seconds"] == pytest.approx(run.driver.device_seconds())

    def test_a_run_that_has_not_begun_is_said_to_have_not(self, tmp_path):
        from ssl_core.errors import UserError
        from tests.tune_ssl.fakes import study_on

        directory = RunDirectory(tmp_path / "run")
        directory.create()
        directory.write_config(small_config())
        directory.journal_path.touch()
        with pytest.raises(UserError, match="no study yet"):
            results.status(directory)
        begin(study_on(directory.journal_path))
        with pytest.raises(UserError, match="has not begun"):
            results.status(directory)

    def test_a_run_whose_journal_is_damaged_is_said_to_be(self, run):
        from ssl_core.errors import UserError

        run.finish()
        lines = run.directory.journal_path.read_bytes().splitlines(keepends=True)
        run.directory.journal_path.write_bytes(
            b"".join([*lines[:20], lines[20][:9], b"\n", *lines[21:]])
        )
        with pytest.raises(UserError, match=r"study\.journal"):
            results.status(run.directory)


class TestOtherTables:
    def test_a_training_s_result(self, capsys, tmp_path):
        metrics = {
            "metric": "accuracy",
            "validation_accuracy": 0.85,
            "validation_standard_error": 0.018,
        }
        tables.print_trained(Trained(folder=tmp_path / "trained", metrics=metrics))
        out = capsys.readouterr().out
        assert "validation accuracy 85.0 % ± 1.8 %" in out
        assert str(tmp_path / "trained") in out
        assert "exported" not in out

    @pytest.mark.parametrize(
        ("exported", "words"),
        [(0.85, "the same as the exported"), (0.84, "other than the exported")],
    )
    def test_and_whether_it_is_the_exported_one(self, capsys, tmp_path, exported, words):
        metrics = {
            "metric": "accuracy",
            "validation_accuracy": 0.85,
            "validation_standard_error": 0.018,
        }
        metrics["exported_validation_accuracy"] = exported
        tables.print_trained(Trained(folder=tmp_path, metrics=metrics))
        assert words in capsys.readouterr().out

    def test_another_accuracy_is_explained_by_what_it_was_made_with(self, capsys, tmp_path):
        metrics = {
            "metric": "accuracy",
            "validation_accuracy": 0.85,
            "validation_standard_error": 0.018,
            "exported_validation_accuracy": 0.84,
            "made_with": {"torch": "2.15.0", "processor": "A"},
            "exported_made_with": {"torch": "2.14.0", "processor": "A"},
        }
        tables.print_trained(Trained(folder=tmp_path, metrics=metrics))
        assert "exported with torch 2.14.0, trained with 2.15.0" in capsys.readouterr().out

    def test_a_folder_with_brackets_in_its_name_is_printed_as_it_is(self, capsys, tmp_path):
        metrics = {
            "metric": "accuracy",
            "validation_accuracy": 0.85,
            "validation_standard_error": 0.018,
        }
        folder = tmp_path / "[bold]" / "[x]"
        tables.print_trained(Trained(folder=folder, metrics=metrics))
        assert str(folder) in capsys.readouterr().out

    def test_every_method_with_its_space_and_its_published_values(self, capsys):
        described = results.describe_algorithms()
        tables.print_algorithms(described)
        out = capsys.readouterr().out
        for method in described:
            assert method["algorithm"] in out
            for name in method["space"]:
                assert name in out
            for default in method["defaults"]:
                assert default["source"].split(";")[0][:20] in out.replace("\n", " ")

    def test_a_weight_s_position_is_told_as_the_weights_it_stands_for(self, capsys):
        by_name = {method["algorithm"]: method for method in results.describe_algorithms()}
        weights = {
            name: method["space"].get("unlabeled_weight_u", {}).get("stands_for")
            for name, method in by_name.items()
        }
        assert weights["supervised"] is None
        assert weights["mean_teacher"]["mse"] == (0.5, 300.0)
        assert weights["ict"] == weights["mean_teacher"] | {"mse": (0.5, 1000.0)}
        tables.print_algorithms([by_name["ict"]])
        assert "with mse: weight 0.5 .. 1000, log" in capsys.readouterr().out

    def test_findings_are_marked(self, capsys):
        tables.print_findings([Finding("cores", "8", True), Finding("disk", "full", False)])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["ok", "cores", "8"]
        assert lines[1].split() == ["look", "disk", "full"]


def test_a_balanced_metric_is_shown_as_such_with_its_own_value():
    shown = record(1, metric="balanced_accuracy", validation_balanced_accuracy=0.5)
    table = "\n".join(rendered(tables.best_table([shown])))
    assert "validation balanced accuracy" in table
    assert "50.0 %" in table


def test_accuracy_stands_beside_a_balanced_metric_in_a_line():
    shown = record(1, validation_accuracy=0.75, validation_balanced_accuracy=0.5)
    assert tables.value_and_accuracy(shown).startswith("accuracy 75.0 % ± ")
    assert tables.value_and_accuracy(shown | {"metric": "balanced_accuracy"}).startswith(
        "balanced accuracy 50.0 % ± "
    )
    assert tables.value_and_accuracy(shown | {"metric": "balanced_accuracy"}).endswith(
        ", accuracy 75.0 %"
    )


def test_so_it_does_while_a_search_runs(run):
    run.finish()
    trials = run.trials()
    assert "balanced" not in live.best_so_far(trials)
    told = live.best_so_far(trials, "balanced_accuracy")
    assert re.search(r"± \d+\.\d % balanced accuracy, accuracy \d+\.\d % \(validation", told)
