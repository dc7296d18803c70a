"""What the spaces share: the context they are drawn in, and the ranges used by several methods.

Each range has its reason beside it. A name has one range in every space, because a sampler that
models a joint study drops a name whose bounds vary. A value searched on another scale than its
Config field (a weight, a threshold) has a pair of pure functions, so that every stored trial
replays and every published value has a place on the scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ssl_core.errors import UserError
from ssl_core.published import longest_horizon

Parameters = dict[str, float]
"""Config fields of the algorithm and of the training, by name."""

FIELD_OF = {"unlabeled_weight_u": "unlabeled_weight", "threshold_gap": "threshold"}
"""The Config field of each parameter that is searched on a scale of its own."""

LARGEST_MSE_WEIGHT = {"ict": 100.0}
"""Per class, where 30 is too little: ICT is published with 10 C and run with up to 100 C."""

LARGEST_RAMP = 0.1
"""A ramp ends by a tenth of the budget: early rungs must rank the method, not supervised strength
(at 1/9 of a budget whose ramp takes .4, the weight is 7 % of its value)."""


class Trial(Protocol):
    """What a space asks of a trial; Optuna's Trial and FixedTrial have it."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a value in [low, high]."""


@dataclass(frozen=True, kw_only=True)
class SpaceContext:
    """What a space depends on.

    Args:
        divergence: that of the trial; None for supervised.
        num_classes: C, which scales the weights of class means.
        max_steps: length of a full training, which bounds the average's horizon.
        first_rung: part of the budget in (0, 1] at which trials are first compared.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        entropy_weight: fixed weight of entropy minimisation; None to search it.
        weight_decay, ramp_fraction: fixed values; None to search them.
    """

    algorithm: str
    divergence: str | None
    num_classes: int
    max_steps: int
    first_rung: float
    optimizer: str = "adamw"
    entropy_weight: float | None = 0.0
    weight_decay: float | None = None
    ramp_fraction: float | None = None


Space = Callable[[Trial, SpaceContext], Parameters]


def suggest_training(trial: Trial, context: SpaceContext) -> Parameters:
    """Suggest the optimiser's values and the average's horizon."""
    return {
        "learning_rate": _suggest_learning_rate(trial, context.optimizer),
        "weight_decay": _suggest_weight_decay(trial, context),
        # From hardly any averaging up to a tenth of the training.
        "ema_horizon": trial.suggest_float(
            "ema_horizon", 5.0, longest_horizon(context.max_steps), log=True
        ),
    }


def suggest_unlabeled(trial: Trial, context: SpaceContext) -> Parameters:
    """Suggest the weight of the unlabeled term, its ramp, and that of entropy minimisation."""
    position = trial.suggest_float("unlabeled_weight_u", 0.0, 1.0)
    return {
        "unlabeled_weight": weight_from_position(position, context),
        "ramp_fraction": _suggest_ramp_fraction(trial, context),
        "entropy_weight": _suggest_entropy_weight(trial, context),
    }


def suggest_mixup_alpha(trial: Trial) -> float:
    """Suggest alpha of Beta(alpha, alpha), in [.05, 1]."""
    # Published: .1 .. 1 (ICT), .75 (MixMatch). At .05 hardly anything is mixed, 1 is uniform.
    return trial.suggest_float("mixup_alpha", 0.05, 1.0, log=True)


def longest_ramp(context: SpaceContext) -> float:
    """Return the longest ramp searched: it ends at or before the first rung."""
    return min(LARGEST_RAMP, context.first_rung)


def weight_range(context: SpaceContext) -> tuple[float, float]:
    """Return the smallest and largest unlabeled weight searched.

    Means over C classes shrink as 1/C, so mse and l1 scale with C. The ranges bracket every
    published weight: mse .05 C - 30 C (Mean Teacher's authors advise C to C^2), further where
    ``LARGEST_MSE_WEIGHT`` says so, l1 .02 C - 10 C, kl and reverse_kl .05 - 30 (they advise 1 - 10), js .2 - 100
    (near agreement js is kl / 4).
    """
    assert context.divergence is not None
    classes = float(context.num_classes)
    of_mse = (0.05 * classes, LARGEST_MSE_WEIGHT.get(context.algorithm, 30.0) * classes)
    ranges = {
        "mse": of_mse,
        "l1": (0.02 * classes, 10.0 * classes),
        "kl": (0.05, 30.0),
        "reverse_kl": (0.05, 30.0),
        "js": (0.2, 100.0),
        # Means over classes too. Its own weights, 20, 8, and 100 C for ICT, are in this range with
        # the ten classes it had.
        "notebook_kl": of_mse,
        "notebook_js": of_mse,
    }
    return ranges[context.divergence]


