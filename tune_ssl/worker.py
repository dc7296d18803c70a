"""The worker's side of a trial: slices, rungs, checkpoints. Knows nothing of Ray.

A trial is advanced in slices that end at the next rung, or after some seconds, measuring
included: a slice is a sign of life, and between two of them a trial can be stopped or stored at its
exact step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tune_ssl import machine
from tune_ssl.storage import DamagedFileError, RunStorage
from tune_ssl.study import Checkpoint
from tune_ssl.trial import Measured, Work, WorkFactory

CHECKPOINT_FRACTION = 0.02
SLICE_FRACTION = 0.004
LONGEST_SLICE = 15.0
"""Seconds; a signal is answered by storing checkpoints between slices, and Slurm allows 30."""
CHECKPOINTS_KEPT = 2
GPU_WORDS = (
    *("CUDA error", "CUDA driver error", "CUDA unknown error", "CUBLAS_STATUS_", "CUDNN_STATUS_"),
    *("cudaGetDeviceCount", "No CUDA GPUs are available", "Found no NVIDIA driver"),
)
TRIALS = "trials"
"""The folder of all trials, below the storage's root."""

SLICE, RUNG, END = "slice", "rung", "end"
NON_FINITE, OUT_OF_MEMORY, ERROR = "non_finite", "out_of_memory", "error"
UNREADABLE, UNWRITABLE, DEVICE_FAILED = "unreadable", "unwritable", "device_failed"
OF_THE_PLACE = (UNREADABLE, UNWRITABLE, DEVICE_FAILED)
"""What may be wrong with a node and not with the trial, which can go on elsewhere or later."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is told: which trial, for which time, with which configuration.

    Args:
        storage: root of its run's checkpoints and weights, writable from every node.
    """

    number: int
    attempt: int
    record: dict[str, Any]
    storage: str
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, kw_only=True)
class SliceReport:
    """What a worker tells after each slice.

    Args:
        kind: SLICE, RUNG or END; NON_FINITE, OUT_OF_MEMORY or ERROR end the trial; those OF_THE_PLACE
            end this attempt, and the worker.
        seconds: device time of the slice.
        value, details: what was measured, at a rung or the end.
        checkpoint: stored in this slice, if one was.
        weights: path of the evaluated network, at the end.
        reason: an exception's type and message, in one line.
        error: its traceback.
        node: the cluster's name of the node it ran on; empty where there is no cluster.
        gpus: the numbers of the GPUs it ran on; empty where it had none.
    """

    number: int
    attempt: int
    step: int
    kind: str
    seconds: float
    value: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    made_with: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    error: str | None = None
    host: str = ""
    node: str = ""
    gpus: str = ""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long a slice may take, and how long a trial may go without a checkpoint, in seconds.

    In a long training both grow with it: a thousand trials at once are not to flood the driver.
    """

    slice_seconds: float = 5.0
    checkpoint_seconds: float = 60.0


class TrialRunner:
    """Runs one trial after another on a worker.

    Args:
        factory: makes a trial's work; kept, with what it shares, from trial to trial.
        storage: where checkpoints and weights go.
        rungs: steps at which trials are measured; the last is the full length.
        lengths: of slices and between checkpoints.
        clock: seconds, any origin.
    """

    def __init__(
        self,
        factory: WorkFactory,
        storage: RunStorage,
        rungs: tuple[int, ...],
        *,
        lengths: Lengths | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._factory = factory
        self._storage = storage
        self._rungs = rungs
        self._lengths = lengths or Lengths()
        self._clock = clock
        self._task: Task | None = None
        self._work: Work | None = None
        self._failure: Exception | None = None
        self._last_checkpoint: Checkpoint | None = None
        self._began = 0.0
        self._first_step = 0
        self._stored_at = 0.0
        self._reported_step: int | None = None
        self._own_checkpoints: list[str] = []

    def begin(self, task: Task) -> None:
        """Take up a trial. Does not raise: an exception is told by the first slice."""
        self._task, self._work, self._failure = task, None, None
        self._last_checkpoint = None
        self._began = self._stored_at = self._clock()
        self._reported_step = None
        self._own_checkpoints = []
        try:
            work = self._factory(task.record)
            if task.checkpoint is not None:
                stored = task.checkpoint
                name = f"{self._storage.shown}/{stored.path}"
                work.load_bytes(self._from_storage(stored), stored.sha256, name)
            self._work = work
            self._first_step = work.step
        except Exception as error:  # of our code or the user's data: it belongs to the trial
            self._failure = error

    def slice(self) -> SliceReport:
        """Advance the trial to its next rung, or for one slice, and say what happened."""
        began = self._clock()
        if self._work is None:
            assert self._failure is not None
            return self._failed(self._failure, began)
        try:
            return self._advance(self._work, began)
        except Exception as error:  # told to the driver, which ends the trial
            return self._failed(error, began)

    def store_checkpoint(self) -> Checkpoint:
        """Store the present state and return its record; the one before the last is removed.

        A step is stored once: the journal may name that file already.
        """
        assert self._task is not None
        assert self._work is not None
        task, step = self._task, self._work.step
        last = self._last_checkpoint
        if last is not None and last.step == step:
            return last
        data = self._work.to_bytes()
        path = f"{attempt_folder(task.number, task.attempt)}/step-{step:06d}.pt"
        self._to_storage(path, data)
        self._stored_at = self._clock()
        self._own_checkpoints.append(path)
        while len(self._own_checkpoints) > CHECKPOINTS_KEPT:
            with suppress(OSError):  # an old file that stays costs space, not the trial
                self._storage.delete(self._own_checkpoints.pop(0))
        digest = hashlib.sha256(data).hexdigest()
        self._last_checkpoint = Checkpoint(
            path=path, step=step, sha256=digest, attempt=task.attempt
        )
        return self._last_checkpoint

    def _advance(self, work: Work, began: float) -> SliceReport:
        length = self._slice_length(work)
        # A trial killed between a rung's checkpoint and its report comes back standing on the
        # rung: then the report is made first.
        if work.step not in self._rungs or work.step == self._reported_step:
            work.run(self._next_rung(work.step), length)
        if not work.finite:
            return self._report(NON_FINITE, began)
        if work.step not in self._rungs:
            due = self._clock() - self._stored_at >= self._checkpoint_interval(work)
            return self._report(SLICE, began, checkpoint=self.store_checkpoint() if due else None)
        if work.step == self._rungs[-1]:
            return self._end(work, began, length)
        checkpoint = self.store_checkpoint()
        measured = self._measure(work, began, length)
        if measured is None:
            return self._report(SLICE, began, checkpoint=checkpoint)
        self._reported_step = work.step
        return self._report(
            RUNG if measured.finite else NON_FINITE, began, measured, checkpoint=checkpoint
        )

    def _measure(self, work: Work, began: float, length: float) -> Measured | None:
        """Measure for what training has left of a slice; None where that is not enough."""
        left = length - (self._clock() - began)
        return work.measure(left) if left >= 0 else None

    def _end(self, work: Work, began: float, length: float) -> SliceReport:
        assert self._task is not None
        measured = self._measure(work, began, length)
        if measured is None:
            return self._report(SLICE, began)
        if not measured.finite:
            return self._report(NON_FINITE, began, measured)
        work.verify()
        path, data = weights_path(self._task.number, self._task.attempt), work.weights()
        self._to_storage(path, data)
        sha256 = hashlib.sha256(data).hexdigest()
        report = self._report(END, began, measured, weights=path, weights_sha256=sha256)
        return dataclasses.replace(report, made_with=machine.made_with())

    def _to_storage(self, path: str, data: bytes) -> None:
        try:
            self._storage.write(path, data)
        except OSError as error:
            raise _UnwritableError(
                f"{self._storage.shown}/{path} cannot be written: {error}"
            ) from error

    def _from_storage(self, stored: Checkpoint) -> bytes:
        name = f"{self._storage.shown}/{stored.path}"
        try:
            return self._storage.read_stored(stored.path, stored.sha256)
        except DamagedFileError as error:
            raise _UnreadableError(
                f"{name} is damaged or half read ({error.size} bytes), other than it was stored"
            ) from error
        except OSError as error:
            raise _UnreadableError(f"{name} cannot be read: {error}") from error

    def _failed(self, error: Exception, began: float) -> SliceReport:
        kind = ERROR
        if isinstance(error, _UnreadableError):
            kind = UNREADABLE
        elif isinstance(error, _UnwritableError):
            kind = UNWRITABLE
        elif machine.is_out_of_memory(error):
            kind = OUT_OF_MEMORY
        elif _is_of_the_gpu(error):
            kind = DEVICE_FAILED
        return self._report(kind, began, error=error)

    def _next_rung(self, step: int) -> int:
        return next(rung for rung in self._rungs if rung > step)

    def _checkpoint_interval(self, work: Work) -> float:
        return max(self._lengths.checkpoint_seconds, CHECKPOINT_FRACTION * self._full_length(work))

    def _slice_length(self, work: Work) -> float:
        wanted = min(SLICE_FRACTION * self._full_length(work), LONGEST_SLICE)
        return max(self._lengths.slice_seconds, wanted)

    def _full_length(self, work: Work) -> float:
        """Return how many seconds the whole training takes, as far as one can tell."""
        steps = work.step - self._first_step
        if steps == 0:
            return 0.0
        return (self._clock() - self._began) / steps * self._rungs[-1]

    def _report(
        self,
        kind: str,
        began: float,
        measured: Measured | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        weights: str | None = None,
        weights_sha256: str | None = None,
        error: Exception | None = None,
    ) -> SliceReport:
        assert self._task is not None
        return SliceReport(
            number=self._task.number,
            attempt=self._task.attempt,
            step=self._work.step if self._work is not None else 0,
            kind=kind,
            seconds=self._clock() - began,
            value=measured.value if measured and measured.finite else None,
            details=measured.details if measured else {},
            checkpoint=checkpoint,
            weights=weights,
            weights_sha256=weights_sha256,
            reason=None if error is None else _one_line(error),
            error=None if error is None else "".join(traceback.format_exception(error)),
            host=socket.gethostname(),
        )


def trial_folder(number: int) -> str:
    """Return where a trial's files are, below the storage's root."""
    return f"{TRIALS}/{number:04d}"


def attempt_folder(number: int, attempt: int) -> str:
    """Return where one attempt's checkpoints are: no attempt writes into another's folder."""
    return f"{trial_folder(number)}/attempt-{attempt}"


def weights_path(number: int, attempt: int) -> str:
    """Return where an attempt stores the evaluated network."""
    return f"{trial_folder(number)}/weights-{attempt}.safetensors"


def is_of_an_attempt(name: str) -> bool:
    """Return whether a name in a trial's folder is one that an attempt's worker gives."""
    return name.startswith(("attempt-", "weights-"))


class _StorageError(Exception):
    """Its message says which file, and what the storage said."""


class _UnreadableError(_StorageError):
    """The storage did not give a trial's checkpoint back, or not as it was stored."""


class _UnwritableError(_StorageError):
    """The storage did not take a file: no trial's fault."""


def ends_the_worker(report: SliceReport) -> bool:
    """Return whether a worker shall run no other trial after this.

    Its storage or its GPU failed, which may be its node's fault; and after an illegal access or a failed
    assertion on a GPU every later call of that process fails, too.
    """
    return report.kind in OF_THE_PLACE


def _one_line(error: Exception) -> str:
    """Return an exception's type and the first line of its message; of ours the message says it all."""
    message = str(error).strip().splitlines()
    if isinstance(error, _StorageError):
        return message[0]
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__


def _is_of_the_gpu(error: Exception) -> bool:
    """Return whether a call on a GPU failed, of whatever library."""
    named = any(kind.__name__ == "AcceleratorError" for kind in type(error).__mro__)
    return named or any(words in str(error) for words in GPU_WORDS)
