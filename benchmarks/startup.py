"""What a command costs before it does anything: help, a mistyped name, the status of a small run.

    python -m benchmarks.startup

Prints medians over repeated runs and their ratio to an empty Python process in the same run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

REPEATS = 15
SMALL_SEARCH = [
    *("-m", "tune_ssl.cli", "--alg", "supervised", "--trials", "3", "--max-steps", "18"),
    *("--no-dashboard", "--name", "small"),
]
"""Its run is what status and export are asked about."""

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "tune-ssl --help": ["-m", "tune_ssl.cli", "--help"],
    "tune-ssl --alg itc (mistyped)": ["-m", "tune_ssl.cli", "--alg", "itc"],
    "tune-ssl status small": ["-m", "tune_ssl.cli", "status", "small"],
    "tune-ssl export small": ["-m", "tune_ssl.cli", "export", "small", "--format", "json"],
    "import optuna": ["-c", "import optuna"],
    "import ray.tune": ["-c", "import ray.tune"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    """Measure every command, interleaved, and print the table."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        _run(SMALL_SEARCH, folder)
        for _ in range(REPEATS):
            for name, arguments in COMMANDS.items():
                began = time.perf_counter()
                _run(arguments, folder)
                seconds[name].append(time.perf_counter() - began)
    empty = statistics.median(seconds["python -c pass"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<32} {median:6.3f} s   {median / empty:6.1f} x an empty process")


def _run(arguments: list[str], folder: str) -> None:
    subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
        check=False,
    )


if __name__ == "__main__":
    main()
