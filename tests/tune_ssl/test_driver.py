"""The driver's side of a search, with fake workers: states, losses, limits, files, and kills
at every place at which something is written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil

import pytest
import yaml
from optuna.trial import TrialState

from tests.tune_ssl.fakes import (
    FINISHED,
    RUNGS,
    FakeClock,
    Fault,
    OutOfMemoryError,
    Run,
    Workers,
    bare_report,
    outcome,
    records_of,
    small_config,
)
from tune_ssl.driver import HOPELESS_AFTER, LOST_AFTER, STORAGE, WEIGHTS_KEPT, Limits
from tune_ssl.journal import RunJournal
from tune_ssl.run import trial_seed
from tune_ssl.storage import RunStorage
from tune_ssl.study import (
    ATTEMPT,
    BEGAN_AT,
    CHECKPOINT,
    REASON,
    RESULT,
    SECONDS,
    WITHOUT_PROGRESS,
    Verdict,
    why_held,
)
from tune_ssl.worker import (
    DEVICE_FAILED,
    ERROR,
    RUNG,
    SLICE,
    UNREADABLE,
    UNWRITABLE,
    Lengths,
    SliceReport,
    TrialRunner,
    _UnreadableError,
)
from tune_ssl.workflows.driving import DONE, INTERNAL, how_it_ended

pytestmark = pytest.mark.usefixtures("no_fsync")

OFTEN = Lengths(slice_seconds=2.0, checkpoint_seconds=4.0)


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def checkpoints_in(run: Run) -> list[str]:
    """Return every checkpoint's path below the run."""
    found = run.directory.path.glob("trials/*/attempt-*")
    return sorted(str(path.relative_to(run.directory.path)) for path in found)


def weights_in(run: Run) -> set[str]:
    found = run.directory.path.glob("trials/*/weights-*")
    return {str(path.relative_to(run.directory.path)) for path in found}


@pytest.fixture
def new_run(tmp_path):
    """Make runs on disk, one after another."""

    def make(name="run", **options):
        return Run(tmp_path / name, **options)

    return make


class TestFullSearch:
    @pytest.mark.parametrize("slots", [1, 3])
    def test_every_trial_ends_as_its_reports_say(self, new_run, slots):
        run = new_run(config=small_config(trials=12))
        faults = {3: Fault(where="nan", step=2), 5: Fault(where="run", step=2)}
        run.finish(factory=run.factory(faults=faults), slots=slots)
        trials = run.trials()
        assert len(trials) == 12
        assert (trials[3].state, trials[3].value) == (TrialState.PRUNED, None)
        assert trials[5].state == TrialState.FAIL
        for trial in trials:
            if trial.number in (3, 5):
                continue
            last = trial.last_step
            assert trial.value == trial.intermediate_values[last]
            assert trial.state == (TrialState.COMPLETE if last == 27 else TrialState.PRUNED)
        states = run.states()
        assert states.count("COMPLETE") >= 3
        assert states.count("PRUNED") >= 3

    def test_the_first_trial_is_the_published_default_and_reaches_full_length(self, new_run):
        run = new_run().finish()
        assert "published default" in run.trials()[0].user_attrs
        assert run.trials()[0].state == TrialState.COMPLETE

    def test_the_driver_is_finished_when_as_many_as_asked_for_are(self, new_run):
        run = new_run(config=small_config(trials=3))
        assert not run.driver.finished()
        run.finish()
        assert run.driver.finished()
        assert run.driver.next() is None
        assert run.driver.counts().finished == 3

    def test_finished_trials_are_not_counted_while_one_runs(self, tmp_path, monkeypatch):
        run = Run(tmp_path / "run", small_config(trials=1))
        run.driver.next()
        with monkeypatch.context() as patched:
            patched.setattr(run.study, "counts", None)
            assert not run.driver.finished()
        run.driver.close("the driver ended")
        assert not run.driver.finished()

    def test_a_finished_search_is_extended(self, new_run):
        new_run(config=small_config(trials=3)).finish()
        run = new_run(config=small_config(trials=5)).finish()
        assert run.driver.counts().finished == 5
        whole = new_run("whole", config=small_config(trials=5)).finish()
        assert outcome(run.trials()) == outcome(whole.trials())

    def test_every_trial_trains_with_a_seed_of_its_own(self, new_run):
        run = new_run(config=small_config(seed=7)).finish()
        seeds = [
            yaml.safe_load(run.file(f"trials/{n:04d}/config.yaml").read_text())["seed"]
            for n in range(6)
        ]
        assert seeds == [trial_seed(7, number) for number in range(6)]
        assert len(set(seeds)) == 6
        assert all(0 <= seed < 2**32 for seed in seeds)

    def test_the_configuration_handed_out_is_the_one_written_down(self, new_run):
        run = new_run()
        task = run.driver.next()
        written = yaml.safe_load(run.file("trials/0000/config.yaml").read_text())
        assert written == task.record
        assert written["parameters"]["learning_rate"] == run.trials()[0].params["learning_rate"]
        assert written["max_steps"] == 27


class TestStaleReports:
    def stale(self, task, **changes) -> SliceReport:
        settings = {
            "number": task.number,
            "attempt": task.attempt,
            "step": 3,
            "kind": RUNG,
            "seconds": 1000.0,
            "value": 0.99,
            "details": {"accuracy": 0.99},
        }
        return SliceReport(**settings | changes)

    @pytest.mark.parametrize("kind", [SLICE, RUNG, ERROR])
    def test_a_report_of_an_attempt_that_is_over_changes_nothing(self, new_run, kind):
        run = new_run()
        workers = run.workers()
        workers.fill()
        old = workers.busy[0]
        run.driver.lost(old.number, old.attempt, "node lost")
        again = run.driver.next()
        run.driver.started(again.number, again.attempt)
        before = run.directory.journal_path.read_bytes()
        files = sorted(path.name for path in run.file("trials/0000").iterdir())
        assert run.driver.handle(self.stale(old, kind=kind)) is Verdict.STALE
        assert run.directory.journal_path.read_bytes() == before
        assert sorted(path.name for path in run.file("trials/0000").iterdir()) == files
        assert run.driver.device_seconds() == 0.0

    def test_nor_does_one_of_a_trial_that_has_ended_or_was_never_handed_out(self, new_run):
        run = new_run(config=small_config(trials=1))
        workers = run.workers()
        workers.fill()
        task = workers.busy[0]
        workers.run()
        before = run.directory.journal_path.read_bytes()
        assert run.driver.handle(self.stale(task)) is Verdict.STALE
        other = dataclasses.replace(task, number=5)
        assert run.driver.handle(self.stale(other)) is Verdict.STALE
        run.driver.lost(task.number, task.attempt, "late")
        run.driver.lost(5, 1, "never")
        assert run.directory.journal_path.read_bytes() == before

    def test_losing_an_attempt_twice_loses_it_once(self, new_run):
        run = new_run()
        task = run.driver.next()
        run.driver.started(task.number, task.attempt)
        for _ in range(4):
            run.driver.lost(task.number, task.attempt, "node lost")
        assert run.states()[0] == "WAITING"
        assert run.driver.next().attempt == 2


