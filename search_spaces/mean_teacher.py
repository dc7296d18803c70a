"""Search space of Mean Teacher: weight and ramp of the consistency term; the teacher follows the average."""

from __future__ import annotations

from search_spaces.common import (
    Parameters,
    SpaceContext,
    Trial,
    suggest_training,
    suggest_unlabeled,
)


def space(trial: Trial, context: SpaceContext) -> Parameters:
    """Suggest every tuned value of one Mean Teacher training."""
    return suggest_training(trial, context) | suggest_unlabeled(trial, context)
