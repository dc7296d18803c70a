"""The worker's side of a trial: slices, checkpoints, ends, and what is told of errors."""

from __future__ import annotations

import hashlib

import pytest

from tests.tune_ssl.fakes import (
    RUNGS,
    FakeClock,
    FakeFactory,
    Fault,
    LocalizedOutOfMemoryError,
    OutOfMemoryError,
)
from tune_ssl.run import trial_seed
from tune_ssl.storage import RunStorage
from tune_ssl.worker import (
    CHECKPOINTS_KEPT,
    DEVICE_FAILED,
    END,
    ERROR,
    NON_FINITE,
    OUT_OF_MEMORY,
    RUNG,
    SLICE,
    UNREADABLE,
    UNWRITABLE,
    Lengths,
    Task,
    TrialRunner,
    ends_the_worker,
)

pytestmark = pytest.mark.usefixtures("no_fsync")

PARAMETERS = {"learning_rate": 3e-3, "ema_horizon": 12.0}
NEVER = 10**9


def task(number=0, attempt=1, checkpoint=None) -> Task:
    record = {"seed": trial_seed(0, number), "parameters": PARAMETERS}
    return Task(number=number, attempt=attempt, record=record, storage="", checkpoint=checkpoint)


class Bench:
    """A runner on a storage in a folder, with a clock on which a step takes one second."""

    def __init__(
        self,
        folder,
        *,
        rungs=RUNGS,
        fault=None,
        lengths=None,
        seconds_per_step=1.0,
        seconds_to_measure=0.0,
    ):
        self.clock = FakeClock()
        self.storage = RunStorage(str(folder))
        self.factory = FakeFactory(
            clock=self.clock,
            seconds_per_step=seconds_per_step,
            seconds_to_measure=seconds_to_measure,
            faults={None: fault} if fault else {},
        )
        self.runner = TrialRunner(
            self.factory,
            self.storage,
            rungs,
            lengths=lengths or Lengths(slice_seconds=5.0, checkpoint_seconds=NEVER),
            clock=self.clock,
        )

    def begin(self, *arguments, **options):
        self.runner.begin(task(*arguments, **options))
        return self

    def slices(self, count=None):
        """Run slices, to the end of the trial unless a number is given."""
        reports = []
        while count is None or len(reports) < count:
            reports.append(self.runner.slice())
            if reports[-1].kind not in (SLICE, RUNG):
                break
            assert len(reports) < 1000
        return reports

    def stored(self, number=0, attempt=1):
        return self.storage.files(f"trials/{number:04d}/attempt-{attempt}")


@pytest.fixture
def bench(tmp_path):
    return lambda **options: Bench(tmp_path, **options)


