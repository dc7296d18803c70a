"""How long a training step takes beside that of the loop a user writes today (``plain_loop``).

    python -m benchmarks.step_time --record

Both train the same network on the same images with batches of the same size and the same number of
threads, in turns of some steps, in one process; the figure is the median over turns of the ratio. The
workers that load the plain loop's images have the machine's other cores to themselves. On a GPU it is measured without
loading, too: the images of its steps lie there before.
Supervised training is measured against its ceiling, too: its own convolutions run alone in the same
turns (``convolutions``), and beside it against the device's peak, a large matrix product (``peak``). How near
to the ceiling a step could come at best is told by the least passes over memory that the other layers take
(``passes``). Each method's step on batches of two images says what launching its operators costs, whatever they compute on:
that less its own convolutions, and the convolutions of the whole batch, are about the least that a step launched operator by
operator can take.
Images are random pixels where they stand for CIFAR-10: a step takes as long whatever they show.

``--compiled`` measures our step with its networks compiled (``tune-ssl --compile``), too, and how long its first two
steps take where nothing was compiled before.
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

from benchmarks.convolutions import bare_step, convolutions_of, matrix_product
from benchmarks.passes import bare_passes, passes_of
from benchmarks.plain_loop import METHODS, PlainLoop, PlainWideResNet, augmentation
from benchmarks.records import keep
from benchmarks.turns import discard, in_turns, is_there, repeated
from ssl_core.data.prepare import SplitImages, prepare
from ssl_core.names import PRECISIONS, parse_model_name
from ssl_core.training.config import TrainingConfig
from ssl_core.training.device import set_up_process
from ssl_core.training.loop import Training
from tune_ssl.packing import Shapes

RECORD = Path(__file__).with_name("step_time.json")
SETTINGS = {
    "digits": ("digits", "wrn-10-1", 50, 30),
    "cifar10": ("cifar10", "wrn-28-2", 50, 2),
    "cifar10 in batches of 512": ("cifar10", "wrn-28-2", 512, 1),
}
"""The data set whose shapes are trained on, network, batch size, steps of a turn."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONVOLUTIONS = "convolutions"
COMPILED = "compiled"
PEAK = "peak"
PASSES = "passes"
LAUNCHES = "two images"
OF_TWO = "convolutions of two images"
MATRIX_SIZES = {"cuda": 8192, "cpu": 1024}
"""Of the matrix product that stands for a device's peak."""
SECONDS_BETWEEN_TURNS = 0.3
"""In which the plain loop's workers load ahead and come to rest, so that they disturb no other."""
BATCHES_LOADED = 8
"""That the plain loop has on a GPU before it begins, where it is measured without its loading, too."""
STEPS_ON_A_GPU = 20
"""So many times the steps of a turn are taken on a GPU, without a pause: an idle one slows its clock."""


def main() -> None:
    """Measure each method, print, and with ``--record`` write down."""
    options = _options()
    if not is_there(options.device):
        return
    set_up_process(options.threads)
    # A GPU's convolutions round float32 to TF32 by themselves; the peak they are held against does, too.
    torch.backends.cuda.matmul.allow_tf32 = True
    if options.compiled:
        torch.compiler.config.force_disable_caches = True  # what an earlier run compiled
    for setting in options.settings.split(","):
        images = digits() if SETTINGS[setting][0] == "digits" else random_images()
        rows = []
        for method in options.methods.split(","):
            rows.append(measure(setting, method, images, options))
            print(as_text(rows[-1]), flush=True)
        if options.record:
            about = {"threads": options.threads, "capability": _capability(options.device)}
            compiled = ", compiled" if options.compiled else ""
            keep(RECORD, f"{setting} on {options.device}{compiled}", about | {"rows": rows})


