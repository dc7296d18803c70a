"""Whether a training in bfloat16 is as accurate as one in float32, on digits.

    python -m benchmarks.parity --record

Both train the published default of a method from the same weights on the same labels and batches, for
each of some seeds, each with a draw of labels of its own; the figure is the mean of the paired differences of
the evaluated network's test accuracy and its 90 % interval. They are equivalent where the interval lies
within 1.5 points on either side. ``--modes bfloat16,compiled`` compares bfloat16 with and without ``--compile``, and
``--modes eager,captured``, on a GPU, a captured step with one done anew.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.paired import interval, trained
from benchmarks.records import keep
from benchmarks.turns import is_there
from ssl_core.names import ALGORITHM_NAMES

RECORD = Path(__file__).with_name("parity.json")
MARGIN = 0.015
LEVEL = 0.90
MODES: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "compiled": {"precision": "bfloat16", "compile": True},
    "captured": {"device": "cuda"},
    "eager": {"device": "cuda"},
}


def main() -> None:
    """Train all pairs, print, and with ``--record`` write down."""
    options = _options()
    if not is_there("cuda" if "captured" in options.modes else "cpu"):
        return
    one, other = options.modes.split(",")
    tasks = [
        (method, mode, seed, options.max_steps)
        for method in options.methods.split(",")
        for seed in range(options.seeds)
        for mode in (one, other)
    ]
    with spawned(options.processes) as pool:
        accuracies = dict(zip(tasks, pool.map(accuracy, tasks), strict=True))
    for method in options.methods.split(","):
        differences = [
            accuracies[method, other, seed, options.max_steps]
            - accuracies[method, one, seed, options.max_steps]
            for seed in range(options.seeds)
        ]
        means = {
            mode: statistics.mean(
                accuracies[method, mode, seed, options.max_steps] for seed in range(options.seeds)
            )
            for mode in (one, other)
        }
        row = {"method": method, "seeds": options.seeds, "means": means} | judged(differences)
        print(as_text(row), flush=True)
        if options.record:
            keep(RECORD, f"{method}, {one} and {other}", row)


def spawned(processes: int) -> ProcessPoolExecutor:
    """Return processes that may use a GPU: those forked of one that has asked for GPUs may not."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))


def accuracy(task: tuple[str, str, int, int]) -> float:
    """Return the test accuracy that a training of a method in a mode ends with."""
    method, mode, seed, max_steps = task
    record = {"algorithm": method, "max_steps": max_steps, "seed": seed, "split_seed": seed}
    return trained(record | MODES[mode], capture=None if mode == "eager" else "auto")


def judged(differences: list[float]) -> dict[str, Any]:
    """Return the mean difference, its interval, and whether it lies within the margin."""
    mean, low, high = interval(differences, LEVEL)
    return {
        "difference": mean,
        "interval": [low, high],
        "equivalent": low > -MARGIN and high < MARGIN,
    }


def as_text(row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    low, high = (100 * end for end in row["interval"])
    means = ", ".join(f"{mode} {100 * mean:.1f} %" for mode, mean in row["means"].items())
    return (
        f"{row['method']:<13} {means}; difference {100 * row['difference']:+.2f} points "
        f"[{low:+.2f}, {high:+.2f}]{'' if row['equivalent'] else ': not shown to be equivalent'}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    modes = ["float32,bfloat16", "bfloat16,compiled", "eager,captured"]
    parser.add_argument("--modes", default=modes[0], choices=modes)
    parser.add_argument("--methods", default=",".join(ALGORITHM_NAMES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=450)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
