"""Whether speed costs accuracy: the plain loop and ours, supervised, in turns on the same real images.

    python -m benchmarks.time_to_accuracy --images DIR --device cuda --record

``DIR/train/<class>/*`` are CIFAR-10's images as files. Both train the same network from the same weights on
the same labels with the same optimiser and a constant rate, and are measured on the same validation images
after every ``--every`` steps, with BatchNorm statistics recomputed from the same number of training batches; the
time is that of training alone, the device waited for. The batches are each loop's own. Figures: the accuracies at equal
steps, and the seconds each took to the accuracies that both reached.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.plain_loop import accuracy, begin_alike
from benchmarks.records import keep
from benchmarks.step_time import endless_training, plain_loop, plain_steps_of, steps_of
from benchmarks.turns import is_there, wait
from ssl_core.data.augment import normalise
from ssl_core.data.folder import load_training_images
from ssl_core.data.prepare import SplitImages, split_images
from ssl_core.models.batch_norm import recompute_statistics
from ssl_core.names import PRECISIONS
from ssl_core.training.config import TrainingConfig
from ssl_core.training.device import set_up_process
from ssl_core.training.loop import STATISTICS_BATCHES

RECORD = Path(__file__).with_name("time_to_accuracy.json")
METHOD, LEARNING_RATE, WEIGHT_DECAY = "supervised", 1e-3, 1e-2


class Loop(NamedTuple):
    """One training: what takes so many steps, and what measures it."""

    take: Callable[[int], None]
    measure: Callable[[], float]


def main() -> None:
    """Train both for each seed, print, and with ``--record`` write down."""
    options = _options()
    if not is_there(options.device):
        return
    set_up_process(options.threads)
    source = load_training_images(Path(options.images), 32)
    for seed in range(options.seeds):
        config = TrainingConfig.from_record(
            {
                "algorithm": METHOD,
                "dataset": "cifar10",
                "num_labels": options.labels,
                "num_validation": options.validation,
                "split_seed": seed,
            }
        )
        shared = split_images(config.data, source)
        curves = trained_in_turns(loops(shared, seed, options), options)
        row = {"labels": options.labels, "model": options.model, "curves": curves} | figures(curves)
        print(as_text(seed, row), flush=True)
        if options.record:
            keep(RECORD, f"{options.device}, {options.precision}, seed {seed}", row)


def loops(shared: SplitImages, seed: int, options: argparse.Namespace) -> dict[str, Loop]:
    """Return the plain loop and ours, each with what measures it on the validation images."""
    torch.manual_seed(seed)
    plain = plain_loop(METHOD, shared, options.model, options.batch_size, options.device)
    ours = endless_training(
        shared,
        algorithm=METHOD,
        dataset="cifar10",
        model=options.model,
        batch_size=options.batch_size,
        precision=options.precision,
        threads=options.threads,
        device=options.device,
        lr_schedule="constant",
        evaluate="student",
        seed=seed,
        parameters={"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
    )
    begin_alike(plain.student, ours.student)
    images = torch.from_numpy(shared.images[shared.validation]).to(options.device)
    images = normalise(images, shared.normalisation)
    labels = torch.from_numpy(shared.validation_labels.copy()).to(options.device)

    def measure_plain() -> float:
        recompute_statistics(plain.student, plain.batches(STATISTICS_BATCHES))
        return accuracy(plain.student, images, labels)

    return {
        "plain": Loop(plain_steps_of(plain), measure_plain),
        "ours": Loop(steps_of(ours), lambda: float(ours.report().evaluated.accuracy)),
    }


def trained_in_turns(trained: dict[str, Loop], options: argparse.Namespace) -> dict[str, Any]:
    """Return for each loop its steps, the seconds of training they took, and the accuracy after them."""
    curves: dict[str, Any] = {
        name: {"steps": [], "seconds": [], "accuracy": []} for name in trained
    }
    for steps in range(options.every, options.steps + 1, options.every):
        for name, loop in trained.items():
            wait(options.device)
            began = time.perf_counter()
            loop.take(options.every)
            wait(options.device)
            spent = time.perf_counter() - began
            curve = curves[name]
            curve["seconds"].append(round(spent + (curve["seconds"] or [0.0])[-1], 3))
            curve["steps"].append(steps)
            curve["accuracy"].append(round(loop.measure(), 4))
    return curves


def figures(curves: dict[str, Any]) -> dict[str, Any]:
    """Return how accuracies differ at equal steps, and the times to what both reached.

    ``difference`` is ours less plain over the last third of the measurements; ``times_faster`` are by the
    accuracy, every five points, for those that both reached and neither had at its first measurement.
    """
    plain, ours = (np.array(curves[name]["accuracy"]) for name in ("plain", "ours"))
    last = max(1, len(plain) // 3)
    begun, reached = max(plain[0], ours[0]), min(plain.max(), ours.max())
    targets = [points / 100 for points in range(5, 100, 5) if begun < points / 100 <= reached]
    return {
        "difference": round(float((ours - plain)[-last:].mean()), 4),
        "times_faster": {
            f"{target:.2f}": round(
                seconds_to(curves["plain"], target) / seconds_to(curves["ours"], target), 2
            )
            for target in targets
        },
    }


def seconds_to(curve: dict[str, Any], target: float) -> float:
    """Return after how many seconds of training an accuracy was first measured."""
    first = int(np.argmax(np.array(curve["accuracy"]) >= target))
    return float(curve["seconds"][first])


def as_text(seed: int, row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    ends = ", ".join(
        f"{name} {curve['accuracy'][-1]:.1%} after {curve['steps'][-1]} steps and {curve['seconds'][-1]:.0f} s"
        for name, curve in row["curves"].items()
    )
    faster = ", ".join(f"{target}: {ratio} x" for target, ratio in row["times_faster"].items())
    return (
        f"seed {seed}: {ends}; ours - plain {100 * row['difference']:+.1f} points at equal steps; "
        f"faster to an accuracy of {faster or 'none'}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", required=True, help="folder with train/<class>/*")
    parser.add_argument("--model", default="wrn-28-2")
    parser.add_argument("--labels", type=int, default=4000)
    parser.add_argument("--validation", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--precision", default="bfloat16", choices=PRECISIONS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
