"""The 1,797 scans of handwritten digits, 8x8, that come with scikit-learn.

The 600 test images are the same for ever: stratified, drawn once, kept in
``digits_test_indices.txt``. The file is ordered by writer, so a random split is not
writer-disjoint: digits is a test bench, not evidence about new writers.
"""

from __future__ import annotations

from importlib import resources

import numpy as np

from ssl_core.data.images import Indices, LabeledImages

SIDE = 8
LARGEST_GREY = 16.0  # the scans have 17 levels of grey, 0 to 16


def load_training_images() -> LabeledImages:
    """Return the 1,197 images that are not for testing."""
    return _digits(np.setdiff1d(np.arange(1797), test_indices()))


def load_test_images() -> LabeledImages:
    """Return the 600 test images."""
    return _digits(test_indices())


def test_indices() -> Indices:
    """Return the positions (600,) of the test images in scikit-learn's file, sorted."""
    text = resources.files("ssl_core.data").joinpath("digits_test_indices.txt").read_text()
    return np.array(text.split(), dtype=np.int64)


def _digits(positions: Indices) -> LabeledImages:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255.0 / LARGEST_GREY)).astype(np.uint8)
    return LabeledImages(
        images=np.ascontiguousarray(grey[positions, None]),
        labels=bunch.target[positions].astype(np.int64),
        class_names=tuple(str(digit) for digit in range(10)),
    )
