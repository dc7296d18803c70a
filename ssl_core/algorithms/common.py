"""What every algorithm shares: the batch it is given, the terms it returns, and small losses.

An algorithm is a thin object made from its Config. Called once per step it decides which views
go through which network and returns the terms of its loss; the loop owns the networks, the
optimiser and the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import Field, dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ssl_core.divergences import Divergence
from ssl_core.errors import UserError, check_choice, check_number
from ssl_core.names import DIVERGENCE_NAMES

Network = Callable[[Tensor], Tensor]
"""Images (B, channels, height, width) -> logits (B, C)."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's images, normalised and augmented.

    ``labeled`` and ``unlabeled`` hold one tensor (B, channels, height, width) and
    (mu B, channels, height, width) per view the algorithm asks for; row i of every view is the
    same image, augmented anew. ``labels`` (B,) int64 belong to the labeled rows.
    """

    labeled: tuple[Tensor, ...]
    labels: Tensor
    unlabeled: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The named terms of one step, each a 0-dim tensor.

    ``total`` is differentiated. ``labeled`` is a mean over labeled images, ``unlabeled`` the
    unweighted mean over unlabeled ones. ``diagnostics`` carries no gradient.
    """

    total: Tensor
    labeled: Tensor
    unlabeled: Tensor
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


class AlgorithmConfig(Protocol):
    """A frozen dataclass of one algorithm's hyperparameters, checked when it is made."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Algorithm(Protocol):
    """One semi-supervised algorithm, ready to compute the terms of a step.

    A step reads its real-valued hyperparameters from ``numbers``: its Config, or what has 0-dim
    tensors under the same names, which a captured step reads anew each time. What a step consists of
    depends on the Config alone.
    """

    labeled_views: int
    unlabeled_views: int
    config: Any
    numbers: Any

    def __call__(
        self,
        student: Network,
        teacher: Network,
        batch: Batch,
        progress: Tensor,
        generator: torch.Generator,
    ) -> LossTerms:
        """Return the terms of one step.

        ``student`` is trained; ``teacher`` is its exponential moving average, which the loop
        keeps and some algorithms read; ``progress`` is a 0-dim tensor in [0, 1];
        ``generator`` serves the algorithm's own randomness on the batch's device.
        """


def numbers_of(config: AlgorithmConfig) -> dict[str, float]:
    """Return the real-valued hyperparameters of an algorithm's Config, by name."""
    fields = dataclasses.fields(config)
    assert all(isinstance(field.type, str) for field in fields)  # as annotations are in the future
    return {
        field.name: float(getattr(config, field.name)) for field in fields if field.type == "float"
    }


def probabilities(logits: Tensor) -> Tensor:
    """Return softmax over classes, at least in float32."""
    return torch.softmax(_at_least_float32(logits), dim=1)


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log-softmax over classes, at least in float32."""
    return torch.log_softmax(_at_least_float32(logits), dim=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (B, C) against labels (B,) in [0, C)."""
    return torch.nn.functional.nll_loss(log_probabilities(logits), labels)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean of -sum_c t_c log p_c for target rows (B, C) that sum to 1."""
    return -(target * log_probabilities(logits)).sum(dim=1).mean()


def consistency(divergence: Divergence, target: Tensor, logits: Tensor) -> Tensor:
    """Return the mean divergence of predictions (B, C) from targets (B, C)."""
    return divergence(target, log_probabilities(logits)).mean()


def entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy of predictions, -sum_c p_c log p_c in nats.

    Source: Grandvalet & Bengio 2005. Minimised, it pushes decisions away from the data.
    """
    log_p = log_probabilities(logits)
    return -(log_p.exp() * log_p).sum(dim=1).mean()


def combine(
    labeled: Tensor,
    unlabeled: Tensor,
    weight: Tensor,
    *,
    entropy_term: Tensor | None = None,
    entropy_weight: float | Tensor = 0.0,
    diagnostics: dict[str, Tensor] | None = None,
) -> LossTerms:
    """Return labeled + weight * unlabeled + entropy_weight * entropy as LossTerms.

    ``weight`` is the unlabeled weight after its ramp, 0-dim. Entropy minimisation is not
    ramped (Miyato et al. 2018; Oliver et al. 2018).
    """
    total = labeled + weight * unlabeled
    shown = {"unlabeled_weight": weight.detach(), **(diagnostics or {})}
    if entropy_term is not None:
        total = total + entropy_weight * entropy_term
        shown["entropy"] = entropy_term.detach()
    return LossTerms(total=total, labeled=labeled, unlabeled=unlabeled, diagnostics=shown)


def check_weights(unlabeled_weight: float, ramp_fraction: float, entropy_weight: float) -> None:
    """Raise UserError unless both weights are >= 0 and the ramp is a fraction of the budget."""
    check_number("unlabeled_weight", unlabeled_weight, 0.0)
    check_number("ramp_fraction", ramp_fraction, 0.0, 1.0)
    check_number("entropy_weight", entropy_weight, 0.0)


def check_divergence(divergence: str, *, one_hot_targets: bool = False) -> None:
    """Raise UserError unless the divergence is known and defined for the method's targets."""
    check_choice("divergence", divergence, DIVERGENCE_NAMES)
    if one_hot_targets and divergence == "reverse_kl":
        raise UserError(
            "divergence 'reverse_kl' is not defined against one-hot pseudo-labels (it would measure "
            "the floor under log 0); use kl, which is the cross-entropy here, or mse, l1, js."
        )


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
