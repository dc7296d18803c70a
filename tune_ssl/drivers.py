"""Several searches on the same workers: the next begins where those before have no trial left to hand out.

Whoever runs the workers asks ``Drivers`` and no driver itself; an ordinary search is one of one. A
comparison's cells are many: no worker waits for the last trials of one cell while another has not begun.

Knows nothing of Ray. A task says by its storage which driver it came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from tune_ssl.driver import RunningTrial, SearchDriver
from tune_ssl.study import Verdict
from tune_ssl.worker import SliceReport, Task

TrialKey = tuple[str, int]
"""Storage and number: which trial of which run."""


class Drivers:
    """Drivers in their order, each from when it is needed to when all its trials have ended.

    One that has used up its own device time ends alone; one that drains for any other reason takes all
    with it.

    Args:
        coming: gives the drivers, each opened when it is asked for.
        count: how many there are, with those that were done before.
        done: how many were.
        ended: is told of each that is over; what it raises ends all.
    """

    def __init__(
        self,
        coming: Iterator[SearchDriver],
        *,
        count: int = 1,
        done: int = 0,
        ended: Callable[[SearchDriver], None] = lambda driver: None,
    ) -> None:
        self.open: list[SearchDriver] = []
        self.count = count
        self.done_here = 0
        self.draining: str | None = None
        self._done_before = done
        self._coming: Iterator[SearchDriver] | None = coming
        self._ended = ended
        self._seconds_of_ended = 0.0

    @classmethod
    def of(cls, driver: SearchDriver) -> Drivers:
        """Return the drivers where there is one, which is open."""
        drivers = cls(iter([driver]))
        drivers.open_next()
        return drivers

    def open_next(self) -> SearchDriver | None:
        """Open the next driver; None where none is left. Opened while a signal came, it drains."""
        driver = None if self._coming is None else next(self._coming, None)
        if driver is None:
            self._coming = None
            return None
        self.open.append(driver)
        if self.draining:
            driver.drain(self.draining)
        return driver

    # Asked by whoever runs the workers

    def next(self) -> Task | None:
        """Return the next trial to run, of the first driver that has one; None where there is none now."""
        for driver in self._in_turn():
            task = driver.next()
            if task is not None:
                return task
        return None

    def finished(self) -> bool:
        """Return whether nothing more will be handed out."""
        if self.draining is not None:
            return True
        return self._coming is None and all(driver.finished() for driver in self.open)

    def started(self, task: Task) -> None:
        """Note that a worker has taken a trial up."""
        driver = self._driver_of(task)
        if driver is not None:
            driver.started(task.number, task.attempt)

    def handle(self, task: Task, report: SliceReport) -> Verdict:
        """Write down what a worker reported and say whether its trial goes on."""
        driver = self._driver_of(task)
        return Verdict.STALE if driver is None else driver.handle(report)

    def lost(self, task: Task, reason: str) -> None:
        """Put a trial whose worker, node or connection is gone back to waiting."""
        driver = self._driver_of(task)
        if driver is not None:
            driver.lost(task.number, task.attempt, reason)

    def take_back(self, task: Task) -> None:
        """Take back a trial that no worker has taken up, to hand it out again."""
        driver = self._driver_of(task)
        if driver is not None:
            driver.take_back(task.number, task.attempt)

    def store_and_interrupt(self, task: Task, checkpoint: Any) -> None:
        """Interrupt a draining trial whose worker has just stored a checkpoint, or could not."""
        driver = self._driver_of(task)
        if driver is not None:
            driver.store_and_interrupt(task.number, task.attempt, checkpoint)

    def silent(self, seconds_allowed: float) -> list[TrialKey]:
        """Return trials not heard of for longer than allowed, and than ten of their slices."""
        return [
            (driver.storage_root, number)
            for driver in self.open
            for number in driver.silent(seconds_allowed)
        ]

    def drains(self, task: Task) -> bool:
        """Return whether a trial shall be stored and interrupted."""
        driver = self._driver_of(task)
        return driver is not None and driver.draining is not None

    def drain_seconds(self, task: Task) -> float:
        """Return seconds since a trial's driver began to drain, inf where all drain and it is over."""
        driver = self._driver_of(task)
        if driver is None:
            return math.inf if self.draining else 0.0
        return driver.drain_seconds()

    def tend(self) -> None:
        """Begin to drain where a limit is reached, and end every driver that is over. Call it often."""
        for driver in self.open:
            driver.check_limits()
        for driver in self.open:
            if driver.draining and not driver.used_up:
                self.drain(driver.draining)
        for driver in list(self.open):
            if not driver.running and driver.finished():
                self._end(driver, "the driver ended")

    # Ending

    def drain(self, reason: str) -> None:
        """Hand out nothing more; what runs shall be stored and interrupted."""
        self.draining = self.draining or reason
        for driver in self.open:
            driver.drain(reason)

    def close(self, reason: str) -> None:
        """Leave nothing running: every trial still out goes back to waiting."""
        with ExitStack() as stack:  # each, whatever the others raise
            for driver in reversed(self.open):
                stack.callback(self._end, driver, reason)

    # What the live view shows

    @property
    def done(self) -> int:
        """How many are over."""
        return self._done_before + self.done_here

    def running(self) -> list[tuple[SearchDriver, int, RunningTrial]]:
        """Return all trials that are handed out, with driver and number."""
        return [
            (driver, number, trial)
            for driver in self.open
            for number, trial in sorted(driver.running.items())
        ]

    def device_seconds(self) -> float:
        """Return device time of all trials ever, of the drivers that have been opened, in seconds."""
        return self._seconds_of_ended + sum(driver.device_seconds() for driver in self.open)

    def seconds_allowed(self) -> float:
        """Return seconds until the time limit of this invocation, inf without one."""
        return min((driver.seconds_allowed() for driver in self.open), default=math.inf)

    def _in_turn(self) -> Iterator[SearchDriver]:
        """Yield the drivers that are open, then open one after the other."""
        yield from list(self.open)
        while not self.draining and (opened := self.open_next()) is not None:
            yield opened

    def _driver_of(self, task: Task) -> SearchDriver | None:
        """Return the driver a task came from; None where that is over."""
        return next((driver for driver in self.open if driver.storage_root == task.storage), None)

    def _end(self, driver: SearchDriver, reason: str) -> None:
        self.open.remove(driver)
        self.done_here += 1
        self._seconds_of_ended += driver.device_seconds()
        try:
            driver.close(reason)
        finally:
            self._ended(driver)
