"""Search space of MixMatch."""

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
    """Suggest every tuned value of one MixMatch training."""
    parameters = suggest_training(trial, context) | suggest_unlabeled(trial, context)
    return parameters | {
        "mixup_alpha": suggest_mixup_alpha(trial),
        # 1 leaves the guess as it is, .1 makes it nearly one-hot; published .5.
        "temperature": trial.suggest_float("temperature", 0.1, 1.0),
    }
