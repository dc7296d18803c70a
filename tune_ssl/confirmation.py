"""What retrainings say: the winner by validation, then figures on the test images. Pure.

Everything printed is computed here from what is kept: the trials of the retrainings' study, the
search's complete trials, and which test images each retraining classified.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from ssl_core.errors import UserError
from tune_ssl.driver import TOO_LITTLE_MEMORY
from tune_ssl.retraining import Configuration, Retrainings
from tune_ssl.statistics.cells import Cell, compare_cells
from tune_ssl.statistics.crossed import Floats, Interval, balanced_outcomes, crossed_interval
from tune_ssl.statistics.repeats import caption, is_indicative
from tune_ssl.statistics.selection import bootstrap_optimism, optimism, order_by_validation
from tune_ssl.study import REASON, RESULT, SECONDS
from tune_ssl.trial import DIVISION, unpack_correct

NOT_LEFT_OUT = -1
"""No draw's number: the search's own draw is not among the retrainings in the first place."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A configuration by its retrainings' validation, best first; ``diverged`` of them count as 0."""

    name: str
    validation: float
    diverged: int


@dataclass(frozen=True, kw_only=True)
class OpenedTest:
    """What the sealed test gave.

    Args:
        sha256: fingerprint of the images and their labels.
        opening: how often, this time included, they have been opened.
        labels: class of each image.
        correct: by the trial's number which images its network classified, packed.
        references: by a reference line's name the same, for each draw.
        skipped: files that judged nothing, with the reason.
    """

    sha256: str
    opening: int
    labels: list[int]
    class_names: list[str]
    correct: dict[int, str]
    references: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that ``from_mapping`` reads back."""
        return vars(self) | {"correct": {str(number): own for number, own in self.correct.items()}}

    def facts(self, dataset: str) -> dict[str, Any]:
        """Return what a result says of the test images themselves."""
        return {
            "dataset": dataset,
            "images": len(self.labels),
            "sha256": self.sha256,
            "opening": self.opening,
            "labels": self.labels,
            "classes": self.class_names,
            "skipped": self.skipped,
        }

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> OpenedTest:
        """Return what ``to_mapping`` gave."""
        correct = {int(number): own for number, own in given["correct"].items()}
        return cls(**{**given, "correct": correct})


def unfinished_reasons(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return why retrainings have no result that could be counted: they failed, or lacked memory."""
    return [
        f"trial {trial.number}: {trial.user_attrs.get(REASON, 'no reason known')}"
        for trial in trials
        if trial.state == TrialState.FAIL
        or (trial.state == TrialState.PRUNED and not _diverged(trial))
    ]


def check_whole(
    trials: Sequence[FrozenTrial], remedy: str = "begin again under another --name"
) -> None:
    """Refuse a table of retrainings that has a hole.

    Args:
        remedy: what to do once what is wrong is mended.

    Raises:
        UserError: a retraining failed.
    """
    reasons = unfinished_reasons(trials)
    if reasons:
        raise UserError(
            f"{len(reasons)} of {len(trials)} retrainings gave no result ({reasons[0]}); allowed: a whole "
            "table, because draws are compared in pairs; see error.txt in its folder, mend what is wrong and "
            f"{remedy}."
        )
    assert all(trial.state.is_finished() for trial in trials)


def name_winner(retrainings: Retrainings, trials: Sequence[FrozenTrial]) -> list[Named]:
    """Return the configurations by mean validation of their retrainings; the first is the winner.

    Among equal means the one that comes first in the table of retrainings does. A retraining
    whose loss became non-finite classifies nothing, and counts as 0.

    Raises:
        UserError: a retraining failed, so that the table has a hole.
    """
    check_whole(trials)
    values = validation_table(retrainings, trials)
    columns = np.arange(retrainings.draws_of_a_group)
    ordered = order_by_validation(values, columns, search_draw=NOT_LEFT_OUT)
    diverged = diverged_of(retrainings, trials)
    return [
        Named(
            name=retrainings.configurations[ranked.position].name,
            validation=ranked.validation,
            diverged=diverged[ranked.position],
        )
        for ranked in ordered
    ]


