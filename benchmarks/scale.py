"""A search of 10,000 one-hour trials on 1,000 slots, with the driver's own time on the virtual clock.

    python -m benchmarks.scale --trials 10000 --slots 1000 --record

The real driver hands out trials, hears rungs and checkpoints and writes a real run to disk; only
the trainings and Ray are not there. What the driver takes is measured and put on the clock, with
Tune's own cost for each trial and each result. Then the run's journal is replayed, reopened, and
shown by ``tune-ssl status``; a shorter run's journal is lengthened to ``--reopen`` trials for that.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from benchmarks.landscape import IMAGES, Landscape
from benchmarks.records import keep
from search_spaces.joint import Suggestion
from ssl_core.data.prepare import prepare
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl.driver import SearchDriver
from tune_ssl.journal import MemoryJournal
from tune_ssl.run import RunConfig, RunDirectory
from tune_ssl.sampler import BEST_SHOWN, OTHERS_SHOWN
from tune_ssl.simulator import DriverTime, Event, replay, simulate
from tune_ssl.storage import RunStorage
from tune_ssl.study import Assignment, Checkpoint, SearchStudy, Verdict
from tune_ssl.trial import pack_correct
from tune_ssl.worker import (
    CHECKPOINT_FRACTION,
    END,
    LONGEST_SLICE,
    NON_FINITE,
    RUNG,
    SLICE,
    SLICE_FRACTION,
    Lengths,
    SliceReport,
)
from tune_ssl.workflows.opening import open_study, study_of

RECORD = Path(__file__).with_name("scale.json")
TRIAL_SECONDS = 3600.0
TUNE_START = 0.0216
"""Seconds Tune takes for a trial that does nothing, beside a bare actor loop's 1.4 ms."""
TUNE_RESULT = 0.0024
"""Seconds between two results of Tune with neither searcher, scheduler nor loggers (419 a second)."""
LENGTHS = Lengths()


class SharedMachineClock:
    """The driver's time as on a machine of its own: CPU time, and a fixed wait for each fsync.

    While it is used no fsync waits for the disk.
    """

    def __init__(self, fsync_seconds: float) -> None:
        self.synced = 0
        self._fsync_seconds = fsync_seconds

    def __call__(self) -> float:
        """Return seconds from any origin."""
        return time.process_time() + self.synced * self._fsync_seconds

    def fsync(self, descriptor: int) -> None:
        """Take the place of ``os.fsync``."""
        self.synced += 1


class DrivenSearch:
    """A driver as the simulator asks it: plays the workers, and keeps how long each call took."""

    def __init__(
        self, driver: SearchDriver, seconds_per_step: float, stopwatch: Callable[[], float]
    ) -> None:
        self.rungs = driver.study.rungs
        self.seconds: dict[str, list[float]] = {"suggest": [], "report": []}
        self.resident: list[float] = []
        self._driver = driver
        self._seconds_per_step = seconds_per_step
        self._stopwatch = stopwatch
        self._random = np.random.default_rng(0)

    def next(self) -> Assignment | None:
        """See ``SearchStudy``; asked as Tune's searcher asks."""
        began = self._stopwatch()
        task = None if self._driver.finished() else self._driver.next()
        if task is None:
            return None
        self.seconds["suggest"].append(self._stopwatch() - began)
        if task.number % 500 == 0:
            self.resident.append(_resident_megabytes())
        names = ("algorithm", "divergence", "parameters")
        return Assignment(
            number=task.number,
            attempt=task.attempt,
            suggestion=Suggestion(**{name: task.record[name] for name in names}),
            checkpoint=task.checkpoint,
        )

    def start(self, number: int, attempt: int) -> None:
        """See ``SearchStudy``."""
        self._driver.started(number, attempt)

    def report(self, number: int, attempt: int, step: int, value: float) -> Verdict:
        """See ``SearchStudy``; first come the checkpoints stored since the rung before."""
        return self._hear(number, attempt, step, value, RUNG)

    def complete(
        self, number: int, attempt: int, value: float, result: Mapping[str, Any]
    ) -> Verdict:
        """See ``SearchStudy``."""
        return self._hear(number, attempt, self.rungs[-1], value, END)

    def _hear(self, number: int, attempt: int, step: int, value: float, kind: str) -> Verdict:
        began = self._stopwatch()
        before = max((rung for rung in self.rungs if rung < step), default=0)
        interval = max(LENGTHS.checkpoint_seconds, CHECKPOINT_FRACTION * TRIAL_SECONDS)
        stored = int((step - before) * self._seconds_per_step / interval)
        for place in range(stored):
            at = before + (place + 1) * (step - before) // (stored + 1)
            self._driver.handle(self._slice(number, attempt, at, SLICE, interval))
        rest = (step - before) * self._seconds_per_step - stored * interval
        if math.isnan(value):
            last = self._slice(number, attempt, step, NON_FINITE, rest)
        else:
            last = self._slice(number, attempt, step, kind, rest, value)
        verdict = self._driver.handle(last)
        self.seconds["report"].append(self._stopwatch() - began)
        return verdict

    def _slice(
        self,
        number: int,
        attempt: int,
        step: int,
        kind: str,
        seconds: float,
        value: float | None = None,
    ) -> SliceReport:
        path = f"trials/{number:04d}/attempt-{attempt}/step-{step:06d}.pt"
        digest = f"{number:032x}{step:032x}"
        checkpoint = Checkpoint(path=path, step=step, sha256=digest, attempt=attempt)
        return SliceReport(
            number=number,
            attempt=attempt,
            step=step,
            kind=kind,
            seconds=seconds,
            value=value,
            details={} if value is None else self._details(value),
            checkpoint=checkpoint if kind in (SLICE, RUNG) else None,
            weights=f"trials/{number:04d}/weights-{attempt}.safetensors" if kind == END else None,
            host="node-17",
        )

    def _details(self, value: float) -> dict[str, Any]:
        return {
            "standard_error": math.sqrt(value * (1 - value) / IMAGES),
            "accuracy": value,
            "balanced_accuracy": value,
            "other_network": value,
            "terms": {"labeled": 1 - value, "unlabeled": value / 7},
            "correct": pack_correct(self._random.random(IMAGES) < value),
        }


