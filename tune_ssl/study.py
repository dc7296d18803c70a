"""The study: what happened to every trial, told to the journal the moment it happens.

``SearchStudy`` is the only writer. Ray, the simulator and the tests hand it events and act on its
answers; none of them keeps a state of its own that a resume would miss.

How a trial ends: full length COMPLETE; cut at a rung PRUNED with its last value; a loss that is
not finite, or too little device memory, PRUNED without a value (not FAIL: the sampler ignores
FAIL and would go back there); interrupted WAITING, under its own number, to be continued from
its last checkpoint; an exception FAIL.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.joint import DefaultTrial, Space, Suggestion
from ssl_core.errors import UserError
from tune_ssl.asha import RungDecision, decide
from tune_ssl.journal import MemoryJournal, RunJournal, SearchStorage
from tune_ssl.sampler import make_sampler
from tune_ssl.warm_start import WarmStart

ATTEMPTS_WITHOUT_PROGRESS = 3

# Attributes of a trial that people read; the optuna dashboard shows them.
DEFAULT = "published default"
FOREIGN = "started from"
STARTED = "started"
REASON = "reason"
SECONDS = "device seconds"
RUNG = "rung"  # followed by the step

METRIC_NAMES = "study:metric_names"
"""The study's attribute in which Optuna keeps what its values are called; its dashboard shows it."""

WARM_START = "tune_ssl:warm_start"
"""The study's attribute that holds the trials of an earlier run, see ``tune_ssl.warm_start``."""

# Attributes of a trial that only we read.
ATTEMPT = "tune_ssl:attempt"
BEGAN_AT = "tune_ssl:began_at"
CHECKPOINT = "tune_ssl:checkpoint"
WITHOUT_PROGRESS = "tune_ssl:attempts_without_progress"
RESULT = "tune_ssl:result"
NO_RESULT = "tune_ssl:no_result"
"""Which attempt of a trial that all others need had no result, and why; see ``why_held``."""

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce the study's creation


class Verdict(enum.Enum):
    """What the reporter of a value shall do."""

    CONTINUE = "continue"
    STOP = "stop"
    STALE = "stale"
    """The report is of an attempt that is over; drop it and stop its sender."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A stored training state. It exists from the moment the journal names it.

    ``attempt`` is the one that stored it; ``path`` is relative to the run's storage.
    """

    path: str
    step: int
    sha256: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial handed out to be run, for the attempt-th time."""

    number: int
    attempt: int
    suggestion: Suggestion
    checkpoint: Checkpoint | None


@dataclass(frozen=True, kw_only=True)
class FirstTrial:
    """Parameters that shall be tried early, and what is said of where they come from."""

    params: Mapping[str, Any]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many trials are in which condition; ``asked`` is the search's goal."""

    asked: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int

    @property
    def finished(self) -> int:
        """Those that will not be run again, however they ended."""
        return self.complete + self.pruned + self.failed


