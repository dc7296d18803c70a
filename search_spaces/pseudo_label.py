"""Search space of Pseudo-Label."""

from __future__ import annotations

from search_spaces.common import (
    Parameters,
    SpaceContext,
    Trial,
    suggest_training,
    suggest_unlabeled,
    threshold_from_gap,
)


def space(trial: Trial, context: SpaceContext) -> Parameters:
    """Suggest every tuned value of one Pseudo-Label training."""
    parameters = suggest_training(trial, context) | suggest_unlabeled(trial, context)
    # Thresholds of .5 to .99: published .95; what matters is the distance from certainty.
    gap = trial.suggest_float("threshold_gap", 0.01, 0.5, log=True)
    return parameters | {"threshold": threshold_from_gap(gap)}
