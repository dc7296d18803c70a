"""How many more steps per second trials make that share a GPU, beside one that has it alone.

    python -m benchmarks.packing --device cuda --record

1, 2, 4, ... trainings run side by side, each in a process of its own, as ``--gpus-per-trial auto`` measures
them before a search: until more of them bring nothing, do not fit, or lack cores. The figure is the rate of
the packing that a search would take over that of one training alone.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.records import keep
from benchmarks.step_time import SETTINGS, digits, random_images
from benchmarks.turns import is_there
from ssl_core.names import ALGORITHM_NAMES, PRECISIONS
from ssl_core.training.config import TrainingConfig
from tune_ssl import machine
from tune_ssl.packing import (
    Packing,
    Shapes,
    best_packing,
    measure_packings,
    memory_of,
    side_by_side,
)

RECORD = Path(__file__).with_name("packing.json")


def main() -> None:
    """Measure each method, print, and with ``--record`` write down."""
    options = _options()
    if not is_there(options.device):
        return
    for setting in options.settings.split(","):
        for method in options.methods.split(","):
            row = figures(measured(setting, method, options))
            print(as_text(setting, method, row), flush=True)
            if options.record:
                keep(RECORD, f"{setting}, {method} on {options.device}", row)


def measured(setting: str, method: str, options: argparse.Namespace) -> list[Packing]:
    """Return the rate of 1, 2, 4, ... trainings at once, as long as more are worth while."""
    dataset, model, batch_size, _ = SETTINGS[setting]
    shapes = Shapes.of(digits() if dataset == "digits" else random_images())
    config = TrainingConfig.from_record(
        {
            "algorithm": method,
            "dataset": dataset,
            "model": model,
            "batch_size": batch_size,
            "precision": options.precision,
            "device": options.device,
            "max_steps": 10**9,
        }
    )
    return measure_packings(
        partial(side_by_side, config.to_record(), shapes, seconds=options.seconds),
        most=options.most,
        total_megabytes=memory_of(options.device),
    )


def figures(packings: list[Packing]) -> dict[str, Any]:
    """Return all rates, the packing a search would take, and its rate over that of one training."""
    best = best_packing(packings)
    return {
        "packings": [asdict(packing) for packing in packings],
        "best": best.trials,
        "times_one_alone": round(best.steps_per_second / packings[0].steps_per_second, 2),
    }


def as_text(setting: str, method: str, row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    rates = ", ".join(
        f"{one['trials']}: {one['steps_per_second']:.0f}/s ({one['megabytes']} MB each)"
        for one in row["packings"]
    )
    return (
        f"{setting:<8} {method:<13} {rates}; best {row['best']} at once, "
        f"{row['times_one_alone']:.2f} x the steps of one alone"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", default="digits,cifar10")
    parser.add_argument("--methods", default=",".join(ALGORITHM_NAMES))
    parser.add_argument("--precision", default="bfloat16", choices=PRECISIONS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--most", type=int, default=machine.usable_cpus())
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
