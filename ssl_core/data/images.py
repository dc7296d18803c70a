"""Images as arrays, as a source returns them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNKNOWN_LABEL = -1

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabeledImages:
    """Images of one data set, or of its test part.

    ``images`` (N, channels, height, width) uint8; ``labels`` (N,) int64 in [0, C), or -1 where
    a source has no label; ``skipped`` names files that are not used, with the reason.
    """

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """How many classes the data set has, with images or without."""
        return len(self.class_names)


def checksum(images: Images) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(images).data)
