"""The README's table: every method tuned with the same budget, retrained, and tested once.

For each method one search (``--trials``, its paper's divergence, seed 0, split seed 0); its rank 1
configuration is retrained on fresh label draws, and each retraining is tested on the 600 test
images. Selection never sees them. On the same draws: 1-nearest-neighbour and LabelSpreading.

    python -m benchmarks.digits_table --trials 50 --draws 20 --record

Until ``tune-ssl confirm`` does this for any run.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from benchmarks.records import write_record
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl import machine
from tune_ssl.references import REFERENCES, predicted
from tune_ssl.run import RunDirectory
from tune_ssl.statistics.crossed import Interval, crossed_interval
from tune_ssl.workflows import results

Correct = npt.NDArray[np.float64]

FIRST_DRAW = 1000  # draws the searches, on split seed 0, have not seen
RECORD = Path(__file__).with_name("digits_table.json")


def main() -> None:
    """Search, retrain, test, print the table."""
    options = _options()
    folder = Path(options.output)
    searches = {method: search(method, options, folder) for method in options.methods.split(",")}
    configurations = {method: records[0] for method, records in searches.items()}
    draws = [FIRST_DRAW + draw for draw in range(options.draws)]
    correct = retrain(configurations, draws, options.processes)
    correct |= {
        "1-NN": reference(draws, options.labels, "1-NN"),
        "LabelSpreading": reference(draws, options.labels, "LabelSpreading"),
    }
    rows = table(correct)
    print(as_markdown(rows))
    if options.record:
        write_record(RECORD, record(options, rows, searches))


def search(method: str, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Search one method and return its configurations; a finished search is used again."""
    best = folder / method / "best.yaml"
    if not best.exists():
        command = [sys.executable, "-m", "tune_ssl.cli", "--alg", method, "--no-dashboard"]
        command += ["--trials", str(options.trials), "--labels", str(options.labels)]
        command += ["--output", str(folder), "--name", method]
        if options.max_steps:
            command += ["--max-steps", str(options.max_steps)]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"searched {method} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    records: list[dict[str, Any]] = yaml.safe_load(best.read_text())
    counts = results.status(RunDirectory(folder / method)).counts
    asked = (options.trials, options.trials, options.labels)
    found = (counts.asked, counts.finished, records[0]["num_labels"])
    if found != asked or options.max_steps not in (None, records[0]["steps"]):
        raise SystemExit(f"{folder / method} holds another search; give another --output")
    return records


def validation(records: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a search's best and its published default reached on the validation images."""
    (published,) = (record for record in records if record["published_default"])
    return {
        "best": records[0]["validation_accuracy"],
        "published_default": published["validation_accuracy"],
    }


def retrain(
    configurations: dict[str, dict[str, Any]], draws: list[int], processes: int
) -> dict[str, Correct]:
    """Return, per method, a draws x test images table of what was classified correctly."""
    jobs = [(method, draw) for method in configurations for draw in draws]
    with ProcessPoolExecutor(processes) as pool:
        done = pool.map(_retrain_once, [(configurations[method], draw) for method, draw in jobs])
        rows: dict[str, list[Any]] = {method: [] for method in configurations}
        for (method, _), correct in zip(jobs, done, strict=True):
            rows[method].append(correct)
    return {method: np.array(correct, dtype=np.float64) for method, correct in rows.items()}


def _retrain_once(job: tuple[dict[str, Any], int]) -> npt.NDArray[np.bool_]:
    from benchmarks.sealed import tested
    from ssl_core.data.prepare import prepare
    from ssl_core.training.config import TrainingConfig
    from ssl_core.training.loop import Training, set_threads
    from tune_ssl.views.export import configuration_of

    exported, draw = job
    config = TrainingConfig.from_record(configuration_of(exported) | {"seed": draw})
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, split_seed=draw))
    set_threads(config.threads)
    shared = prepare(config.data)
    training = Training(config, shared)
    training.run(config.max_steps)
    training.report()  # makes the BatchNorm statistics of the evaluated network
    return tested(training, shared).correct


def reference(draws: list[int], labels: int, name: str) -> Correct:
    """Return the same table for a method without a network, on the same draws."""
    from ssl_core.data.config import DataConfig
    from ssl_core.data.prepare import prepare
    from ssl_core.data.sources import load_test_images

    test = load_test_images("digits", None, None)
    rows = []
    for draw in draws:
        drawn = prepare(
            DataConfig(dataset="digits", num_labels=labels, num_validation=400, split_seed=draw)
        )
        rows.append(predicted(REFERENCES[name](drawn), test.images) == test.labels)
    return np.array(rows, dtype=np.float64)


def table(correct: dict[str, Correct]) -> list[dict[str, Any]]:
    """Return a row per method: test accuracy, and its paired difference from tuned supervised.

    The differences' intervals hold together at 95 %: each has level 1 - .05 / their number.
    """
    baseline = correct.get("supervised")
    compared = [name for name in correct if name != "supervised"]
    rows = []
    for name, outcomes in correct.items():
        row: dict[str, Any] = {"method": name, "accuracy": _values(crossed_interval(outcomes))}
        if baseline is not None and name in compared:
            difference = crossed_interval(
                outcomes - baseline, level=1 - 0.05 / len(compared), clip=(-1.0, 1.0)
            )
            row["difference"] = _values(difference)
        rows.append(row)
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| method | test accuracy (95 % interval) | points above tuned supervised | |",
        "|---|---|---|---|",
    ]
    for row in rows:
        accuracy = _text(row["accuracy"])
        difference = row.get("difference")
        against = "" if difference is None else _points(difference)
        lines.append(f"| {row['method']} | {accuracy} | {against} | {verdict(difference)} |")
    return "\n".join(lines)


def verdict(difference: dict[str, float] | None) -> str:
    """Return what a difference's interval says."""
    if difference is None:
        return ""
    if difference["low"] > 0:
        return "better"
    if difference["high"] < 0:
        return "worse"
    return "not distinguishable"


def record(
    options: argparse.Namespace,
    rows: list[dict[str, Any]],
    searches: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Return what is kept of a measurement: rows and configurations."""
    return {
        "trials": options.trials,
        "draws": options.draws,
        "labels": options.labels,
        "rows": rows,
        "validation": {method: validation(records) for method, records in searches.items()},
        "configurations": {
            method: {key: value for key, value in records[0].items() if key != "made_with"}
            for method, records in searches.items()  # versions and hardware are told once
        },
    }


def _values(interval: Interval) -> dict[str, float]:
    return {key: round(value, 4) for key, value in dataclasses.asdict(interval).items()}


def _text(values: dict[str, float]) -> str:
    mean, low, high = (f"{100 * values[key]:.1f}" for key in ("mean", "low", "high"))
    return f"{mean} % ({low} to {high})"


def _points(values: dict[str, float]) -> str:
    mean, low, high = (f"{100 * values[key]:+.1f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--methods", default=",".join(ALGORITHM_NAMES))
    parser.add_argument("--processes", type=int, default=machine.usable_cpus())
    parser.add_argument("--output", default="runs/digits_table")
    parser.add_argument("--record", action="store_true", help="keep the result beside the script")
    return parser.parse_args()


if __name__ == "__main__":
    main()
