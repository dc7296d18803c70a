"""The driver's side of a search: hands out trials, hears of them, writes everything down.

Knows nothing of Ray: whatever runs the workers asks ``next`` for a task, passes every report to
``handle`` and every loss to ``lost``, and stops what it is told to stop. State that a resume
needs is in the study; what is kept here serves the live view and the limits of this invocation.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search_spaces.joint import Suggestion
from tune_ssl.best import WEIGHTS_KEPT
from tune_ssl.run import RunConfig, RunDirectory, write_yaml
from tune_ssl.storage import DamagedFileError, RunStorage
from tune_ssl.study import (
    ATTEMPT,
    CHECKPOINT,
    RESULT,
    Assignment,
    Counts,
    SearchStudy,
    Verdict,
    device_seconds,
)
from tune_ssl.worker import (
    DEVICE_FAILED,
    END,
    ERROR,
    NON_FINITE,
    OUT_OF_MEMORY,
    RUNG,
    SLICE,
    TRIALS,
    UNREADABLE,
    UNWRITABLE,
    SliceReport,
    Task,
    attempt_folder,
    is_of_an_attempt,
    weights_path,
)

HOPELESS_AFTER = 3
LOST_AFTER = 3
"""Failures of a storage or a GPU on one node, with no success between, until it counts as lost."""
UNCOUNTED_FAILURES = 3
"""Failures of one trial's files, while others' are taken, that are not counted against the trial."""
STORAGE = "the storage"
TIME_LIMIT = "time limit reached"
TOO_LITTLE_MEMORY = "the device had too little memory"


@dataclass
class RunningTrial:
    """A trial handed out, as far as this driver has heard; ``started`` when a worker has it.

    ``began_at`` is the step of the checkpoint that this attempt goes on from.
    """

    attempt: int
    algorithm: str
    divergence: str | None
    step: int
    began_at: int
    value: float | None
    host: str
    heard_at: float
    slice_seconds: float
    started: bool = False
    stored: str | None = None
    unwritten_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What ends this invocation before all trials are finished; None for no limit.

    ``seconds`` are wall clock of this invocation, ``device_seconds`` those of all trials ever.
    """

    seconds: float | None = None
    device_seconds: float | None = None