class TestLostWorkers:
    def test_a_lost_trial_is_continued_from_the_named_checkpoint_under_its_number(self, new_run):
        expected = outcome(new_run("whole").finish().trials())
        run = new_run()
        factory = run.factory()
        workers = run.workers(factory=factory)
        lost = []
        for _ in range(1000):
            workers.fill()
            if not workers.busy:
                break
            task = workers.busy[0]
            reports = workers.turn()
            if task.number in (0, 1, 4) and task.attempt == 1 and reports[0].step == 14:
                run.driver.lost(task.number, task.attempt, "ActorDiedError")
                workers.busy.clear()
                assert run.states()[task.number] == "WAITING"
                again = run.study.get_trial(task.number)
                assert again.system_attrs[CHECKPOINT]["step"] == 9
                lost.append(task.number)
        assert lost[:2] == [0, 1]
        assert outcome(run.trials()) == expected
        # Steps 10 to 14 were trained twice for every trial lost, and nothing else.
        steps = new_run("steps")
        undisturbed = steps.factory()
        steps.finish(factory=undisturbed)
        assert len(factory.steps) == len(undisturbed.steps) + 5 * len(lost)

    def test_a_worker_lost_before_its_first_checkpoint_begins_again(self, new_run):
        expected = outcome(new_run("whole", config=small_config(trials=2)).finish().trials())
        run = new_run(config=small_config(trials=2))
        for attempt in (1, 2):
            task = run.driver.next()
            assert (task.number, task.attempt, task.checkpoint) == (0, attempt, None)
            run.driver.started(0, attempt)
            run.driver.lost(0, attempt, "node lost")
        run.finish()
        assert outcome(run.trials()) == expected

    def test_one_taken_back_before_it_started_is_handed_out_again_however_often(self, new_run):
        run = new_run(config=small_config(trials=1))
        for attempt in range(1, 9):
            task = run.driver.next()
            assert (task.number, task.attempt) == (0, attempt)
            run.driver.take_back(0, attempt)
            assert run.driver.running == {}
        task = run.driver.next()
        run.driver.started(0, task.attempt)
        run.driver.take_back(0, task.attempt)
        assert list(run.driver.running) == [0]

    def test_three_losses_without_a_checkpoint_fail_the_trial_even_if_it_never_started(
        self, new_run
    ):
        run = new_run()
        for attempt in (1, 2, 3):
            assert run.driver.next().number == 0
            run.driver.lost(0, attempt, "the actor could not be placed")
        assert run.states()[0] == "FAIL"
        assert "could not be placed" in run.trials()[0].user_attrs[REASON]
        assert run.driver.next().number == 1
        assert 0 not in run.driver.running

    def test_one_that_fails_so_leaves_no_checkpoints(self, new_run):
        run = new_run()
        workers = run.workers()
        workers.fill()
        workers.turn()
        assert len(checkpoints_in(run)) == 1
        for attempt in range(1, 5):
            run.driver.lost(0, attempt, "node lost")
            if attempt < 4:
                run.driver.next()
        assert run.states()[0] == "FAIL"
        assert checkpoints_in(run) == []

    def test_a_silent_trial_is_one_not_heard_of_for_long(self, new_run):
        run = new_run(config=small_config(trials=4))
        queued, started = run.driver.next(), run.driver.next()
        run.driver.started(started.number, started.attempt)
        run.clock.advance(299.0)
        assert run.driver.silent(300.0) == []
        run.clock.advance(2.0)
        assert run.driver.silent(300.0) == [started.number]
        report = SliceReport(number=1, attempt=1, step=1, kind=SLICE, seconds=100.0)
        run.driver.handle(report)
        run.clock.advance(999.0)
        assert run.driver.silent(300.0) == [], "ten of its slices take 1,000 s"
        run.clock.advance(2.0)
        assert run.driver.silent(300.0) == [1]
        assert queued.number not in run.driver.silent(0.0)


class TestDeviceSeconds:
    def test_they_are_the_seconds_of_all_slices(self, new_run):
        run = new_run()
        factory = run.factory(seconds_per_step=2.0)
        run.finish(factory=factory)
        assert run.driver.device_seconds() == pytest.approx(2.0 * len(factory.steps))
        written = sum(trial.user_attrs[SECONDS] for trial in run.trials())
        assert written == pytest.approx(run.driver.device_seconds())

    def test_they_go_on_from_what_earlier_invocations_used(self, new_run):
        run = new_run(config=small_config(trials=2)).finish()
        before = run.driver.device_seconds()
        again = new_run(config=small_config(trials=4))
        assert again.driver.device_seconds() == pytest.approx(before)
        again.finish()
        assert again.driver.device_seconds() > before

    def test_slices_since_the_last_checkpoint_are_counted_when_a_trial_is_lost(self, new_run):
        run = new_run()
        workers = run.workers()
        workers.fill()
        for _ in range(4):
            workers.turn()
        assert run.driver.running[0].step == 14
        run.driver.lost(0, 1, "node lost")
        assert run.trials()[0].user_attrs[SECONDS] == pytest.approx(14.0)

    def test_and_when_the_driver_closes(self, new_run):
        run = new_run()
        workers = run.workers()
        workers.fill()
        for _ in range(4):
            workers.turn()
        run.driver.close("the driver ended")
        assert run.trials()[0].user_attrs[SECONDS] == pytest.approx(14.0)


class TestJournal:
    def test_a_slice_between_rungs_does_not_touch_it(self, new_run, monkeypatch):
        run = new_run()
        task = run.driver.next()
        run.driver.started(task.number, task.attempt)
        before = run.directory.journal_path.stat().st_size
        monkeypatch.setattr(run.journal, "_locked", lambda: pytest.fail("the journal was locked"))
        report = SliceReport(number=0, attempt=1, step=2, kind=SLICE, seconds=3.0, host="here")
        assert run.driver.handle(report) is Verdict.CONTINUE
        assert run.directory.journal_path.stat().st_size == before
        assert (run.driver.running[0].step, run.driver.device_seconds()) == (2, 3.0)


