"""Which images are labeled, unlabeled and for validation: named, seeded, reproducible draws.

Validation images are drawn first, in proportion to the classes; labels are then given to the
classes in turn. So for one seed the validation images do not depend on the number of labels,
and the 20 labeled images are among the 50. Every class has at least one image of each kind: a
class without validation images would have no accuracy.

The conditions of Oliver et al. 2018, a smaller pool, one of other classes, a long tail, change what
is labeled and unlabeled (``pools``), and never the validation images; docs/conditions.md has them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssl_core.data.images import UNKNOWN_LABEL, Indices, Labels
from ssl_core.data.pools import fill_pool, long_tail
from ssl_core.errors import UserError

LARGEST_DEFAULT_VALIDATION = 5000
"""Half of 50,000 labels would cost a minute of every evaluation; 5,000 leave an error of .7 points."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices into a data set's training images, each sorted.

    ``unlabeled`` holds every image that is not for validation, or those that a condition leaves of
    them; the labeled ones are always among them: their label is not used there.
    """

    labeled: Indices
    unlabeled: Indices
    validation: Indices
    seed: int

    def fingerprint(self) -> str:
        """Return the SHA-256 of the three index lists, which names the draw."""
        return fingerprint(self.labeled, self.unlabeled, self.validation)


def fingerprint(*lists: Indices) -> str:
    """Return the SHA-256 of index lists."""
    digest = hashlib.sha256()
    for indices in lists:
        digest.update(np.ascontiguousarray(indices, dtype="<i8").tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def draw_split(
    labels: Labels,
    class_names: tuple[str, ...],
    *,
    num_labels: int | None,
    num_validation: int | None,
    seed: int,
    num_unlabeled: int | None = None,
    class_mismatch: float | None = None,
    imbalance: float | None = None,
) -> Split:
    """Draw the labeled, unlabeled and validation images of a data set.

    Args:
        labels: (N,) class of each training image, -1 where unknown or of none of ``class_names``.
        num_labels: labeled images to train on, at least one per class; None for all that
            validation leaves.
        num_validation: images to choose on, at least one per class; None for half of those
            with a label, at most ``LARGEST_DEFAULT_VALIDATION``.
        seed: the draw; the same seed gives nested labels and the same validation images.
        num_unlabeled: size of the unlabeled pool, the labeled images among it; None for all that
            validation leaves. For the same labels and seed the smaller pool is in the larger.
        class_mismatch: percent of the pool's extra images that are of none of ``class_names``, see
            ``fill_pool``; None where they come as they are.
        imbalance: ratio of the largest to the smallest class among the labeled images, and among
            those of ``class_names`` in the pool, see ``long_tail``; None or 1 for none made.

    Raises:
        UserError: a class has fewer than two images with a label, or there are too few labels,
            validation images or images for every class to have one of each kind, or for the pool.
    """
    num_classes = len(class_names)
    random = np.random.RandomState(seed)  # its stream is frozen, a Generator's is not
    available = int((labels != UNKNOWN_LABEL).sum())
    by_class = [
        random.permutation(np.flatnonzero(labels == label)).astype(np.int64)
        for label in range(num_classes)
    ]
    _check_every_class_has_two_images(by_class, class_names)
    if num_validation is None:
        num_validation = min(available // 2, LARGEST_DEFAULT_VALIDATION)
    _check_counts(num_labels, num_validation, available, num_classes)

    sizes = np.array([len(indices) for indices in by_class])
    for_validation = _validation_counts(sizes, num_validation)
    turn = random.permutation(num_classes)
    assert for_validation.min() >= 1  # for what was checked above, a way exists
    validation = [own[:n] for own, n in zip(by_class, for_validation, strict=True)]
    own_left = [own[n:] for own, n in zip(by_class, for_validation, strict=True)]
    chosen = np.sort(np.concatenate(validation))
    left = np.setdiff1d(np.arange(len(labels), dtype=np.int64), chosen)
    tail = None if imbalance is None or imbalance == 1 else long_tail(own_left, imbalance)
    if tail is None:
        labeled = _labels_in_turn(own_left, num_labels, turn)
    else:
        labeled = _labels_in_tail(tail, num_labels)
    unlabeled = left
    if num_unlabeled is not None or class_mismatch is not None or tail is not None:
        order = random.permutation(left)  # after all other draws, so that they stay as they were
        extras = order[~np.isin(order, labeled)]
        known = labels[extras] != UNKNOWN_LABEL
        inside = extras if class_mismatch is None else extras[known]
        unlabeled = fill_pool(
            labeled,
            inside if tail is None else tail[len(labeled) :],
            extras[~known],
            size=num_unlabeled,
            class_mismatch=class_mismatch,
        )
    return Split(labeled=labeled, unlabeled=unlabeled, validation=chosen, seed=seed)


def _labels_in_turn(own_left: list[Indices], num_labels: int | None, turn: Indices) -> Indices:
    """Return the labeled images, as many of each class; None for all there are."""
    sizes = np.array([len(own) for own in own_left])
    total = int(sizes.sum()) if num_labels is None else num_labels
    for_labels = _counts_in_turn(sizes, total, turn)
    assert for_labels.min() >= 1  # for what was checked, a way exists
    return np.sort(np.concatenate([own[:n] for own, n in zip(own_left, for_labels, strict=True)]))


def _labels_in_tail(tail: Indices, num_labels: int | None) -> Indices:
    """Return the labeled images, the beginning of a long tail."""
    if num_labels is None or num_labels > len(tail):
        given = "not given" if num_labels is None else f"{num_labels}"
        raise UserError(
            f"labels is {given} with an imbalance whose long tail ends after {len(tail)} images, when a class "
            f"has none left; allowed: at most {len(tail)}; give fewer --labels, or another --imbalance."
        )
    return np.sort(tail[:num_labels])


def divide_anew(classes: Labels, labeled: npt.NDArray[np.bool_], seed: int) -> Indices:
    """Return which of the labels of a draw are trained on after another division, sorted.

    Every class keeps its number of labels to train on, and so its number to choose on.

    Args:
        classes: (n,) of all labels of the draw, those to train and those to choose on, in a fixed order.
        labeled: (n,) which of them were drawn to train on.
        seed: the division; its stream is frozen.
    """
    random = np.random.RandomState(seed)
    return np.sort(
        np.concatenate(
            [random.permutation(own)[: labeled[own].sum()] for own in _places_by_class(classes)]
        )
    )


def draw_folds(classes: Labels, folds: int, seed: int) -> Indices:
    """Return the fold of every label, from 1: stratified, and equally large but for one image.

    Args:
        classes: (n,) of all labels of a draw.

    Raises:
        UserError: a class has fewer labels than there are folds.
    """
    by_class = _places_by_class(classes)
    fewest = min(len(own) for own in by_class)
    if folds > fewest:
        raise UserError(
            f"{folds} folds were asked for and a class has {fewest} labels; allowed: 2 to {fewest} folds, so "
            "that every fold has an image of each class; give fewer."
        )
    random = np.random.RandomState(seed)
    fold = np.empty(len(classes), dtype=np.int64)
    fold[np.concatenate([random.permutation(own) for own in by_class])] = (
        np.arange(len(classes)) % folds
    )
    return fold + 1


def labels_of_other_folds(
    classes: Labels, labeled: npt.NDArray[np.bool_], folds: Indices, fold: int, seed: int
) -> Indices:
    """Return labels to train on that lie in other folds than one, sorted.

    As many of each class as the draw trains on, or all that the other folds have.

    Args:
        classes, labeled: see ``divide_anew``.
        folds: (n,) from ``draw_folds``.
        seed: of the folds; each fold's choice has a stream of its own.
    """
    random = np.random.RandomState([seed, fold])
    return np.sort(
        np.concatenate(
            [
                random.permutation(own[folds[own] != fold])[: labeled[own].sum()]
                for own in _places_by_class(classes)
            ]
        )
    )


def _places_by_class(classes: Labels) -> list[Indices]:
    return [np.flatnonzero(classes == label) for label in np.unique(classes)]


def _check_every_class_has_two_images(
    by_class: list[Indices], class_names: tuple[str, ...]
) -> None:
    for name, indices in zip(class_names, by_class, strict=True):
        if len(indices) < 2:
            there = "1 labeled image" if len(indices) == 1 else "no labeled images"
            raise UserError(
                f"class {name!r} has {there}; allowed: at least 2 per class, one to train on and one to "
                "validate; add labeled images or remove the class."
            )


def _check_counts(
    num_labels: int | None, num_validation: int, available: int, num_classes: int
) -> None:
    if num_labels is not None and num_labels < num_classes:
        raise UserError(
            f"labels is {num_labels}, fewer than the {num_classes} classes; allowed: at least one per "
            f"class; give --labels {num_classes} or more."
        )
    if num_labels is not None and num_labels + num_validation > available:
        raise UserError(
            f"{num_labels} labels and {num_validation} validation images are more than the {available} "
            f"images with a label; allowed: together at most {available}; lower --labels or --validation."
        )
    if num_validation < num_classes:
        raise UserError(
            f"validation is {num_validation}, fewer than the {num_classes} classes; allowed: at least 1 "
            f"image per class to choose on; give --validation {num_classes} or more."
        )
    if num_validation > available - num_classes:
        raise UserError(
            f"validation is {num_validation} of {available} images with a label; allowed: at most "
            f"{available - num_classes}, so that each of the {num_classes} classes keeps one to train on; "
            "lower --validation."
        )


def _validation_counts(sizes: Indices, total: int) -> Indices:
    """Return counts that sum to ``total``, in proportion to ``sizes`` but 1 to size - 1 each.

    A class whose share is outside of these bounds gets the bound, and the others share what is
    left. No draw meets both: below 1 needs less than half of the images drawn, above size - 1
    needs more.
    """
    counts = _proportional_counts(sizes, total)
    for bounds, outside in ((np.ones_like(sizes), np.less), (sizes - 1, np.greater)):
        fixed = np.zeros(len(sizes), dtype=bool)
        while outside(counts, bounds).any():
            fixed |= outside(counts, bounds)
            counts[fixed] = bounds[fixed]
            counts[~fixed] = _proportional_counts(sizes[~fixed], total - counts[fixed].sum())
    return counts


def _proportional_counts(sizes: Indices, total: int) -> Indices:
    """Return counts that sum to ``total`` in proportion to ``sizes``, by largest remainder."""
    exact = sizes * (total / sizes.sum())
    counts: Indices = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - counts), kind="stable")
    counts[by_remainder[: total - counts.sum()]] += 1
    return counts


def _counts_in_turn(sizes: Indices, total: int, turn: Indices) -> Indices:
    """Return counts that sum to ``total``, one to each class in turn while it has images left."""
    counts = np.zeros_like(sizes)
    remaining = total
    while remaining > 0:
        for label in turn:
            if remaining > 0 and counts[label] < sizes[label]:
                counts[label] += 1
                remaining -= 1
    return counts
