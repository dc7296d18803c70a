"""Mean Teacher (Tarvainen & Valpola, "Mean teachers are better role models", NIPS 2017).

The student shall predict its view as the teacher, its own exponential moving average, predicts
another:

    L = CE(labeled) + lambda(t) mean_u D(p_teacher(A1 u), p_student(A2 u))

The teacher runs in training mode, on the statistics of its own batch, as in the authors' code.
The loop updates it after every step with decay min(1 - 1/(t+1), decay).

Deliberate differences: one decay after the warm-up (the paper changes from .99 to .999);
consistency is asked of the unlabeled batch, which holds the labeled images too, and of the
labeled batch only with ``consistency_on_labeled``, as the paper does.
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
    """Hyperparameters of Mean Teacher; the decay of the average belongs to the training.

    Args:
        unlabeled_weight: lambda >= 0 after its ramp.
        ramp_fraction: part of the budget over which lambda rises, in [0, 1].
        entropy_weight: weight >= 0 of entropy minimisation; 0 switches it off.
        consistency_on_labeled: ask consistency of labeled images too, as the paper does.
        divergence: compares student and teacher.
    """

    unlabeled_weight: float = 8.0
    ramp_fraction: float = 0.4
    entropy_weight: float = 0.0
    consistency_on_labeled: bool = False
    divergence: str = "mse"

    def __post_init__(self) -> None:
        check_weights(self.unlabeled_weight, self.ramp_fraction, self.entropy_weight)
        check_flag("consistency_on_labeled", self.consistency_on_labeled)
        check_divergence(self.divergence)


def loss(divergence: Divergence, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Return the mean divergence of the student from the teacher, over all rows.

    No gradient flows into ``teacher_logits`` (N, C); it reaches ``student_logits`` (N, C).
    """
    return consistency(divergence, probabilities(teacher_logits.detach()), student_logits)


class MeanTeacher:
    """One pass of the teacher over the first view, one of the student over the second."""

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
        unlabeled_logits = student(batch.unlabeled[1])
        logits = unlabeled_logits
        with torch.no_grad():
            teacher_logits = teacher(batch.unlabeled[0])
            if config.consistency_on_labeled:
                teacher_logits = torch.cat([teacher_logits, teacher(batch.labeled[1])])
        if config.consistency_on_labeled:
            logits = torch.cat([logits, labeled_logits])
        return combine(
            labeled,
            loss(self.divergence, teacher_logits, logits),
            numbers.unlabeled_weight * gaussian_ramp_up(progress, numbers.ramp_fraction),
            entropy_term=entropy(unlabeled_logits) if config.entropy_weight else None,
            entropy_weight=numbers.entropy_weight,
        )
