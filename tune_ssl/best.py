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
from tune_ssl.trial import DIVISION, unpack_correct

SIGNIFICANCE = 0.05

WEIGHTS_KEPT = 10
"""So many ranks keep their weights; a search deletes those of others."""


@dataclass(frozen=True, kw_only=True)
class RankedTrial:
    """A complete trial and its place.

    Args:
        value: the study's metric on the validation images, in [0, 1].
        standard_error: its binomial standard error: from the validation images only.
        tied_with: numbers of the trials a test does not separate from this one: for rank 1 all of
            them, for the others rank 1 or nobody. The test is paired, image by image, where both were
            measured on the same images, and unpaired where each divided the labels anew.
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
    tied = [trial.number for trial in complete[1:] if _p_value(complete[0], trial) >= SIGNIFICANCE]
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


def fisher_p_value(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Return the exact two-sided p-value that two classifiers err equally often, each on images of its own.

    Given how many of all images were classified correctly, those of the first are hypergeometric
    (Fisher 1935); twice the smaller tail. Images that both happen to share only make it cautious.

    Args:
        first: (n,) which of its images the first classified correctly.
        second: (m,) the same of the second.
    """
    own, other = int(first.sum()), int(second.sum())
    if own * len(second) > other * len(first):  # count upwards from the worse one
        return fisher_p_value(second, first)
    images, others, correct = len(first), len(second), own + other
    term = math.exp(
        _log_choose(images, own)
        + _log_choose(others, other)
        - _log_choose(images + others, correct)
    )
    tail = 0.0
    for count in range(own, max(0, correct - others) - 1, -1):  # from the largest term down
        tail += term
        term *= count * (others - correct + count) / ((images - count + 1) * (correct - count + 1))
    return min(1.0, 2 * tail)


def _log_choose(whole: int, part: int) -> float:
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)


def _p_value(first: FrozenTrial, second: FrozenTrial) -> float:
    """Return the p-value that two trials err equally often, by the test that fits their images."""
    same_images = _division(first) == _division(second)
    test = mcnemar_p_value if same_images else fisher_p_value
    return test(_correct(first), _correct(second))


def _division(trial: FrozenTrial) -> int | None:
    division: int | None = trial.system_attrs[RESULT].get(DIVISION)
    return division


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
