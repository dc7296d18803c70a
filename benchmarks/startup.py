"""What a command costs before it does anything: help, a mistyped name, completion.

    python -m benchmarks.startup

Prints medians over repeated runs and their ratio to an empty Python process in the same run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

REPEATS = 15

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "tune-ssl --help": ["-m", "tune_ssl.cli", "--help"],
    "tune-ssl --alg itc (mistyped)": ["-m", "tune_ssl.cli", "--alg", "itc"],
    "tune-ssl status no-such-run": ["-m", "tune_ssl.cli", "status", "no-such-run"],
    "import optuna": ["-c", "import optuna"],
    "import ray.tune": ["-c", "import ray.tune"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    """Measure every command, interleaved, and print the table."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ,
                check=False,
            )
            seconds[name].append(time.perf_counter() - began)
    empty = statistics.median(seconds["python -c pass"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<32} {median:6.3f} s   {median / empty:6.1f} x an empty process")


if __name__ == "__main__":
    main()
