"""How the time of a training step grows with batch, width, depth and image size, in both precisions.

    python -m benchmarks.step_growth --record --plot docs/step_time.svg

Supervised steps, each network alone, both precisions in turns; the operations are those of its
convolutions, forward and backward (``convolutions``). Where a step is close to linear in its operations,
the points lie on a line of slope one. ``--precision auto`` (``tune_ssl/workflows/plan.py``) rests
on these figures.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.convolutions import convolutions_of
from benchmarks.records import write_record
from benchmarks.step_time import endless_training, random_images, steps_of
from benchmarks.turns import in_turns, is_there
from ssl_core.data.prepare import SplitImages
from ssl_core.training.device import set_up_process
from ssl_core.training.loop import Training

RECORD = Path(__file__).with_name("step_growth.json")
BASE = {"depth": 16, "width": 2, "batch": 50, "size": 32}
SWEEPS = {
    "batch": (10, 25, 50, 100, 200),
    "width": (1, 2, 4),
    "depth": (10, 16, 28),
    "size": (8, 16, 32, 48),
}
PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Measure, print, and with ``--record`` write down."""
    options = _options()
    if not is_there(options.device):
        return
    set_up_process(options.threads)
    rows = []
    for swept, values in SWEEPS.items():
        for value in values:
            rows.append(measure(BASE | {swept: value}, options) | {"swept": swept})
            print(as_text(rows[-1]), flush=True)
    figures = {"threads": options.threads, "device": options.device, "rows": rows}
    figures["slopes"] = {
        precision: {swept: slope(rows, swept, precision) for swept in SWEEPS}
        for precision in PRECISIONS
    }
    print(json.dumps(figures["slopes"], indent=2))
    if options.record:
        write_record(RECORD, figures)
    if options.plot:
        plot(rows, options.plot)


def measure(shape: dict[str, int], options: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds of a step in each precision, and its operations in GFLOP."""
    images = random_images(1000, shape["size"])
    trainings = {name: _training(shape, images, name, options) for name in PRECISIONS}
    network = trainings["float32"].student
    batch = torch.zeros(shape["batch"], *images.images.shape[1:], device=options.device)
    operations = sum(one.flops for one in convolutions_of(network, batch))
    loops = {name: steps_of(training) for name, training in trainings.items()}
    taken = in_turns(loops, steps=1, turns=options.turns, device=options.device)
    return {
        **shape,
        "gigaflop": round(operations / 1e9, 3),
        "milliseconds": {
            name: round(1000 * statistics.median(own), 2) for name, own in taken.items()
        },
    }


def slope(rows: list[dict[str, Any]], swept: str, precision: str) -> float:
    """Return the exponent of time over operations in one sweep: 1 is linear, less is better."""
    own = [row for row in rows if row["swept"] == swept]
    log_work = [math.log(row["gigaflop"]) for row in own]
    log_time = [math.log(row["milliseconds"][precision]) for row in own]
    return round(float(np.polyfit(log_work, log_time, 1)[0]), 2)


def as_text(row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    spent = ", ".join(f"{name} {ms:.1f} ms" for name, ms in row["milliseconds"].items())
    return (
        f"wrn-{row['depth']}-{row['width']}, {row['batch']} images of {row['size']} x {row['size']}: "
        f"{row['gigaflop']:.2f} GFLOP, {spent}"
    )


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Draw time over operations, a panel for each precision, to an SVG file."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True)
    for panel, precision in zip(panels, PRECISIONS, strict=True):
        for swept in SWEEPS:
            own = [row for row in rows if row["swept"] == swept]
            work = [row["gigaflop"] for row in own]
            spent = [row["milliseconds"][precision] for row in own]
            panel.loglog(work, spent, marker="o", label=swept)
        line = [row["gigaflop"] for row in rows]
        largest = max(rows, key=lambda row: row["gigaflop"])
        rate = largest["milliseconds"][precision] / largest["gigaflop"]
        panel.loglog(
            [min(line), max(line)],
            [rate * min(line), rate * max(line)],
            color="grey",
            linestyle=":",
            label="linear",
        )
        panel.set_title(precision)
        panel.set_xlabel("GFLOP of a step's convolutions")
    panels[0].set_ylabel("milliseconds of a step")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path)


def _training(
    shape: dict[str, int], images: SplitImages, precision: str, options: argparse.Namespace
) -> Training:
    return endless_training(
        images,
        algorithm="supervised",
        dataset="cifar10",
        model=f"wrn-{shape['depth']}-{shape['width']}",
        batch_size=shape["batch"],
        precision=precision,
        threads=options.threads,
        device=options.device,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--plot", help="an SVG file to be written; needs matplotlib")
    return parser.parse_args()


if __name__ == "__main__":
    main()
