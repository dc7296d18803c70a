"""Mixup (Zhang et al. 2018): convex combinations of pairs, with drawn coefficients."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_mixing_coefficients(
    alpha: float | Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return (count,) draws of Beta(alpha, alpha) as float32 on the generator's device.

    A Dirichlet draw with two components, in float64, because gamma variates of a small alpha
    leave float32's range. ``torch.distributions.Beta`` takes no generator.
    """
    device = generator.device
    if device.type == "mps":  # it has no float64: a generator on the CPU, seeded by its own
        seed = torch.randint(2**31, (1,), generator=generator, device=device).item()
        generator = torch.Generator().manual_seed(int(seed))
    # _sample_dirichlet is what torch.distributions.Dirichlet itself calls.
    concentration = alpha * torch.ones(count, 2, dtype=torch.float64, device=generator.device)
    draws = torch._sample_dirichlet(concentration, generator=generator)
    return draws[:, 0].to(device, torch.float32)


def keep_first_dominant(coefficients: Tensor) -> Tensor:
    """Return max(lambda, 1 - lambda), (B,) in [.5, 1]: the first of each pair outweighs the second.

    Source: Berthelot et al. 2019, equation 9.
    """
    return torch.maximum(coefficients, 1.0 - coefficients)


def mix(first: Tensor, second: Tensor, coefficients: Tensor) -> Tensor:
    """Return lambda * first + (1 - lambda) * second, row by row.

    ``first`` and ``second`` are (B, ...), ``coefficients`` (B,) in [0, 1].
    """
    shape = (-1,) + (1,) * (first.dim() - 1)
    weight = coefficients.to(first.dtype).view(shape)
    return weight * first + (1.0 - weight) * second