class TestSlices:
    def test_they_end_at_rungs_or_when_their_time_is_over(self, bench):
        reports = bench().begin().slices()
        assert [(report.kind, report.step) for report in reports] == [
            (RUNG, 3),
            (SLICE, 8),
            (RUNG, 9),
            (SLICE, 14),
            (SLICE, 19),
            (SLICE, 24),
            (END, 27),
        ]
        assert [report.seconds for report in reports] == [3.0, 5.0, 1.0, 5.0, 5.0, 5.0, 3.0]

    @pytest.mark.parametrize(("steps", "seconds"), [(1000, 5.0), (2500, 10.0), (100_000, 15.0)])
    def test_they_are_longer_in_a_long_training_up_to_a_quarter_of_a_minute(
        self, bench, steps, seconds
    ):
        """The first comes before anything is known of the training's length."""
        reports = bench(rungs=(steps,)).begin().slices(20)
        assert [report.seconds for report in reports] == [5.0] + 19 * [seconds]

    def test_a_step_longer_than_a_slice_is_one_slice(self, bench):
        reports = bench(seconds_per_step=60.0, rungs=(2, 4)).begin().slices()
        assert [(report.kind, report.step) for report in reports] == [
            (SLICE, 1),
            (SLICE, 2),
            (RUNG, 2),
            (SLICE, 3),
            (SLICE, 4),
            (END, 4),
        ]
        assert {report.seconds for report in reports} == {60.0, 0.0}

    def test_measuring_that_takes_longer_than_a_slice_takes_several(self, bench):
        slow, quick = bench(rungs=(2, 4), seconds_to_measure=12.0), bench(rungs=(2, 4))
        reports = slow.begin().slices()
        assert [(report.kind, report.step, report.seconds) for report in reports] == [
            (SLICE, 2, 5.0),
            (SLICE, 2, 5.0),
            (RUNG, 2, 4.0),
            (SLICE, 4, 5.0),
            (SLICE, 4, 5.0),
            (END, 4, 4.0),
        ]
        assert [report.step for report in reports if report.checkpoint] == [2, 2, 2]
        values = [report.value for report in reports if report.value is not None]
        assert values == [r.value for r in quick.begin().slices() if r.value is not None]

    @pytest.mark.parametrize("taken", [1, 4])
    def test_one_stored_while_it_is_measured_is_measured_again(self, bench, taken):
        whole = bench(rungs=(2, 4)).begin().slices()
        slow = bench(rungs=(2, 4), seconds_to_measure=12.0).begin()
        slow.slices(taken)
        stored = slow.runner.store_checkpoint()
        continued = slow.begin(attempt=2, checkpoint=stored).slices()
        assert stored.step == continued[0].step
        ended = [(report.kind, report.step, report.value) for report in continued if report.value]
        expected = [(report.kind, report.step, report.value) for report in whole]
        assert ended == expected[-len(ended) :]
        assert ended[0][1] == stored.step

    def test_only_rungs_and_the_end_are_measured(self, bench):
        for report in bench().begin().slices():
            assert (report.value is not None) == (report.kind in (RUNG, END))
            assert ("correct" in report.details) == (report.kind in (RUNG, END))

    def test_reports_name_trial_attempt_and_host(self, bench):
        for report in bench().begin(7, attempt=2).slices():
            assert (report.number, report.attempt) == (7, 2)
            assert report.host

    def test_the_length_of_slices_changes_no_value(self, tmp_path):
        values = []
        for length in (1.0, 4.0, 1000.0):
            lengths = Lengths(slice_seconds=length, checkpoint_seconds=7.0)
            bench = Bench(tmp_path / str(length), lengths=lengths)
            values.append(
                [report.value for report in bench.begin().slices() if report.value is not None]
            )
        assert values[0] == values[1] == values[2]
        assert len(values[0]) == 3

    def test_one_runner_runs_one_trial_after_another_as_fresh_runners_would(self, tmp_path):
        shared = Bench(tmp_path / "shared")
        together = [shared.begin(number).slices()[-1].value for number in range(3)]
        alone = [Bench(tmp_path / str(n)).begin(n).slices()[-1].value for n in range(3)]
        assert together == alone
        assert len(set(together)) > 1

    def test_a_trial_taken_up_leaves_the_files_of_the_one_before_alone(self, bench):
        bench = bench()
        bench.begin(0).slices(3)
        before = bench.stored(0)
        bench.begin(1).slices()
        assert bench.stored(0) == before
        assert len(before) == 2


