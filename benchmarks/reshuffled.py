"""Whether dividing the labels anew for every trial (``--reshuffle-validation``) finds better configurations.

    python -m benchmarks.reshuffled train              what is missing, draw after draw
    python -m benchmarks.reshuffled judge --record     from what is there, a minute

Two tables of real trainings on digits with 20 labels, configurations x draws of labels:

- ``reshuffled.jsonl``, which ``train`` fills: random configurations of four methods, short trainings of 100
  steps. Draws come in groups of three, which divide the same 40 labels in different ways. Of each training
  it is kept which of the 400 validation and the 600 test images it classified.
- ``curves/``: 150 random configurations of each of seven methods, trained in full, each on the same two draws, with
  the accuracy on 400 validation images and on the test images.

Searches are made of them, again and again: a search trains so many random configurations, sees of each the
accuracy on V validation images, and takes the best. *Fixed*: all have the same draw of labels and the same
images. *Reshuffled*: each has a draw at random, and V images of its own out of V + 20. With V = 20 the draws
divide the same 40 labels; with more they are all draws there are. Both search the same configurations. What is
taken is judged by the test images, which are used for nothing else, twice:

- ``worth``: the configuration, by its mean on draws that share no label with the one it was seen on; each draw's
  mean over configurations is taken out, so that no draw's luck counts;
- ``network``: the network that the search trained and would export.

Errors are those of a bootstrap over configurations. The draws are few, and their luck is not in them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.record_curves import RandomTrial, read
from benchmarks.records import read_lines, write_record
from search_spaces.joint import StudySpace, Suggestion
from ssl_core.data.prepare import SplitImages
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl.trial import unpack_correct

Floats = npt.NDArray[np.float64]

TRAININGS = Path(__file__).with_name("reshuffled.jsonl")
RECORD = Path(__file__).with_name("reshuffled.json")
METHODS = ("supervised", "pseudo_label", "pi_model", "mean_teacher")
CONFIGURATIONS = 16
GROUPS, DIVISIONS = 6, 3
FIRST_DRAW = 7000  # no search or other benchmark has seen it or those after it
LABELS, VALIDATION = 20, 400
MAX_STEPS, BATCH_SIZE = 100, 20
CHOSEN_ON = (20, 100, 400)
SEARCHED = 12
"""Configurations of one search."""
SEARCHES = 200
RESAMPLES = 60


class Job(NamedTuple):
    """One training: a configuration on a division of a group's 40 labels."""

    configuration: int
    group: int
    division: int


class Table(NamedTuple):
    """Trainings of configurations on draws of labels.

    Args:
        validation: (C, D, n), which validation images each classified; n = 1 where only the
            accuracy is known.
        test: (C, D) accuracy on the test images.
        groups: (D,); draws of one group share labels.
    """

    validation: Floats
    test: Floats
    groups: npt.NDArray[np.int64]


class Found(NamedTuple):
    """What the configurations that searches took are worth, and their networks: means."""

    worth: float
    network: float


def main() -> None:
    """Train what is missing, or print, and with ``--record`` write down, what searches find."""
    options = _options()
    if options.part == "train":
        train_missing(options.minutes)
        return
    short = short_table()
    rows = [
        *(row("short trainings", short, labels) for labels in CHOSEN_ON),
        *(
            row(f"full trainings, {method}", curves_table(method), 400)
            for method in ALGORITHM_NAMES
        ),
    ]
    for one in rows:
        print(one, flush=True)
    figures = {
        "configurations_of_a_search": SEARCHED,
        "searches": SEARCHES,
        "resamples": RESAMPLES,
        "short_trainings": list(short.test.shape),
        "rows": rows,
    }
    if options.record:
        write_record(RECORD, figures)


