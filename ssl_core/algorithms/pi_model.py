"""Pi-Model (Laine & Aila, "Temporal Ensembling for Semi-Supervised Learning", ICLR 2017).

Two views of an unlabeled image shall be predicted alike:

    L = CE(labeled) + lambda(t) mean_u D(p(A1 u), p(A2 u))

Deliberate differences: the prediction of the first view is a constant target, as in Oliver et
al. 2018 (the paper differentiates both branches); consistency is asked of the unlabeled batch,
which holds the labeled images too, and of the labeled batch only with
``consistency_on_labeled``, as the paper does.
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
    consistency,
    cross_entropy,
    entropy,
    probabilities,
)
from ssl_core.divergences import DIVERGENCES, Divergence
from ssl_core.errors import check_flag
from ssl_core.schedules import gaussian_ramp_up


@dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters of the Pi-Model.

    Args:
        unlabeled_weight: lambda >= 0 after its ramp.
        ramp_fraction: part of the budget over which lambda rises, in [0, 1].
        entropy_weight: weight >= 0 of entropy minimisation; 0 switches it off.
        consistency_on_labeled: ask consistency of labeled images too, as the paper does.
        divergence: compares the two predictions.
    """

    unlabeled_weight: float = 20.0
    ramp_fraction: float = 0.4
    entropy_weight: float = 0.0
    consistency_on_labeled: bool = False
    divergence: str = "mse"

    def __post_init__(self) -> None:
        check_weights(self.unlabeled_weight, self.ramp_fraction, self.entropy_weight)
        check_flag("consistency_on_labeled", self.consistency_on_labeled)
        check_divergence(self.divergence)


def loss(divergence: Divergence, target_logits: Tensor, logits: Tensor) -> Tensor:
    """Return the mean divergence of predictions from the other view's, over all rows.

    No gradient flows into ``target_logits`` (N, C); it reaches ``logits`` (N, C).
    """
    return consistency(divergence, probabilities(target_logits.detach()), logits)


class PiModel:
    """Two passes of the student over two views; the first serves as target."""

    unlabeled_views = 2

    def __init__(self, config: Config) -> None:
        self.config = self.numbers = config
        self.divergence = DIVERGENCES[config.divergence]
        self.labeled_views = 2 if config.consistency_on_labeled else 1

    def __call__(
        self,
        student: Network,
        teacher: Network,
        batch: Batch,
        progress: Tensor,
        generator: torch.Generator,
    ) -> LossTerms:
        config, numbers = self.config, self.numbers
        labeled_logits = student(batch.labeled[0])
        labeled = cross_entropy(labeled_logits, batch.labels)
        with torch.no_grad():
            target_logits = student(batch.unlabeled[0])
        unlabeled_logits = student(batch.unlabeled[1])
        logits = unlabeled_logits
        if config.consistency_on_labeled:
            target_logits = torch.cat([target_logits, labeled_logits])
            logits = torch.cat([logits, student(batch.labeled[1])])
        return combine(
            labeled,
            loss(self.divergence, target_logits, logits),
            numbers.unlabeled_weight * gaussian_ramp_up(progress, numbers.ramp_fraction),
            entropy_term=entropy(unlabeled_logits) if config.entropy_weight else None,
            entropy_weight=numbers.entropy_weight,
        )