class SearchStudy:
    """One search's study.

    Args:
        journal: where it is written; an in-memory storage of Optuna's would lose waiting trials.
        space: what is searched.
        name: of a new study, as a dashboard shows it.
        trials: how many shall finish.
        seed: of the sampler.
        rungs: steps at which values are reported; the last is the full length.
        reduction_factor: of ASHA; None to let every trial run to the end.
        sampler: ``tpe`` or ``random``.
        warm_start: returns what a new study takes from an earlier run; a study that has begun
            keeps what it took.
        all_needed: without the result of every trial those of the others are worth nothing. One that would
            end as FAIL is held instead: ``missing`` says why, by its number, and it is handed out again
            when the study is next opened.
    """

    def __init__(
        self,
        journal: RunJournal | MemoryJournal,
        space: Space,
        *,
        name: str,
        trials: int,
        seed: int,
        rungs: tuple[int, ...],
        reduction_factor: int | None,
        sampler: str = "tpe",
        warm_start: Callable[[], WarmStart | None] = lambda: None,
        all_needed: bool = False,
    ) -> None:
        self.all_needed = all_needed
        self.missing: dict[int, str] = {}
        self.space = space
        self.trials = trials
        self.rungs = rungs
        self._reduction_factor = reduction_factor
        self._journal = journal
        self._storage = SearchStorage(journal)
        found = self._storage.get_all_studies()
        if found:
            name = found[0].study_name  # the run's folder may have been renamed since
        else:
            created = self._storage.create_new_study([StudyDirection.MAXIMIZE], name)
            self._storage.set_study_system_attr(created, METRIC_NAMES, ["validation accuracy"])
        self._id = self._storage.get_study_id_from_name(name)
        foreign = self._kept_warm_start(warm_start)
        self._study = optuna.load_study(
            storage=self._storage,
            study_name=name,
            sampler=make_sampler(
                sampler,
                seed,
                foreign=foreign.frozen(space) if foreign else (),
            ),
        )
        self._rung_values = self._recorded_rung_values()

    # What is in the study

    def get_trials(self) -> list[FrozenTrial]:
        """Return every trial, in order of its number; not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def get_trial(self, number: int) -> FrozenTrial:
        """Return one trial; not to be changed."""
        return self._storage.get_trial(self._trial_id(number))

    def counts(self) -> Counts:
        """Return how many trials are in which condition."""
        open_trials = self._storage.open_trials(self._id)
        return count(open_trials, self.trials, finished=self._storage.finished(self._id))

    def attributes(self) -> dict[str, Any]:
        """Return what was written about the whole study."""
        return self._storage.get_study_user_attrs(self._id)

    def set_attribute(self, key: str, value: Any) -> None:
        """Write a fact about the whole study."""
        self._storage.set_study_user_attr(self._id, key, value)

    # Before the first trial, and after an interruption

    def _kept_warm_start(self, take: Callable[[], WarmStart | None]) -> WarmStart | None:
        kept = self._storage.get_study_system_attrs(self._id).get(WARM_START)
        if kept is not None:
            return WarmStart.from_mapping(kept)
        taken = take()
        if taken is not None:
            self._storage.set_study_system_attr(self._id, WARM_START, taken.to_mapping())
        return taken

    def enqueue_first(self, first: Sequence[FirstTrial]) -> None:
        """Queue what shall be tried before anything is sampled.

        Where an earlier driver was killed while it queued them, only the rest are queued.
        """
        with self.together():
            for trial in list(first)[len(self.get_trials()) :]:
                self._study.enqueue_trial(dict(trial.params), user_attrs=dict(trial.attributes))

    def recover(self, reason: str) -> list[int]:
        """Put every running trial back to waiting, because nobody runs it; return their numbers."""
        running = [trial for trial in self.get_trials() if trial.state == TrialState.RUNNING]
        for trial in running:
            number, held = trial.number, trial.number in self.missing
            self.interrupt(number, self._attempt(trial), reason, counts=not held)
            if self.get_trial(number).state == TrialState.RUNNING:  # this was one time too many
                self._storage.set_trial_state_values(self._trial_id(number), TrialState.WAITING)
                del self.missing[number]
        return [trial.number for trial in running]

    # The life of a trial

    def together(self) -> AbstractContextManager[None]:
        """Write what happens in the body to the journal in one piece, when the body ends.

        Nothing of it may be acted on before.
        """
        return self._journal.together()

    def next(self) -> Assignment | None:
        """Return the next trial to run: a waiting one first, else a new one, None if none is left."""
        running = sum(t.state == TrialState.RUNNING for t in self._storage.open_trials(self._id))
        if running + self._storage.finished(self._id).total() >= self.trials:
            return None
        with self.together():
            trial = self._study.ask()
            suggestion = self.space.suggest(trial)
            frozen = self.get_trial(trial.number)
            attempt = self._attempt(frozen) + 1
            self._set_system_attribute(trial.number, ATTEMPT, attempt)
            stored = frozen.system_attrs.get(CHECKPOINT)
            if stored is not None:
                self._set_system_attribute(trial.number, BEGAN_AT, stored["step"])
        return Assignment(
            number=trial.number,
            attempt=attempt,
            suggestion=suggestion,
            checkpoint=Checkpoint(**stored) if stored else None,
        )

    def start(self, number: int, attempt: int) -> None:
        """Note that an attempt has begun to train and no longer waits for a device."""
        if self._is_current(number, attempt):
            self._set_attribute(number, STARTED, attempt)

    def report(self, number: int, attempt: int, step: int, value: float) -> Verdict:
        """Record the value at a rung below the full length and decide whether the trial goes on.

        A trial that is cut becomes PRUNED here. A rung that was decided before an interruption
        keeps its decision.
        """
        if not self._is_current(number, attempt):
            return Verdict.STALE
        if not math.isfinite(value):
            return self.prune_without_value(number, attempt, f"the value at step {step} is {value}")
        trial = self.get_trial(number)
        key = f"{RUNG} {step}"
        kept: bool
        if key in trial.user_attrs:
            kept = trial.user_attrs[key]["kept"]
        else:
            decision = self._decide(trial, step, value)
            self._storage.set_trial_intermediate_value(self._trial_id(number), step, value)
            self._rung_values.setdefault(step, {})[number] = value
            self._set_attribute(number, key, asdict(decision))
            kept = decision.kept
        if not kept:
            self._finish(
                number, TrialState.PRUNED, value, reason=f"below the cutoff at step {step}"
            )
        return Verdict.CONTINUE if kept else Verdict.STOP

    def name_checkpoint(self, number: int, attempt: int, checkpoint: Checkpoint) -> bool:
        """Record a stored checkpoint, from which the trial will be continued; False if stale."""
        if not self._is_current(number, attempt):
            return False
        self._set_system_attribute(number, CHECKPOINT, asdict(checkpoint))
        return True

    def forget_checkpoint(self, number: int) -> None:
        """Let a trial begin anew when it is next run, because its checkpoint is gone."""
        with self.together():
            self._set_system_attribute(number, CHECKPOINT, None)
            self._set_system_attribute(number, BEGAN_AT, 0)

    def add_seconds(self, number: int, seconds: float) -> None:
        """Add to the device time a trial has cost, over all its attempts."""
        before = self.get_trial(number).user_attrs.get(SECONDS, 0.0)
        self._set_attribute(number, SECONDS, round(before + seconds, 3))

    def complete(
        self, number: int, attempt: int, value: float, result: Mapping[str, Any]
    ) -> Verdict:
        """End a trial that reached the full length with its final value and result."""
        if not self._is_current(number, attempt):
            return Verdict.STALE
        if not math.isfinite(value):
            return self.prune_without_value(number, attempt, f"the final value is {value}")
        self._storage.set_trial_intermediate_value(self._trial_id(number), self.rungs[-1], value)
        self._set_system_attribute(number, RESULT, dict(result))
        self._finish(number, TrialState.COMPLETE, value)
        return Verdict.STOP

    def prune_without_value(self, number: int, attempt: int, reason: str) -> Verdict:
        """End a trial whose parameters do not work: a non-finite loss, too little memory."""
        if not self._is_current(number, attempt):
            return Verdict.STALE
        self._finish(number, TrialState.PRUNED, None, reason=reason)
        return Verdict.STOP

    def fail(self, number: int, attempt: int, reason: str) -> Verdict:
        """End a trial that raised an exception; it is not tried again, unless all are needed."""
        if not self._is_current(number, attempt):
            return Verdict.STALE
        self._give_up(number, reason)
        return Verdict.STOP

    def interrupt(self, number: int, attempt: int, reason: str, *, counts: bool = True) -> bool:
        """Put a running trial back to waiting, or FAIL it where attempts bring no progress.

        An attempt that never began to train does not count. Return whether it waits now.

        Args:
            counts: False where what went wrong is no trial's fault, as a full disk is.
        """
        if not self._is_current(number, attempt):
            return False
        with self.together():  # counted and waiting, or neither: a driver may be killed in between
            return self._interrupt(number, attempt, reason, counts)

    def _interrupt(self, number: int, attempt: int, reason: str, counts: bool) -> bool:
        trial = self.get_trial(number)
        stored = trial.system_attrs.get(CHECKPOINT)
        progressed = stored is not None and stored["step"] > trial.system_attrs.get(BEGAN_AT, 0)
        if (counts or progressed) and trial.user_attrs.get(STARTED) == attempt:
            without = 0 if progressed else int(trial.system_attrs.get(WITHOUT_PROGRESS, 0)) + 1
            self._set_system_attribute(number, WITHOUT_PROGRESS, without)
            if without >= ATTEMPTS_WITHOUT_PROGRESS:
                why = f"interrupted {without} times without a new checkpoint; last: {reason}"
                return self._give_up(number, why)
        self._storage.set_trial_state_values(self._trial_id(number), TrialState.WAITING)
        return True

    def _give_up(self, number: int, reason: str) -> bool:
        """End a trial without a result; where all are needed it is held, which is returned.

        It stays RUNNING, with nobody who runs it, until it is recovered.
        """
        if not self.all_needed:
            self._finish(number, TrialState.FAIL, None, reason=reason)
            return False
        with self.together():
            attempt = self._attempt(self.get_trial(number))
            self._set_system_attribute(number, NO_RESULT, {"attempt": attempt, "reason": reason})
            self._set_system_attribute(number, WITHOUT_PROGRESS, 0)
        self.missing[number] = reason
        return True

    # Below, the storage

    def _decide(self, trial: FrozenTrial, step: int, value: float) -> RungDecision:
        recorded = self._rung_values.get(step, {})
        earlier = [other for number, other in recorded.items() if number != trial.number]
        exempt = DEFAULT in trial.user_attrs
        if self._reduction_factor is None or exempt:
            return RungDecision(value=value, cutoff=None, population=len(earlier), kept=True)
        return decide(earlier, value, reduction_factor=self._reduction_factor)

    def _recorded_rung_values(self) -> dict[int, dict[int, float]]:
        recorded: dict[int, dict[int, float]] = {}
        for trial in self.get_trials():
            for step, value in trial.intermediate_values.items():
                recorded.setdefault(step, {})[trial.number] = value
        return recorded

    def _finish(
        self, number: int, state: TrialState, value: float | None, *, reason: str | None = None
    ) -> None:
        if reason is not None:
            self._set_attribute(number, REASON, reason)
        values = None if value is None else [value]
        self._storage.set_trial_state_values(self._trial_id(number), state, values)

    def _is_current(self, number: int, attempt: int) -> bool:
        trial = self.get_trial(number)
        return trial.state == TrialState.RUNNING and self._attempt(trial) == attempt

    @staticmethod
    def _attempt(trial: FrozenTrial) -> int:
        return int(trial.system_attrs.get(ATTEMPT, 0))

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _set_attribute(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._trial_id(number), key, value)

    def _set_system_attribute(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_system_attr(self._trial_id(number), key, value)


def first_trials(
    defaults: Iterable[DefaultTrial], trials: int, *, started_from: Sequence[FirstTrial] = ()
) -> list[FirstTrial]:
    """Return a study's first trials: the published defaults, then given ones.

    Defaults come in the order of their papers' divergences before converted ones, and are at
    most half of all trials but at least one. A given one that equals a default is that default.
    """
    ordered = sorted(defaults, key=lambda default: default.converted)
    published = [
        FirstTrial(params=default.params, attributes={DEFAULT: default.source})
        for default in ordered[: max(1, trials // 2)]
    ]
    known = [default.params for default in published]
    return [*published, *(start for start in started_from if start.params not in known)]


def why_held(trial: FrozenTrial) -> str | None:
    """Return why a trial's last attempt had no result, which others need; None where it is not held for that."""
    held: dict[str, Any] | None = trial.system_attrs.get(NO_RESULT)
    if held is None or trial.state not in (TrialState.RUNNING, TrialState.WAITING):
        return None
    reason: str = held["reason"]
    return reason if held["attempt"] == trial.system_attrs.get(ATTEMPT) else None


