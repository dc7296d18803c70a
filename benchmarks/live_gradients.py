"""Whether each method's unlabeled term does anything: trainings with it, without it, and supervised.

    python -m benchmarks.live_gradients --record

Each method is trained on digits with what its search found (``comparisons.json``; ``--configuration default``
for the published values), on fresh draws of 20 labels that are the same for all: as it is (live), with the
gradient of its unlabeled term cut (cut: weight 0, which the contract of tests/contracts shows to leave the
labeled term's gradient bit for bit), and as supervised training with the same optimiser values. Figures are
mean differences of test accuracy over paired draws: live - cut with its 95 % t interval, and cut - supervised
with the 90 % interval whose lying within 2 points shows equivalence (two one-sided tests at 5 %). A method
whose term is dead, as those of several public libraries are, would show live - cut about 0.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.comparisons import configurations
from benchmarks.paired import interval, trained
from benchmarks.records import keep
from ssl_core.names import ALGORITHM_NAMES

RECORD = Path(__file__).with_name("live_gradients.json")
METHODS = tuple(name for name in ALGORITHM_NAMES if name != "supervised")
ARMS = ("live", "cut", "supervised")
CONFIGURATIONS = ("best", "default")
MARGIN = 0.02
FIRST_DRAW = 11_000  # of labels; no search has seen it or those after it


class Task(NamedTuple):
    """One training: of a method, with which configuration, how, on which draw of labels."""

    method: str
    which: str
    arm: str
    max_steps: int
    draw: int


def main() -> None:
    """Train all, print, and with ``--record`` write down."""
    options = _options()
    draws = range(FIRST_DRAW, FIRST_DRAW + options.draws)
    for method in options.methods.split(","):
        which = options.configuration
        tasks = [
            Task(method, which, arm, options.max_steps, draw) for arm in ARMS for draw in draws
        ]
        with ProcessPoolExecutor(options.processes) as pool:
            found = np.array(list(pool.map(accuracy, tasks))).reshape(len(ARMS), options.draws)
        row = {"method": method, "configuration": options.configuration}
        row |= {"draws": options.draws, "max_steps": options.max_steps}
        row |= figures(*found)
        print(as_text(row), flush=True)
        if options.record:
            keep(RECORD, f"{method}, {options.configuration}", row)


def accuracy(task: Task) -> float:
    """Return the test accuracy a task's training ends with."""
    return trained(record_of(task))


def record_of(task: Task) -> dict[str, Any]:
    """Return the configuration of a task, as a flat record."""
    from ssl_core.training.config import TRAINING_PARAMETERS, TrainingConfig

    given = configurations(task.method)[task.which]
    given |= {"max_steps": task.max_steps, "split_seed": task.draw, "seed": task.draw}
    record = TrainingConfig.from_record(given).to_record()
    if task.arm == "cut":
        record["parameters"] |= {"unlabeled_weight": 0.0}
    if task.arm == "supervised":
        kept = {name: record["parameters"][name] for name in TRAINING_PARAMETERS}
        record |= {"algorithm": "supervised", "divergence": None, "parameters": kept}
    return record


def figures(
    live: np.ndarray[Any, Any], cut: np.ndarray[Any, Any], supervised: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """Return means and both differences, over (draws,) of paired accuracies."""
    effect = interval(live - cut, 0.95)
    rest = interval(cut - supervised, 0.90)
    return {
        "means": {
            arm: round(float(values.mean()), 4)
            for arm, values in zip(ARMS, (live, cut, supervised), strict=True)
        },
        "live_minus_cut": effect,
        "live": effect[1] > 0,
        "cut_minus_supervised": rest,
        "cut_is_supervised": rest[1] > -MARGIN and rest[2] < MARGIN,
    }


def as_text(row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    means = ", ".join(f"{arm} {100 * mean:.1f} %" for arm, mean in row["means"].items())
    effect, low, high = (100 * value for value in row["live_minus_cut"])
    rest, rest_low, rest_high = (100 * value for value in row["cut_minus_supervised"])
    return (
        f"{row['method']:<13} {means}; live - cut {effect:+.1f} points ({low:+.1f} to {high:+.1f})"
        f"{'' if row['live'] else ', not shown to be live'}; cut - supervised {rest:+.1f} "
        f"({rest_low:+.1f} to {rest_high:+.1f})"
        f"{'' if row['cut_is_supervised'] else ', not shown to be equal'}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--configuration", default="best", choices=CONFIGURATIONS)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=450)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
