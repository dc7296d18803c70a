"""How images become a network's input: plain values, applied by ``augment.py``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
    """What is subtracted from each channel and what it is divided by, in units of uint8.

    Mean and standard deviation of the training images, or the middle and half the span of uint8.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


CONTRAST_NORM = 55.0
"""Euclidean norm of an image after global contrast normalisation (Oliver et al. 2018)."""

SMALLEST_NORM = 1e-10
"""An image whose norm is below this has no contrast and stays zero."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """Global contrast normalisation, then ZCA whitening; d inputs per image.

    An image is flattened channel by channel, freed of its own mean, scaled to the norm
    ``CONTRAST_NORM``, freed of ``mean`` (d,) and multiplied by the symmetric ``matrix`` (d, d), both
    float32. See ``whitening.py`` for the fit.
    """

    mean: npt.NDArray[np.float32]
    matrix: npt.NDArray[np.float32]


Preprocessing = Normalisation | Whitening
"""What makes a network's input of uint8 images."""


def default_shift(image_size: int) -> int:
    """Return the largest shift for images of that side: a sixteenth of it, at least one pixel.

    Two pixels at 32x32 (Oliver et al. 2018), one at 8x8.
    """
    return max(1, round(image_size / 16))
