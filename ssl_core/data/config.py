"""Which images a search or a training uses, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_core.data.catalogue import AUTO, DATASET_CARDS
from ssl_core.errors import UserError, check_choice, check_flag, check_integer, check_text
from ssl_core.names import DATASET_NAMES, NORMALISATION_NAMES

SMALLEST_SIDE = 8  # the network halves the resolution twice
LARGEST_SIDE = 1024


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
        normalisation: of the network's input. ``channels``: mean 0 and deviation 1 per channel, over the
            images that are trained on; ``symmetric``: from 0 .. 255 to -1 .. 1; ``zca``: global contrast
            normalisation, then ZCA whitening fitted on the images that are trained on.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    num_labels: int | str | None = None
    num_validation: int | None = None
    split_seed: int = 0
    flip: bool | None = None
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
        check_integer("split_seed", self.split_seed, 0, 2**32 - 1)
        if self.flip and DATASET_CARDS[self.dataset].flip_fixed:
            raise UserError(
                f"flip is on with {self.dataset}; allowed: off, because a mirrored digit is another or "
                "none; leave it out."
            )


def is_utf8(text: str) -> bool:
    """Return whether a path's text can be written into a run's files, which are UTF-8."""
    return text.encode(errors="replace").decode() == text
