"""How images become a network's input: plain values, applied by ``augment.py``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The weak augmentation of a data set: shift, and where it keeps the class, flip and noise.

    Args:
        max_shift: pixels an image moves at most, each way, in both directions.
        flip: mirror every image with probability 1/2.
        noise: standard deviation of Gaussian noise, in units of the normalised input.
    """

    max_shift: int
    flip: bool
    noise: float


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Mean and standard deviation per channel of the training images, in units of uint8."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def default_shift(image_size: int) -> int:
    """Return the largest shift for images of that side: a sixteenth of it, at least one pixel.

    Two pixels at 32x32 (Oliver et al. 2018), one at 8x8.
    """
    return max(1, round(image_size / 16))
