"""MixMatch (Berthelot et al., "MixMatch: A Holistic Approach", NeurIPS 2019).

Guess: q(u) = Sharpen(1/K sum_k p(A_k u), T), the same guess for all K views of u.
Mix: every labeled and every unlabeled image with a partner drawn from both, with
lambda' = max(lambda, 1 - lambda), lambda ~ Beta(alpha, alpha), so that each stays mostly itself.

    L = CE(mixed labeled) + lambda_U(t) mean over K mu B mixed unlabeled of D(mixed q, p)

with D = mse as in the paper (mean over classes) and a linear ramp. No gradient flows into the
guesses.

Deliberate differences: all mixed images pass through the network at once; the authors
interleave chunks of one batch size so that each has the same composition.
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
    entropy,
    probabilities,
    soft_cross_entropy,
)
from ssl_core.divergences import DIVERGENCES, Divergence
from ssl_core.errors import check_integer, check_number
from ssl_core.mixing import draw_mixing_coefficients, keep_first_dominant, mix
from ssl_core.schedules import linear_ramp_up
from ssl_core.targets import one_hot, sharpen


@dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters of MixMatch.

    Args:
        unlabeled_weight: lambda_U >= 0 after its ramp.
        mixup_alpha: alpha > 0 of Beta(alpha, alpha).
        temperature: T > 0 of the sharpening; 1 leaves the guess as it is.
        num_guesses: K >= 1 views averaged for a guess.
        ramp_fraction: part of the budget over which lambda_U rises, in [0, 1].
        entropy_weight: weight >= 0 of entropy minimisation; 0 switches it off.
        divergence: compares prediction and guess.
    """

    unlabeled_weight: float = 75.0
    mixup_alpha: float = 0.75
    temperature: float = 0.5
    num_guesses: int = 2
    ramp_fraction: float = 0.016
    entropy_weight: float = 0.0
    divergence: str = "mse"

    def __post_init__(self) -> None:
        check_weights(self.unlabeled_weight, self.ramp_fraction, self.entropy_weight)
        check_number("mixup_alpha", self.mixup_alpha, 0.0, low_open=True)
        check_number("temperature", self.temperature, 0.0, low_open=True)
        check_integer("num_guesses", self.num_guesses, 1)
        check_divergence(self.divergence)


def guess_labels(logits_per_view: list[Tensor], temperature: float | Tensor) -> Tensor:
    """Return the sharpened average prediction (mu B, C) of K views' logits, each (mu B, C).

    No gradient flows into the guess.
    """
    predictions = [probabilities(logits.detach()) for logits in logits_per_view]
    return sharpen(torch.stack(predictions).mean(dim=0), temperature)


def loss(
    divergence: Divergence, logits: Tensor, targets: Tensor, num_labeled: int
) -> tuple[Tensor, Tensor]:
    """Return the labeled and the unlabeled term of a mixed batch, labeled rows first.

    ``logits`` and ``targets`` (B + K mu B, C); rows of ``targets`` sum to 1 and are constants.
    The labeled term is a mean over B rows, the unlabeled one over K mu B.
    """
    targets = targets.detach()
    labeled = soft_cross_entropy(logits[:num_labeled], targets[:num_labeled])
    unlabeled = consistency(divergence, targets[num_labeled:], logits[num_labeled:])
    return labeled, unlabeled


class MixMatch:
    """K passes for the guesses, one over the mixed labeled and unlabeled images together."""

    labeled_views = 1

    def __init__(self, config: Config) -> None:
        self.config = self.numbers = config
        self.divergence = DIVERGENCES[config.divergence]
        self.unlabeled_views = config.num_guesses

    def __call__(
        self,
        student: Network,
        teacher: Network,
        batch: Batch,
        progress: Tensor,
        generator: torch.Generator,
    ) -> LossTerms:
        config, numbers = self.config, self.numbers
        first, *others = batch.unlabeled
        with torch.set_grad_enabled(config.entropy_weight > 0):
            first_logits = student(first)
        with torch.no_grad():
            view_logits = [first_logits, *(student(view) for view in others)]
        guesses = guess_labels(view_logits, numbers.temperature)
        images = torch.cat([batch.labeled[0], *batch.unlabeled])
        labels = one_hot(batch.labels, guesses.shape[1], guesses.dtype)
        targets = torch.cat([labels, guesses.repeat(config.num_guesses, 1)])

        order = torch.randperm(len(images), generator=generator, device=generator.device)
        drawn = draw_mixing_coefficients(numbers.mixup_alpha, len(images), generator)
        coefficients = keep_first_dominant(drawn)
        logits = student(mix(images, images[order], coefficients))
        mixed_targets = mix(targets, targets[order], coefficients)
        labeled, unlabeled = loss(self.divergence, logits, mixed_targets, len(batch.labels))
        return combine(
            labeled,
            unlabeled,
            numbers.unlabeled_weight * linear_ramp_up(progress, numbers.ramp_fraction),
            entropy_term=entropy(first_logits) if config.entropy_weight else None,
            entropy_weight=numbers.entropy_weight,
        )
