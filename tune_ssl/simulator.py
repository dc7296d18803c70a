"""A search without training: the real study on a virtual clock, for tests and benchmarks.

``simulate`` drives a ``SearchStudy`` as Ray would: a number of slots, each running one trial
from rung to rung; values come from a function instead of a network.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from search_spaces.joint import Suggestion
from tune_ssl.study import Assignment, SearchStudy, Verdict

Curve = Callable[[Suggestion, int], float]
"""(what was suggested, step) -> validation accuracy of that trial at that step."""


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


def simulate(
    study: SearchStudy, curve: Curve, *, slots: int, seconds_per_step: float = 1.0
) -> list[Event]:
    """Run a study to its end and return what happened, in order of the virtual clock."""
    events: list[Event] = []
    running: list[
        tuple[float, int, Assignment, int]
    ] = []  # (when, order, trial, rung reached then)
    now, order = 0.0, 0

    def start_trials() -> None:
        nonlocal order
        while len(running) < slots and (assignment := study.next()) is not None:
            study.start(assignment.number, assignment.attempt)
            events.append(
                Event(seconds=now, number=assignment.number, step=0, value=None, verdict=None)
            )
            when = now + study.rungs[0] * seconds_per_step
            heapq.heappush(running, (when, order, assignment, 0))
            order += 1

    start_trials()
    while running:
        now, _, assignment, rung = heapq.heappop(running)
        step = study.rungs[rung]
        value = curve(assignment.suggestion, step)
        if rung + 1 == len(study.rungs):
            verdict = study.complete(assignment.number, assignment.attempt, value, {})
        else:
            verdict = study.report(assignment.number, assignment.attempt, step, value)
        events.append(
            Event(seconds=now, number=assignment.number, step=step, value=value, verdict=verdict)
        )
        if verdict is Verdict.CONTINUE:
            when = now + (study.rungs[rung + 1] - step) * seconds_per_step
            heapq.heappush(running, (when, order, assignment, rung + 1))
            order += 1
        start_trials()
    return events
