"""Pseudo-Label (Lee, "Pseudo-Label", ICML workshop 2013).

The model's own most probable class is the target of an unlabeled image:

    L = CE(labeled) + lambda(t) mean_u 1[max p(u) >= tau] D(onehot(argmax p(u)), p(u))

With D = kl this is the paper's cross-entropy. One forward pass gives both the pseudo-label and
the prediction it is compared with.

Deliberate differences: the threshold tau is of Oliver et al. 2018 (the paper has none; tau = 0
gives it); the target is the one-hot itself, not Oliver's ten-fold logit; the ramp is the
Gaussian one of all methods here, the paper's is piecewise linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.algorithms.common import (
    Batch,
    LossTerms,
    Network,
    check_divergence,
    check_weights,
    combine,
    cross_entropy,
    entropy,
    log_probabilities,
    probabilities,
)
from ssl_core.divergences import DIVERGENCES, Divergence
from ssl_core.errors import check_number
from ssl_core.schedules import gaussian_ramp_up
from ssl_core.targets import confidence_mask, hard_pseudo_labels


@dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters of Pseudo-Label.

    Args:
        unlabeled_weight: lambda >= 0 after its ramp.
        threshold: tau in [0, 1), the confidence from which a pseudo-label counts.
        ramp_fraction: part of the budget over which lambda rises, in [0, 1].
        entropy_weight: weight >= 0 of entropy minimisation; 0 switches it off.
        divergence: compares prediction and pseudo-label; ``reverse_kl`` is refused.
    """

    unlabeled_weight: float = 1.0
    threshold: float = 0.95
    ramp_fraction: float = 0.4
    entropy_weight: float = 0.0
    divergence: str = "kl"

    def __post_init__(self) -> None:
        check_weights(self.unlabeled_weight, self.ramp_fraction, self.entropy_weight)
        check_number("threshold", self.threshold, 0.0, 1.0, high_open=True)
        check_divergence(self.divergence, one_hot_targets=True)


def loss(
    divergence: Divergence, logits: Tensor, threshold: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return the masked mean divergence from the pseudo-labels, and the rate of images kept.

    The mean is over all unlabeled images (mu B), kept or not. The gradient reaches ``logits``
    (mu B, C) through the prediction only; pseudo-labels and mask are constants.
    """
    prediction = probabilities(logits.detach())
    mask = confidence_mask(prediction, threshold)
    distance = divergence(hard_pseudo_labels(prediction), log_probabilities(logits))
    return (mask * distance).mean(), mask.mean()


class PseudoLabel:
    """One forward pass over one view of the unlabeled batch."""

    labeled_views = 1
    unlabeled_views = 1

    def __init__(self, config: Config) -> None:
        self.config = self.numbers = config
        self.divergence = DIVERGENCES[config.divergence]

    def __call__(
        self,
        student: Network,
        teacher: Network,
        batch: Batch,
        progress: Tensor,
        generator: torch.Generator,
    ) -> LossTerms:
        config, numbers = self.config, self.numbers
        labeled = cross_entropy(student(batch.labeled[0]), batch.labels)
        logits = student(batch.unlabeled[0])
        unlabeled, mask_rate = loss(self.divergence, logits, numbers.threshold)
        return combine(
            labeled,
            unlabeled,
            numbers.unlabeled_weight * gaussian_ramp_up(progress, numbers.ramp_fraction),
            entropy_term=entropy(logits) if config.entropy_weight else None,
            entropy_weight=numbers.entropy_weight,
            diagnostics={"mask_rate": mask_rate},
        )