class TestLimits:
    def test_the_time_limit_drains_and_is_of_this_invocation(self, new_run):
        run = new_run(limits=Limits(seconds=40.0))
        workers = run.workers()
        workers.run()
        run.driver.close("the driver ended")
        assert run.driver.limit_reached
        assert run.driver.draining == "time limit reached"
        assert 40.0 <= run.driver.elapsed() < 52.0
        assert "RUNNING" not in run.states()
        assert 0 < run.driver.counts().finished < 6

        again = new_run(limits=Limits(seconds=10_000.0), clock=run.clock)
        assert again.driver.elapsed() == 0.0
        again.finish()
        assert not again.driver.limit_reached
        assert again.driver.counts().finished == 6

    def test_the_time_limit_counts_from_when_the_command_was_given(self, new_run):
        clock = FakeClock()
        run = new_run(limits=Limits(seconds=40.0), clock=clock, began=clock() - 39.5)
        assert run.driver.elapsed() == 39.5
        assert run.driver.seconds_allowed() == 0.5
        run.clock.advance(0.5)
        run.driver.check_limits()
        assert run.driver.draining == "time limit reached"

    def test_device_hours_are_of_all_invocations(self, new_run):
        limits = Limits(device_seconds=40.0)
        run = new_run(limits=limits).finish()
        assert run.driver.limit_reached
        assert run.driver.draining == "device time used up"
        assert 40.0 <= run.driver.device_seconds() < 52.0
        before = outcome(run.trials())
        again = new_run(limits=limits).finish()
        assert again.driver.limit_reached
        assert outcome(again.trials()) == before
        assert new_run().finish().driver.counts().finished == 6

    def test_without_limits_nothing_drains(self, new_run):
        run = new_run().finish()
        assert run.driver.draining is None
        assert not run.driver.limit_reached
        assert run.driver.drain_seconds() == 0.0

    def test_a_limit_does_not_hide_an_earlier_reason_to_drain(self, new_run):
        run = new_run(limits=Limits(seconds=1.0))
        run.driver.drain("SIGTERM")
        run.clock.advance(5.0)
        run.driver.check_limits()
        assert run.driver.draining == "SIGTERM"
        assert run.driver.drain_seconds() == 5.0


class TestDrain:
    @pytest.mark.parametrize("turns", range(1, 9))
    def test_running_trials_wait_at_their_exact_step_and_end_as_if_undisturbed(
        self, new_run, turns
    ):
        expected = outcome(new_run("whole").finish().trials())
        run = new_run()
        workers = run.workers()
        for _ in range(turns):
            workers.fill()
            workers.turn()
        run.driver.drain("SIGINT")
        running = {number: trial.step for number, trial in run.driver.running.items()}
        workers.turn()
        assert workers.busy == {}
        assert run.driver.next() is None
        assert run.driver.finished()
        run.driver.close("the driver ended")
        assert "RUNNING" not in run.states()
        for number in running:
            trial = run.trials()[number]
            if trial.state == TrialState.WAITING:
                assert trial.system_attrs[CHECKPOINT]["step"] >= running[number]

        again = new_run()
        factory = again.factory()
        again.finish(factory=factory)
        assert outcome(again.trials()) == expected

    def test_a_drained_search_repeats_no_step(self, new_run):
        whole = new_run("whole")
        needed = whole.factory()
        whole.finish(factory=needed)
        steps = 0
        for _ in range(20):
            run = new_run()
            factory = run.factory()
            workers = run.workers(factory=factory)
            for _ in range(3):
                workers.fill()
                workers.turn()
            run.driver.drain("SIGTERM")
            workers.turn()
            run.driver.close("the driver ended")
            steps += len(factory.steps)
        assert run.driver.counts().finished == 6
        assert steps == len(needed.steps)

    def test_one_that_cannot_be_stored_waits_with_the_checkpoint_before(self, new_run):
        run = new_run()
        workers = run.workers()
        for _ in range(4):
            workers.fill()
            workers.turn()
        run.driver.drain("SIGTERM")
        run.driver.store_and_interrupt(0, 1, None)
        trial = run.trials()[0]
        assert trial.state == TrialState.WAITING
        assert trial.system_attrs[CHECKPOINT]["step"] == 9

    def test_however_often_nothing_can_be_stored_no_trial_fails(self, new_run):
        for _ in range(4):
            run = new_run()
            run.workers().fill()
            run.driver.drain("SIGTERM")
            run.driver.store_and_interrupt(0, run.driver.running[0].attempt, None)
            assert run.states()[0] == "WAITING"
            run.driver.close("the driver ended")

    def test_nor_where_the_driver_ends_before_or_a_worker_is_killed_meanwhile(self, new_run):
        for turn in range(5):
            run = new_run()
            run.workers().fill()
            attempt = run.driver.running[0].attempt
            run.driver.drain("SIGTERM")
            if turn % 2:
                run.driver.lost(0, attempt, "the worker died")
            run.driver.close("the driver ended")
            assert run.states()[0] == "WAITING"

    def test_the_first_reason_stays(self, new_run):
        run = new_run()
        run.driver.drain("SIGINT")
        run.clock.advance(3.0)
        run.driver.drain("SIGTERM")
        assert run.driver.draining == "SIGINT"
        assert run.driver.drain_seconds() == 3.0


