"""From a data set's name to what a training needs: arrays, draws, normalisation. Loads no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ssl_core.data.catalogue import AUTO, DATASET_CARDS
from ssl_core.data.config import DataConfig
from ssl_core.data.images import Images, Indices, LabeledImages, Labels
from ssl_core.data.recipe import Augmentation, Normalisation, Preprocessing, default_shift
from ssl_core.data.sources import check_labels_are_chosen, load_training_images
from ssl_core.data.splits import Split, draw_split
from ssl_core.data.whitening import fit_whitening

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
    if config.num_labels == AUTO:
        check_labels_are_chosen(config.dataset, config.data_dir)
    source = load_training_images(config.dataset, config.data_dir, config.image_size)
    return split_images(config, source)


def split_images(config: DataConfig, source: LabeledImages) -> SplitImages:
    """Draw labels and validation images from a source that has been read.

    Raises:
        UserError: there are too few images for the draw, or too large ones for the normalisation.
    """
    split = draw_split(
        source.labels,
        source.class_names,
        num_labels=config.num_labels if isinstance(config.num_labels, int) else None,
        num_validation=config.num_validation,
        seed=config.split_seed,
    )
    card = DATASET_CARDS[config.dataset]
    return SplitImages(
        images=source.images,
        labeled=split.labeled,
        labels=source.labels[split.labeled],
        unlabeled=split.unlabeled,
        validation=split.validation,
        validation_labels=source.labels[split.validation],
        class_names=source.class_names,
        skipped=source.skipped,
        normalisation=_preprocessing(config.normalisation, source.images, split),
        augmentation=Augmentation(
            max_shift=default_shift(source.images.shape[-1]),
            flip=card.flip if config.flip is None else config.flip,
            noise=card.noise,
        ),
        fingerprint=split.fingerprint(),
    )


def resolved(config: DataConfig, shared: SplitImages) -> DataConfig:
    """Return the configuration with the numbers of images that were really drawn."""
    return dataclasses.replace(
        config, num_labels=len(shared.labeled), num_validation=len(shared.validation)
    )


def _preprocessing(name: str, images: Images, split: Split) -> Preprocessing:
    """Return a normalisation of ``NORMALISATION_NAMES``, fitted on what is trained on."""
    if name == "zca":
        return fit_whitening(images, split.unlabeled)
    if name == "symmetric":
        middle = (SYMMETRIC_MIDDLE,) * images.shape[1]
        return Normalisation(mean=middle, std=middle)
    return _fit_normalisation(images, split)


def _fit_normalisation(images: Images, split: Split) -> Normalisation:
    """Return mean and deviation per channel over the unlabeled pool, validation left out."""
    channels = images.shape[1]
    totals, squares, count = np.zeros(channels), np.zeros(channels), 0
    for start in range(0, len(split.unlabeled), 4096):
        part = images[split.unlabeled[start : start + 4096]].astype(np.float64)
        totals += part.sum(axis=(0, 2, 3))
        squares += np.square(part).sum(axis=(0, 2, 3))
        count += part.size // channels
    mean = totals / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return Normalisation(
        mean=tuple(float(value) for value in mean), std=tuple(float(value) for value in std)
    )
