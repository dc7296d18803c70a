"""Which configurations were best, and which of them the validation images cannot tell apart.

Only trials of full length count, by the study's one evaluated network at the end of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from tune_ssl.study import DEFAULT, RESULT, SECONDS
from tune_ssl.trial import unpack_correct

SIGNIFICANCE = 0.05

WEIGHTS_KEPT = 10
"""So many ranks keep their weights; a search deletes those of others."""


@dataclass(frozen=True, kw_only=True)
class RankedTrial:
    """A complete trial and its place.

    Args:
        value: the study's metric on the validation images, in [0, 1].
        standard_error: its binomial standard error: from the validation images only.
        tied_with: numbers of the trials a paired test does not separate from this one: for
            rank 1 all of them, for the others rank 1 or nobody.
        recommended: of rank 1 and its ties the published default, or else the cheapest.
    """

    rank: int
    number: int
    value: float
    standard_error: float
    tied_with: tuple[int, ...]
    recommended: bool
    is_default: bool
    seconds: float
    params: dict[str, Any]
    result: dict[str, Any]


def rank_trials(trials: Sequence[FrozenTrial]) -> list[RankedTrial]:
    """Return the complete trials, best first; among equal values the earlier one."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    complete.sort(key=_order)
    if not complete:
        return []
    first = _correct(complete[0])
    tied = [
        trial.number
        for trial in complete[1:]
        if mcnemar_p_value(first, _correct(trial)) >= SIGNIFICANCE
    ]
    candidates = [complete[0]] + [trial for trial in complete if trial.number in tied]
    recommended = min(candidates, key=_recommendation_order).number
    ranked = []
    for position, trial in enumerate(complete):
        others = (complete[0].number,) if trial.number in tied else ()
        result = trial.system_attrs[RESULT]
        ranked.append(
            RankedTrial(
                rank=position + 1,
                number=trial.number,
                value=_value(trial),
                standard_error=result["standard_error"],
                tied_with=tuple(tied) if position == 0 else others,
                recommended=trial.number == recommended,
                is_default=DEFAULT in trial.user_attrs,
                seconds=trial.user_attrs.get(SECONDS, 0.0),
                params=dict(trial.params),
                result=result,
            )
        )
    return ranked


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the complete trial of rank 1, None where no trial is complete."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
    return min(complete, key=_order, default=None)


def mcnemar_p_value(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Return the exact two-sided p-value that two classifiers err equally often.

    ``first`` and ``second`` say which of the same images each classified correctly. Only images
    on which they differ count: under the hypothesis each is a fair coin (McNemar 1947).
    """
    first_only = int((first & ~second).sum())
    second_only = int((second & ~first).sum())
    differing = first_only + second_only
    smaller = min(first_only, second_only)
    term = math.exp(
        math.lgamma(differing + 1)
        - math.lgamma(smaller + 1)
        - math.lgamma(differing - smaller + 1)
        - differing * math.log(2)
    )
    tail = 0.0
    for count in range(smaller, -1, -1):  # from the largest term of the binomial tail down
        tail += term
        term *= count / (differing - count + 1)
    return min(1.0, 2 * tail)


def _order(trial: FrozenTrial) -> tuple[float, int]:
    return -_value(trial), trial.number


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return float(trial.value)


def _correct(trial: FrozenTrial) -> npt.NDArray[np.bool_]:
    return unpack_correct(trial.system_attrs[RESULT]["correct"])


def _recommendation_order(trial: FrozenTrial) -> tuple[bool, float, int]:
    """Order candidates: a published default first, then the least device time."""
    is_default = DEFAULT in trial.user_attrs
    cost = -_value(trial) if is_default else trial.user_attrs.get(SECONDS, 0.0)
    return (not is_default, cost, trial.number)