class TestFailures:
    def test_three_identical_ones_and_no_success_end_the_search(self, new_run):
        run = new_run(config=small_config(trials=20))
        fault = Fault(where="factory", error=ValueError("class 'cat' is empty"))
        run.finish(factory=run.factory(faults={None: fault}))
        assert run.driver.hopeless == "ValueError: class 'cat' is empty"
        assert "class 'cat' is empty" in run.driver.draining
        assert run.states() == ["FAIL"] * 3 + ["WAITING"] * 0
        assert HOPELESS_AFTER == 3

    def test_different_ones_do_not(self, new_run):
        run = new_run(config=small_config(trials=6))
        faults = {n: Fault(where="run", error=ValueError(f"number {n}")) for n in range(6)}
        run.finish(factory=run.factory(faults=faults))
        assert run.driver.hopeless is None
        assert run.states() == ["FAIL"] * 6

    def test_nor_do_identical_ones_after_a_success(self, new_run):
        run = new_run(config=small_config(trials=6))
        faults = {n: Fault(where="run", error=ValueError("broken")) for n in range(1, 6)}
        run.finish(factory=run.factory(faults=faults))
        assert run.driver.hopeless is None
        assert run.states() == ["COMPLETE"] + ["FAIL"] * 5

    def test_two_are_not_enough(self, new_run):
        run = new_run(config=small_config(trials=4))
        faults = {n: Fault(where="run", error=ValueError("broken")) for n in range(2)}
        run.finish(factory=run.factory(faults=faults))
        assert run.driver.hopeless is None
        assert run.states()[:2] == ["FAIL", "FAIL"]
        assert run.states().count("FAIL") == 2

    def test_the_traceback_is_kept_beside_the_trial_and_its_last_line_in_the_study(self, new_run):
        run = new_run(config=small_config(trials=2))
        fault = Fault(where="run", step=4, error=KeyError("no such layer"))
        run.finish(factory=run.factory(faults={1: fault}))
        text = run.file("trials/0001/error.txt").read_text()
        assert text.startswith("Traceback")
        assert "KeyError: 'no such layer'" in text
        assert run.trials()[1].user_attrs[REASON] == "KeyError: 'no such layer'"
        assert not run.file("trials/0000/error.txt").exists()
        assert checkpoints_in(run) == []

    def test_the_reason_of_a_long_message_names_the_exception(self, new_run):
        run = new_run(config=small_config(trials=1))
        message = "shapes do not agree\nthe first has 3 places.\nSee the documentation."
        fault = Fault(where="run", step=4, error=RuntimeError(message))
        run.finish(factory=run.factory(faults={0: fault}))
        reason = run.trials()[0].user_attrs[REASON]
        assert reason == "RuntimeError: shapes do not agree"

    @pytest.mark.parametrize("text", [None, ""])
    def test_an_error_without_words_fails_the_trial_all_the_same(self, new_run, text):
        run = new_run(config=small_config(trials=1))
        task = run.driver.next()
        run.driver.started(task.number, task.attempt)
        report = SliceReport(number=0, attempt=1, step=0, kind=ERROR, seconds=0.0, error=text)
        assert run.driver.handle(report) is Verdict.STOP
        assert run.states() == ["FAIL"]

    def test_a_loss_that_is_not_finite_never_fails_a_trial(self, new_run):
        run = new_run()
        run.finish(factory=run.factory(faults={None: Fault(where="nan", step=2)}))
        assert run.states() == ["PRUNED"] * 6
        assert {trial.value for trial in run.trials()} == {None}
        assert run.driver.hopeless is None
        assert "not finite" in run.trials()[0].user_attrs[REASON]


class LostStorage(RunStorage):
    """Takes so many files, and then none until there is room."""

    def __init__(self, root: str, takes: int) -> None:
        super().__init__(root)
        self.takes = takes

    def write(self, path: str, data: bytes) -> None:
        self.takes -= 1
        if self.takes < 0:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        super().write(path, data)


class TestLostStorage:
    @pytest.mark.parametrize("slots", [1, 3])
    @pytest.mark.parametrize("takes", [0, 1, 6, 7])
    def test_it_stops_the_search_fails_no_trial_and_resume_ends_as_if_undisturbed(
        self, new_run, slots, takes
    ):
        config = small_config(trials=12)
        run = new_run(config=config)
        workers = Workers(
            run.driver, run.factory(), LostStorage(str(run.directory.path), takes), slots=slots
        )
        workers.run()
        run.driver.close("the driver ended")
        said = f"the storage failed 3 times in a row: {run.directory.path}/trials/"
        assert run.driver.stopped_by.startswith(said)
        assert "No space left on device" in run.driver.stopped_by
        assert not {"FAIL", "RUNNING"} & set(run.states())
        assert all(t.system_attrs.get(WITHOUT_PROGRESS, 0) == 0 for t in run.trials())
        code, message = how_it_ended(run.driver, run.directory)
        assert code == 1
        assert "No space left on device" in message
        assert "resume" in message

        again = new_run().finish(slots=slots)
        assert (again.driver.counts().finished, again.states().count("FAIL")) == (12, 0)
        if slots == 1:
            calm = new_run("calm", config=config).finish()
            assert outcome(again.trials()) == outcome(calm.trials())

    def test_failures_with_success_between_do_not(self, new_run, monkeypatch):
        run = new_run()
        whole, failed = RunStorage.write, []

        def write(storage, path, data):
            if path.endswith("weights-1.safetensors"):
                failed.append(path)
                raise OSError(errno.EIO, "hiccup")
            whole(storage, path, data)

        monkeypatch.setattr(RunStorage, "write", write)
        run.finish()
        assert run.driver.stopped_by is None
        assert "FAIL" not in run.states()
        assert failed

    def test_a_trial_whose_files_alone_are_not_taken_fails_in_the_end(self, new_run, monkeypatch):
        run = new_run()
        whole = RunStorage.write

        def write(storage, path, data):
            if path.startswith("trials/0000/"):
                raise OSError(errno.EACCES, "Permission denied")
            whole(storage, path, data)

        monkeypatch.setattr(RunStorage, "write", write)
        each_step = Lengths(slice_seconds=1.0, checkpoint_seconds=1.0)
        run.workers(slots=2, lengths=each_step).run()  # the other slot's trials are stored
        assert run.driver.stopped_by is None
        assert run.states()[0] == "FAIL"
        assert "Permission denied" in run.trials()[0].user_attrs[REASON]
        assert run.states().count("FAIL") == 1
        assert run.driver.counts().finished == 6

    @pytest.mark.parametrize("slots", [1, 2])
    def test_a_checkpoint_only_one_node_cannot_read_is_kept_and_not_counted(
        self, new_run, monkeypatch, slots
    ):
        """Its mount is gone, say; the driver reads the file."""
        run = new_run(exclude=lambda node, why, for_good: True)
        workers = run.workers(slots=slots)
        workers.fill()
        while "rung 3" not in run.study.get_trial(0).user_attrs:
            workers.turn()
        run.driver.lost(0, 1, "gone")
        workers.busy.clear()
        stored = run.study.get_trial(0).system_attrs[CHECKPOINT]

        def cannot_read(runner, stored):
            raise _UnreadableError(stored.path)

        with monkeypatch.context() as patched:
            patched.setattr(TrialRunner, "_from_storage", cannot_read)
            for _ in range(7):
                workers.fill()
                workers.turn()
        trial = run.study.get_trial(0)
        assert trial.system_attrs[CHECKPOINT] == stored
        assert trial.system_attrs.get(WITHOUT_PROGRESS, 0) <= 1
        run.workers().run()
        assert "FAIL" not in run.states()

    @pytest.mark.parametrize("damage", ["removed", "half"])
    def test_one_that_is_gone_or_damaged_lets_its_trial_begin_anew(self, new_run, damage):
        run = new_run()
        workers = run.workers()
        workers.fill()
        while "rung 3" not in run.study.get_trial(0).user_attrs:
            workers.turn()
        run.driver.lost(0, 1, "gone")
        for path in checkpoints_in(run):
            for file in run.file(path).iterdir():
                if damage == "removed":
                    file.unlink()
                else:
                    file.write_bytes(file.read_bytes()[:-1])
        run.finish()
        assert run.states()[0] == "COMPLETE"
        assert run.driver.stopped_by is None
        assert run.study.get_trial(0).system_attrs[ATTEMPT] == 3  # the second found nothing

    def test_damaged_checkpoints_say_nothing_of_a_node(self, new_run):
        excluded = []
        run = new_run(exclude=lambda *why: excluded.append(why))
        workers = run.workers()
        workers.fill()
        while "rung 3" not in run.study.get_trial(0).user_attrs:
            workers.turn()
        run.driver.lost(0, 1, "gone")
        path = run.study.get_trial(0).system_attrs[CHECKPOINT]["path"]
        run.file(path).write_bytes(b"half")
        workers.busy.clear()
        workers.fill()
        assert [report.kind for report in workers.turn()] == [UNREADABLE]
        assert run.study.get_trial(0).system_attrs[CHECKPOINT] is None
        assert not run.driver._failed_in_a_row
        assert run.finish().states()[0] == "COMPLETE"

    def test_a_trial_that_fails_when_its_checkpoint_is_gone_ends_as_others_do(self, new_run):
        run = new_run()
        workers = run.workers()
        workers.fill()
        while "rung 3" not in run.study.get_trial(0).user_attrs:
            workers.turn()
        run.study._set_system_attribute(0, WITHOUT_PROGRESS, 2)
        run.study._set_system_attribute(0, BEGAN_AT, 27)  # what is stored is no progress
        run.driver._files_at_failures[0] = {-3, -2, -1}  # while others' files were taken
        for path in checkpoints_in(run):
            shutil.rmtree(run.file(path))
        report = bare_report(UNREADABLE, "it is gone")
        assert run.driver.handle(report) is Verdict.STOP
        assert run.states()[0] == "FAIL"
        assert "it is gone" in run.trials()[0].user_attrs[REASON]

    def test_a_checkpoint_reported_twice_is_one_success(self, new_run):
        run = new_run()
        workers = run.workers()
        workers.fill()
        while not (reports := workers.turn())[0].checkpoint:
            pass
        again = dataclasses.replace(reports[0], kind=SLICE, value=None)
        run.driver._failed_in_a_row["", STORAGE] = [4, 5]
        run.driver.handle(again)
        assert run.driver._failed_in_a_row["", STORAGE] == [4, 5]

    def test_a_host_is_excluded_while_others_are_left(self, new_run):
        excluded = []

        def exclude(node, why, for_good):
            assert not for_good
            excluded.append((node, why))
            return len(excluded) == 1

        run = new_run(exclude=exclude)
        workers = Workers(run.driver, run.factory(), LostStorage(str(run.directory.path), 0))
        workers.fill()
        reports = []
        for _ in range(50):
            reports += workers.turn()
            workers.fill()
        assert run.driver.draining
        assert [node for node, _ in excluded] == [reports[-1].node] * 2
        assert [r.kind for r in reports].count(UNWRITABLE) == 2 * LOST_AFTER
        assert run.driver.stopped_by


