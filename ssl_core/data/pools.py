"""What an unlabeled pool is made of: its size, how much of other classes, a long tail. Pure.

The labeled images are always part of the pool; the others are its extra images. Every order here is
one from which a smaller pool takes a shorter beginning, so that for one seed 100 images are among 200.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl_core.data.images import Indices
from ssl_core.errors import UserError

END = -1


def long_tail(by_class: Sequence[Indices], ratio: float) -> Indices:
    """Return images in the order in which a long tail grows, until a class has none left for it.

    Class k of C has the share ratio^(-k / (C - 1)) of class 0: the exponential long tail of Cui et
    al. 2019, classes in the data set's order. The beginnings of the order hold it as whole numbers
    by Webster's method, where the next image goes to the class with the largest share_k / (2 n_k + 1);
    it never takes one back that it gave. The first C images are one of each class.

    Args:
        by_class: images of each of C >= 2 classes, in the order in which they are used.
        ratio: of the largest to the smallest class, >= 1.

    Returns:
        (M,) images; M is the size of the largest long tail there is.
    """
    last = len(by_class) - 1
    quotients, images = [], []
    for place, own in enumerate(by_class):
        given = np.arange(len(own) + 1)  # one more than there is: where it is wanted, the tail ends
        quotient = ratio ** (-place / last) / (2 * given + 1)
        quotient[0] += 1.0  # before any second image
        quotients.append(quotient)
        images.append(np.append(own, END))
    grown = np.concatenate(images)[np.argsort(-np.concatenate(quotients), kind="stable")]
    tail: Indices = grown[: int(np.argmax(grown == END))]
    return tail


def mismatched(extras: int, class_mismatch: float) -> int:
    """Return how many of a pool's extra images are of other classes, to the nearest.

    Args:
        class_mismatch: percent of the extra images, 0 to 100.
    """
    return int(extras * class_mismatch / 100 + 0.5)


def fill_pool(
    labeled: Indices,
    inside: Indices,
    outside: Indices,
    *,
    size: int | None,
    class_mismatch: float | None,
) -> Indices:
    """Return a pool, sorted: the labeled images and extra ones.

    Args:
        inside: extra images there are, in the order in which they are taken.
        outside: those of other classes, likewise; not used where ``class_mismatch`` is None.
        size: of the pool, the labeled images included; None for the largest there is: with a
            ``class_mismatch`` the largest that every other one could have, too.
        class_mismatch: percent of the extra images that are of other classes.

    Raises:
        UserError: the size is smaller than the labeled images, or more than there is.
    """
    most = len(inside) if class_mismatch is None else min(len(inside), len(outside))
    extras = most if size is None else size - len(labeled)
    from_outside = 0 if class_mismatch is None else mismatched(extras, class_mismatch)
    if extras < 0:
        raise UserError(
            f"unlabeled is {size}, fewer than the {len(labeled)} labels, which are part of the pool; allowed: "
            f"{len(labeled)} to {len(labeled) + most}; raise --unlabeled or lower --labels."
        )
    if from_outside > len(outside) or extras - from_outside > len(inside):
        there = f"{len(inside)} images can join the {len(labeled)} labeled"
        if class_mismatch is not None:
            there += f", and {len(outside)} of other classes, at a class-mismatch of {class_mismatch:g} %"
        raise UserError(
            f"unlabeled is {size} and {there}; allowed: at most {len(labeled) + most}; lower --unlabeled, or "
            "--validation where that leaves more."
        )
    pool: Indices = np.sort(
        np.concatenate([labeled, inside[: extras - from_outside], outside[:from_outside]])
    )
    return pool