def measure(
    setting: str, method: str, images: SplitImages, options: argparse.Namespace
) -> dict[str, Any]:
    """Return milliseconds per step of the plain loop and of ours in each precision."""
    _, model, batch_size, steps = SETTINGS[setting]
    precisions = options.precisions.split(",")
    ours = {precision: precision for precision in precisions}
    seconds_to_compile = {}
    of_the_peak: dict[str, float] = {}  # a step's operations over those of the matrix product
    plain = plain_loop(method, images, model, batch_size, options.device)
    loops: dict[str, Callable[[int], None]] = {"plain": plain_steps_of(plain)}
    on_gpu = options.device.startswith("cuda")
    if on_gpu:
        without = plain_loop(method, images, model, batch_size, options.device)
        loops["plain without loading"] = plain_steps_of(without.loaded_before(BATCHES_LOADED))
    if options.compiled:
        torch._dynamo.reset()  # what an earlier method compiled
    for precision in precisions:
        training = _ours(setting, method, images, precision, options)
        loops[precision] = steps_of(training)
        alone = _ours(setting, method, images, precision, options, batch_size=2)
        loops[f"{LAUNCHES} {precision}"] = steps_of(alone)
        if method == "supervised":
            own = convolutions_of(training.student, _batch(images, batch_size, options.device))
            device = torch.device(options.device)
            loops[f"{CONVOLUTIONS} {precision}"] = repeated(
                bare_step(own, DTYPES[precision], device)
            )
            few = convolutions_of(training.student, _batch(images, 2, options.device))
            loops[f"{OF_TWO} {precision}"] = repeated(bare_step(few, DTYPES[precision], device))
            others = passes_of(training.student, _batch(images, batch_size, options.device))
            loops[f"{PASSES} {precision}"] = repeated(
                bare_passes(others, DTYPES[precision], device)
            )
            size = MATRIX_SIZES.get(device.type, 1024)
            loops[f"{PEAK} {precision}"] = repeated(matrix_product(size, DTYPES[precision], device))
            of_the_peak[precision] = sum(one.flops for one in own) / (2 * size**3)
        if options.compiled:
            compiled = f"{COMPILED} {precision}"
            training = _ours(setting, method, images, precision, options, compile=True)
            loops[compiled] = steps_of(training)
            ours[compiled] = precision
            seconds_to_compile[compiled] = round(_seconds_of(training, 2), 1)
    taken = in_turns(
        loops,
        steps=steps * (STEPS_ON_A_GPU if on_gpu else 1),
        turns=options.turns,
        device=options.device,
        pause=0.0 if on_gpu else SECONDS_BETWEEN_TURNS,
    )
    row: dict[str, Any] = {
        "setting": setting,
        "method": method,
        "model": model,
        "batch_size": batch_size,
        "milliseconds": {
            name: round(1000 * statistics.median(own), 2) for name, own in taken.items()
        },
        "times_faster": {
            name: round(_median_ratio(taken["plain"], taken[name]), 2) for name in ours
        },
        "quartiles_of_times_faster": {
            name: _quartiles(taken["plain"], taken[name]) for name in ours
        },
    }
    if method == "supervised":
        row["of_the_ceiling"] = {
            name: round(_median_ratio(taken[f"{CONVOLUTIONS} {precision}"], taken[name]), 2)
            for name, precision in ours.items()
        }
        row["reachable"] = {
            name: round(
                statistics.median(
                    own / (own + rest)
                    for own, rest in zip(
                        taken[f"{CONVOLUTIONS} {name}"], taken[f"{PASSES} {name}"], strict=True
                    )
                ),
                2,
            )
            for name in precisions
        }
        row["times_faster_at_most"] = {
            name: round(
                statistics.median(
                    plain / (own + two_images - of_two)
                    for plain, own, two_images, of_two in zip(
                        taken["plain"],
                        taken[f"{CONVOLUTIONS} {name}"],
                        taken[f"{LAUNCHES} {name}"],
                        taken[f"{OF_TWO} {name}"],
                        strict=True,
                    )
                ),
                2,
            )
            for name in precisions
        }
        row["of_the_peak"] = {
            name: round(times * _median_ratio(taken[f"{PEAK} {name}"], taken[name]), 3)
            for name, times in of_the_peak.items()
        }
    if options.compiled:
        row["seconds_to_compile"] = seconds_to_compile
    return row