ILLEGAL = Fault(where="run", step=5, error=RuntimeError("CUDA error: an illegal memory access"))


def at(place: tuple[str, str], report: SliceReport) -> SliceReport:
    return dataclasses.replace(report, node=place[0], gpus=place[1])


class Placed(Workers):
    """Slots on nodes, each on a GPU."""

    def __init__(self, *arguments, places, **options) -> None:
        super().__init__(*arguments, slots=len(places), **options)
        for runner, place in zip(self.runners, places, strict=True):
            whole = runner.slice
            runner.slice = lambda whole=whole, place=place: at(place, whole())

    def break_gpu(self, slot: int) -> None:
        """Let every further slice there fail as a GPU does."""
        runner = self.runners[slot]
        whole = runner.slice

        def fails() -> SliceReport:
            report = whole()
            reason = "RuntimeError: CUDA error: an illegal memory access"
            return dataclasses.replace(
                report, kind=DEVICE_FAILED, reason=reason, checkpoint=None, error="Traceback"
            )

        runner.slice = fails


class TestBrokenDevices:
    def test_the_only_gpu_stops_the_search_and_costs_one_trial(self, new_run):
        """That one alone may have broken it, until another fails there, too."""
        run = new_run()
        at_once = dataclasses.replace(ILLEGAL, step=2)
        run.finish(factory=run.factory(faults={None: at_once}))
        said = "the GPU failed 4 times in a row: RuntimeError: CUDA error"
        assert run.driver.stopped_by.startswith(said)
        assert run.states() == ["FAIL", "WAITING"]
        assert run.file("trials/0001/error.txt").read_text().startswith("Traceback")
        assert how_it_ended(run.driver, run.directory)[0] == 1
        again = new_run().finish()
        assert (again.driver.counts().finished, again.states().count("FAIL")) == (6, 1)

    def test_a_rung_that_is_reported_again_says_nothing_for_it(self, new_run):
        run = new_run()
        workers = run.workers(slots=2)
        workers.fill()
        while not all(run.study.get_trial(number).intermediate_values for number in (0, 1)):
            workers.turn()
        run.driver.close("the driver ended")
        run = new_run()
        run.finish(factory=run.factory(faults={None: ILLEGAL}))
        assert run.driver.stopped_by.startswith("the GPU failed 4 times in a row")
        assert run.states() == ["FAIL", "WAITING"]

    def test_where_every_trial_breaks_at_one_step_it_is_the_program(self, new_run):
        run = new_run()
        run.finish(factory=run.factory(faults={None: ILLEGAL}))
        assert run.driver.stopped_by is None
        assert run.driver.hopeless.startswith("RuntimeError: CUDA error")
        assert run.states() == ["FAIL"] * 3

    def test_one_gpu_of_a_node_is_told_from_those_that_work(self, new_run):
        excluded = []
        run = new_run(config=small_config(trials=12), exclude=lambda *why: not excluded.append(why))
        places = [("a", "0"), ("a", "1"), ("b", "0")]
        workers = Placed(run.driver, run.factory(), run.storage, places=places)
        workers.break_gpu(1)
        for _ in range(50):
            if excluded:
                break
            workers.fill()
            workers.turn()
        [(node, why, for_good)] = excluded
        assert (node, for_good) == ("a", True)
        assert why.startswith("GPU 1 failed ")
        assert "times in a row: RuntimeError: CUDA error" in why
        run.driver.close("the node is left out")
        again = new_run().finish()
        assert again.driver.counts().finished == 12
        assert again.states().count("FAIL") <= 1

    @pytest.mark.parametrize("slots", [1, 2])
    @pytest.mark.parametrize("seconds", [1.0, 1000.0])
    def test_a_trial_that_alone_breaks_gpus_fails_and_no_other(self, new_run, slots, seconds):
        excluded = []
        run = new_run(exclude=lambda *why: excluded.append(why))
        lengths = Lengths(slice_seconds=seconds, checkpoint_seconds=seconds)
        run.workers(slots=slots, factory=run.factory(faults={0: ILLEGAL}), lengths=lengths).run()
        assert (run.driver.stopped_by, excluded) == (None, [])
        assert run.states()[0] == "FAIL"
        assert run.states().count("FAIL") == 1
        assert run.driver.counts().finished == 6

    @pytest.mark.parametrize("times", [3, 6])
    def test_the_loss_of_workers_excludes_no_node(self, new_run, times):
        """Three at once may be a pause of the network; each trial has its attempts."""
        excluded = []
        run = new_run(config=small_config(trials=9), exclude=lambda *why: excluded.append(why))
        for _ in range(times):
            workers = Placed(run.driver, run.factory(), run.storage, places=[("a", "")])
            workers.fill()
            for report in workers.turn():
                run.driver.lost(report.number, report.attempt, "the worker died")
        assert not excluded
        assert run.driver.draining is None