def train_missing(minutes: float) -> None:
    """Train group after group, so that what is there is of all configurations alike."""
    done = {Job(*line["job"]) for line in read_lines(TRAININGS)}
    deadline = time.monotonic() + 60 * minutes
    for job in jobs():
        if job in done:
            continue
        if time.monotonic() > deadline:
            break
        line = trained(job)
        with open(TRAININGS, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(job, line["seconds"], file=sys.stderr, flush=True)


def jobs() -> list[Job]:
    """Return all trainings, a draw of labels after the other."""
    return [
        Job(configuration, group, division)
        for group in range(GROUPS)
        for division in range(DIVISIONS)
        for configuration in range(CONFIGURATIONS)
    ]


def configuration(number: int) -> Suggestion:
    """Return a random configuration; the methods take turns."""
    method = METHODS[number % len(METHODS)]
    space = StudySpace(algorithms=(method,), num_classes=10, max_steps=MAX_STEPS, first_rung=1 / 4)
    return space.suggest(RandomTrial(seed=number))


def divided(group: int, division: int) -> SplitImages:
    """Return a group's images with 20 of its 40 labels: two of the four of each class."""
    from ssl_core.data.config import DataConfig
    from ssl_core.data.prepare import prepare

    shared = prepare(
        DataConfig(num_labels=2 * LABELS, num_validation=VALIDATION, split_seed=FIRST_DRAW + group)
    )
    random = np.random.RandomState(division)
    kept = np.concatenate(
        [
            random.permutation(np.flatnonzero(shared.labels == label))[: LABELS // 10]
            for label in range(shared.num_classes)
        ]
    )
    kept.sort()
    return dataclasses.replace(shared, labeled=shared.labeled[kept], labels=shared.labels[kept])


def trained(job: Job) -> dict[str, Any]:
    """Train and return what was classified."""
    from benchmarks.sealed import classified
    from ssl_core.training.config import TrainingConfig

    suggestion = configuration(job.configuration)
    config = TrainingConfig.from_record(
        {
            "algorithm": suggestion.algorithm,
            "divergence": suggestion.divergence,
            "parameters": suggestion.parameters,
            "max_steps": MAX_STEPS,
            "batch_size": BATCH_SIZE,
            "threads": 1,
            "seed": jobs().index(job),
        }
    )
    began = time.process_time()
    found = classified(config, divided(job.group, job.division))
    return {
        "job": list(job),
        "algorithm": suggestion.algorithm,
        **found,
        "seconds": round(time.process_time() - began, 2),
    }


def short_table() -> Table:
    """Return what ``train`` recorded, of draws that all configurations have."""
    lines = {Job(*line["job"]): line for line in read_lines(TRAININGS)}
    draws = [
        (group, division)
        for group in range(GROUPS)
        for division in range(DIVISIONS)
        if all(Job(number, group, division) in lines for number in range(CONFIGURATIONS))
    ]

    def correct(images: str) -> Floats:
        return np.array(
            [
                [unpack_correct(lines[Job(number, *draw)][images]) for draw in draws]
                for number in range(CONFIGURATIONS)
            ],
            dtype=np.float64,
        )

    groups = np.array([group for group, _ in draws])
    return Table(correct("validation"), correct("test").mean(axis=-1), groups)


def curves_table(method: str) -> Table:
    """Return the recorded full trainings of a method, on two draws without a common label."""
    ends = {
        (line["configuration"], line["replicate"]): (line["validation"][-1], line["test"])
        for line in read(method)
        if line["finite"]
    }
    numbers = [number for number, replicate in ends if replicate == 0 and (number, 1) in ends]
    both = np.array([[ends[number, replicate] for replicate in (0, 1)] for number in numbers])
    return Table(both[..., :1], both[..., 1], np.arange(2))


def row(of: str, table: Table, labels: int) -> dict[str, Any]:
    """Return what fixed and reshuffled searches find, and the difference with its 95 % interval."""
    fixed, reshuffled = searches(table, labels, np.arange(len(table.test)), seed=0)
    generator = np.random.default_rng(1)
    gains = []
    for number in range(RESAMPLES):
        chosen = generator.integers(len(table.test), size=len(table.test))
        one, other = searches(table, labels, chosen, seed=2 + number)
        gains.append(np.subtract(other, one))
    low, high = np.quantile(gains, (0.025, 0.975), axis=0)
    return {
        "of": of,
        "labels_to_choose": labels,
        **{
            name: {
                "fixed": round(fixed[place], 4),
                "reshuffled": round(reshuffled[place], 4),
                "gain": [
                    round(float(x), 4)
                    for x in (reshuffled[place] - fixed[place], low[place], high[place])
                ],
            }
            for place, name in enumerate(Found._fields)
        },
    }


def searches(
    table: Table, labels: int, configurations: npt.NDArray[np.int64], seed: int
) -> tuple[Found, Found]:
    """Return the means over ``SEARCHES`` of fixed and of reshuffled searches.

    Args:
        configurations: those to search; one that comes twice is searched once.
    """
    generator = np.random.default_rng(seed)
    distinct = np.unique(configurations)
    worth = _worth(table)
    found = np.empty((SEARCHES, 2, 2))
    for number in range(SEARCHES):
        handful = generator.permutation(distinct)[:SEARCHED]
        home = int(generator.integers(len(table.groups)))
        fixed = np.full(len(handful), home)
        near = np.flatnonzero(table.groups == table.groups[home])
        allowed = near if labels == LABELS and len(near) > 1 else np.arange(len(table.groups))
        for place, draws in enumerate((fixed, generator.choice(allowed, size=len(handful)))):
            seen = _seen(table, handful, draws, labels, generator, own_images=place == 1)
            winner = int(seen.argmax())
            taken = handful[winner], draws[winner]
            found[number, place] = worth[taken], table.test[taken]
    fixed_mean, reshuffled_mean = found.mean(axis=0).tolist()
    return Found(*fixed_mean), Found(*reshuffled_mean)


def _worth(table: Table) -> Floats:
    """Return (C, D): a configuration's mean on draws of other groups than that of draw d."""
    centred = table.test - table.test.mean(axis=0) + table.test.mean()
    others = table.groups[:, None] != table.groups
    return centred @ (others / others.sum(axis=0))


def _seen(
    table: Table,
    configurations: npt.NDArray[np.int64],
    draws: npt.NDArray[np.int64],
    labels: int,
    generator: np.random.Generator,
    *,
    own_images: bool,
) -> Floats:
    """Return the accuracy that a search sees of each configuration on its draw."""
    correct = table.validation[configurations, draws]
    images = generator.permutation(correct.shape[1])[: labels + LABELS]
    if not own_images:
        return correct[:, images[:labels]].mean(axis=1)
    kept = images[generator.random((len(configurations), len(images))).argsort(axis=1)[:, :labels]]
    return np.take_along_axis(correct, kept, axis=1).mean(axis=1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("train", "judge"))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
