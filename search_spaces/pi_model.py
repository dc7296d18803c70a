"""Search space of the Pi-Model: weight and ramp of the consistency term."""

from __future__ import annotations

from search_spaces.common import (
    Parameters,
    SpaceContext,
    Trial,
    suggest_training,
    suggest_unlabeled,
)


def space(trial: Trial, context: SpaceContext) -> Parameters:
    """Suggest every tuned value of one Pi-Model training."""
    return suggest_training(trial, context) | suggest_unlabeled(trial, context)
