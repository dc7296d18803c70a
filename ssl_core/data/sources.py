"""The data sets by name, and the two doors to them: training images, and sealed test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ssl_core.data import digits, folder, vision_sets
from ssl_core.data.config import LARGEST_SIDE, SMALLEST_SIDE
from ssl_core.data.images import LabeledImages
from ssl_core.errors import UserError, check_integer

DEFAULT_IMAGE_SIZE = 32


class Source(NamedTuple):
    """How a data set's training and test images are read, given its folder and image size."""

    training: Callable[[Path, int], LabeledImages]
    test: Callable[[Path, int], LabeledImages]


SOURCES: dict[str, Source] = {
    "digits": Source(
        lambda _dir, _size: digits.load_training_images(),
        lambda _dir, _size: digits.load_test_images(),
    ),
    "svhn": Source(
        lambda data_dir, _size: vision_sets.load_svhn(data_dir, train=True),
        lambda data_dir, _size: vision_sets.load_svhn(data_dir, train=False),
    ),
    "cifar10": Source(
        lambda data_dir, _size: vision_sets.load_cifar10(data_dir, train=True),
        lambda data_dir, _size: vision_sets.load_cifar10(data_dir, train=False),
    ),
    "cifar100": Source(
        lambda data_dir, _size: vision_sets.load_cifar100(data_dir, train=True),
        lambda data_dir, _size: vision_sets.load_cifar100(data_dir, train=False),
    ),
    "folder": Source(folder.load_training_images, folder.load_test_images),
}


def load_training_images(
    dataset: str, data_dir: str | None, image_size: int | None
) -> LabeledImages:
    """Return every image of a data set that a search may see.

    Raises:
        UserError: the images are not there, or not in a form that can be read.
    """
    return SOURCES[dataset].training(*_place(dataset, data_dir, image_size))


def load_test_images(dataset: str, data_dir: str | None, image_size: int | None) -> LabeledImages:
    """Return a data set's test images. No search, no training and no selection calls this.

    Raises:
        UserError: the images are not there, or not in a form that can be read.
    """
    return SOURCES[dataset].test(*_place(dataset, data_dir, image_size))


def check_has_test_images(dataset: str, data_dir: str | None) -> None:
    """Check that a data set can be tested on images that no search saw. Reads no image.

    Raises:
        UserError: the user's folder has no test/, or one with classes nobody trains on.
    """
    place, _ = _place(dataset, data_dir, None)
    if dataset == "folder":
        folder.check_test_folder(place)


def check_labels_are_chosen(dataset: str, data_dir: str | None) -> None:
    """Check that a data set's folders say which images are labeled. Reads no image.

    Raises:
        UserError: every image has a label, so that none would be left without.
    """
    place, _ = _place(dataset, data_dir, None)
    if dataset == "folder" and folder.is_labeled_tree(place):
        raise UserError(
            f"data-dir {str(place)!r} has a train/ folder, whose images are all labeled, and labels was not "
            "given; allowed: how many of those labels to use, the rest being trained on without; give --labels "
            "(in a training's file num_labels, where null means all)."
        )


def _place(dataset: str, data_dir: str | None, image_size: int | None) -> tuple[Path, int]:
    if dataset == "folder" and data_dir is None:
        raise UserError(
            f"data set folder needs --data-dir; allowed: a folder with {folder.LAYOUT}; give its path."
        )
    size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    check_integer("image-size", size, SMALLEST_SIDE, LARGEST_SIDE)
    if dataset != "folder" and image_size is not None:
        raise UserError(
            f"image-size is {image_size} with {dataset}; allowed: none, its images have one size; leave "
            "it out or use --dataset folder."
        )
    if dataset == "digits" and data_dir is not None:
        raise UserError(
            f"data-dir is {data_dir!r} with digits; allowed: none, its images come with scikit-learn; leave "
            "it out or use --dataset folder."
        )
    default = Path("data") if dataset != "folder" else Path()
    return (Path(data_dir).expanduser() if data_dir else default), size
