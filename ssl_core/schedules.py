"""Schedules as pure functions of progress, a 0-dim tensor in [0, 1]: the part of the budget done.

Nothing here counts steps: a ramp of .1 ends at a tenth of the training, however long it is.
Progress is a tensor so that a captured training step reads it anew each time; a ramp's length may be
one, so that another training can use the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Schedule = Callable[[Tensor], Tensor]


def gaussian_ramp_up(progress: Tensor, ramp_fraction: float | Tensor) -> Tensor:
    """Return exp(-5 (1 - t)^2) with t = progress / ramp_fraction up to 1, then 1.

    Source: Laine & Aila 2017. ``ramp_fraction`` in [0, 1]; 0 means no ramp.
    """
    remaining = 1.0 - _part_of(progress, ramp_fraction)
    return torch.exp(-5.0 * remaining.square())


def linear_ramp_up(progress: Tensor, ramp_fraction: float | Tensor) -> Tensor:
    """Return progress / ramp_fraction up to 1, then 1. Source: Berthelot et al. 2019.

    ``ramp_fraction`` in [0, 1]; 0 means no ramp.
    """
    return _part_of(progress, ramp_fraction)


def _part_of(progress: Tensor, ramp_fraction: float | Tensor) -> Tensor:
    """Return how much of the ramp is done, in [0, 1]: all of one without length."""
    done = torch.ones_like(progress)
    return torch.where(progress < ramp_fraction, progress / ramp_fraction, done)


def constant(progress: Tensor) -> Tensor:
    """Return 1 at all times."""
    return torch.ones_like(progress)


def cosine_decay(progress: Tensor) -> Tensor:
    """Return cos(7 pi progress / 16): from 1 to .195. Source: Sohn et al. 2020 (FixMatch)."""
    return torch.cos(progress.clamp(0.0, 1.0) * (7.0 * math.pi / 16.0))


def step_decay(progress: Tensor) -> Tensor:
    """Return 1 up to four fifths of the budget, .2 after. Source: Oliver et al. 2018 (400k of 500k)."""
    return torch.where(progress < 0.8, torch.ones_like(progress), torch.full_like(progress, 0.2))


LEARNING_RATE_SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine_decay,
    "step": step_decay,
}