class TestOutOfMemory:
    fault = Fault(where="run", step=5, error=OutOfMemoryError("CUDA out of memory"))

    def test_it_ends_the_trial_alone_with_the_reason(self, new_run):
        run = new_run(config=small_config(trials=2))
        run.finish(factory=run.factory(faults={1: self.fault}))
        trial = run.trials()[1]
        assert (trial.state, trial.value) == (TrialState.PRUNED, None)
        assert "memory" in trial.user_attrs[REASON]
        assert checkpoints_in(run) == []


class TestFiles:
    def test_checkpoints_are_gone_after_the_end_whatever_the_end_was(self, new_run):
        run = new_run(config=small_config(trials=8))
        faults = {0: Fault(where="nan", step=12), 1: Fault(where="run", step=12)}
        run.finish(factory=run.factory(faults=faults), slots=2, lengths=OFTEN)
        assert checkpoints_in(run) == []
        assert run.states()[:2] == ["PRUNED", "FAIL"]
        assert {"COMPLETE", "PRUNED"} <= set(run.states()[2:])

    def test_also_those_of_every_attempt(self, new_run):
        run = new_run(config=small_config(trials=1))
        for attempt in (1, 2):
            workers = run.workers()
            workers.fill()
            workers.turn()
            run.driver.lost(0, attempt, "node lost")
        assert len(checkpoints_in(run)) == 2
        run.finish()
        assert run.states() == ["COMPLETE"]
        assert checkpoints_in(run) == []

    def test_weights_are_kept_for_the_ten_best_only(self, new_run):
        run = new_run(config=small_config(trials=16, scheduler="none")).finish()
        ranked = sorted(run.trials(), key=lambda trial: (-trial.value, trial.number))
        best = {trial.system_attrs[RESULT]["weights"] for trial in ranked[:WEIGHTS_KEPT]}
        assert len(best) == WEIGHTS_KEPT == 10
        assert weights_in(run) == best

    def test_also_when_the_search_was_resumed_on_the_way(self, new_run):
        for trials in (5, 12, 16):
            run = new_run(config=small_config(trials=trials, scheduler="none")).finish()
        ranked = sorted(run.trials(), key=lambda trial: (-trial.value, trial.number))
        best = {trial.system_attrs[RESULT]["weights"] for trial in ranked[:WEIGHTS_KEPT]}
        assert weights_in(run) == best

    def test_where_all_shall_be_tested_all_are_kept(self, new_run):
        run = new_run(config=small_config(trials=14, scheduler="none"), weights_kept=None).finish()
        assert run.states() == ["COMPLETE"] * 14
        assert weights_in(run) == {trial.system_attrs[RESULT]["weights"] for trial in run.trials()}

    def test_an_attempt_s_weights_go_when_it_was_lost_before_the_driver_heard_of_them(
        self, new_run
    ):
        run = new_run(config=small_config(trials=1))
        workers = run.workers()
        workers.fill()
        while workers.runners[0]._work.step < RUNGS[-1]:
            report = workers.runners[0].slice()
            if report.step < RUNGS[-1]:
                run.driver.handle(report)
        run.driver.lost(0, 1, "node lost")
        run.finish()
        assert weights_in(run) == {run.trials()[0].system_attrs[RESULT]["weights"]}

    def test_metrics_are_a_line_for_every_value(self, new_run):
        run = new_run().finish()
        for trial in run.trials():
            lines = lines_of(run.file(f"trials/{trial.number:04d}/metrics.jsonl"))
            assert {line["step"]: line["value"] for line in lines} == trial.intermediate_values
            assert all(line["attempt"] == 1 for line in lines)
            assert all("terms" in line and "correct" not in line for line in lines)

    def test_metrics_of_a_continued_trial_say_which_attempt_they_are_of(self, new_run):
        run = new_run(config=small_config(trials=1))
        workers = run.workers()
        workers.fill()
        workers.turn()
        run.driver.lost(0, 1, "node lost")
        run.finish()
        lines = lines_of(run.file("trials/0000/metrics.jsonl"))
        assert [(line["step"], line["attempt"]) for line in lines] == [
            (3, 1),
            (3, 2),
            (9, 2),
            (27, 2),
        ]

    def test_events_tell_the_story_in_order(self, new_run):
        run = new_run(config=small_config(trials=2))
        task = run.driver.next()
        run.driver.started(task.number, task.attempt)
        run.driver.lost(task.number, task.attempt, "ActorDiedError")
        run.finish()
        events = lines_of(run.file("events.jsonl"))
        story = [(event["event"], event["trial"], event["attempt"]) for event in events]
        assert story == [
            ("started", 0, 1),
            ("waiting", 0, 1),
            ("started", 0, 2),
            ("ended", 0, 2),
            ("started", 1, 1),
            ("ended", 1, 1),
        ]
        assert events[1]["reason"] == "ActorDiedError"
        assert events[3]["state"] == "COMPLETE"
        assert events[3]["value"] == run.trials()[0].value
        assert all(isinstance(event["time"], float) for event in events)

    def test_a_drain_is_an_event(self, new_run):
        run = new_run()
        run.driver.drain("SIGTERM")
        assert [(e["event"], e["reason"]) for e in lines_of(run.file("events.jsonl"))] == [
            ("draining", "SIGTERM")
        ]


