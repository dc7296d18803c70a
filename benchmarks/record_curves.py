"""Learning curves of real trainings, recorded once, to be replayed by the simulator.

For each method, random configurations of its search space are trained to the full length on digits
(20 labels, split seed 0), and measured on the validation images at every step a rung might lie.
Each is trained again with other seeds on other draws of labels (replicates): the mean test accuracy
of those says what the configuration is worth. The test images are used for nothing else. A replicate
has the same draw for all configurations: a draw alone moves the accuracy by five points and more,
which would otherwise be taken for the configurations' worth.

    python -m benchmarks.record_curves --methods ict --configurations 150 --replicates 1

Lines are appended to ``curves/METHOD.jsonl``; what is there is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records import read_lines
from search_spaces.joint import StudySpace
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl import machine

FOLDER = Path(__file__).with_name("curves")
MAX_STEPS = 450
MEASURED_AT = (10, 17, 25, 34, 50, 75, 100, 150, 200, 250, 300, 350, 400, 450)


class RandomTrial:
    """A trial that draws every parameter of a space uniformly, on its scale."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a value in [low, high]."""
        ends = np.log([low, high]) if log else np.array([low, high])
        drawn = self._random.uniform(*ends)
        self.params[name] = float(np.exp(drawn)) if log else float(drawn)
        return self.params[name]

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of the choices."""
        self.params[name] = choices[int(self._random.integers(len(choices)))]
        return self.params[name]


def main() -> None:
    """Record what is missing."""
    options = _options()
    FOLDER.mkdir(exist_ok=True)
    jobs = [
        (method, configuration, replicate)
        for replicate in range(options.replicates + 1)
        for configuration in range(options.configurations)
        for method in options.methods.split(",")
    ]
    recorded = {key(line) for method in options.methods.split(",") for line in read(method)}
    jobs = [job for job in jobs if job not in recorded]
    deadline = time.monotonic() + 60 * options.minutes
    with ProcessPoolExecutor(options.processes) as pool:
        for start in range(0, len(jobs), 4 * options.processes):
            if time.monotonic() > deadline:
                break
            for line in pool.map(record, jobs[start : start + 4 * options.processes]):
                with open(FOLDER / f"{line['algorithm']}.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")
            print(f"{start} of {len(jobs)}", file=sys.stderr, flush=True)


def read(method: str) -> list[dict[str, Any]]:
    """Return what is recorded of a method."""
    return read_lines(FOLDER / f"{method}.jsonl")


def key(line: dict[str, Any]) -> tuple[str, int, int]:
    """Return what a recorded training is known by."""
    return line["algorithm"], line["configuration"], line["replicate"]


def record(job: tuple[str, int, int]) -> dict[str, Any]:
    """Train one configuration to its full length and return its curve.

    Replicate 0 is the trial a search would have run, on split seed 0, measured at every step of
    MEASURED_AT; others are trained on other draws and measured at the end.
    """
    method, configuration, replicate = job
    trial = RandomTrial(seed=configuration)
    space = StudySpace(algorithms=(method,), num_classes=10, max_steps=MAX_STEPS, first_rung=1 / 9)
    suggestion = space.suggest(trial)
    config = {
        "algorithm": suggestion.algorithm,
        "divergence": suggestion.divergence,
        "parameters": suggestion.parameters,
        "max_steps": MAX_STEPS,
        "seed": 1000 * replicate + configuration,
        "split_seed": 2000 + replicate if replicate else 0,
    }
    began = time.monotonic()
    values, test, finite = _train(config, MEASURED_AT if replicate == 0 else MEASURED_AT[-1:])
    return {
        "algorithm": method,
        "configuration": configuration,
        "replicate": replicate,
        "params": {name: round_to_six(value) for name, value in trial.params.items()},
        "validation": values,
        "test": test,
        "finite": finite,
        "seconds": round(time.monotonic() - began, 2),
    }


def round_to_six(value: Any) -> Any:
    """Return a number to six digits, anything else as it is."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _train(
    record: dict[str, Any], measured_at: tuple[int, ...]
) -> tuple[list[float], float | None, bool]:
    from benchmarks.sealed import tested
    from ssl_core.data.prepare import prepare
    from ssl_core.training.config import TrainingConfig
    from ssl_core.training.device import set_up_process
    from ssl_core.training.loop import Training

    config = dataclasses.replace(TrainingConfig.from_record(record), threads=1)
    set_up_process(config.threads)
    shared = prepare(config.data)
    training = Training(config, shared)
    values: list[float] = []
    for step in measured_at:
        training.run(step)
        report = training.report()
        if not (training.finite and report.evaluated.finite):
            return values, None, False
        values.append(round(report.evaluated.accuracy, 6))
    return values, round(tested(training, shared).accuracy, 6), True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=",".join(ALGORITHM_NAMES))
    parser.add_argument("--configurations", type=int, default=150)
    parser.add_argument("--replicates", type=int, default=1)
    parser.add_argument("--processes", type=int, default=machine.usable_cpus())
    parser.add_argument("--minutes", type=float, default=float("inf"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