class SearchDriver:
    """One invocation of a search.

    Args:
        study: the truth.
        directory: the run's folder, for what people read.
        storage: checkpoints and weights, written by workers, tidied here.
        record: makes a trial's flat configuration of its number and what was suggested; None for
            a search's, of ``config`` and a seed of the number's own.
        headline: says in a line what the trials show; None for the best so far.
        weights_kept: so many of the best keep their weights; None for all.
        began: when the invocation began, by the clock; None for now.
        exclude: takes a node where trials fail that is not their fault, why, and whether it cannot prove
            that this is over; gives it no more trials and returns True, or False where no other node is
            left. None: there is no other.
    """

    def __init__(
        self,
        study: SearchStudy,
        config: RunConfig,
        directory: RunDirectory,
        storage: RunStorage,
        *,
        record: Callable[[int, Suggestion], dict[str, Any]] | None = None,
        headline: Callable[[Sequence[FrozenTrial]], str] | None = None,
        weights_kept: int | None = WEIGHTS_KEPT,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
        exclude: Callable[[str, str, bool], bool] | None = None,
    ) -> None:
        self.study = study
        self.config = config
        self.headline = headline
        self.running: dict[int, RunningTrial] = {}
        self.draining: str | None = None
        self._drained_at = 0.0
        self.hopeless: str | None = None
        self.stopped_by: str | None = None
        self.limit_reached = False
        self.used_up = False
        self._directory = directory
        self._storage = storage
        self._record = record or self._searched
        self._weights_kept = weights_kept
        self._limits = limits or Limits()
        self._clock = clock
        self._began = clock() if began is None else began
        self._weights_dropped: set[int] = set()
        self._failures: Counter[str] = Counter()
        self._exclude = exclude or (lambda node, why, for_good: False)
        self._files_stored = 0
        self._failed_in_a_row: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._files_at_failures: defaultdict[int, set[int]] = defaultdict(set)
        self._device_seconds = device_seconds(study.get_trials())

    def tidy(self) -> None:
        """Remove what an earlier driver, killed at the wrong moment, left of finished trials."""
        stored: dict[int, set[str]] = {}
        for path in self._storage.files(TRIALS):
            folder, *below = path.split("/")
            if below and is_of_an_attempt(below[0]):
                stored.setdefault(int(folder), set()).add(f"{TRIALS}/{folder}/{below[0]}")
        for trial in self.study.get_trials():
            if trial.state.is_finished():
                for path in stored.get(trial.number, set()) - {_named_weights(trial)}:
                    self._delete(path)

    # Asked by whoever runs the workers

    @property
    def storage_root(self) -> str:
        """Where checkpoints and weights are; no two runs share it."""
        return self._storage.root

    def next(self) -> Task | None:
        """Return the next trial to run; None where none is left or the search is draining."""
        if self.draining:
            return None
        assignment = self.study.next()
        return None if assignment is None else self._task(assignment)

    def finished(self) -> bool:
        """Return whether nothing more will be handed out."""
        if self.draining is not None:
            return True
        if self.running:  # then one is not finished: no need to count thousands that are
            return False
        return self.counts().finished + len(self.study.missing) >= self.study.trials

    def started(self, number: int, attempt: int) -> None:
        """Note that a worker has taken a trial up."""
        self.study.start(number, attempt)
        trial = self.running.get(number)
        if trial is not None and trial.attempt == attempt:
            trial.heard_at = self._clock()
            trial.started = True
        self._log("started", number, attempt)

    def handle(self, report: SliceReport) -> Verdict:
        """Write down what a worker reported and say whether its trial goes on."""
        trial = self.running.get(report.number)
        if trial is None or trial.attempt != report.attempt:
            return Verdict.STALE
        if report.kind == SLICE and report.checkpoint is None:  # nothing the journal shall know
            self._hear(trial, report)
            return Verdict.CONTINUE
        with self.study.together():
            self._hear(trial, report)
            if report.checkpoint is not None:
                self.study.name_checkpoint(report.number, report.attempt, report.checkpoint)
            verdict = self._verdict(report)
        if report.value is not None:
            self._write_metrics(report)
        if verdict is Verdict.STOP:
            self._retire(report.number)
        return verdict

    def lost(self, number: int, attempt: int, reason: str) -> None:
        """Put a trial whose worker, node or connection is gone back to waiting."""
        trial = self.running.get(number)
        if trial is None or trial.attempt != attempt:
            return
        self.study.start(number, attempt)  # an attempt that could not start counts, too
        self._interrupt(number, attempt, reason, counts=self.draining is None)
        self._retire(number)

    def take_back(self, number: int, attempt: int) -> None:
        """Take back a trial that no worker has taken up, to hand it out again."""
        trial = self.running.get(number)
        if trial is not None and trial.attempt == attempt and not trial.started:
            self.study.interrupt(number, attempt, "taken back")
            del self.running[number]

    def silent(self, seconds_allowed: float) -> list[int]:
        """Return trials not heard of for longer than allowed, and than ten of their slices."""
        now = self._clock()
        return [
            number
            for number, trial in self.running.items()
            if trial.started
            and now - trial.heard_at > max(seconds_allowed, 10 * trial.slice_seconds)
        ]

    # Ending

    def drain(self, reason: str) -> None:
        """Hand out nothing more; what runs shall be stored and interrupted."""
        if self.draining is None:
            self.draining = reason
            self._drained_at = self._clock()
            self._directory.log_event("draining", reason=reason)

    def drain_seconds(self) -> float:
        """Return seconds since draining began."""
        return self._clock() - self._drained_at if self.draining else 0.0

    def check_limits(self) -> None:
        """Begin to drain where a limit of this invocation is reached."""
        limits = self._limits
        if limits.seconds is not None and self.elapsed() >= limits.seconds:
            self.limit_reached = True
            self.drain(TIME_LIMIT)
        if limits.device_seconds is not None and self.device_seconds() >= limits.device_seconds:
            self.limit_reached = self.used_up = True
            self.drain("device time used up")

    def store_and_interrupt(self, number: int, attempt: int, checkpoint: Any) -> None:
        """Interrupt a draining trial whose worker has just stored a checkpoint, or could not.

        However little it had done: draining is no trial's fault.
        """
        if checkpoint is not None:
            self.study.name_checkpoint(number, attempt, checkpoint)
        self._interrupt(number, attempt, self.draining or "drained", counts=False)
        self._retire(number)

    def close(self, reason: str) -> None:
        """Leave nothing running: every trial still out goes back to waiting."""
        for number, trial in list(self.running.items()):
            self._interrupt(number, trial.attempt, reason, counts=self.draining is None)
            self._retire(number)
        self.study.recover(reason)

    # What the live view shows

    @property
    def name(self) -> str:
        """The run's name."""
        return self._directory.name

    def counts(self) -> Counts:
        """Return how many trials are in which condition."""
        return self.study.counts()

    def progress(self) -> float:
        """Return the share of its trials that have finished, or of its device time that is used if that is more."""
        counts, limit = self.counts(), self._limits.device_seconds
        used = 0.0 if limit is None else self.device_seconds() / limit
        return min(1.0, max(counts.finished / counts.asked, used))

    def elapsed(self) -> float:
        """Return seconds since this invocation began."""
        return self._clock() - self._began

    def seconds_allowed(self) -> float:
        """Return seconds until the time limit of this invocation, inf without one."""
        seconds = self._limits.seconds
        return math.inf if seconds is None else max(0.0, seconds - self.elapsed())

    def device_seconds(self) -> float:
        """Return device time of all trials ever, in seconds."""
        return self._device_seconds

    @property
    def device_seconds_limit(self) -> float | None:
        """Device time after which the search ends, in seconds; None without such a limit."""
        return self._limits.device_seconds

    # Below, one report

    def _task(self, assignment: Assignment) -> Task:
        number, suggestion = assignment.number, assignment.suggestion
        record = self._record(number, suggestion)
        folder = self._directory.trial_path(number)
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / "config.yaml", record)
        step = assignment.checkpoint.step if assignment.checkpoint else 0
        self.running[number] = RunningTrial(
            attempt=assignment.attempt,
            algorithm=suggestion.algorithm,
            divergence=suggestion.divergence,
            step=step,
            began_at=step,
            value=None,
            host="",
            heard_at=self._clock(),
            slice_seconds=0.0,
        )
        return Task(
            number=number,
            attempt=assignment.attempt,
            record=record,
            storage=self.storage_root,
            checkpoint=assignment.checkpoint,
        )

    def _searched(self, number: int, suggestion: Suggestion) -> dict[str, Any]:
        return self.config.search_record(number, suggestion)

    def _hear(self, trial: RunningTrial, report: SliceReport) -> None:
        trial.heard_at = self._clock()
        trial.step = report.step
        trial.host = report.host
        trial.value = report.value if report.value is not None else trial.value
        trial.slice_seconds = max(trial.slice_seconds, report.seconds)
        self._hear_of_files(trial, report)
        trial.unwritten_seconds += report.seconds
        self._device_seconds += report.seconds
        if report.kind != SLICE or report.checkpoint is not None:
            self._write_seconds(report.number)

    def _hear_of_files(self, trial: RunningTrial, report: SliceReport) -> None:
        """Note that the storage took a file: not where a checkpoint is reported a second time."""
        path = report.weights or (report.checkpoint.path if report.checkpoint else None)
        if path is not None and path != trial.stored:
            trial.stored = path
            self._files_stored += 1
            self._failed_in_a_row.pop((report.node, STORAGE), None)
            if report.step > trial.began_at:
                self._failed_in_a_row.pop((report.node, _gpu(report)), None)

    def _verdict(self, report: SliceReport) -> Verdict:
        number, attempt, value = report.number, report.attempt, report.value
        if report.kind == RUNG:
            assert value is not None
            return self.study.report(number, attempt, report.step, value)
        if report.kind == END:
            assert value is not None
            result = {
                **report.details,
                "weights": report.weights,
                "weights_sha256": report.weights_sha256,
                "host": report.host,
                "made_with": dict(report.made_with),
            }
            return self.study.complete(number, attempt, value, result)
        if report.kind == NON_FINITE:
            reason = f"the loss was not finite by step {report.step}"
            return self.study.prune_without_value(number, attempt, reason)
        if report.kind == OUT_OF_MEMORY:
            # Trials that share a GPU have their share of its memory: this one needs more than that.
            reason = f"{TOO_LITTLE_MEMORY} at step {report.step}"
            if self.study.all_needed:
                return self._failed(report, reason, alike=TOO_LITTLE_MEMORY)
            return self.study.prune_without_value(number, attempt, reason)
        if report.kind == DEVICE_FAILED:
            self._device_failed(report)
            return Verdict.STOP
        if report.kind in (UNREADABLE, UNWRITABLE):
            self._storage_failed(report)
            return Verdict.STOP
        if report.kind == ERROR:
            return self._failed(report, report.reason or "an unknown error")
        return Verdict.CONTINUE

    def _failed(self, report: SliceReport, reason: str, *, alike: str | None = None) -> Verdict:
        """End a trial without a result; ``alike`` is what such reasons have in common, None where they are equal."""
        self._write_error(report)
        verdict = self.study.fail(report.number, report.attempt, reason)
        self._give_up_if_hopeless(alike or reason)
        return verdict

    def _write_error(self, report: SliceReport) -> None:
        folder = self._directory.trial_path(report.number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(report.error or "no traceback")

    def _give_up_if_hopeless(self, reason: str) -> None:
        """Drain where this invocation saw a failure often and the study never saw a success."""
        self._failures[reason] += 1
        counts = self.counts()
        if self._failures[reason] >= HOPELESS_AFTER and counts.complete + counts.pruned == 0:
            self.hopeless = reason
            self.drain(f"{self._failures[reason]} trials failed alike and none succeeded: {reason}")

    def _device_failed(self, report: SliceReport) -> None:
        """Put a trial back to waiting for which a call on a GPU failed.

        It counts against the trial while no other has failed on that GPU.
        """
        self._write_error(report)
        reason = report.reason or report.kind
        alone = self._failed_there(report, _gpu(report), reason)
        if not self._interrupt(report.number, report.attempt, reason, counts=alone):
            self._give_up_if_hopeless(reason)

    def _storage_failed(self, report: SliceReport) -> None:
        """Put a trial back to waiting whose files the storage does not take, or not give back.

        That is no trial's fault, unless it fails for this one again and again while others' files are
        taken in between. A checkpoint that the driver does not find either, or finds damaged, is
        gone: its trial begins anew.
        """
        number, reason = report.number, report.reason or report.kind
        found = self._checkpoint_found(number) if report.kind == UNREADABLE else True
        if found is not False:
            self._failed_there(report, STORAGE, reason, whoever=True)
        if not found:
            self.study.forget_checkpoint(number)
        failures = self._files_at_failures[number]
        failures.add(self._files_stored)
        self._interrupt(number, report.attempt, reason, counts=len(failures) > UNCOUNTED_FAILURES)

    def _failed_there(
        self, report: SliceReport, what: str, reason: str, *, whoever: bool = False
    ) -> bool:
        """Note a failure; at the last allowed in a row exclude the node, or drain where it is the only one.

        Args:
            whoever: the same trial may fail each time; else a thing is lost when two have failed.

        Returns:
            Whether no other trial has failed there since the last success.
        """
        trials = self._failed_in_a_row[report.node, what]
        trials.append(report.number)
        alone = set(trials) == {report.number}
        if len(trials) < LOST_AFTER or (alone and not whoever):
            return alone
        why = f"{what} failed {len(trials)} times in a row: {reason}"
        if self._exclude(report.node, why, what != STORAGE):
            del self._failed_in_a_row[report.node, what]
        else:
            self.stopped_by = self.stopped_by or why
            self.drain(why)
        return alone

    def _checkpoint_found(self, number: int) -> bool | None:
        """Return whether the driver can read a trial's checkpoint: None where nothing is there.

        False where it is damaged. A storage that does not answer may have it.
        """
        stored = self.study.get_trial(number).system_attrs[CHECKPOINT]
        try:
            self._storage.read_stored(stored["path"], stored["sha256"])
        except FileNotFoundError:
            return None
        except DamagedFileError:
            return False
        except OSError:
            pass
        return True

    def _interrupt(self, number: int, attempt: int, reason: str, *, counts: bool = True) -> bool:
        """Return whether the trial waits now, or has had its attempts."""
        self._write_seconds(number)
        counts = counts and self.stopped_by is None
        waits = self.study.interrupt(number, attempt, reason, counts=counts)
        self.running.pop(number, None)
        self._log("waiting" if waits else "ended", number, attempt, reason=reason)
        return waits

    def _retire(self, number: int) -> None:
        """Tidy up after a trial that has ended: its checkpoints, and weights nobody will want."""
        trial = self.running.pop(number, None)
        finished = self.study.get_trial(number)
        if not finished.state.is_finished():  # interrupted, to be continued
            return
        if trial is not None:
            self._log("ended", number, trial.attempt, state=finished.state.name, value=trial.value)
        self._remove_leftovers(finished)
        if finished.state != TrialState.FAIL:  # of an attempt before
            (self._directory.trial_path(number) / "error.txt").unlink(missing_ok=True)
        if finished.state == TrialState.COMPLETE:
            self._keep_best_weights()

    def _remove_leftovers(self, trial: FrozenTrial) -> None:
        """Delete a finished trial's checkpoints, and weights of attempts that did not count."""
        for attempt in range(1, trial.system_attrs.get(ATTEMPT, 0) + 1):
            self._delete(attempt_folder(trial.number, attempt))
            weights = weights_path(trial.number, attempt)
            if weights != _named_weights(trial):
                self._delete(weights)

    def _delete(self, path: str) -> None:
        try:
            self._storage.delete(path)
        except OSError as error:  # a file that stays costs space, not the search
            self._directory.log_event("not deleted", path=path, reason=str(error))

    def _keep_best_weights(self) -> None:
        if self._weights_kept is None:
            return
        complete = [t for t in self.study.get_trials() if t.state == TrialState.COMPLETE]
        ranked = sorted(complete, key=lambda t: (-(t.value or 0.0), t.number))
        for trial in ranked[self._weights_kept :]:
            if trial.number not in self._weights_dropped:
                self._delete(trial.system_attrs[RESULT]["weights"])
                self._weights_dropped.add(trial.number)

    def _write_seconds(self, number: int) -> None:
        trial = self.running.get(number)
        if trial is not None and trial.unwritten_seconds > 0:
            self.study.add_seconds(number, trial.unwritten_seconds)
            trial.unwritten_seconds = 0.0

    def _write_metrics(self, report: SliceReport) -> None:
        shown = {key: value for key, value in report.details.items() if key != "correct"}
        line = {"step": report.step, "attempt": report.attempt, "value": report.value, **shown}
        with open(self._directory.trial_path(report.number) / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def _log(self, kind: str, number: int, attempt: int, **values: Any) -> None:
        self._directory.log_event(kind, trial=number, attempt=attempt, **values)


def _named_weights(trial: FrozenTrial) -> str | None:
    """Return where the study says a trial's weights are; None where it says nothing."""
    path: str | None = trial.system_attrs.get(RESULT, {}).get("weights")
    return path


def _gpu(report: SliceReport) -> str:
    return f"GPU {report.gpus}" if report.gpus else "the GPU"
