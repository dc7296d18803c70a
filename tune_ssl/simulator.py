"""A search without training: the real study on a virtual clock, for tests and benchmarks.

``simulate`` drives a ``SearchStudy`` as Ray would: a number of slots, each running one trial
from rung to rung; values come from a function instead of a network. ``replay`` lets a study go
through a journal again and compares what it suggests and decides with what is written there.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from search_spaces.joint import Suggestion
from tune_ssl.journal import MemoryJournal
from tune_ssl.study import ATTEMPT, REASON, RESULT, Assignment, SearchStudy, Verdict

Curve = Callable[[Suggestion, int], float]
"""(what was suggested, step) -> validation accuracy of that trial at that step."""


class Searched(Protocol):
    """What is simulated: a ``SearchStudy``, or one with its driver in front of it."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """See ``SearchStudy``."""

    def next(self) -> Assignment | None:
        """See ``SearchStudy``."""

    def start(self, number: int, attempt: int) -> None:
        """See ``SearchStudy``."""

    def report(self, number: int, attempt: int, step: int, value: float) -> Verdict:
        """See ``SearchStudy``."""

    def complete(
        self, number: int, attempt: int, value: float, result: Mapping[str, Any]
    ) -> Verdict:
        """See ``SearchStudy``."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened at a time of the virtual clock.

    ``verdict`` is that of a report; None when a trial starts.
    """

    seconds: float
    number: int
    step: int
    value: float | None
    verdict: Verdict | None


@dataclass(frozen=True, kw_only=True)
class DriverTime:
    """How long the driver is busy with what it is told, one thing after another, in seconds.

    Args:
        stopwatch: read before and after each call of the study; ``time.perf_counter`` to measure.
        start: added whenever a trial is handed out.
        result: added whenever a trial returns from a slice.
        slice_length: how long a slice is, where no rung ends it.
    """

    stopwatch: Callable[[], float] = lambda: 0.0
    start: float = 0.0
    result: float = 0.0
    slice_length: float = math.inf


@dataclass(order=True)
class _Running:
    """A trial that will be heard of next ``at`` a time, ``left`` seconds before its next rung."""

    at: float
    order: int
    assignment: Assignment
    rung: int
    left: float


def simulate(
    study: Searched,
    curve: Curve,
    *,
    slots: int,
    seconds_per_step: float = 1.0,
    driver: DriverTime | None = None,
) -> list[Event]:
    """Run a study to its end and return what happened, in order of the virtual clock.

    Without ``driver`` the driver takes no time. With it a trial waits until the driver has heard
    it, and a free slot until it is given a trial; results and starts take turns, as Tune has it.
    """
    return _Simulation(study, curve, slots, seconds_per_step, driver or DriverTime()).run()


class _Simulation:
    def __init__(
        self, study: Searched, curve: Curve, slots: int, seconds_per_step: float, driver: DriverTime
    ) -> None:
        self._study = study
        self._curve = curve
        self._slots = slots
        self._seconds_per_step = seconds_per_step
        self._driver = driver
        self._now = 0.0
        self._order = 0
        self._running: list[_Running] = []
        self._events: list[Event] = []

    def run(self) -> list[Event]:
        left = heard = True
        while left or self._running:
            quiet = not self._running or self._running[0].at > self._now
            if left and len(self._running) < self._slots and (heard or quiet):
                left, heard = self._start(), False
            elif self._running:
                self._hear(heapq.heappop(self._running))
                heard = True
        return self._events

    def _start(self) -> bool:
        """Hand out a trial; return whether there was one."""
        began = self._driver.stopwatch()
        assignment = self._study.next()
        if assignment is None:
            return False
        self._study.start(assignment.number, assignment.attempt)
        self._now += self._driver.stopwatch() - began + self._driver.start
        self._note(assignment.number, 0, None, None)
        self._go_on(assignment, 0, self._study.rungs[0] * self._seconds_per_step)
        return True

    def _hear(self, trial: _Running) -> None:
        """Take a trial's result, which may have waited, and let the trial go on."""
        self._now = max(self._now, trial.at) + self._driver.result
        if trial.left > 0:
            self._go_on(trial.assignment, trial.rung, trial.left)
            return
        rungs, assignment = self._study.rungs, trial.assignment
        step = rungs[trial.rung]
        value = self._curve(assignment.suggestion, step)
        began = self._driver.stopwatch()
        if trial.rung + 1 == len(rungs):
            verdict = self._study.complete(assignment.number, assignment.attempt, value, {})
        else:
            verdict = self._study.report(assignment.number, assignment.attempt, step, value)
        self._now += self._driver.stopwatch() - began
        self._note(assignment.number, step, value, verdict)
        if verdict is Verdict.CONTINUE:
            steps = rungs[trial.rung + 1] - step
            self._go_on(assignment, trial.rung + 1, steps * self._seconds_per_step)

    def _go_on(self, assignment: Assignment, rung: int, left: float) -> None:
        length = min(left, self._driver.slice_length)
        trial = _Running(self._now + length, self._order, assignment, rung, left - length)
        heapq.heappush(self._running, trial)
        self._order += 1

    def _note(self, number: int, step: int, value: float | None, verdict: Verdict | None) -> None:
        self._events.append(
            Event(seconds=self._now, number=number, step=step, value=value, verdict=verdict)
        )