def main() -> None:
    """Simulate, replay, reopen; print, and with ``--record`` write down."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures: dict[str, Any] = {}
        for part in measured(options, Path(folder) / "run"):
            print(json.dumps(part, indent=2), flush=True)
            figures |= part
            if options.record:
                keep(RECORD, f"{options.trials} trials on {options.slots} slots", figures)


def measured(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures of one search, which is written to a folder, as they come."""
    config = RunConfig(
        alg=ALGORITHM_NAMES if options.alg == "any" else tuple(options.alg.split(",")),
        trials=options.trials,
    )
    directory = RunDirectory(folder)
    directory.create()
    directory.write_config(config)
    study = _open(config, directory)
    with ExitStack() as stack:
        stopwatch: Callable[[], float] = time.perf_counter
        if options.fsync is not None:
            stopwatch = SharedMachineClock(options.fsync)
            stack.enter_context(mock.patch("os.fsync", stopwatch.fsync))
        yield simulated(options, config, directory, study, stopwatch)
    yield {"replay": replayed(config, directory, study)}
    yield {"reopened": reopened(config, directory, options.reopen)}


def simulated(
    options: argparse.Namespace,
    config: RunConfig,
    directory: RunDirectory,
    study: SearchStudy,
    stopwatch: Callable[[], float],
) -> dict[str, Any]:
    """Return what became of the slots' and of the driver's time in a search to its end."""
    driver = SearchDriver(study, config, directory, RunStorage(str(directory.path)))
    seconds_per_step = TRIAL_SECONDS / config.steps
    search = DrivenSearch(driver, seconds_per_step, stopwatch)
    began = stopwatch()
    events = simulate(
        search,
        Landscape(study.space, seed=0).measure,
        slots=options.slots,
        seconds_per_step=seconds_per_step,
        driver=DriverTime(
            stopwatch=stopwatch,
            start=options.tune_start,
            result=options.tune_result,
            slice_length=max(
                LENGTHS.slice_seconds, min(SLICE_FRACTION * TRIAL_SECONDS, LONGEST_SLICE)
            ),
        ),
    )
    counts = study.counts()
    return {
        "trials": {"complete": counts.complete, "pruned": counts.pruned, "failed": counts.failed},
        "slots": options.slots,
        "engine": engine(),
        **use_of(events, slots=options.slots, seconds_per_step=seconds_per_step),
        "driver_seconds": round(sum(map(sum, search.seconds.values())), 1),
        "benchmark_seconds": round(stopwatch() - began, 1),
        "milliseconds": {name: tenths(times) for name, times in search.seconds.items()},
        "resident_megabytes": search.resident,
    }


def engine() -> dict[str, Any]:
    """Return what a search suggests and prunes by: figures of another are not of this one."""
    return {
        "reduction_factor": RunConfig.reduction_factor,
        "shown": [BEST_SHOWN, OTHERS_SHOWN],
        "sampler": RunConfig.sampler,
    }