def as_text(row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    spent = ", ".join(f"{name} {ms:.1f} ms" for name, ms in row["milliseconds"].items())
    faster = ", ".join(f"{name} {ratio:.2f} x" for name, ratio in row["times_faster"].items())
    ceiling = ", ".join(
        f"{name} {share:.2f}" for name, share in row.get("of_the_ceiling", {}).items()
    )
    peak = ", ".join(f"{name} {share:.1%}" for name, share in row.get("of_the_peak", {}).items())
    reachable = ", ".join(f"{name} {share:.2f}" for name, share in row.get("reachable", {}).items())
    most = ", ".join(
        f"{name} {ratio:.2f} x" for name, ratio in row.get("times_faster_at_most", {}).items()
    )
    return f"{row['setting']:<8} {row['method']:<13} {spent}; faster than plain: {faster}" + (
        f" (at most {most}); of the convolutions' ceiling: {ceiling}; reachable: {reachable}; of the peak: {peak}"
        if ceiling
        else ""
    )


def digits() -> SplitImages:
    """Return the digits as a search has them."""
    return prepare(TrainingConfig.from_record({"algorithm": "supervised"}).data)


def random_images(count: int = 2000, size: int = 32) -> SplitImages:
    """Return random pixels in three channels, augmented as CIFAR-10 is."""
    shapes = Shapes(
        channels=3,
        side=size,
        num_classes=10,
        max_shift=max(1, size // 16),
        flip=True,
        noise=0.15,
        whitens=False,
        megabytes=0,
    )
    return shapes.random_images(count)


def plain_loop(
    method: str, images: SplitImages, model: str, batch_size: int, device: str
) -> PlainLoop:
    """Return the loop a user writes today on a search's images."""
    depth, width = parse_model_name(model)
    _, channels, size, _ = images.images.shape
    how, normal = images.augmentation, images.normalisation
    mean, std = ([value / 255 for value in own] for own in (normal.mean, normal.std))
    last = np.ascontiguousarray(images.images.transpose(0, 2, 3, 1))
    return PlainLoop(
        method,
        PlainWideResNet(depth, width, channels, images.num_classes),
        (last[images.labeled], images.labels),
        last[images.unlabeled],
        augmentation(size, how.max_shift, how.flip, how.noise, mean, std),
        batch_size,
        weight=1.0,
        learning_rate=1e-3,
        device=device,
    )


def plain_steps_of(loop: PlainLoop) -> Callable[[int], None]:
    """Return what takes steps of the plain loop."""
    return repeated(lambda: discard(loop.step()))


def _ours(
    setting: str,
    method: str,
    images: SplitImages,
    precision: str,
    options: argparse.Namespace,
    *,
    batch_size: int | None = None,
    compile: bool = False,
) -> Training:
    dataset, model, usual, _ = SETTINGS[setting]
    return endless_training(
        images,
        algorithm=method,
        dataset=dataset,
        model=model,
        batch_size=batch_size or usual,
        precision=precision,
        compile=compile,
        threads=options.threads,
        device=options.device,
    )


def endless_training(images: SplitImages, **settings: Any) -> Training:
    """Return a training with these settings that has steps for any benchmark."""
    return Training(TrainingConfig.from_record({"max_steps": 10**6} | settings), images)


def steps_of(training: Training) -> Callable[[int], None]:
    """Return what takes steps of a training, as a worker does: many in one call."""
    return lambda count: training.run(training.step + count)


def _seconds_of(training: Training, steps: int) -> float:
    """Return how long a training takes for its next steps."""
    before = time.monotonic()
    training.run(training.step + steps)
    return time.monotonic() - before


def _batch(images: SplitImages, size: int, device: str) -> torch.Tensor:
    return torch.zeros(size, *images.images.shape[1:], device=device)


def _median_ratio(slower: list[float], faster: list[float]) -> float:
    return statistics.median(_ratios(slower, faster))


def _quartiles(slower: list[float], faster: list[float]) -> list[float]:
    bounds = np.quantile(_ratios(slower, faster), (0.25, 0.75))
    return [round(float(bound), 2) for bound in bounds]


def _ratios(slower: list[float], faster: list[float]) -> list[float]:
    return [one / other for one, other in zip(slower, faster, strict=True)]


def _capability(device: str) -> str:
    """Return what torch says the processor can, or which GPU it is."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    extras = [
        name
        for name, there in (
            ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported()),
            ("AMX", torch.cpu._is_amx_tile_supported()),
        )
        if there
    ]
    return " + ".join([torch.backends.cpu.get_cpu_capability(), *extras])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", default="digits,cifar10")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