class ReplayError(AssertionError):
    """A study did otherwise than its journal says."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How much of a journal a study did again, each time as it is written there."""

    suggestions: int
    decisions: int


def replay(
    records: Sequence[Mapping[str, Any]], make: Callable[[MemoryJournal], SearchStudy]
) -> Replayed:
    """Let a study suggest and decide again, in recorded order, and compare record by record.

    What came from outside (queued trials, checkpoints, values, interruptions) is taken from the
    journal. Where a driver was killed inside a suggestion or a decision, the half of it that is
    written must be the same, and a new study goes on from there, as the next driver's did.

    Args:
        records: of the journal, as Optuna's backends read them.
        make: returns the study on a journal, with the settings of the recorded one.

    Raises:
        ReplayError: the first difference, with the number of the record.
    """
    journal = _RecordedJournal(records)
    while journal.left() and journal.ahead()["op_code"] in _OF_THE_STUDY:
        journal.take()
    study = make(journal)
    suggestions = decisions = 0
    while journal.left():
        record = journal.ahead()
        journal.begin_event()
        try:
            if _is_suggested(record):
                study.next()
                suggestions += 1
            elif "intermediate_value" in record:
                decisions += _reported(study, journal, record)
            elif REASON in record.get("user_attr", {}):
                _ended(study, journal, record)
            else:
                journal.take()
        except _DriverKilledError:
            study = make(journal)
    return Replayed(suggestions=suggestions, decisions=decisions)


_OF_THE_STUDY = (
    JournalOperation.CREATE_STUDY,
    JournalOperation.SET_STUDY_USER_ATTR,
    JournalOperation.SET_STUDY_SYSTEM_ATTR,
)
_STAMPS = ("worker_id", "datetime_start", "datetime_complete")


class _DriverKilledError(Exception):
    """The driver that wrote the records so far wrote no more, inside an event."""


class _RecordedJournal(MemoryJournal):
    """A journal that takes a record only where the recorded one has the same."""

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._records = records
        self._event_began = 0

    def begin_event(self) -> None:
        """Note that the next record is the first of what one driver wrote in one piece."""
        self._event_began = len(self._logs)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        for log in logs:
            recorded = self.ahead() if self.left() else {}
            if _without_stamps(log) != _without_stamps(recorded):
                if self.killed():
                    raise _DriverKilledError
                raise ReplayError(f"record {len(self._logs)} is {recorded}, and now {log}")
            self._logs.append(log)

    def killed(self) -> bool:
        """Return whether the event has records, and the next one is not its driver's."""
        if len(self._logs) == self._event_began:
            return False
        return not self.left() or _driver(self.ahead()) != _driver(self.ahead(-1))

    def left(self) -> bool:
        return len(self._logs) < len(self._records)

    def ahead(self, by: int = 0) -> dict[str, Any]:
        place = len(self._logs) + by
        return dict(self._records[place]) if place < len(self._records) else {}

    def take(self) -> None:
        """Let the next record be as it is."""
        self._logs.append(self.ahead())


def _driver(record: Mapping[str, Any]) -> str:
    """Return which process wrote a record: Optuna adds the thread."""
    process, _, _ = record["worker_id"].rpartition("-")
    return str(process)


def _without_stamps(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _STAMPS}


def _is_suggested(record: Mapping[str, Any]) -> bool:
    """Return whether a record begins a suggestion: of a new trial, or of one that waited."""
    running = bool(record.get("state", TrialState.RUNNING) == TrialState.RUNNING)
    created = record["op_code"] == JournalOperation.CREATE_TRIAL
    return running and (created or "state" in record)


def _reported(study: SearchStudy, journal: _RecordedJournal, record: dict[str, Any]) -> int:
    """Report a recorded value again; return how many decisions that were."""
    number, attempt = _trial_of(study, record)
    if record["step"] == study.rungs[-1]:
        result = journal.ahead(1).get("system_attr", {}).get(RESULT)
        study.complete(number, attempt, record["intermediate_value"], result or {})
        return 0
    study.report(number, attempt, record["step"], record["intermediate_value"])
    return 1


def _ended(study: SearchStudy, journal: _RecordedJournal, record: dict[str, Any]) -> None:
    number, attempt = _trial_of(study, record)
    if journal.ahead(1).get("values"):  # cut at a rung, told again after a driver was killed there
        step, value = max(study.get_trial(number).intermediate_values.items())
        study.report(number, attempt, step, value)
        return
    failed = journal.ahead(1).get("state") == TrialState.FAIL
    end = study.fail if failed else study.prune_without_value
    end(number, attempt, record["user_attr"][REASON])


def _trial_of(study: SearchStudy, record: Mapping[str, Any]) -> tuple[int, int]:
    """Return number and attempt of a record's trial; in a journal of one study its id is its number."""
    trial = study.get_trial(record["trial_id"])
    return trial.number, trial.system_attrs[ATTEMPT]
