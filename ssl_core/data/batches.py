"""The order in which images are drawn: reshuffled passes, with a state that can be stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ShuffledPasses:
    """Positions 0 .. count - 1 in batches, each pass over all of them in a new order.

    A batch may span passes, also several: 50 from 20 labeled images is two and a half. Repeats
    are augmented separately.
    """

    def __init__(self, count: int, batch_size: int, generator: torch.Generator) -> None:
        self._count = count
        self._batch_size = batch_size
        self._generator = generator
        self._pending = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """Return the next batch of positions (batch_size,) int64 on the CPU."""
        while len(self._pending) < self._batch_size:
            new_pass = torch.randperm(self._count, generator=self._generator)
            self._pending = torch.cat([self._pending, new_pass])
        batch = self._pending[: self._batch_size]
        self._pending = self._pending[self._batch_size :]
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the positions not yet drawn of the pass under way, and the generator's state."""
        return {"pending": self._pending.clone(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        self._pending = state["pending"]
        self._generator.set_state(state["generator"])