class TestEndsOfWorkers:
    @pytest.mark.parametrize(
        ("error", "broken"),
        [
            (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
            (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling x"), True),
            (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), True),
            (RuntimeError("No CUDA GPUs are available"), True),
            (RuntimeError("Unexpected error from cudaGetDeviceCount()"), True),
            (RuntimeError("CUDA driver error: unknown error"), True),
            (type("AcceleratorError", (RuntimeError,), {})("device-side assert triggered"), True),
            (RuntimeError("the image is broken"), False),
            (OutOfMemoryError("CUDA out of memory"), False),
        ],
    )
    def test_a_gpu_s_error_leaves_a_process_in_which_nothing_runs(self, bench, error, broken):
        fault = Fault(where="run", step=2, error=error)
        report = bench(fault=fault).begin().slices()[-1]
        assert ends_the_worker(report) is broken
        assert (report.kind == DEVICE_FAILED) is broken


class TestCheckpoints:
    def test_they_are_stored_at_rungs_and_nowhere_else_while_time_is_short(self, bench):
        reports = bench().begin().slices()
        assert [report.step for report in reports if report.checkpoint] == [3, 9]
        for report in reports:
            if report.checkpoint:
                assert (report.checkpoint.step, report.checkpoint.attempt) == (report.step, 1)

    def test_and_when_enough_time_has_passed(self, bench):
        lengths = Lengths(slice_seconds=5.0, checkpoint_seconds=60.0)
        reports = bench(rungs=(1000,), lengths=lengths).begin().slices(50)
        assert [report.step for report in reports if report.checkpoint] == [60, 120, 180, 240]

    def test_and_not_more_often_than_every_fiftieth_of_the_trial(self, bench):
        lengths = Lengths(slice_seconds=10.0, checkpoint_seconds=10.0)
        reports = bench(rungs=(2000,), lengths=lengths).begin().slices(15)
        assert [report.step for report in reports if report.checkpoint] == [40, 80, 120]

    def test_a_rung_s_checkpoint_starts_the_time_anew(self, bench):
        lengths = Lengths(slice_seconds=5.0, checkpoint_seconds=20.0)
        reports = bench(rungs=(15, 600), lengths=lengths).begin().slices(10)
        assert [report.step for report in reports if report.checkpoint] == [15, 35]

    def test_each_is_what_its_record_says(self, bench):
        bench = bench()
        for report in bench.begin(4, attempt=3).slices():
            if report.checkpoint:
                data = bench.storage.read(report.checkpoint.path)
                assert hashlib.sha256(data).hexdigest() == report.checkpoint.sha256
                assert report.checkpoint.path.startswith("trials/0004/attempt-3/")

    def test_at_most_two_are_kept_the_newest(self, bench):
        lengths = Lengths(slice_seconds=1.0, checkpoint_seconds=1.0)
        bench = bench(rungs=(20, 40), lengths=lengths).begin()
        named = []
        for _ in range(39):
            report = bench.runner.slice()
            if report.checkpoint:
                named.append(report.checkpoint.path.rsplit("/", 1)[1])
            assert bench.stored() == named[-CHECKPOINTS_KEPT:]
        assert len(named) > 10
        assert CHECKPOINTS_KEPT == 2

    def test_one_asked_for_between_two_slices_is_of_the_exact_step(self, bench):
        bench = bench().begin()
        bench.slices(2)
        stored = bench.runner.store_checkpoint()
        assert (stored.step, stored.attempt) == (8, 1)
        assert hashlib.sha256(bench.storage.read(stored.path)).hexdigest() == stored.sha256

    def test_one_asked_for_on_a_rung_does_not_spoil_the_one_the_journal_names(self, bench):
        """A drain right after a rung stores once more; if the driver is killed before it has
        written that down, the journal still names the rung's own checkpoint."""
        bench = bench().begin()
        named = bench.slices(1)[0].checkpoint
        bench.runner.store_checkpoint()
        assert hashlib.sha256(bench.storage.read(named.path)).hexdigest() == named.sha256

    def test_storing_changes_nothing_of_what_follows(self, tmp_path):
        expected = Bench(tmp_path / "one").begin().slices()[-1].value
        bench = Bench(tmp_path / "other").begin()
        for _ in range(6):
            bench.slices(1)
            bench.runner.store_checkpoint()
        assert bench.slices()[-1].value == expected


class TestContinuing:
    @pytest.mark.parametrize("slices", [1, 2, 3, 4, 5, 6])
    def test_from_any_checkpoint_it_ends_where_the_uninterrupted_trial_does(self, tmp_path, slices):
        whole = Bench(tmp_path / "whole").begin().slices()
        first = Bench(tmp_path / "parts").begin()
        first.slices(slices)
        stored = first.runner.store_checkpoint()
        second = Bench(tmp_path / "parts")
        reports = second.begin(attempt=2, checkpoint=stored).slices()
        assert reports[-1].kind == END
        assert reports[-1].value == whole[-1].value
        assert second.storage.read(reports[-1].weights) == first.storage.read(reports[-1].weights)
        assert second.factory.steps == list(range(stored.step + 1, 28))

    @pytest.mark.parametrize("rung", [0, 1])
    def test_standing_on_a_rung_it_reports_first_without_a_step(self, bench, rung):
        """The trial was killed between the rung's checkpoint and its report."""
        first = bench().begin()
        report = [r for r in first.slices() if r.kind == RUNG][rung]
        if rung == 0:  # its file has been removed by now
            first.begin().slices(1)
        second = bench().begin(attempt=2, checkpoint=report.checkpoint)
        again = second.runner.slice()
        assert (again.kind, again.step, again.value) == (RUNG, RUNGS[rung], report.value)
        assert second.factory.steps == []
        assert again.checkpoint.attempt == 2
        following = second.runner.slice()
        assert following.step > RUNGS[rung]

    def test_between_two_rungs_it_trains_on(self, bench):
        first = bench().begin()
        first.slices(2)
        stored = first.runner.store_checkpoint()
        report = bench().begin(attempt=2, checkpoint=stored).runner.slice()
        assert (report.kind, report.step) == (RUNG, 9)

    def test_an_attempt_does_not_touch_the_files_of_the_one_before(self, bench):
        first = bench().begin()
        named = first.slices(3)[-1].checkpoint
        before = first.stored()
        bench().begin(attempt=2, checkpoint=named).slices()
        assert first.stored() == before

    def test_the_interval_between_checkpoints_counts_the_steps_of_this_attempt(self, bench):
        """2,000 steps of one second: a fiftieth is 40 seconds, wherever the attempt began."""
        lengths = Lengths(slice_seconds=10.0, checkpoint_seconds=10.0)
        first = bench(rungs=(2000,), lengths=lengths).begin()
        stored = [report.checkpoint for report in first.slices(85) if report.checkpoint][-1]
        second = bench(rungs=(2000,), lengths=lengths).begin(attempt=2, checkpoint=stored)
        steps = [report.step for report in second.slices(10) if report.checkpoint]
        assert steps == [stored.step + 40, stored.step + 80]


class TestEnds:
    def test_the_end_stores_weights_and_measures_at_full_length(self, bench):
        bench = bench().begin(3, attempt=2)
        end = bench.slices()[-1]
        assert (end.kind, end.step, end.checkpoint) == (END, RUNGS[-1], None)
        assert bench.storage.read(end.weights).startswith(b"weights of state")
        assert 0.0 <= end.value <= 1.0
        assert end.details["accuracy"] == end.value

    def test_two_attempts_store_their_weights_apart(self, bench):
        paths = [bench().begin(0, attempt=attempt).slices()[-1].weights for attempt in (1, 2)]
        assert len(set(paths)) == 2

    def test_images_that_changed_are_an_error_and_no_weights_are_stored(self, bench):
        fault = Fault(where="verify", step=27, error=RuntimeError("the images in memory changed"))
        bench = bench(fault=fault).begin()
        end = bench.slices()[-1]
        assert (end.kind, end.value, end.weights) == (ERROR, None, None)
        assert "the images in memory changed" in end.error
        assert [name for name in bench.storage.files("trials/0000") if "weights" in name] == []

    @pytest.mark.parametrize(("step", "heard_at"), [(1, 3), (3, 3), (5, 8), (9, 9), (27, 27)])
    def test_a_loss_that_is_not_finite_is_told_at_the_end_of_its_slice(self, bench, step, heard_at):
        bench = bench(fault=Fault(where="nan", step=step)).begin()
        end = bench.slices()[-1]
        assert (end.kind, end.step) == (NON_FINITE, heard_at)
        assert (end.value, end.checkpoint, end.weights) == (None, None, None)

    @pytest.mark.parametrize("step", RUNGS)
    def test_a_network_whose_outputs_are_not_finite_has_no_value(self, bench, step):
        end = bench(fault=Fault(where="nan_measure", step=step)).begin().slices()[-1]
        assert (end.kind, end.step, end.value, end.weights) == (NON_FINITE, step, None, None)


class TestErrors:
    @pytest.mark.parametrize("where", ["factory", "run", "measure", "weights"])
    def test_an_exception_is_told_with_its_traceback_and_never_raised(self, bench, where):
        bench = bench(fault=Fault(where=where, error=KeyError("no such layer")))
        end = bench.begin().slices()[-1]
        assert (end.kind, end.value, end.weights) == (ERROR, None, None)
        assert end.error.startswith("Traceback")
        assert "KeyError: 'no such layer'" in end.error.strip().splitlines()[-1]

    def test_one_while_the_trial_is_taken_up_is_told_by_the_first_slice(self, bench):
        bench = bench(fault=Fault(where="factory", error=ValueError("bad configuration")))
        bench.begin(5, attempt=2)
        first = bench.runner.slice()
        assert (first.kind, first.number, first.attempt, first.step) == (ERROR, 5, 2, 0)
        assert "ValueError: bad configuration" in first.error

    def test_one_while_loading_a_checkpoint_is_told_by_the_first_slice(self, bench):
        first = bench().begin()
        stored = first.slices(1)[0].checkpoint
        broken = bench(fault=Fault(where="load", error=RuntimeError("other shapes")))
        report = broken.begin(attempt=2, checkpoint=stored).runner.slice()
        assert report.kind == ERROR
        assert "other shapes" in report.error
        assert broken.factory.steps == []

    @pytest.mark.parametrize("damage", ["altered", "cut", "emptied", "removed"])
    def test_a_damaged_checkpoint_is_told_as_one_that_cannot_be_read_and_named(
        self, bench, tmp_path, damage
    ):
        stored = bench().begin().slices(1)[0].checkpoint
        file = tmp_path / stored.path
        data = file.read_bytes()
        if damage == "removed":
            file.unlink()
        else:
            file.write_bytes({"altered": b"x" + data[1:], "cut": data[:-1], "emptied": b""}[damage])
        report = bench().begin(attempt=2, checkpoint=stored).runner.slice()
        assert report.kind == UNREADABLE
        assert stored.path in report.reason

    @pytest.mark.parametrize("kind", [OutOfMemoryError, LocalizedOutOfMemoryError])
    @pytest.mark.parametrize("where", ["run", "measure", "weights"])
    def test_too_little_device_memory_is_told_as_such(self, bench, where, kind):
        end = bench(fault=Fault(where=where, error=kind("CUDA out of memory"))).begin().slices()[-1]
        assert end.kind == OUT_OF_MEMORY
        assert (end.value, end.weights) == (None, None)

    @pytest.mark.parametrize("where", ["factory", "load"])
    def test_also_while_the_trial_is_taken_up(self, bench, where):
        """Images and networks move to the device there."""
        stored = bench().begin().slices(1)[0].checkpoint
        fault = Fault(where=where, error=OutOfMemoryError("CUDA out of memory"))
        report = bench(fault=fault).begin(attempt=2, checkpoint=stored).runner.slice()
        assert report.kind == OUT_OF_MEMORY

    @pytest.mark.parametrize(
        "message",
        [
            "CUDA error: out of memory",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ],
    )
    def test_also_where_not_torch_s_allocator_was_refused(self, bench, message):
        kind = type("AcceleratorError", (RuntimeError,), {})
        end = bench(fault=Fault(where="run", error=kind(message))).begin().slices()[-1]
        assert end.kind == OUT_OF_MEMORY
        assert not ends_the_worker(end)

    def test_an_error_that_only_speaks_of_memory_is_an_error(self, bench):
        fault = Fault(where="run", error=RuntimeError("OutOfMemoryError"))
        assert bench(fault=fault).begin().slices()[-1].kind == ERROR

    def test_a_storage_that_fails_interrupts_the_trial_and_does_not_end_it(self, bench, tmp_path):
        bench = bench().begin()
        (tmp_path / "trials").write_text("a file where a folder should be")
        end = bench.slices()[-1]
        assert (end.kind, end.step) == (UNWRITABLE, 3)
        assert str(tmp_path) in end.reason

    def test_the_runner_is_as_good_as_new_for_the_trial_after_an_error(self, tmp_path):
        bench = Bench(tmp_path)
        bench.factory._faults[trial_seed(0, 0)] = Fault(where="factory")
        assert bench.begin(0).slices()[-1].kind == ERROR
        assert bench.begin(1).slices()[-1].kind == END

    def test_an_interrupt_is_no_error_of_the_trial(self, bench):
        bench = bench(fault=Fault(where="run", error=KeyboardInterrupt()))
        bench.begin()
        with pytest.raises(KeyboardInterrupt):
            bench.runner.slice()
