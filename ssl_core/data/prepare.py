"""From a data set's name to what a training needs: arrays, draws, normalisation. Loads no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ssl_core.data.catalogue import AUTO, DATASET_CARDS
from ssl_core.data.classes import class_indices, restricted
from ssl_core.data.config import DataConfig
from ssl_core.data.images import UNKNOWN_LABEL, Images, Indices, LabeledImages, Labels
from ssl_core.data.recipe import Augmentation, Normalisation, Preprocessing, default_shift
from ssl_core.data.sources import check_labels_are_chosen, load_training_images
from ssl_core.data.splits import (
    divide_anew,
    draw_folds,
    draw_split,
    fingerprint,
    labels_of_other_folds,
)
from ssl_core.data.whitening import fit_whitening
from ssl_core.errors import UserError

SYMMETRIC_MIDDLE = 127.5
"""Of uint8, and half its span: what brings 0 .. 255 to -1 .. 1."""


@dataclass(frozen=True, kw_only=True)
class SplitImages:
    """Everything the trials of one search share; plain arrays, so that it can be shipped once.

    Labels exist for the labeled and the validation images only: those of the unlabeled pool,
    where the data set has them, stay behind, and so do the test images.

    Args:
        images: (N, channels, height, width) uint8, every training image.
        labeled, unlabeled, validation: indices into ``images``.
        labels, validation_labels: classes of ``labeled`` and ``validation``.
        skipped: files that are not used, with the reason.
        fingerprint: SHA-256 of the three index lists.
    """

    images: Images
    labeled: Indices
    labels: Labels
    unlabeled: Indices
    validation: Indices
    validation_labels: Labels
    class_names: tuple[str, ...]
    skipped: tuple[str, ...]
    normalisation: Preprocessing
    augmentation: Augmentation
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """How many classes there are to tell apart."""
        return len(self.class_names)


def prepare(config: DataConfig) -> SplitImages:
    """Read a data set's training images and draw its labels and validation images.

    Raises:
        UserError: the images cannot be read, are too few for the draw, or all have a label and
            nobody said how many shall be used.
    """
    return prepare_draws(config, [config.split_seed])[config.split_seed]


def prepare_draws(config: DataConfig, split_seeds: Iterable[int]) -> dict[int, SplitImages]:
    """Read the training images once, and draw labels and validation images with each split seed.

    Raises:
        UserError: see ``prepare``.
    """
    if config.num_labels == AUTO:
        check_labels_are_chosen(config.dataset, config.data_dir)
    source = load_training_images(config.dataset, config.data_dir, config.image_size)
    return {
        split_seed: split_images(dataclasses.replace(config, split_seed=split_seed), source)
        for split_seed in dict.fromkeys(split_seeds)
    }


def split_images(config: DataConfig, source: LabeledImages) -> SplitImages:
    """Draw labels and validation images from a source that has been read.

    Raises:
        UserError: there are too few images for the draw, too large ones for the normalisation, or a
            condition needs labels that are not there.
    """
    _check_condition_can_be_made(config, source)
    if config.labeled_classes is not None:
        source = restricted(source, config.labeled_classes)
    split = draw_split(
        source.labels,
        source.class_names,
        num_labels=config.num_labels if isinstance(config.num_labels, int) else None,
        num_validation=config.num_validation,
        seed=config.split_seed,
        num_unlabeled=config.num_unlabeled,
        class_mismatch=config.class_mismatch,
        imbalance=config.imbalance,
    )
    card = DATASET_CARDS[config.dataset]
    drawn = SplitImages(
        images=source.images,
        labeled=split.labeled,
        labels=source.labels[split.labeled],
        unlabeled=split.unlabeled,
        validation=split.validation,
        validation_labels=source.labels[split.validation],
        class_names=source.class_names,
        skipped=source.skipped,
        normalisation=_preprocessing(config.normalisation, source.images, split.unlabeled),
        augmentation=Augmentation(
            max_shift=default_shift(source.images.shape[-1]),
            flip=card.flip if config.flip is None else config.flip,
            noise=card.noise,
        ),
        fingerprint=split.fingerprint(),
    )
    return divided(drawn, config)


def divided(drawn: SplitImages, config: DataConfig) -> SplitImages:
    """Return a draw whose labels are divided anew, as the configuration says; the same where it does not.

    The labels stay those of the draw, to train and to choose on together, and nobody else's are
    used. What is measured on is no part of the unlabeled pool and of the normalisation, which is
    fitted again.

    Args:
        drawn: not divided anew yet.

    Raises:
        UserError: a class has fewer labels than there are folds.
    """
    if config.division_seed is None:
        return drawn
    known, classes = all_labels(drawn)
    labeled = np.isin(known, drawn.labeled)
    if config.folds is None or config.fold is None:
        to_train = divide_anew(classes, labeled, config.division_seed)
        held_out = np.setdiff1d(np.arange(len(known)), to_train)
    else:
        folds = draw_folds(classes, config.folds, config.division_seed)
        to_train = labels_of_other_folds(classes, labeled, folds, config.fold, config.division_seed)
        held_out = np.flatnonzero(folds == config.fold)
    pool = np.union1d(drawn.unlabeled, drawn.validation)
    unlabeled = np.setdiff1d(pool, known[held_out])
    return dataclasses.replace(
        drawn,
        labeled=known[to_train],
        labels=classes[to_train],
        unlabeled=unlabeled,
        validation=known[held_out],
        validation_labels=classes[held_out],
        normalisation=_preprocessing(config.normalisation, drawn.images, unlabeled),
        fingerprint=fingerprint(known[to_train], unlabeled, known[held_out]),
    )


def all_labels(drawn: SplitImages) -> tuple[Indices, Labels]:
    """Return the images a draw has the labels of, to train and to choose on, sorted, and their classes."""
    known = np.concatenate([drawn.labeled, drawn.validation])
    order = np.argsort(known)
    classes = np.concatenate([drawn.labels, drawn.validation_labels])
    return known[order], classes[order]


def resolved(config: DataConfig, shared: SplitImages) -> DataConfig:
    """Return the configuration with the numbers of images that were really drawn."""
    return dataclasses.replace(
        config, num_labels=len(shared.labeled), num_validation=len(shared.validation)
    )


def _check_condition_can_be_made(config: DataConfig, source: LabeledImages) -> None:
    """Raise UserError where unlabeled images would have to be drawn by classes that are not known."""
    unknown = int((source.labels == UNKNOWN_LABEL).sum())
    if unknown and (config.labeled_classes is not None or config.is_imbalanced):
        what = "imbalance" if config.is_imbalanced else "labeled-classes"
        raise UserError(
            f"{what} was given and {unknown} images of {config.dataset} have no label; allowed: images that all "
            "have one, because the unlabeled ones are drawn by their classes; give a folder with train/, or "
            f"leave --{what} out."
        )
    if config.class_mismatch is not None and config.labeled_classes is not None:
        chosen = class_indices(config.labeled_classes, source.class_names)
        if len(chosen) == source.num_classes:
            raise UserError(
                f"class-mismatch was given and all {len(chosen)} classes are labeled ones; allowed: labeled "
                "classes that leave others; name fewer in --labeled-classes, or leave --class-mismatch out."
            )


def _preprocessing(name: str, images: Images, unlabeled: Indices) -> Preprocessing:
    """Return a normalisation of ``NORMALISATION_NAMES``, fitted on what is trained on."""
    if name == "zca":
        return fit_whitening(images, unlabeled)
    if name == "symmetric":
        middle = (SYMMETRIC_MIDDLE,) * images.shape[1]
        return Normalisation(mean=middle, std=middle)
    return _fit_normalisation(images, unlabeled)


def _fit_normalisation(images: Images, unlabeled: Indices) -> Normalisation:
    """Return mean and deviation per channel over the unlabeled pool, validation left out."""
    channels = images.shape[1]
    totals, squares, count = np.zeros(channels), np.zeros(channels), 0
    for start in range(0, len(unlabeled), 4096):
        part = images[unlabeled[start : start + 4096]].astype(np.float64)
        totals += part.sum(axis=(0, 2, 3))
        squares += np.square(part).sum(axis=(0, 2, 3))
        count += part.size // channels
    mean = totals / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return Normalisation(
        mean=tuple(float(value) for value in mean), std=tuple(float(value) for value in std)
    )
