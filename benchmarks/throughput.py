"""Optimiser steps per second of a whole search, and of the same trainings as bare processes.

    python -m benchmarks.throughput --record

A search on digits trains random and suggested configurations to their full length (``--scheduler
none``), two at a time. Then two plain scripts train the same configurations, a half each, one after
another. Both times are of the whole command, imports and start-up included. The steady ratio
compares a training with a training: the first of each worker, which waits for the imports, is left
out. Searches and scripts are interleaved; medians are shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.records import write_record

RECORD = Path(__file__).with_name("throughput.json")
PROCESSES = 2

BARE = """
import sys, time, yaml
from ssl_core.data.prepare import prepare
from ssl_core.training.config import TrainingConfig
from ssl_core.training.device import set_up_process
from ssl_core.training.loop import Training

shared = None
for path in sys.argv[1:]:
    began = time.time()
    config = TrainingConfig.from_record(yaml.safe_load(open(path)))
    set_up_process(config.threads)
    shared = shared or prepare(config.data)
    training = Training(config, shared)
    training.run(config.max_steps)
    training.report()
    print(time.time() - began)
"""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of a whole command, and of a training in it that is not its worker's first."""

    whole: float
    training: float


def main() -> None:
    """Measure both, interleaved, and print the ratios."""
    options = _options()
    searches, scripts = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            searches.append(search(options, Path(folder)))
            scripts.append(bare(sorted(Path(folder).glob("search/trials/*/config.yaml"))))
        print(f"search {searches[-1]}, bare {scripts[-1]}", file=sys.stderr)
    found = result(searches, scripts, steps=options.trials * options.max_steps)
    print(as_text(found))
    if options.record:
        write_record(RECORD, found)


def search(options: argparse.Namespace, folder: Path) -> Timing:
    """Run a whole search as a user does, without the dashboard."""
    command = [sys.executable, "-m", "tune_ssl.cli", "--alg", options.alg, "--scheduler", "none"]
    command += ["--trials", str(options.trials), "--max-steps", str(options.max_steps)]
    command += ["--concurrency", str(PROCESSES), "--no-dashboard"]
    command += ["--output", str(folder), "--name", "search"]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = time.monotonic() - began
    lines = (folder / "search" / "events.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if "trial" in event]
    started = {event["trial"]: event["time"] for event in events if event["event"] == "started"}
    ended = {event["trial"]: event["time"] for event in events if event["event"] == "ended"}
    seconds = [ended[number] - started[number] for number in sorted(started)]
    return Timing(whole=whole, training=statistics.mean(seconds[PROCESSES:]))


def bare(configurations: list[Path]) -> Timing:
    """Train the configurations in plain scripts side by side."""
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", BARE, *map(str, configurations[place::PROCESSES])],
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in range(PROCESSES)
    ]
    outputs = [process.communicate()[0].split() for process in running]
    whole = time.monotonic() - began
    later = [float(seconds) for output in outputs for seconds in output[1:]]
    return Timing(whole=whole, training=statistics.mean(later))


def result(searches: list[Timing], scripts: list[Timing], *, steps: int) -> dict[str, Any]:
    """Return steps per second of both, and the search's part of what bare processes reach."""
    pairs = list(zip(searches, scripts, strict=True))
    ratios = [script.whole / search.whole for search, script in pairs]
    steady = [script.training / search.training for search, script in pairs]
    return {
        "steps": steps,
        "search_steps_per_second": round(
            statistics.median(steps / timing.whole for timing in searches), 2
        ),
        "bare_steps_per_second": round(
            statistics.median(steps / timing.whole for timing in scripts), 2
        ),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "steady_ratio": round(statistics.median(steady), 3),
        "steady_ratios": [round(ratio, 3) for ratio in steady],
        "overhead_seconds": round(
            statistics.median(search.whole - script.whole for search, script in pairs), 2
        ),
    }


def as_text(found: dict[str, Any]) -> str:
    """Return what people read."""
    return (
        f"search {found['search_steps_per_second']:.1f} steps/s, bare processes "
        f"{found['bare_steps_per_second']:.1f} steps/s: {found['ratio']:.2f} of them "
        f"({found['overhead_seconds']:+.1f} s); without the first trainings {found['steady_ratio']:.2f}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--alg", default="ict")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--max-steps", type=int, default=450)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep the result beside the script")
    return parser.parse_args()


if __name__ == "__main__":
    main()
