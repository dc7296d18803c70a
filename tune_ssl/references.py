"""Two lines every table of networks stands beside: what the same labels give without one.

Both are fitted on raw pixels, one draw at a time, by a process that has no test image; what is fitted
goes to the sealed test, which asks it once. Nothing of them is tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core.data.images import Images
from ssl_core.data.prepare import SplitImages

NEIGHBOURS = 7
"""As scikit-learn's own default; LabelSpreading is not tuned."""

LARGEST_POOL = 10_000
"""Images over which labels are spread at most: its graph compares all pairs, and 65,000 take hours."""

UNKNOWN = -1


def nearest_neighbour(drawn: SplitImages) -> Any:
    """Return scikit-learn's classifier by the nearest labeled image (Euclidean, on pixels)."""
    from sklearn.neighbors import KNeighborsClassifier

    known = pixels(drawn.images[drawn.labeled])
    return KNeighborsClassifier(1).fit(known, drawn.labels)


def label_spreading(drawn: SplitImages) -> Any:
    """Return scikit-learn's LabelSpreading over labeled and unlabeled images (7 nearest neighbours).

    Source: Zhou et al. 2004, Learning with Local and Global Consistency.
    """
    from sklearn.semi_supervised import LabelSpreading

    known = np.full(len(drawn.images), UNKNOWN)
    known[drawn.labeled] = drawn.labels
    pool = drawn.unlabeled  # the labeled images are among them, see SplitImages
    model = LabelSpreading(kernel="knn", n_neighbors=NEIGHBOURS)
    with np.errstate(invalid="ignore"):  # an image that no label reaches
        return model.fit(pixels(drawn.images[pool]), known[pool])


REFERENCES: dict[str, Callable[[SplitImages], Any]] = {
    "1-NN": nearest_neighbour,
    "LabelSpreading": label_spreading,
}


def references_for(drawn: SplitImages) -> tuple[str, ...]:
    """Return the reference lines there can be for a data set of this size."""
    fits = len(drawn.unlabeled) <= LARGEST_POOL
    return tuple(name for name in REFERENCES if fits or name != "LabelSpreading")


def predicted(model: Any, images: Images) -> npt.NDArray[np.int64]:
    """Return the class of each image; one that no label reaches counts as class 0."""
    with np.errstate(invalid="ignore"):
        found: npt.NDArray[np.int64] = model.predict(pixels(images))
    return found


def pixels(images: Images) -> npt.NDArray[np.float32]:
    """Return images as rows of numbers in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255.0)
