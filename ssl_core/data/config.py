"""Which images a search or a training uses, and how they are drawn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ssl_core.data.catalogue import AUTO, DATASET_CARDS
from ssl_core.errors import (
    UserError,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_text,
)
from ssl_core.names import DATASET_NAMES, NORMALISATION_NAMES

SMALLEST_SIDE = 8  # the network halves the resolution twice
LARGEST_SIDE = 1024
LARGEST_DRAW = 2**32 - 1

DIVISION_FIELDS = ("division_seed", "folds", "fold")
"""What divides the labels of a draw anew; left out of records where nothing does."""

CONDITIONS = ("num_unlabeled", "labeled_classes", "class_mismatch", "imbalance")
"""Fields of ``DataConfig`` that came later than the others: what was written before lacks them."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and which of them are labeled.

    Args:
        data_dir: folder of the images; None for those that come with the package.
        image_size: side to which a folder's images are resized; None elsewhere.
        num_labels: labeled images to train on; None for all that validation leaves; ``auto``
            for a folder's labeled/, all of it, while a train/ needs a number.
        num_validation: images to choose on; None for half of those with a label, at most 5,000.
        split_seed: the draw of labels and validation images.
        flip: mirror images when augmenting; None for the data set's own rule.
        num_unlabeled: size of the unlabeled pool, the labeled images among it; None for all that
            validation leaves.
        labeled_classes: comma list of those that are told apart, by name or place; None for all.
        class_mismatch: percent of the pool's extra images that are of other classes; None where
            they come as they are.
        imbalance: ratio of the largest to the smallest class among labeled and unlabeled images;
            None or 1 for none made.
        division_seed: divides the labels that ``split_seed`` drew, those to train and those to choose
            on together, anew; None to leave them as drawn.
        folds: with ``division_seed``: hold one of so many folds of these labels out, to measure on, and
            train on labels of the others; None for as many of each kind as were drawn.
        fold: which of them, from 1.
        normalisation: of the network's input. ``channels``: mean 0 and deviation 1 per channel, over the
            images that are trained on; ``symmetric``: from 0 .. 255 to -1 .. 1; ``zca``: global contrast
            normalisation, then ZCA whitening fitted on the images that are trained on.

    docs/conditions.md describes ``num_unlabeled`` to ``imbalance``.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    num_labels: int | str | None = None
    num_validation: int | None = None
    split_seed: int = 0
    flip: bool | None = None
    num_unlabeled: int | None = None
    labeled_classes: str | None = None
    class_mismatch: float | None = None
    imbalance: float | None = None
    division_seed: int | None = None
    folds: int | None = None
    fold: int | None = None
    normalisation: str = "channels"

    def __post_init__(self) -> None:
        check_choice("dataset", self.dataset, DATASET_NAMES)
        if self.data_dir is not None:
            check_text("data_dir", self.data_dir)
            if not is_utf8(self.data_dir):
                raise UserError(
                    f"data_dir is {self.data_dir!r}, which is not UTF-8; allowed: a path in UTF-8, because "
                    "a run's files name it; rename the folder, or give a link to it."
                )
        if self.image_size is not None:
            check_integer("image_size", self.image_size, SMALLEST_SIDE, LARGEST_SIDE)
        if self.flip is not None:
            check_flag("flip", self.flip)
        check_choice("normalisation", self.normalisation, NORMALISATION_NAMES)
        by_folders = self.dataset == "folder" and self.num_labels == AUTO
        if self.num_labels is not None and not by_folders:
            check_integer("num_labels", self.num_labels, 1)
        if self.num_validation is not None:
            check_integer("num_validation", self.num_validation, 1)
        check_integer("split_seed", self.split_seed, 0, LARGEST_DRAW)
        if self.division_seed is not None:
            check_integer("division_seed", self.division_seed, 0, LARGEST_DRAW)
        self._check_fold()
        if self.flip and DATASET_CARDS[self.dataset].flip_fixed:
            raise UserError(
                f"flip is on with {self.dataset}; allowed: off, because a mirrored digit is another or "
                "none; leave it out."
            )
        self._check_conditions()

    def _check_conditions(self) -> None:
        if self.num_unlabeled is not None:
            check_integer("num_unlabeled", self.num_unlabeled, 1)
        if self.labeled_classes is not None:
            check_text("labeled_classes", self.labeled_classes)
        if self.class_mismatch is not None:
            check_number("class_mismatch", self.class_mismatch, 0.0, 100.0)
            if self.labeled_classes is None:
                raise UserError(
                    f"class-mismatch is {self.class_mismatch:g} and labeled-classes was not given; allowed: the "
                    "two together, because other classes are those not told apart; give --labeled-classes."
                )
        if self.imbalance is not None:
            check_number("imbalance", self.imbalance, 1.0)
        if self.is_imbalanced and self.labeled_classes and self.class_mismatch is None:
            raise UserError(
                f"imbalance is {self.imbalance:g} with labeled-classes alone; allowed: with a class-mismatch, "
                "because a pool of all classes has no one ratio; give --class-mismatch, 0 for none of others."
            )

    @property
    def is_imbalanced(self) -> bool:
        """Whether a long tail is made of the classes."""
        return self.imbalance is not None and self.imbalance > 1

    @property
    def undivided(self) -> DataConfig:
        """The draw itself, before its labels are divided anew."""
        return dataclasses.replace(self, division_seed=None, folds=None, fold=None)

    def to_record(self) -> dict[str, Any]:
        """Return plain values; a division only where there is one."""
        return {
            key: value
            for key, value in dataclasses.asdict(self).items()
            if key not in DIVISION_FIELDS or value is not None
        }

    def _check_fold(self) -> None:
        if self.folds is None and self.fold is None:
            return
        if None in (self.folds, self.fold, self.division_seed):
            raise UserError(
                f"division_seed is {self.division_seed}, folds {self.folds} and fold {self.fold}; allowed: all "
                "three, or division_seed alone, or none; give what is missing."
            )
        check_integer("folds", self.folds, 2)
        check_integer("fold", self.fold, 1, self.folds)


def is_utf8(text: str) -> bool:
    """Return whether a path's text can be written into a run's files, which are UTF-8."""
    return text.encode(errors="replace").decode() == text
