"""The fit of ZCA whitening after global contrast normalisation, as Oliver et al. 2018 do it.

With x an image after ``contrast_normalised``, m the mean and C the covariance of the training
images, an image becomes (C + .1 I)^(-1/2) (x - m). Source: lib/dataset_utils.py of their code:
norm 55, ridge .1 on the covariance, covariance over n - 1.

Deliberate difference: they fit on all 50,000 training images of CIFAR-10 before 5,000 of them
become validation images; we fit on the images that are trained on, so validation stays unseen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from ssl_core.data.images import Images, Indices
from ssl_core.data.recipe import CONTRAST_NORM, SMALLEST_NORM, Whitening
from ssl_core.errors import UserError

RIDGE = 0.1
MOST_INPUTS = 3 * 32 * 32
"""The matrix has this number squared: 38 MB in every file of weights, a minute of one core to fit."""

CHUNK = 1024

Array = npt.NDArray[np.float64]


def fit_whitening(images: Images, rows: Indices) -> Whitening:
    """Fit the whitening of (N, channels, height, width) uint8 images on those at ``rows``.

    Computed in float64 on one thread, so that the bits do not depend on how many there are, and
    rounded to float32.

    Raises:
        UserError: an image has more than ``MOST_INPUTS`` inputs.
    """
    inputs = int(np.prod(images.shape[1:]))
    if inputs > MOST_INPUTS:
        shape = " x ".join(str(size) for size in images.shape[1:])
        raise UserError(
            f"normalisation is zca with images of {shape} = {inputs} inputs; allowed: at most {MOST_INPUTS} "
            "(3 x 32 x 32), because the whitening has that number squared; give a smaller --image-size or "
            "another --protocol."
        )
    with threadpool_limits(1, "blas"):
        mean, covariance = _moments(images, rows)
        values, vectors = np.linalg.eigh(covariance + RIDGE * np.eye(inputs))
        matrix = (vectors / np.sqrt(values)) @ vectors.T
    return Whitening(mean=mean.astype(np.float32), matrix=matrix.astype(np.float32))


def contrast_normalised(images: Images) -> Array:
    """Return uint8 images as rows (N, d) float64, each of mean 0 and norm ``CONTRAST_NORM``.

    An image of one colour value becomes zero.
    """
    rows = images.reshape(len(images), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms < SMALLEST_NORM] = 1.0
    scaled: Array = CONTRAST_NORM * rows / norms
    return scaled


def _moments(images: Images, rows: Indices) -> tuple[Array, Array]:
    """Return mean (d,) and covariance (d, d), over n - 1, of contrast-normalised images."""
    inputs = int(np.prod(images.shape[1:]))
    total, products = np.zeros(inputs), np.zeros((inputs, inputs))
    for start in range(0, len(rows), CHUNK):
        part = contrast_normalised(images[rows[start : start + CHUNK]])
        total += part.sum(axis=0)
        products += part.T @ part
    mean = total / len(rows)
    return mean, (products - len(rows) * np.outer(mean, mean)) / (len(rows) - 1)