def weight_from_position(position: float, context: SpaceContext) -> float:
    """Return low (high / low)^u to six digits, for u in [0, 1] and the context's weight range."""
    low, high = weight_range(context)
    return _six_digits(low * (high / low) ** position)


def position_from_weight(weight: float, context: SpaceContext) -> float:
    """Return the u at which ``weight_from_position`` gives a weight > 0; outside [0, 1] if it is."""
    low, high = weight_range(context)
    return math.log(weight / low) / math.log(high / low)


def threshold_from_gap(gap: float) -> float:
    """Return 1 - gap to six digits: thresholds are searched by their distance from 1."""
    return _six_digits(1.0 - gap)


def field_range(name: str, low: float, high: float, context: SpaceContext) -> tuple[float, float]:
    """Return the range of the Config field that a parameter searched in [low, high] sets."""
    if name == "unlabeled_weight_u":
        low, high = weight_range(context)
        return _six_digits(low), _six_digits(high)
    if name == "threshold_gap":
        return threshold_from_gap(high), threshold_from_gap(low)
    return low, high


class GivenTrial:
    """A trial that answers each suggestion with a given value, moved into the range.

    A space run on it gives a configuration's parameters on the scales that are searched.
    ``moved`` holds, for values outside the range, the value that was used, and ``ranges`` the
    range of every value, both on the scales that are searched.
    """

    def __init__(self, given: Mapping[str, float], context: SpaceContext) -> None:
        self.params: dict[str, float] = {}
        self.moved: dict[str, float] = {}
        self.ranges: dict[str, tuple[float, float]] = {}
        self._given = _on_searched_scales(given, context)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return the given value, or the end of the range nearest to it."""
        if name not in self._given:
            raise UserError(
                f"the configuration has no {FIELD_OF.get(name, name)}; allowed: a value for everything "
                "that is searched; write it."
            )
        given = self._given[name]
        value = min(high, max(low, given))
        if value != given:
            self.moved[name] = value
        self.ranges[name] = (low, high)
        self.params[name] = value
        return value


def _on_searched_scales(given: Mapping[str, float], context: SpaceContext) -> dict[str, float]:
    values = {"entropy_weight": 0.0, **given}
    weight = values.pop("unlabeled_weight", None)
    if weight is not None:
        values["unlabeled_weight_u"] = (
            position_from_weight(weight, context) if weight > 0 else -math.inf
        )
    if "threshold" in values:
        values["threshold_gap"] = _six_digits(1.0 - values.pop("threshold"))
    return values


def _suggest_learning_rate(trial: Trial, optimizer: str) -> float:
    # Huang et al. 2024 search 3e-5 .. 3e-2 for Adam; published rates lie in 3e-4 .. 3e-3. SGD
    # with momentum takes a hundred times as much (published: .03 .. .1).
    low, high = (3e-3, 3e-1) if optimizer == "sgd" else (3e-5, 3e-2)
    return trial.suggest_float("learning_rate", low, high, log=True)


def _suggest_weight_decay(trial: Trial, context: SpaceContext) -> float:
    if context.weight_decay is not None:
        return context.weight_decay
    # Decoupled decay acts as rate x decay per step: MixMatch publishes .02, and 1e-4 is none.
    # As an L2 term, with Adam or SGD, Huang et al. 2024 search 4e-6 .. 4e-3.
    low, high = (1e-4, 1e-1) if context.optimizer == "adamw" else (1e-6, 1e-3)
    return trial.suggest_float("weight_decay", low, high, log=True)


def _suggest_ramp_fraction(trial: Trial, context: SpaceContext) -> float:
    if context.ramp_fraction is not None:
        return context.ramp_fraction
    return trial.suggest_float("ramp_fraction", 0.0, longest_ramp(context))


def _suggest_entropy_weight(trial: Trial, context: SpaceContext) -> float:
    if context.entropy_weight is not None:
        return context.entropy_weight
    # Published: .06 and .1 (Oliver et al. 2018); 1 is as strong as the labels.
    return trial.suggest_float("entropy_weight", 1e-3, 1.0, log=True)


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")
