"""What a trial costs the driver: our engine, and plain OptunaSearch + ASHAScheduler, side by side.

    python -m benchmarks.driver_cost --record

Trials train nothing: a worker reaches the next rung at once. Both engines search the same space
with the same rungs and as many slots; Tune reuses its actors for both. Each search runs in a
process of its own. The figure is that process's CPU time (user + system, all threads) from opening
the study to the end of the last trial, per trial; imports and ``ray.init`` are left out, the set-up
and the end of Tune's run are not. Plain Tune runs twice: as it comes, and without its loggers,
which leaves nothing on disk but its snapshots. Searches are interleaved; medians are shown.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.records import write_record
from tune_ssl.run import RunConfig
from tune_ssl.trial import Measured, Work

RECORD = Path(__file__).with_name("driver_cost.json")
SLOTS = 2
MAX_STEPS = 27
STANDARD_ERROR = 0.02


class TrivialWork:
    """A trial whose every step costs nothing; its accuracy grows towards that of its parameters."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.step = 0
        self.finite = True
        self._best = accuracy(parameters)

    def run(self, until_step: int, seconds: float | None = None) -> None:
        self.step = until_step

    def measure(self, seconds: float | None = None) -> Measured:
        value = self._best * self.step / MAX_STEPS
        return Measured(value, True, {"standard_error": STANDARD_ERROR, "accuracy": value})

    def to_bytes(self) -> bytes:
        return str(self.step).encode()

    def load_bytes(self, data: bytes, sha256: str, name: str) -> None:
        self.step = int(data)

    def weights(self) -> bytes:
        return b"weights"

    def verify(self) -> None:
        """Nothing is shared."""


class TrivialFactory:
    """Makes trivial work."""

    def __call__(self, record: Mapping[str, Any]) -> Work:
        return TrivialWork(record["parameters"])

    def verify(self) -> None:
        """Nothing is shared."""


def accuracy(parameters: Mapping[str, Any]) -> float:
    """Return in (0, 1] what parameters reach: the more, the nearer the learning rate is to 3e-3."""
    ratio: float = parameters["learning_rate"] / 3e-3
    return min(ratio, 1 / ratio) ** 0.5


def main() -> None:
    """Run every search in a process of its own, interleaved, and print the table."""
    options = _options()
    if options.only:
        print(json.dumps(ENGINES[options.only](options.trials[0])))
        return
    cells = [(engine, trials) for engine in ENGINES for trials in options.trials]
    measured: dict[tuple[str, int], list[float]] = {cell: [] for cell in cells}
    for _ in range(options.repeats):
        for engine, trials in cells:
            seconds = _in_own_process(engine, trials)
            measured[engine, trials].append(seconds / trials)
            print(f"{engine}, {trials} trials: {1e3 * seconds / trials:.1f} ms", file=sys.stderr)
    rows = [
        {
            "engine": engine,
            "trials": trials,
            "milliseconds_per_trial": round(1e3 * statistics.median(values), 2),
            "all": [round(1e3 * value, 2) for value in values],
        }
        for (engine, trials), values in measured.items()
    ]
    found = {"rows": rows, "ratios": ratios(rows)}
    print(as_text(found))
    if options.record:
        write_record(RECORD, {"slots": SLOTS, "max_steps": MAX_STEPS, **found})


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return how our cost grows from the fewest trials to the most, and how it compares there."""
    cost = {(row["engine"], row["trials"]): row["milliseconds_per_trial"] for row in rows}
    fewest, most = min(row["trials"] for row in rows), max(row["trials"] for row in rows)
    found = {"growth": cost["tune-ssl", most] / cost["tune-ssl", fewest]}
    for engine in (engine for engine in ENGINES if engine != "tune-ssl"):
        found[engine] = cost["tune-ssl", most] / cost[engine, most]
    return {name: round(ratio, 3) for name, ratio in found.items()}


def as_text(found: dict[str, Any]) -> str:
    """Return the table people read."""
    lines = [
        f"{row['engine']:<24} {row['trials']:>6} trials {row['milliseconds_per_trial']:8.1f} ms a trial"
        for row in found["rows"]
    ]
    lines += [f"ours / {name}: {ratio:.2f}" for name, ratio in found["ratios"].items()]
    return "\n".join(lines)


def ours(trials: int) -> float:
    """Return the driver's CPU seconds of a search with our engine, journal and run folder on disk."""
    import ray
    from rich.console import Console

    from ssl_core.data.prepare import prepare
    from tune_ssl.driver import SearchDriver
    from tune_ssl.drivers import Drivers
    from tune_ssl.on_ray.cluster import connected
    from tune_ssl.on_ray.tuning import Slots, run_tune
    from tune_ssl.run import RunDirectory
    from tune_ssl.storage import RunStorage
    from tune_ssl.views.live import LiveView
    from tune_ssl.workflows.opening import open_study

    config = _config(trials)
    shared = prepare(config.data())
    console = Console(file=io.StringIO())
    slots = Slots(cpus=1.0, gpus=0.0, concurrency=SLOTS, expected=SLOTS)
    with (
        tempfile.TemporaryDirectory() as folder,
        connected(address=None, dashboard=False, image_bytes=0),
    ):
        directory = RunDirectory(Path(folder) / "run")
        directory.create()
        directory.write_config(config)
        storage = RunStorage(str(directory.path))
        factory = ray.put(TrivialFactory())

        def search() -> None:
            study = open_study(config, directory, shared, storage, console)
            driver = SearchDriver(study, config, directory, storage)
            drivers = Drivers.of(driver)
            view = LiveView(drivers, console, name="search", slots=SLOTS)
            run_tune(
                drivers,
                factory,
                rungs=config.rungs(),
                slots=slots,
                on_tick=view.tick,
            )
            driver.close("the driver ended")
            assert study.counts().finished == trials

        return _cpu_seconds(search)


