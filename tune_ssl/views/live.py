"""A search while it runs: a table that redraws itself in a terminal, a line a minute elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

from optuna.trial import FrozenTrial
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tune_ssl.best import best_trial
from tune_ssl.comparison import BOUNDLESS
from tune_ssl.driver import SearchDriver
from tune_ssl.drivers import Drivers
from tune_ssl.study import RESULT
from tune_ssl.text import duration, percent
from tune_ssl.views.messages import say

REFRESH_SECONDS = 0.5
LINE_SECONDS = 60.0
ROWS_SHOWN = 16


class LiveView:
    """Shows what drivers drive on stderr for the body of a with statement; ``tick`` it often.

    Args:
        name: of the search, or of the whole that several searches are parts of.
        slots: trials that run at once.
    """

    def __init__(
        self,
        drivers: Drivers,
        console: Console,
        *,
        name: str,
        slots: int,
    ) -> None:
        self._drivers = drivers
        self._console = console
        self._name = name
        self._slots = slots
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown_at = 0.0
        self._said: dict[str, tuple[int, str]] = {}

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def tick(self) -> None:
        """Redraw the table, or print a line, if it is time."""
        if not self._drivers.open:
            return
        now = time.monotonic()
        if self._console.is_terminal:
            if now - self._shown_at >= REFRESH_SECONDS:
                self._shown_at = now
                self._live.update(self._table(), refresh=True)
        elif now - self._shown_at >= LINE_SECONDS:
            first = self._shown_at == 0.0
            self._shown_at = now
            if not first:
                say(self._console, self._line())

    @property
    def _several(self) -> bool:
        return self._drivers.count > 1

    def _line(self) -> str:
        told = [f"{self._name}: {self._done()}"] if self._several else []
        for driver in self._drivers.open:
            told.append(f"{driver.name}: {self._counts(driver)} · {self._headline_of(driver)}")
        return " · ".join([*told, self._time()])

    def _table(self) -> RenderableType:
        lines = [Text.assemble((self._name, "bold"), "  ", self._done())] if self._several else []
        for driver in self._drivers.open:
            lines.append(Text.assemble((driver.name, "bold"), "  ", self._counts(driver)))
            lines.append(Text(self._headline_of(driver)))
        return Group(*lines, Text(self._time(), style="dim"), self._running())

    def _running(self) -> Table:
        table = Table(expand=False, box=None, padding=(0, 2, 0, 0))
        for heading in ("trial", "method", "divergence"):
            table.add_column(heading)
        balanced = any(one.config.metric == "balanced_accuracy" for one in self._drivers.open)
        for heading in ("step", "balanced accuracy" if balanced else "accuracy"):
            table.add_column(heading, justify="right")
        table.add_column("host")
        running = [shown for shown in self._drivers.running() if shown[-1].started]
        for driver, number, trial in running[:ROWS_SHOWN]:
            table.add_row(
                str(number),
                trial.algorithm,
                trial.divergence or "-",
                f"{trial.step}/{driver.config.steps}",
                percent(trial.value) if trial.value is not None else "",
                trial.host,
            )
        if len(running) > ROWS_SHOWN:
            table.add_row(f"and {len(running) - ROWS_SHOWN} more")
        return table

    def _done(self) -> str:
        return f"{self._drivers.done} of {self._drivers.count} searches done"

    def _counts(self, driver: SearchDriver) -> str:
        counts = driver.counts()
        limit, asked = driver.device_seconds_limit, f"/{counts.asked}"
        done = f"{counts.finished}{asked if counts.asked < BOUNDLESS else ''} finished"
        if limit is not None:
            done += f", {duration(driver.device_seconds())} of {duration(limit)} used"
        parts = [f"{counts.complete} complete", f"{counts.pruned} pruned"]
        if counts.failed:
            parts.append(f"{counts.failed} failed")
        if driver.study.missing:
            parts.append(f"{len(driver.study.missing)} without a result")
        parts += [f"{counts.running} running"]
        draining = ""
        if driver.draining:
            draining = f" · ending: {driver.draining}; storing what runs"
        if self._drivers.draining:
            draining += " (Ctrl-C again stops at once)"
        return f"{done} ({', '.join(parts)}){draining}"

    def _headline_of(self, driver: SearchDriver) -> str:
        """Return what a driver's trials show, worked out when one more is complete."""
        complete = driver.counts().complete
        if self._said.get(driver.name, (-1, ""))[0] != complete:
            told = (driver.headline or best_so_far)(driver.study.get_trials())
            self._said[driver.name] = complete, told
        return self._said[driver.name][1]

    def _time(self) -> str:
        remaining = self._remaining_seconds()
        eta = f"about {duration(remaining)} left" if remaining is not None else "time left unknown"
        spent = duration(self._drivers.device_seconds())
        elapsed = duration(max(driver.elapsed() for driver in self._drivers.open))
        return f"{elapsed} elapsed · {eta} · device time {spent}"

    def _remaining_seconds(self) -> float | None:
        """Return about how long all that is left takes, by what has been done."""
        drivers = self._drivers
        left = self._left_of_one() if drivers.count == 1 else self._left_of_several()
        return None if left is None else min(left / max(1, self._slots), drivers.seconds_allowed())

    def _left_of_one(self) -> float | None:
        """Return device time: what finished trials took on average, for those that are left."""
        (driver,) = self._drivers.open
        counts = driver.counts()
        if counts.finished < 3:
            return None
        mean = driver.device_seconds() / (counts.finished + 0.5 * counts.running)
        left = counts.asked - counts.finished - len(driver.study.missing)
        limit = driver.device_seconds_limit
        allowed = math.inf if limit is None else limit - driver.device_seconds()
        return max(0.0, min((left - 0.5 * counts.running) * mean, allowed))

    def _left_of_several(self) -> float | None:
        """Return device time: what searches that are done took on average, for those that are left."""
        drivers = self._drivers
        if drivers.done_here == 0:
            return None
        under_way = sum(driver.progress() for driver in drivers.open)
        mean = drivers.device_seconds() / (drivers.done_here + under_way)
        return (drivers.count - drivers.done - under_way) * mean


def best_so_far(trials: Sequence[FrozenTrial], metric: str = "accuracy") -> str:
    """Return a line about a search's best trial, judged by a metric."""
    best = best_trial(trials)
    if best is None or best.value is None:
        return "best so far: none has reached the full length yet"
    result = best.system_attrs[RESULT]
    told = f"best so far: {percent(best.value)} ± {percent(result['standard_error'])}"
    if metric == "balanced_accuracy":
        told += f" balanced accuracy, accuracy {percent(result['accuracy'])}"
    return f"{told} (validation images only), trial {best.number}"
