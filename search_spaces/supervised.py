"""Search space of supervised training: the optimiser and the average, nothing else."""

from __future__ import annotations

from search_spaces.common import Parameters, SpaceContext, Trial, suggest_training


def space(trial: Trial, context: SpaceContext) -> Parameters:
    """Suggest every tuned value of one supervised training."""
    return suggest_training(trial, context)
