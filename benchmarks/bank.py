"""A bank of real retrainings, for ``statistics`` to draw tables from.

Of each method two configurations are trained again and again on digits with 20 labels: the published
default, and the best of the search that ``comparisons.json`` records, both with the paper's divergence.
Each retraining has a fresh draw of labels and a seed of its own, the same for all; which validation and
test images it classified correctly is kept. What intervals say about a few of them can then be held
against all.

    python -m benchmarks.bank

Lines are appended to ``bank/METHOD.jsonl``, draw by draw; what is there is not trained again. The test
images are used for nothing else: nothing is chosen on the bank.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.comparisons import default_of, recorded
from benchmarks.records import read_lines
from ssl_core.names import ALGORITHM_NAMES
from ssl_core.published import published_divergence
from tune_ssl import machine
from tune_ssl.text import method_text
from tune_ssl.trial import unpack_correct

FOLDER = Path(__file__).with_name("bank")
RETRAININGS = 30
FIRST_DRAW = 5000  # of labels; no search or other benchmark has seen it or those after it


class Job(NamedTuple):
    """One retraining: which configuration of a method, and its draw, which is its seed too."""

    method: str
    which: str
    draw: int


def main() -> None:
    """Train what is missing."""
    options = _options()
    FOLDER.mkdir(exist_ok=True)
    methods = options.methods.split(",")
    jobs = missing(methods, options.retrainings)
    deadline = time.monotonic() + 60 * options.minutes
    with ProcessPoolExecutor(options.processes) as pool:
        for start in range(0, len(jobs), 4 * options.processes):
            if time.monotonic() > deadline:
                break
            for line in pool.map(retrain, jobs[start : start + 4 * options.processes]):
                with open(FOLDER / f"{line['method']}.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")
            print(f"{start} of {len(jobs)}", file=sys.stderr, flush=True)


def missing(methods: list[str], retrainings: int) -> list[Job]:
    """Return the retrainings to do: draw by draw, so that what is there is of all cells alike."""
    wanted = {
        (method, which): digest(record)
        for method in methods
        for which, record in configurations(method).items()
    }
    done = {
        (Job(line["method"], line["which"], line["draw"]), line["configuration"])
        for method in methods
        for line in read(method)
    }
    jobs = [
        Job(method, which, FIRST_DRAW + number)
        for number in range(retrainings)
        for method, which in wanted
    ]
    return [job for job in jobs if (job, wanted[job.method, job.which]) not in done]


def correctness(images: str, *, at_least: int = 1) -> dict[str, npt.NDArray[np.bool_]]:
    """Return, per cell, (retrainings, images): what was classified correctly, in order of draws.

    Only draws that all these cells have, so that rows are paired; cells with too few are left out.
    Tuned supervised comes first.

    Args:
        images: ``test`` or ``validation``.
        at_least: so many retrainings a cell must have.
    """
    cells: dict[str, dict[int, str]] = {}
    for method in ALGORITHM_NAMES:
        lines = read(method)
        for which, record in configurations(method).items():
            cells[f"{method} {which}"] = {
                line["draw"]: line[images]
                for line in lines
                if (line["which"], line["configuration"]) == (which, digest(record))
            }
    cells = {name: rows for name, rows in cells.items() if len(rows) >= at_least}
    shared = sorted(set.intersection(*map(set, cells.values()))) if cells else []
    return {
        name: np.stack([unpack_correct(rows[draw]) for draw in shared])
        for name, rows in cells.items()
        if shared
    }


def configurations(method: str) -> dict[str, dict[str, Any]]:
    """Return the best of a method's recorded search and its published default, as flat records."""
    table = recorded("digits-20")
    name = method_text(method, published_divergence(method))
    (row,) = (row for row in table["cells"] if row["name"] == name)
    default = default_of(row, table)
    return {"best": default | {"parameters": row["searched"][0]["parameters"]}, "default": default}


def digest(record: Mapping[str, Any]) -> str:
    """Return what a configuration is known by, so that others are never counted with it."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


def read(method: str) -> list[dict[str, Any]]:
    """Return what is recorded of a method."""
    return read_lines(FOLDER / f"{method}.jsonl")


def retrain(job: Job) -> dict[str, Any]:
    """Train one configuration on a draw and return what it classified."""
    from benchmarks.sealed import classified
    from ssl_core.data.prepare import prepare
    from ssl_core.training.config import TrainingConfig

    record = configurations(job.method)[job.which]
    given = record | {"seed": job.draw, "split_seed": job.draw}
    config = TrainingConfig.from_record(given)
    began = time.monotonic()
    found = classified(config, prepare(config.data))
    return {
        "method": job.method,
        "which": job.which,
        "configuration": digest(record),
        "draw": job.draw,
        **found,
        "seconds": round(time.monotonic() - began, 2),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--retrainings", type=int, default=RETRAININGS, help="per configuration")
    parser.add_argument("--methods", default=",".join(ALGORITHM_NAMES))
    parser.add_argument("--processes", type=int, default=machine.usable_cpus())
    parser.add_argument("--minutes", type=float, default=float("inf"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
