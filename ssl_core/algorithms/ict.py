"""Interpolation Consistency Training (Verma et al., IJCAI 2019).

The student's prediction of a mixture shall be the mixture of the teacher's predictions:

    L = CE(labeled) + w(t) mean_u D(Mix(p_teacher(u_i), p_teacher(u_j)), p_student(Mix(u_i, u_j)))

Mix(a, b) = lambda a + (1 - lambda) b with lambda ~ Beta(alpha, alpha), drawn per pair; u_j is
the same batch in another order. The teacher is the exponential moving average of the student,
in training mode, updated by the loop.

Deliberate differences: lambda is drawn per pair, not per batch. The authors' code mixes logits
instead of probabilities (``mix_logits``) and applies mixup to the labeled batch too
(``supervised_mixup``); both are off, as in the paper.
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
    soft_cross_entropy,
)
from ssl_core.divergences import DIVERGENCES, Divergence
from ssl_core.errors import check_flag, check_number
from ssl_core.mixing import draw_mixing_coefficients, mix
from ssl_core.schedules import gaussian_ramp_up
from ssl_core.targets import one_hot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters of ICT; the decay of the teacher belongs to the training.

    Args:
        unlabeled_weight: w >= 0 after its ramp.
        mixup_alpha: alpha > 0 of Beta(alpha, alpha); 1.0 CIFAR-10, 0.1 SVHN in the paper.
        ramp_fraction: part of the budget over which w rises, in [0, 1].
        entropy_weight: weight >= 0 of entropy minimisation; 0 switches it off.
        mix_logits: mix the teacher's logits, as the authors' code does.
        supervised_mixup: apply mixup to the labeled batch, as the authors' code does.
        divergence: compares the student with the mixed target.
    """

    unlabeled_weight: float = 100.0
    mixup_alpha: float = 1.0
    ramp_fraction: float = 0.25
    entropy_weight: float = 0.0
    mix_logits: bool = False
    supervised_mixup: bool = False
    divergence: str = "mse"

    def __post_init__(self) -> None:
        check_weights(self.unlabeled_weight, self.ramp_fraction, self.entropy_weight)
        check_number("mixup_alpha", self.mixup_alpha, 0.0, low_open=True)
        check_flag("mix_logits", self.mix_logits)
        check_flag("supervised_mixup", self.supervised_mixup)
        check_divergence(self.divergence)


def mixed_target(
    teacher_logits: Tensor, order: Tensor, coefficients: Tensor, mix_logits: bool = False
) -> Tensor:
    """Return the mixture (B, C) of the teacher's predictions for rows i and order[i].

    ``teacher_logits`` (B, C), ``order`` a permutation (B,), ``coefficients`` (B,) in [0, 1].
    """
    if mix_logits:
        return probabilities(mix(teacher_logits, teacher_logits[order], coefficients))
    prediction = probabilities(teacher_logits)
    return mix(prediction, prediction[order], coefficients)


def loss(divergence: Divergence, target: Tensor, student_logits: Tensor) -> Tensor:
    """Return the mean divergence of the student's prediction of mixtures from mixed targets.

    No gradient flows into ``target`` (B, C); it reaches ``student_logits`` (B, C).
    """
    return consistency(divergence, target.detach(), student_logits)


class ICT:
    """One pass of the teacher over the images, one of the student over their mixtures."""

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
        images = batch.unlabeled[0]
        order, coefficients = self._pairs(len(images), generator)
        with torch.no_grad():
            teacher_logits = teacher(images)
        target = mixed_target(teacher_logits, order, coefficients, config.mix_logits)
        student_logits = student(mix(images, images[order], coefficients))
        return combine(
            self._labeled_loss(student, batch, generator),
            loss(self.divergence, target, student_logits),
            numbers.unlabeled_weight * gaussian_ramp_up(progress, numbers.ramp_fraction),
            entropy_term=entropy(student(images)) if config.entropy_weight else None,
            entropy_weight=numbers.entropy_weight,
        )

    def _pairs(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        order = torch.randperm(count, generator=generator, device=generator.device)
        return order, draw_mixing_coefficients(self.numbers.mixup_alpha, count, generator)

    def _labeled_loss(self, student: Network, batch: Batch, generator: torch.Generator) -> Tensor:
        images = batch.labeled[0]
        if not self.config.supervised_mixup:
            return cross_entropy(student(images), batch.labels)
        order, coefficients = self._pairs(len(images), generator)
        logits = student(mix(images, images[order], coefficients))
        targets = one_hot(batch.labels, logits.shape[1], images.dtype)
        return soft_cross_entropy(logits, mix(targets, targets[order], coefficients))
