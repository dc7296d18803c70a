"""What is known of each data set before it is opened: its recipe and the published setting.

Nothing heavy is imported, so that a command line can show and check defaults at once.
"""

from __future__ import annotations

from dataclasses import dataclass

AUTO = "auto"
"""A number of labels that nobody gave, of a data set whose folders say which images have one."""


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """A data set's augmentation and the setting a search on it starts from.

    Args:
        flip: whether a mirrored image keeps its class.
        flip_fixed: flipping would change classes (digits, house numbers), so it is refused.
        noise: standard deviation of Gaussian noise, in units of the normalised input.
        num_labels, num_validation: images drawn with their labels; ``AUTO`` and None where the
            data decide.
        model, max_steps, batch_size: what one training is by default.
        published_setting: which column of the published defaults applies.
    """

    flip: bool
    flip_fixed: bool = False
    noise: float = 0.0
    num_labels: int | str
    num_validation: int | None
    model: str
    max_steps: int
    batch_size: int
    published_setting: str


DATASET_CARDS: dict[str, DatasetCard] = {
    # Minutes on a laptop: 8x8 scans, a network of 77,562 parameters.
    "digits": DatasetCard(
        flip=False,
        flip_fixed=True,
        num_labels=20,
        num_validation=400,
        model="wrn-10-1",
        max_steps=450,
        batch_size=50,
        published_setting="cifar10",
    ),
    # Labels, validation images and augmentation of Oliver et al. 2018.
    "svhn": DatasetCard(
        flip=False,
        flip_fixed=True,
        num_labels=1000,
        num_validation=7326,
        model="wrn-28-2",
        max_steps=50_000,
        batch_size=50,
        published_setting="svhn",
    ),
    "cifar10": DatasetCard(
        flip=True,
        noise=0.15,
        num_labels=4000,
        num_validation=5000,
        model="wrn-28-2",
        max_steps=50_000,
        batch_size=50,
        published_setting="cifar10",
    ),
    "cifar100": DatasetCard(
        flip=True,
        noise=0.15,
        num_labels=10_000,
        num_validation=5000,
        model="wrn-28-2",
        max_steps=50_000,
        batch_size=50,
        published_setting="cifar10",
    ),
    "folder": DatasetCard(
        flip=True,
        num_labels=AUTO,
        num_validation=None,
        model="wrn-28-2",
        max_steps=10_000,
        batch_size=50,
        published_setting="cifar10",
    ),
}