def confirmation(
    retrainings: Retrainings,
    trials: Sequence[FrozenTrial],
    test: OpenedTest,
    searched: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return every figure, and what it is computed from, as plain values.

    Args:
        trials: of the retrainings' study, all finished.
        searched: the search's complete trials: ``trial``, ``validation`` and ``correct``, packed;
            for the bootstrap over validation images.
    """
    order = name_winner(retrainings, trials)
    metric = retrainings.settings.metric
    tables = {
        named.name: outcomes(retrainings, named.name, test, metric == "balanced_accuracy")
        for named in order
    }
    cells = _cells(tables, order[0].name)
    by_name = {configuration.name: configuration for configuration in retrainings.configurations}
    draws = len(retrainings.draws)
    return {
        "origin": retrainings.origin,
        "winner": order[0].name,
        "metric": metric,
        "draws": draws,
        "indicative": is_indicative(draws),
        "caption": caption(repeats=1, retrainings=draws),
        "conditions": retrainings.settings.conditions(),
        "labels": retrainings.settings.labels,
        "validation_images": retrainings.settings.validation,
        "test": test.facts(retrainings.settings.dataset),
        "configurations": [
            _configuration(by_name[named.name], named, cells[named.name])
            | accuracy_beside(metric, outcomes(retrainings, named.name, test, balanced=False))
            | {"retrainings": retrainings_of(retrainings, named.name, trials, test)}
            for named in order
        ],
        "optimism": _optimism(retrainings, trials, searched),
    }


def validation_table(retrainings: Retrainings, trials: Sequence[FrozenTrial]) -> Floats:
    """Return the configurations x draws table of validation; what diverged has 0."""
    values = np.zeros((len(retrainings.configurations), retrainings.draws_of_a_group))
    for trial in trials:
        values[retrainings.place(trial.number)] = trial.value or 0.0
    return values


def diverged_of(retrainings: Retrainings, trials: Sequence[FrozenTrial]) -> list[int]:
    """Return for each configuration how many of its retrainings became non-finite."""
    counted = [0] * len(retrainings.configurations)
    for trial in trials:
        counted[retrainings.place(trial.number)[0]] += _diverged(trial)
    return counted


def _diverged(trial: FrozenTrial) -> bool:
    lacked_memory = str(trial.user_attrs.get(REASON, "")).startswith(TOO_LITTLE_MEMORY)
    return trial.state == TrialState.PRUNED and not lacked_memory


def outcomes(retrainings: Retrainings, name: str, test: OpenedTest, balanced: bool) -> Floats:
    """Return a configuration's draws x images table; its mean is the metric."""
    images = len(test.labels)
    table = np.zeros((retrainings.draws_of_a_group, images))
    for number, packed in test.correct.items():
        row, column = retrainings.place(number)
        if retrainings.configurations[row].name == name:
            table[column] = unpack_correct(packed)
    return balanced_outcomes(table, test.labels) if balanced else table


def _cells(tables: Mapping[str, Floats], winner: str) -> dict[str, Cell]:
    """Return each configuration's figures; differences are from the winner, and hold together.

    Half of the error is spent on pairs that are not printed: the winner was named by these retrainings, and whichever
    of up to four was named, differences from it hold together.
    """
    if len(tables) == 1:
        alone = crossed_interval(tables[winner])
        return {winner: Cell(name=winner, accuracy=alone, letters=("a",), against_control=None)}
    return {cell.name: cell for cell in compare_cells(tables, control=winner)}


def _configuration(configuration: Configuration, named: Named, cell: Cell) -> dict[str, Any]:
    difference = cell.against_control
    return {
        **dataclasses.asdict(configuration),
        "validation": named.validation,
        "diverged": named.diverged,
        "test": interval_values(cell.accuracy),
        "letters": list(cell.letters),
        "minus_winner": None if difference is None else interval_values(difference),
        "verdict": cell.verdict,
    }


def retrainings_of(
    retrainings: Retrainings, name: str, trials: Sequence[FrozenTrial], test: OpenedTest
) -> list[dict[str, Any]]:
    rows = []
    for trial in trials:
        configuration, draw = retrainings.at(trial.number)
        if configuration.name != name:
            continue
        result = trial.system_attrs.get(RESULT, {})
        correct = test.correct.get(trial.number)
        rows.append(
            {
                "trial": trial.number,
                **draw.to_mapping(),
                "validation": trial.value,
                "validation_correct": result.get("correct"),
                "test_accuracy": None if correct is None else _share(unpack_correct(correct)),
                "test_correct": correct,
                "device_seconds": trial.user_attrs.get(SECONDS, 0.0),
                "weights": result.get("weights"),
                "weights_sha256": result.get("weights_sha256"),
            }
        )
    return rows


def _optimism(
    retrainings: Retrainings, trials: Sequence[FrozenTrial], searched: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return how much the search's best promised too much; None where default and best are one."""
    best = _first(retrainings, lambda origin: origin.get("rank") == 1)
    default = _first(retrainings, lambda origin: bool(origin.get("published_default")))
    if best is None or default is None or best == default:
        return None
    configurations, values = retrainings.configurations, validation_table(retrainings, trials)
    found = optimism(
        search_best=configurations[best].origin["validation"],
        search_default=configurations[default].origin["validation"],
        retrained_best=values[best],
        retrained_default=values[default],
        paired=DIVISION not in configurations[best].origin,
    )
    told: dict[str, Any] = {
        "of": configurations[best].name,
        "beside": configurations[default].name,
        "excess": interval_values(found.excess),
        "by_chance": found.by_chance,
        "bootstrap": None,
    }
    if searched and retrainings.settings.metric == "accuracy":
        correct = np.stack([unpack_correct(one["correct"]) for one in searched])
        bootstrap = bootstrap_optimism(correct, generator=np.random.default_rng(0))
        told["bootstrap"] = dataclasses.asdict(bootstrap)
    return told


def _first(retrainings: Retrainings, holds: Any) -> int | None:
    places = (place for place, one in enumerate(retrainings.configurations) if holds(one.origin))
    return next(places, None)


def accuracy_beside(metric: str, table: Floats) -> dict[str, Any]:
    """Return the accuracy of a draws x images table of 0 and 1, where the metric is a balanced one."""
    if metric == "accuracy":
        return {}
    return {"accuracy": interval_values(crossed_interval(table))}


def interval_values(interval: Interval) -> dict[str, float]:
    return dataclasses.asdict(interval)


def _share(correct: npt.NDArray[np.bool_]) -> float:
    return float(correct.mean())
