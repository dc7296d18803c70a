"""Virtual Adversarial Training (Miyato et al., "Virtual Adversarial Training", TPAMI 2018).

The prediction shall not change under the small perturbation that would change it most:

    r = eps g / |g|,  g = gradient at xi d of D(p(u), p(u + xi d)) with d a random unit direction
    L = CE(labeled) + lambda(t) mean_u D(p(u), p(u + r))

One view of the image serves all three passes, otherwise D would measure the augmentation.
eps and xi are in units of the normalised input and relative to its dimension d_in = channels x
height x width: eps = eps_relative sqrt(d_in), so eps_relative is the root mean square
perturbation of an input; xi = 1e-3 sqrt(d_in). Clean and probing pass run in float32 with
autocast off: at the paper's xi = 1e-6 only a third of the inputs change in float32, and in
bfloat16 hardly any change even at 1e-4.

The direction of the paper, KL(p || p_adv), is D = kl; that of Oliver et al. 2018 is
D = reverse_kl. The same D defines the loss and the adversarial direction.

Deliberate differences: lambda may ramp up (the paper's does not: ramp_fraction 0).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
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
    log_probabilities,
    probabilities,
)
from ssl_core.divergences import DIVERGENCES, Divergence
from ssl_core.errors import check_number
from ssl_core.schedules import gaussian_ramp_up

XI_RELATIVE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters of VAT.

    Args:
        unlabeled_weight: lambda >= 0 after its ramp.
        eps_relative: eps / sqrt(inputs per image) > 0, in units of the normalised input.
        ramp_fraction: part of the budget over which lambda rises, in [0, 1].
        entropy_weight: weight >= 0 of entropy minimisation; 0 switches it off.
        divergence: compares clean and perturbed prediction; also finds the direction.
    """

    unlabeled_weight: float = 1.0
    eps_relative: float = 0.144
    ramp_fraction: float = 0.0
    entropy_weight: float = 0.0
    divergence: str = "kl"

    def __post_init__(self) -> None:
        check_weights(self.unlabeled_weight, self.ramp_fraction, self.entropy_weight)
        check_number("eps_relative", self.eps_relative, 0.0, low_open=True)
        check_divergence(self.divergence)


def unit_rows(directions: Tensor) -> Tensor:
    """Return each row of (B, ...) scaled to Euclidean norm 1; a zero row stays zero.

    The largest entry is brought to 1 first: the squares of a confident prediction's gradient
    underflow, and a norm of 0 would blow the row up.
    """
    rows = directions.flatten(1)
    tiny = torch.finfo(rows.dtype).tiny
    rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    units: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(tiny)
    return units.view_as(directions)


def adversarial_perturbation(
    divergence: Divergence,
    network: Network,
    images: Tensor,
    target: Tensor,
    eps: float | Tensor,
    xi: float,
    directions: Tensor,
) -> Tensor:
    """Return the perturbation (B, ...) of norm eps per image that changes predictions most.

    One power iteration from the random ``directions`` (B, ...). The gradient is taken with
    respect to the perturbation only; parameters receive none.

    Args:
        target: predictions (B, C) of the clean images, constant.
        eps: norm of the result per image, in normalised input units.
        xi: length of the probing step, in the same units.
    """
    probe = (xi * unit_rows(directions)).requires_grad_()
    distance = divergence(target, log_probabilities(network(images + probe))).sum()
    (gradient,) = torch.autograd.grad(distance, probe)
    return unit_rows(gradient) * eps


def loss(divergence: Divergence, clean_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Return the mean divergence of perturbed from clean predictions, over all rows.

    No gradient flows into ``clean_logits`` (N, C); it reaches ``adversarial_logits`` (N, C).
    """
    return consistency(divergence, probabilities(clean_logits.detach()), adversarial_logits)


def _whole_float32(device: torch.device) -> AbstractContextManager[None]:
    """Let convolutions on a GPU use all of float32: by default they round to TF32's ten bits.

    The difference of two predictions xi apart drowns in that rounding.
    """
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    return cudnn.flags(**kept, allow_tf32=False)


class VAT:
    """Three passes of the student over one view: clean, probing, perturbed."""

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
        images = batch.unlabeled[0]
        clean_logits, perturbation = self._perturb(student, images, generator)
        adversarial_logits = student(images + perturbation)
        return combine(
            labeled,
            loss(self.divergence, clean_logits, adversarial_logits),
            numbers.unlabeled_weight * gaussian_ramp_up(progress, numbers.ramp_fraction),
            entropy_term=entropy(clean_logits) if config.entropy_weight else None,
            entropy_weight=numbers.entropy_weight,
        )

    def _perturb(
        self, student: Network, images: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        root_inputs = math.sqrt(images[0].numel())
        directions = torch.randn(
            images.shape, generator=generator, device=images.device, dtype=images.dtype
        )
        with torch.autocast(images.device.type, enabled=False), _whole_float32(images.device):
            with torch.set_grad_enabled(self.config.entropy_weight > 0):
                clean_logits = student(images)
            perturbation = adversarial_perturbation(
                self.divergence,
                student,
                images,
                probabilities(clean_logits.detach()),
                eps=self.numbers.eps_relative * root_inputs,
                xi=XI_RELATIVE * root_inputs,
                directions=directions,
            )
        return clean_logits, perturbation
