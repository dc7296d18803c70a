"""The store trainings read their images from."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_core.data.images import Images, checksum


class ImageStore:
    """Read-only images of which rows can be taken; every take is a copy.

    In a search the array lives once per host in shared memory that all trials map. A tensor
    made from it directly would be writable, and one trial's write would be seen by all, so
    nothing but copies leaves this class.
    """

    def __init__(self, images: Images, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._array = images
        self._tensor: Tensor | None = None
        if self._device.type != "cpu":
            self._tensor = torch.from_numpy(images.copy()).to(self._device)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, channels, height, width)."""
        return tuple(self._array.shape)

    def __len__(self) -> int:
        return len(self._array)

    def take(self, indices: Tensor) -> Tensor:
        """Return the rows at ``indices`` (B,) int64, on the CPU, as uint8 on the store's device."""
        if self._tensor is not None:
            return self._tensor[indices.to(self._device, non_blocking=True)]
        return torch.from_numpy(self._array[indices.numpy()])

    def checksum(self) -> int:
        """Return the CRC-32 of the images, to prove that nothing changed them."""
        return checksum(self._array)
