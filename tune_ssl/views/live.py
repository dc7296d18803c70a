"""A search while it runs: a table that redraws itself in a terminal, a line a minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from optuna.trial import FrozenTrial
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tune_ssl.best import best_trial
from tune_ssl.driver import SearchDriver
from tune_ssl.study import RESULT
from tune_ssl.text import duration, percent
from tune_ssl.views.messages import say

REFRESH_SECONDS = 0.5
LINE_SECONDS = 60.0
ROWS_SHOWN = 16


class LiveView:
    """Shows what a driver drives on stderr for the body of a with statement; ``tick`` it often.

    ``headline`` says in a line what the trials show; it is asked when one more is complete.
    """

    def __init__(
        self,
        driver: SearchDriver,
        console: Console,
        *,
        name: str,
        slots: int,
        headline: Callable[[Sequence[FrozenTrial]], str] | None = None,
    ) -> None:
        self._driver = driver
        self._console = console
        self._name = name
        self._slots = slots
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown_at = 0.0
        self._headline = headline or best_so_far
        self._said = ""
        self._complete = -1

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

    def _line(self) -> str:
        return f"{self._name}: {self._counts()} · {self._headline_text()} · {self._time()}"

    def _table(self) -> RenderableType:
        table = Table(expand=False, box=None, padding=(0, 2, 0, 0))
        for heading in ("trial", "method", "divergence"):
            table.add_column(heading)
        balanced = self._driver.config.metric == "balanced_accuracy"
        for heading in ("step", "balanced accuracy" if balanced else "accuracy"):
            table.add_column(heading, justify="right")
        table.add_column("host")
        running = [(n, trial) for n, trial in sorted(self._driver.running.items()) if trial.started]
        for number, trial in running[:ROWS_SHOWN]:
            table.add_row(
                str(number),
                trial.algorithm,
                trial.divergence or "-",
                f"{trial.step}/{self._driver.config.steps}",
                percent(trial.value) if trial.value is not None else "",
                trial.host,
            )
        if len(running) > ROWS_SHOWN:
            table.add_row(f"and {len(running) - ROWS_SHOWN} more")
        head = Text.assemble((self._name, "bold"), "  ", self._counts())
        return Group(head, Text(self._headline_text()), Text(self._time(), style="dim"), table)

    def _counts(self) -> str:
        counts = self._driver.counts()
        done = f"{counts.finished}/{counts.asked} finished"
        parts = [f"{counts.complete} complete", f"{counts.pruned} pruned"]
        if counts.failed:
            parts.append(f"{counts.failed} failed")
        parts += [f"{counts.running} running"]
        draining = ""
        if self._driver.draining:
            draining = f" · ending: {self._driver.draining}; storing what runs (Ctrl-C again stops at once)"
        return f"{done} ({', '.join(parts)}){draining}"

    def _headline_text(self) -> str:
        complete = self._driver.counts().complete
        if complete != self._complete:
            self._complete = complete
            self._said = self._headline(self._driver.study.get_trials())
        return self._said

    def _time(self) -> str:
        remaining = self._remaining_seconds()
        eta = f"about {duration(remaining)} left" if remaining is not None else "time left unknown"
        spent = duration(self._driver.device_seconds())
        return f"{duration(self._driver.elapsed())} elapsed · {eta} · device time {spent}"

    def _remaining_seconds(self) -> float | None:
        """Return the device time finished trials took on average, for those that are left."""
        counts = self._driver.counts()
        if counts.finished < 3:
            return None
        mean = self._driver.device_seconds() / (counts.finished + 0.5 * counts.running)
        left = max(0, counts.asked - counts.finished) - 0.5 * counts.running
        return min(max(0.0, left) * mean / max(1, self._slots), self._driver.seconds_allowed())


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
