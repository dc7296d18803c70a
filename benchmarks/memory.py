"""What it is worth on a CPU that a training keeps the memory it frees, in huge pages.

    python -m benchmarks.memory --record

Processes take steps of WRN-28-2 in turns: one whose memory is as the system has it, one that ``set_up_process``
made ready. The figure is the median over turns of the ratio of their steps' medians; beside it pages taken anew in a step,
and the most memory of either. What a step computes is the same to the last bit.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import keep
from benchmarks.step_time import endless_training, random_images
from ssl_core.training.device import set_up_process
from tune_ssl import machine

RECORD = Path(__file__).with_name("memory.json")
USUAL, OURS = "usual", "ours"
WARM_UP = 4


def main() -> None:
    """Measure each method, print, and with ``--record`` write down."""
    options = _options()
    if options.kind:
        print(
            json.dumps(steps_of(options.methods, options.precisions, options.kind, options.steps))
        )
        return
    for method in options.methods.split(","):
        for precision in options.precisions.split(","):
            row = measured(method, precision, options)
            print(as_text(row), flush=True)
            if options.record:
                keep(RECORD, f"{method}, {precision}", row)


def measured(method: str, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what steps of a method take with either memory, in turns."""
    turns = [
        {
            kind: _in_a_process(method, precision, kind, options.steps)
            for kind in ((USUAL, OURS) if turn % 2 == 0 else (OURS, USUAL))
        }
        for turn in range(options.turns)
    ]
    return figures(turns) | {"method": method, "precision": precision, "turns": options.turns}


def figures(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return the median ratio of a turn's steps, and medians of all else by kind."""
    middle = {
        kind: {
            name: statistics.median(turn[kind][name] for turn in turns) for name in turns[0][kind]
        }
        for kind in (USUAL, OURS)
    }
    ratios = [turn[OURS]["milliseconds"] / turn[USUAL]["milliseconds"] for turn in turns]
    return {"ratio": round(statistics.median(ratios), 3), **middle}


def steps_of(method: str, precision: str, kind: str, steps: int) -> dict[str, float]:
    """Return milliseconds of a step, pages it takes anew, and megabytes of this process."""
    if kind == OURS:
        set_up_process(1)
    else:
        torch.set_num_threads(1)
    training = endless_training(
        random_images(),
        algorithm=method,
        dataset="cifar10",
        model="wrn-28-2",
        batch_size=50,
        precision=precision,
        threads=1,
    )
    training.run(WARM_UP)
    pages, taken = _pages(), []
    for _ in range(steps):
        began = time.perf_counter()
        training.run(training.step + 1)
        taken.append(time.perf_counter() - began)
    return {
        "milliseconds": round(1000 * statistics.median(taken), 1),
        "pages": round((_pages() - pages) / steps),
        "megabytes": machine.peak_resident_bytes() // 2**20,
    }


def as_text(row: dict[str, Any]) -> str:
    """Return a row in words."""
    usual, ours = row[USUAL], row[OURS]
    return (
        f"{row['method']}, {row['precision']}: {ours['milliseconds']:g} ms beside {usual['milliseconds']:g} ms, "
        f"{row['ratio']:.2f}; pages a step {ours['pages']:g} beside {usual['pages']:g}, "
        f"{ours['megabytes']:g} MB beside {usual['megabytes']:g}"
    )


def _in_a_process(method: str, precision: str, kind: str, steps: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--methods", method]
    command += ["--precisions", precision, "--kind", kind, "--steps", str(steps)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _pages() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default="supervised,mean_teacher,mixmatch")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--kind", choices=(USUAL, OURS), help="take steps in this process alone")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