def plain(trials: int) -> float:
    """Return the driver's CPU seconds of the same search with what Ray Tune ships."""
    import ray

    from tune_ssl.machine import usable_cpus

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # verbose=0 silences the old output only
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    config = _config(trials)
    rungs = config.rungs()

    class Trivial(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self._work = TrivialWork(config)
            self._rungs = iter(rungs)

        def step(self) -> dict[str, Any]:
            self._work.run(next(self._rungs))
            done = self._work.step == rungs[-1]
            return {"steps": self._work.step, "value": self._work.measure().value, "done": done}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

    ray.init(
        address="local",
        num_cpus=usable_cpus(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )

    def search() -> None:
        with tempfile.TemporaryDirectory() as folder:
            analysis = tune.run(
                Trivial,
                num_samples=trials,
                search_alg=OptunaSearch(
                    space=_OptunaSpace(config), metric="value", mode="max", seed=config.seed
                ),
                scheduler=ASHAScheduler(
                    time_attr="steps",
                    metric="value",
                    mode="max",
                    max_t=rungs[-1],
                    grace_period=rungs[0],
                    reduction_factor=config.reduction_factor,
                ),
                resources_per_trial={"cpu": 1},
                max_concurrent_trials=SLOTS,
                reuse_actors=True,
                storage_path=folder,
                verbose=0,
            )
            assert len(analysis.trials) == trials

    seconds = _cpu_seconds(search)
    ray.shutdown()
    return seconds


def plain_without_loggers(trials: int) -> float:
    """Return the same without Tune's own loggers."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    return plain(trials)


ENGINES: dict[str, Callable[[int], float]] = {
    "tune-ssl": ours,
    "plain": plain,
    "plain without loggers": plain_without_loggers,
}


class _OptunaSpace:
    """Our space as a function of a trial, which OptunaSearch can pickle."""

    def __init__(self, config: RunConfig) -> None:
        self._space = config.space(num_classes=10)

    def __call__(self, trial: Any) -> dict[str, Any]:
        return dict(self._space.suggest(trial).parameters)


def _config(trials: int) -> RunConfig:
    return RunConfig(alg=("ict",), trials=trials, max_steps=MAX_STEPS, concurrency=SLOTS)


def _cpu_seconds(search: Callable[[], None]) -> float:
    before = time.process_time()
    search()
    return time.process_time() - before


def _in_own_process(engine: str, trials: int) -> float:
    command = [sys.executable, "-m", "benchmarks.driver_cost", "--only", engine]
    command += ["--trials", str(trials)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(ended.stdout.splitlines()[-1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--trials",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[100, 1000],
        help="sizes of the searches",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=ENGINES, help="run one search in this process")
    parser.add_argument("--record", action="store_true", help="keep the result beside the script")
    return parser.parse_args()


if __name__ == "__main__":
    main()
