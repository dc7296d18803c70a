"""What a trial costs beside its steps on a worker that has run others: from its task to its first step.

    python -m benchmarks.trial_start --record

A worker's runner takes up one trial after another, as in a search; the cost of a start is the time from
the task to the end of the first step, less the median of the steps that follow. The first trial, which
loads libraries and images and on a GPU records the step, is left out. Resident memory is the peak of a
method's last trial, with all its worker holds.

``--compile`` has the networks compiled, and tells a method's first start, too: what its passes take that no method before
it had, where torch has none of them on disk or, run once more, has them all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.records import keep
from benchmarks.step_time import SETTINGS, digits, random_images
from benchmarks.turns import discard, is_there
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl.machine import peak_resident_bytes
from tune_ssl.trial import TrainingFactory

RECORD = Path(__file__).with_name("trial_start.json")


def main() -> None:
    """Measure, print, and with ``--record`` write down."""
    options = _options()
    if not is_there(options.device):
        return
    for setting in options.settings.split(","):
        dataset, model, batch_size, _ = SETTINGS[setting]
        factory = TrainingFactory(digits() if dataset == "digits" else random_images())
        rows = []
        for method in options.methods.split(","):
            record = {
                "algorithm": method,
                "dataset": dataset,
                "model": model,
                "batch_size": batch_size,
                "max_steps": 10**6,
                "device": options.device,
                "compile": options.compile,
            }
            starts = [started(factory, record, options.steps) for _ in range(options.trials + 1)]
            row = {
                "method": method,
                "start_milliseconds": round(1000 * statistics.median(starts[1:]), 1),
                "resident_megabytes": peak_resident_bytes() // 2**20,
            }
            if options.compile:
                row["first_start_seconds"] = round(starts[0], 1)
            rows.append(row)
            print(as_text(setting, rows[-1]), flush=True)
        if options.record:
            compiled = ", compiled" if options.compile else ""
            keep(RECORD, f"{setting} on {options.device}{compiled}", {"rows": rows})


def started(factory: TrainingFactory, record: dict[str, Any], steps: int) -> float:
    """Return the seconds a trial took to its first step's end, less those of a step."""
    began = time.perf_counter()
    work = factory(record)
    work.run(1)
    discard(work.finite)  # waits for the device
    first = time.perf_counter() - began
    later = []
    for step in range(2, 2 + steps):
        began = time.perf_counter()
        work.run(step)
        discard(work.finite)
        later.append(time.perf_counter() - began)
    return first - statistics.median(later)


def as_text(setting: str, row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    text = (
        f"{setting:<8} {row['method']:<13} start {row['start_milliseconds']:.1f} ms; "
        f"resident {row['resident_megabytes']} MB"
    )
    if "first_start_seconds" in row:
        text += f"; the first {row['first_start_seconds']:.1f} s"
    return text


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", default="digits,cifar10")
    parser.add_argument("--methods", default=",".join(ALGORITHM_NAMES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
