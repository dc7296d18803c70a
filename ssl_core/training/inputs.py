"""What a training step is given from outside, in tensors whose place never changes."""

from __future__ import annotations

import torch
from torch import Tensor


class StepInputs:
    """The rows, labels and scalars of one step, on the training's device.

    A captured step reads these tensors anew each time it is replayed. ``give`` fills them by two
    small copies and waits for no device.

    Attributes:
        labeled: (B,) int64, rows of the store.
        labels: (B,) int64, their classes.
        unlabeled: (mu B,) int64, rows of the store.
        progress: 0-dim, the part of the budget done.
        rate: 0-dim, the learning rate.
        ema_weight: 0-dim, how far the average moves towards the student.
    """

    def __init__(self, num_labeled: int, num_unlabeled: int, device: torch.device) -> None:
        sizes = [num_labeled, num_labeled, num_unlabeled]
        self._integers = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
        self._numbers = torch.zeros(3, device=device)
        self.labeled, self.labels, self.unlabeled = torch.split(self._integers, sizes)
        self.progress, self.rate, self.ema_weight = self._numbers.unbind()

    def give(
        self,
        labeled: Tensor,
        labels: Tensor,
        unlabeled: Tensor,
        *,
        progress: float,
        rate: float,
        ema_weight: float,
    ) -> None:
        """Write the next step's values, all of them on the CPU, in place."""
        self._write(self._integers, torch.cat([labeled, labels, unlabeled]))
        self._write(self._numbers, torch.tensor([progress, rate, ema_weight]))

    @staticmethod
    def _write(place: Tensor, values: Tensor) -> None:
        # From pageable memory a copy to a GPU may wait for it.
        values = values.pin_memory() if place.is_cuda else values
        place.copy_(values, non_blocking=True)