class TestClose:
    @pytest.mark.parametrize("turns", [0, 1, 3, 6])
    def test_nothing_is_left_running(self, new_run, turns):
        run = new_run(config=small_config(trials=8))
        workers = run.workers(slots=3)
        workers.fill()
        for _ in range(turns):
            workers.turn()
            workers.fill()
        run.driver.next()  # handed out, never started
        run.driver.close("the driver ended")
        assert "RUNNING" not in run.states()
        assert run.driver.running == {}
        again = new_run(config=small_config(trials=8)).finish(slots=3)
        assert again.driver.counts().finished == 8

    def test_also_what_this_driver_never_knew_of(self, new_run):
        run = new_run()
        run.study.next()
        run.driver.close("the driver ended")
        assert run.states()[0] == "WAITING"

    def test_a_trial_that_never_started_may_be_closed_any_number_of_times(self, new_run):
        for _ in range(5):
            run = new_run()
            run.driver.next()
            run.driver.close("the driver ended")
        assert run.states()[0] == "WAITING"


class Killed(BaseException):
    """The process ends here: nothing after it is run."""


def kill_at(monkeypatch, target, method: str, count: int, when: str):
    """Kill the process before or after the count-th call (from 0) of a method."""
    original, calls = getattr(target, method), [0]

    def counted(*arguments, **options):
        calls[0] += 1
        if when == "before" and calls[0] > count:
            raise Killed
        result = original(*arguments, **options)
        if when == "after" and calls[0] > count:
            raise Killed
        return result

    monkeypatch.setattr(target, method, counted)
    return calls


SET_PARAMETER, SET_STATE = 5, 6
"""Optuna's operation codes of a parameter's suggestion and of a change of a trial's state."""

WHENS = ("before", "after")


class KilledOnce:
    """A search that was killed once and continued: what it found and what it left behind."""

    def __init__(self, run: Run) -> None:
        self.found = outcome(run.trials())
        assert_each_ended_once(run)
        kept = {
            trial.system_attrs[RESULT]["weights"]
            for trial in run.trials()
            if trial.state == TrialState.COMPLETE
        }
        self.left = checkpoints_in(run) + sorted(weights_in(run) - kept)


class SmallSearch:
    """A search with every kind of end but failure, one trial at a time."""

    config = small_config(alg=("supervised",), trials=3, seed=1)

    def __init__(self, folder) -> None:
        self.folder = folder
        whole = self.run("whole")
        assert whole.states() == ["COMPLETE", "PRUNED", "PRUNED"]
        assert whole.trials()[1].value is not None
        assert whole.trials()[2].value is None
        self.expected = outcome(whole.trials())
        self.codes = [record["op_code"] for record in records_of(whole.directory.journal_path)]

    def run(self, name: str) -> Run:
        """Begin the search or continue it, to its end."""
        run = Run(self.folder / name, self.config, clock=FakeClock())
        faults = {2: Fault(where="nan", step=2)}
        run.workers(factory=run.factory(faults=faults), lengths=OFTEN).run()
        run.driver.close("the driver ended")
        return run

    def killed(self, target, method: str, count: int, when: str) -> KilledOnce | Exception:
        """Kill the search at the count-th call of a method, then continue it to its end."""
        name = f"killed-{when}-{method}-{count}"
        with pytest.MonkeyPatch.context() as patched:
            kill_at(patched, target, method, count, when)
            with pytest.raises(Killed):
                self.run(name)
        try:
            return KilledOnce(self.run(name))
        except Exception as error:
            return error

    def calls(self, target, method: str) -> int:
        """Return how often the undisturbed search calls a method."""
        folder = f"counted-{method}-{len(list(self.folder.iterdir()))}"
        with pytest.MonkeyPatch.context() as patched:
            calls = kill_at(patched, target, method, 10**9, "before")
            self.run(folder)
        return calls[0]

    def part_of(self, record: int) -> str:
        """Return to which part of the search the record of a number belongs."""
        if record < self.codes.index(SET_STATE):
            return "set up"
        pair = self.codes[record - 1 : record + 1]
        return "suggesting" if pair == [SET_PARAMETER, SET_PARAMETER] else "all else"


