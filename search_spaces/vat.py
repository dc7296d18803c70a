"""Search space of Virtual Adversarial Training."""

from __future__ import annotations

from search_spaces.common import (
    Parameters,
    SpaceContext,
    Trial,
    suggest_training,
    suggest_unlabeled,
)


def space(trial: Trial, context: SpaceContext) -> Parameters:
    """Suggest every tuned value of one VAT training."""
    parameters = suggest_training(trial, context) | suggest_unlabeled(trial, context)
    # Root mean square perturbation of an input: published .018 (SVHN) to .144 (CIFAR-10).
    eps = trial.suggest_float("eps_relative", 0.005, 0.3, log=True)
    return parameters | {"eps_relative": eps}