def use_of(events: Sequence[Event], *, slots: int, seconds_per_step: float) -> dict[str, Any]:
    """Return the part of the slots' time spent training until the last trial starts, and the tail.

    The tail is what follows that start, in hours, and the part of it spent training.
    """
    last_start = max(event.seconds for event in events if event.verdict is None)
    end = events[-1].seconds
    trained = [0.0, 0.0]
    came_from: dict[int, tuple[float, int]] = {}
    for event in events:
        if event.verdict is not None:
            since, step = came_from[event.number]
            length = (event.step - step) * seconds_per_step
            early = min(length, max(0.0, last_start - since))
            trained[0] += early
            trained[1] += length - early
        came_from[event.number] = event.seconds, event.step
    tail = end - last_start
    return {
        "last_start_hours": round(last_start / 3600, 3),
        "utilisation": round(trained[0] / (slots * last_start), 4) if last_start else None,
        "tail_hours": round(tail / 3600, 3),
        "tail_utilisation": round(trained[1] / (slots * tail), 4),
    }


def tenths(times: Sequence[float]) -> dict[str, float]:
    """Return medians in milliseconds, of all and of the first and the last tenth, which show growth."""
    part = max(1, len(times) // 10)
    parts = {"median": times, "first_tenth": times[:part], "last_tenth": times[-part:]}
    return {name: round(1000 * statistics.median(values), 2) for name, values in parts.items()}


def replayed(config: RunConfig, directory: RunDirectory, study: SearchStudy) -> dict[str, Any]:
    """Replay a run's journal; return how much was the same, and the seconds it took."""

    def again(journal: MemoryJournal) -> SearchStudy:
        return study_of(config, study.space, journal, directory.name)

    began = time.perf_counter()
    same = replay(read_records(directory.journal_path), again)
    return vars(same) | {"seconds": round(time.perf_counter() - began, 1)}


def reopened(config: RunConfig, directory: RunDirectory, trials: int) -> dict[str, Any]:
    """Lengthen a run's journal and return what opening it costs, in seconds."""
    lines = lengthened(read_records(directory.journal_path), trials)
    directory.journal_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = dataclasses.replace(config, trials=sum(map(_creates_trial, lines)))
    directory.write_config(config)
    began, used = time.perf_counter(), time.process_time()
    study = _open(config, directory)
    opened, opened_cpu = time.perf_counter() - began, time.process_time() - used
    began, used = time.perf_counter(), _cpu_of_children()
    subprocess.run(
        [sys.executable, "-m", "tune_ssl.cli", "status", str(directory.path)],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    shown, shown_cpu = time.perf_counter() - began, _cpu_of_children() - used
    return {
        "trials": study.counts().finished,
        "records": len(lines),
        "megabytes": round(directory.journal_path.stat().st_size / 1e6, 1),
        "open_seconds": {"wall": round(opened, 2), "cpu": round(opened_cpu, 2)},
        "status_seconds": {"wall": round(shown, 2), "cpu": round(shown_cpu, 2)},
    }


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return a journal's records."""
    return list(JournalFileBackend(str(path)).read_logs(0))


def lengthened(records: Sequence[dict[str, Any]], trials: int) -> list[dict[str, Any]]:
    """Return a journal in which the trials of a finished search follow again, under new numbers.

    As often as it takes to have so many trials at least.
    """
    count = sum(map(_creates_trial, records))
    of_trials = [record for record in records if "trial_id" in record or _creates_trial(record)]
    longer = list(records)
    for copy in range(1, -(-trials // count)):
        longer += [
            record | {"trial_id": record["trial_id"] + copy * count}
            if "trial_id" in record
            else record
            for record in of_trials
        ]
    return longer


def _creates_trial(record: Mapping[str, Any]) -> bool:
    return "study_id" in record and "datetime_start" in record


def _open(config: RunConfig, directory: RunDirectory) -> SearchStudy:
    quiet = Console(file=io.StringIO())
    return open_study(
        config, directory, prepare(config.data()), RunStorage(str(directory.path)), quiet
    )


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--alg", default="ict", help="a method, a comma list or any")
    parser.add_argument("--reopen", type=int, default=10_000)
    parser.add_argument("--tune-start", type=float, default=TUNE_START)
    parser.add_argument("--tune-result", type=float, default=TUNE_RESULT)
    parser.add_argument(
        "--fsync",
        type=float,
        help="seconds of an fsync, to count CPU time in place of the clock of a shared machine",
    )
    parser.add_argument("--folder", help="where the run is written, for as long as it takes")
    parser.add_argument("--record", action="store_true", help="keep the result beside the script")
    return parser.parse_args()


if __name__ == "__main__":
    main()
