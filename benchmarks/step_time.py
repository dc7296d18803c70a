"""How long a training step takes beside that of the loop a user writes today (``plain_loop``).

    python -m benchmarks.step_time --record

Both train the same network on the same images with batches of the same size and the same number of
threads, in turns of some steps, in one process; the figure is the median over turns of the ratio. The
workers that load the plain loop's images have the machine's other cores to themselves.
Images are random pixels where they stand for CIFAR-10: a step takes as long whatever they show.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.plain_loop import METHODS, PlainLoop, PlainWideResNet, augmentation
from benchmarks.records import write_record
from ssl_core.data.prepare import SplitImages, prepare
from ssl_core.data.recipe import Augmentation, Normalisation
from ssl_core.names import PRECISIONS, parse_model_name
from ssl_core.training.config import TrainingConfig
from ssl_core.training.loop import Training, set_threads

RECORD = Path(__file__).with_name("step_time.json")
SETTINGS = {"digits": ("wrn-10-1", 50, 30), "cifar10": ("wrn-28-2", 50, 3)}
"""The data set whose shapes are trained on: network, batch size, steps of a turn."""
SECONDS_BETWEEN_TURNS = 0.3
"""In which the plain loop's workers load ahead and come to rest, so that they disturb no other."""


def main() -> None:
    """Measure each method, print, and with ``--record`` write down."""
    options = _options()
    set_threads(options.threads)
    rows = []
    for setting in options.settings.split(","):
        images = digits() if setting == "digits" else random_images()
        for method in options.methods.split(","):
            rows.append(measure(setting, method, images, options))
            print(as_text(rows[-1]), flush=True)
    if options.record:
        write_record(
            RECORD, {"threads": options.threads, "capability": _capability(), "rows": rows}
        )


def measure(
    setting: str, method: str, images: SplitImages, options: argparse.Namespace
) -> dict[str, Any]:
    """Return milliseconds per step of the plain loop and of ours in each precision."""
    model, batch_size, steps = SETTINGS[setting]
    loops: dict[str, Callable[[], None]] = {"plain": _plain(method, images, model, batch_size)}
    for precision in options.precisions.split(","):
        loops[precision] = _ours(setting, method, images, precision, options)
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for step in loops.values():
        step()  # the first allocates memory and starts the loader's workers
    for _ in range(options.turns):
        for name, step in loops.items():
            time.sleep(SECONDS_BETWEEN_TURNS)
            began = time.perf_counter()
            for _ in range(steps):
                step()
            taken[name].append((time.perf_counter() - began) / steps)
    return {
        "setting": setting,
        "method": method,
        "model": model,
        "milliseconds": {
            name: round(1000 * statistics.median(own), 2) for name, own in taken.items()
        },
        "times_faster": {
            name: round(_median_ratio(taken["plain"], own), 2)
            for name, own in taken.items()
            if name != "plain"
        },
    }


def as_text(row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    spent = ", ".join(f"{name} {ms:.1f} ms" for name, ms in row["milliseconds"].items())
    faster = ", ".join(f"{name} {ratio:.2f} x" for name, ratio in row["times_faster"].items())
    return f"{row['setting']:<8} {row['method']:<13} {spent}; faster than plain: {faster}"


def digits() -> SplitImages:
    """Return the digits as a search has them."""
    return prepare(TrainingConfig.from_record({"algorithm": "supervised"}).data)


def random_images(count: int = 2000) -> SplitImages:
    """Return random pixels in the shapes of CIFAR-10, augmented as it is."""
    generator = np.random.default_rng(0)
    labels = (np.arange(count) % 10).astype(np.int64)
    places = np.arange(count)
    return SplitImages(
        images=generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8),
        labeled=places[:250],
        unlabeled=places[:-100],
        validation=places[-100:],
        labels=labels[:250],
        validation_labels=labels[-100:],
        class_names=tuple("0123456789"),
        augmentation=Augmentation(max_shift=2, flip=True, noise=0.15),
        normalisation=Normalisation(mean=(127.5,) * 3, std=(64.0,) * 3),
        skipped=(),
        fingerprint="",
    )


def _plain(method: str, images: SplitImages, model: str, batch_size: int) -> Callable[[], None]:
    depth, width = parse_model_name(model)
    _, channels, size, _ = images.images.shape
    how, normal = images.augmentation, images.normalisation
    mean, std = ([value / 255 for value in own] for own in (normal.mean, normal.std))
    last = np.ascontiguousarray(images.images.transpose(0, 2, 3, 1))
    loop = PlainLoop(
        method,
        PlainWideResNet(depth, width, channels, images.num_classes),
        (last[images.labeled], images.labels),
        last[images.unlabeled],
        augmentation(size, how.max_shift, how.flip, how.noise, mean, std),
        batch_size,
        weight=1.0,
        learning_rate=1e-3,
    )
    return lambda: _discard(loop.step())


def _ours(
    setting: str, method: str, images: SplitImages, precision: str, options: argparse.Namespace
) -> Callable[[], None]:
    model, batch_size, _ = SETTINGS[setting]
    record = {
        "algorithm": method,
        "dataset": setting,
        "model": model,
        "batch_size": batch_size,
        "max_steps": 10**6,
        "precision": precision,
        "threads": options.threads,
    }
    training = Training(TrainingConfig.from_record(record), images)
    return lambda: training.run(training.step + 1)


def _discard(value: float) -> None:
    """Do nothing with a value that had to be waited for."""


def _median_ratio(slower: list[float], faster: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(slower, faster, strict=True))


def _capability() -> str:
    """Return what torch says the processor can."""
    return str(torch.backends.cpu.get_cpu_capability())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
