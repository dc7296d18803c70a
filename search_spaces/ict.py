"""Search space of Interpolation Consistency Training."""

from __future__ import annotations

from search_spaces.common import (
    Parameters,
    SpaceContext,
    Trial,
    suggest_mixup_alpha,
    suggest_training,
    suggest_unlabeled,
)


def space(trial: Trial, context: SpaceContext) -> Parameters:
    """Suggest every tuned value of one ICT training."""
    parameters = suggest_training(trial, context) | suggest_unlabeled(trial, context)
    return parameters | {"mixup_alpha": suggest_mixup_alpha(trial)}
