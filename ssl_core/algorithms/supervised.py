"""Supervised training on the labeled images alone: the line every other method has to beat.

Loss: the mean cross-entropy of the labeled batch. Unlabeled images play no part in it, so it has
no unlabeled weight, and entropy minimisation, which would use them, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.algorithms.common import Batch, LossTerms, Network, combine, cross_entropy
from ssl_core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Config:
    """No hyperparameters of its own; ``entropy_weight`` exists only to be refused."""

    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.entropy_weight != 0:
            raise UserError(
                f"entropy_weight is {self.entropy_weight!r} with supervised; allowed: 0, because "
                "entropy minimisation would use the unlabeled images; choose a semi-supervised method."
            )


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of labeled logits (B, C) against labels (B,)."""
    return cross_entropy(logits, labels)


class Supervised:
    """One forward pass of the student over the labeled batch."""

    labeled_views = 1
    unlabeled_views = 0

    def __init__(self, config: Config) -> None:
        self.config = self.numbers = config

    def __call__(
        self,
        student: Network,
        teacher: Network,
        batch: Batch,
        progress: Tensor,
        generator: torch.Generator,
    ) -> LossTerms:
        labeled = loss(student(batch.labeled[0]), batch.labels)
        nothing = torch.zeros_like(labeled)
        return combine(labeled, nothing, nothing)