def is_running(trial: FrozenTrial) -> bool:
    """Return whether a trial is being trained, not waiting for a device, nor held."""
    begun = trial.user_attrs.get(STARTED) == trial.system_attrs.get(ATTEMPT)
    return trial.state == TrialState.RUNNING and begun and why_held(trial) is None


def device_seconds(trials: Iterable[FrozenTrial]) -> float:
    """Return the device time of trials, over all their attempts."""
    return float(sum(trial.user_attrs.get(SECONDS, 0.0) for trial in trials))


def count(
    trials: Iterable[FrozenTrial], asked: int, *, finished: Mapping[TrialState, int] | None = None
) -> Counts:
    """Return how many trials are in which condition; running are those that began to train.

    ``finished`` counts trials that are not among ``trials``.
    """
    states = Counter(finished)
    queued = 0
    for trial in trials:
        states[trial.state] += 1
        queued += trial.state == TrialState.RUNNING and not is_running(trial)
    return Counts(
        asked=asked,
        complete=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        running=states[TrialState.RUNNING] - queued,
        waiting=states[TrialState.WAITING] + queued,
    )


def read_trials(path: Path) -> tuple[list[FrozenTrial], dict[str, Any]]:
    """Return the trials and attributes of a study from its journal, which may be in use.

    Raises:
        UserError: there is no study in it.
    """
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # as its records are
        raise UserError(
            f"{path} is damaged ({error}); allowed: a journal as a search writes it; 'tune-ssl resume' mends "
            "a torn end, anything else needs a copy."
        ) from error
    studies = optuna.get_all_study_names(storage)
    if not studies:
        raise UserError(
            f"{path} holds no study yet; allowed: the journal of a search that has begun; try later."
        )
    study = optuna.load_study(study_name=studies[0], storage=storage)
    return study.get_trials(deepcopy=False), study.user_attrs