@pytest.fixture(scope="module")
def small_search(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _descriptor: None)
        yield SmallSearch(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def killed_at_every_record(small_search):
    """Return by (when, record) what became of the search killed before or after that record."""
    return {
        (when, record): small_search.killed(RunJournal, "append_logs", record, when)
        for when in WHENS
        for record in range(len(small_search.codes) - (when == "after"))
    }


class TestKilledAnywhere:
    """A small search, killed at every record of its journal, goes on to the same results."""

    def differing(self, search, killed, part):
        """Return what differs from the undisturbed search, by when and where it was killed.

        A kill before one record and one after the record before it leave the same journal.
        """
        places = {
            place: ended
            for place, ended in killed.items()
            if search.part_of(place[1] + (place[0] == "after")) == part
        }
        assert len(places) >= 6
        return {
            place: ended if isinstance(ended, Exception) else ended.found
            for place, ended in places.items()
            if isinstance(ended, Exception) or ended.found != search.expected
        }

    def test_while_the_study_is_set_up(self, small_search, killed_at_every_record):
        assert self.differing(small_search, killed_at_every_record, "set up") == {}

    def test_while_several_defaults_are_queued(self, tmp_path):
        config = small_config(alg=("pi_model", "mean_teacher", "ict"), trials=8)
        whole = Run(tmp_path / "whole", config)
        expected = [trial.user_attrs for trial in whole.trials()]
        assert len(expected) == 3
        records = len(records_of(whole.directory.journal_path))
        differing = {}
        for record in range(records - 3, records):
            path = tmp_path / f"killed-{record}"
            with pytest.MonkeyPatch.context() as patched:
                kill_at(patched, RunJournal, "append_logs", record, "before")
                with pytest.raises(Killed):
                    Run(path, config)
            found = [trial.user_attrs for trial in Run(path, config).trials()]
            if found != expected:
                differing[record] = len(found)
        assert differing == {}

    def test_between_two_parameters_of_a_suggestion(self, small_search, killed_at_every_record):
        assert self.differing(small_search, killed_at_every_record, "suggesting") == {}

    def test_everywhere_else(self, small_search, killed_at_every_record):
        assert self.differing(small_search, killed_at_every_record, "all else") == {}

    def test_no_files_are_left_that_nobody_will_read(self, killed_at_every_record):
        left = {
            place: ended.left
            for place, ended in killed_at_every_record.items()
            if isinstance(ended, KilledOnce) and ended.left
        }
        assert left == {}

    @pytest.mark.parametrize("when", WHENS)
    @pytest.mark.parametrize("method", ["write", "delete"])
    def test_at_every_access_to_the_storage(self, small_search, method, when):
        calls = small_search.calls(RunStorage, method)
        assert calls >= 4
        for count in range(calls):
            killed = small_search.killed(RunStorage, method, count, when)
            assert killed.found == small_search.expected, count

    @pytest.mark.parametrize("when", WHENS)
    def test_at_every_write_of_the_journal(self, small_search, when):
        """Records of one event are written together: a kill loses all of them or none."""
        writes = small_search.calls(RunJournal, "_append")
        assert writes >= 20
        for count in range(writes - (when == "after")):
            killed = small_search.killed(RunJournal, "_append", count, when)
            assert killed.found == small_search.expected, count
            assert killed.left == [], count

    def test_nothing_is_read_back_unless_a_trial_is_continued(self, small_search):
        assert small_search.calls(RunStorage, "read") == 0

    def test_again_and_again(self, small_search):
        """Killed after every few records, until a stretch without a kill reaches the end."""
        kills = 0
        while True:
            with pytest.MonkeyPatch.context() as patched:
                kill_at(patched, RunJournal, "append_logs", 9 + kills % 5, "after")
                try:
                    run = small_search.run("again")
                    break
                except Killed:
                    kills += 1
            assert kills < 40
        assert kills >= 4
        assert_each_ended_once(run)
        assert "FAIL" not in run.states()

    def test_with_several_slots_as_many_trials_end_as_were_asked_for(self, tmp_path, monkeypatch):
        config = small_config(trials=5)

        def search(path):
            run = Run(path, config)
            run.workers(slots=3, lengths=OFTEN).run()
            run.driver.close("the driver ended")
            return run

        total = len(records_of(search(tmp_path / "whole").directory.journal_path))
        for place in range(8, total, 9):
            path = tmp_path / f"killed-{place}"
            with monkeypatch.context() as patched:
                kill_at(patched, RunJournal, "append_logs", place, "before")
                with pytest.raises(Killed):
                    search(path)
            run = search(path)
            assert run.driver.counts().finished == len(run.trials()) == 5
            assert_each_ended_once(run)


def assert_each_ended_once(run: Run) -> None:
    """Check in the journal that every trial ended once and was not changed afterwards."""
    assert [trial.number for trial in run.trials()] == list(range(run.config.trials))
    assert all(trial.state in FINISHED for trial in run.trials())
    ended = set()
    codes = {state.value for state in FINISHED}
    for record in records_of(run.directory.journal_path):
        if "trial_id" not in record:
            continue
        assert record["trial_id"] not in ended
        if record["op_code"] == SET_STATE and record["state"] in codes:
            ended.add(record["trial_id"])
    assert ended == set(range(run.config.trials))


NO_MEMORY = RuntimeError("CUDA error: out of memory")


class TestAllNeeded:
    """Where a trial without a result makes those of the others worthless."""

    def run(self, folder) -> Run:
        run = Run(folder / "run", small_config(trials=4))
        run.study.all_needed = True
        return run

    def lose_thrice(self, run: Run) -> None:
        for attempt in (1, 2, 3):
            task = run.driver.next()
            assert (task.number, task.attempt) == (0, attempt)
            run.driver.started(0, attempt)
            run.driver.lost(0, attempt, "its worker is gone")

    def test_one_that_is_lost_again_and_again_is_held_and_the_others_go_on(self, tmp_path):
        run = self.run(tmp_path)
        self.lose_thrice(run)
        assert run.study.missing.keys() == {0}
        assert run.driver.next().number == 1, "it is not handed out again"
        run.driver.take_back(1, 1)
        assert not run.driver.finished()
        run.finish()
        assert run.states()[0] == "WAITING"
        assert {*run.states()[1:]} <= {"COMPLETE", "PRUNED"}
        code, message = how_it_ended(run.driver, run.directory)
        assert code == INTERNAL
        assert "1 of 4 trials gave no result (trial 0: interrupted 3 times" in message
        again = self.run(tmp_path)
        again.finish()
        assert {*again.states()} <= {"COMPLETE", "PRUNED"}
        assert how_it_ended(again.driver, again.directory)[0] == DONE

    def test_one_that_raises_is_told_and_keeps_its_traceback(self, tmp_path):
        run = self.run(tmp_path)
        run.finish(factory=run.factory(faults={0: Fault(where="run")}))
        assert run.study.missing == {0: "RuntimeError: the work broke"}
        assert run.driver.hopeless is None
        assert "the work broke" in run.file("trials/0000/error.txt").read_text()
        assert "FAIL" not in run.states()

    def test_where_all_fail_alike_it_ends_soon(self, tmp_path):
        run = self.run(tmp_path)
        run.finish(factory=run.factory(faults={None: Fault(where="run")}))
        assert run.driver.hopeless == "RuntimeError: the work broke"
        assert len(run.study.missing) == 3
        assert {*run.states()} == {"WAITING"}
        code, message = how_it_ended(run.driver, run.directory)
        assert code == INTERNAL
        assert "3 trials failed alike" in message
        assert "resume" in message

    def test_lack_of_memory_is_told_with_what_helps(self, tmp_path):
        run = self.run(tmp_path)
        run.finish(factory=run.factory(faults={1: Fault(where="run", error=NO_MEMORY)}))
        message = how_it_ended(run.driver, run.directory)[1]
        assert "a larger --gpus-per-trial under another --name" in message
        assert "out of memory" in run.file("trials/0001/error.txt").read_text()

    def test_a_held_trial_is_neither_running_nor_told_again_when_it_has_been_tried_again(
        self, tmp_path
    ):
        run = self.run(tmp_path)
        self.lose_thrice(run)
        assert why_held(run.study.get_trial(0)).startswith("interrupted 3 times")
        assert run.driver.counts().running == 0
        run.driver.close("the driver ended")
        assert why_held(run.study.get_trial(0)).startswith("interrupted 3 times")
        again = self.run(tmp_path)
        task = again.driver.next()
        again.driver.started(task.number, task.attempt)
        assert task.number == 0
        assert why_held(again.study.get_trial(0)) is None
        assert again.driver.counts().running == 1

    def test_what_a_lost_driver_counted_is_tried_at_once(self, tmp_path):
        run = self.run(tmp_path)
        for attempt in (1, 2, 3):
            assert run.driver.next().attempt == attempt
            run.driver.started(0, attempt)
            run.study.recover("the driver before was lost")
            run.driver.running.clear()
        assert run.study.missing == {}
        assert run.driver.next().number == 0
