"""The exponential moving average of a network's parameters."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ssl_core.errors import check_number


def decay_from_horizon(horizon: float) -> float:
    """Return the decay 1 - 1/horizon of an average over about ``horizon`` steps (>= 1).

    The published decays .95, .99 and .999 are horizons of 20, 100 and 1000 steps.
    """
    check_number("ema_horizon", horizon, 1.0)
    return 1.0 - 1.0 / horizon


def warmed_up_decay(decay: float, updates: int) -> float:
    """Return min(1 - 1/(updates + 1), decay): a plain mean first, then the moving average.

    Without it the initial weights linger: with decay .999 after 400 steps the average scored
    .190 where the student had .774. Source: Tarvainen & Valpola 2017.
    """
    return min(1.0 - 1.0 / (updates + 1), decay)


class EMA:
    """A network that follows the student; read by teachers and by evaluation, never trained.

    Only parameters are averaged. BatchNorm statistics are each network's own: those of the
    batch in training mode, recomputed before evaluation.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._own: list[Tensor] = list(self.network.parameters())
        self._followed: list[Tensor] = list(student.parameters())

    def update(self) -> None:
        """Move towards the student by 1 - decay, after its optimiser step."""
        self.move(self.next_weight())

    def next_weight(self) -> float:
        """Count an update and return how far it moves towards the student, in (0, 1]."""
        self.updates += 1
        return 1.0 - warmed_up_decay(self.decay, self.updates - 1)

    @torch.no_grad()
    def move(self, weight: float | Tensor) -> None:
        """Move towards the student by ``weight``; a captured step gives it as a 0-dim tensor."""
        if isinstance(weight, Tensor):  # _foreach_lerp_ takes no single one
            torch._foreach_mul_(self._own, 1.0 - weight)
            torch._foreach_add_(self._own, torch._foreach_mul(self._followed, weight))
        else:
            torch._foreach_lerp_(self._own, self._followed, weight)
