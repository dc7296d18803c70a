"""Images as arrays: what a source returns, and the store trials read them from."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

UNKNOWN_LABEL = -1

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabeledImages:
    """Images of one data set, or of its test part.

    ``images`` (N, channels, height, width) uint8; ``labels`` (N,) int64 in [0, C), or -1 where
    a source has no label; ``skipped`` names files that could not be read, with the reason.
    """

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


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


def checksum(images: Images) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(images))
