"""Images as arrays, as a source returns them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ssl_core.errors import UserError

UNKNOWN_LABEL = -1

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabeledImages:
    """Images of one data set, or of its test part.

    ``images`` (N, channels, height, width) uint8; ``labels`` (N,) int64 in [0, C), or -1 where
    a source has no label; ``skipped`` names files that are not used, with the reason; ``seen`` says
    the same of test images, by their place, that are among those to train on; ``files_sha256`` names test files,
    whatever size they were brought to.
    """

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    seen: Mapping[int, str] = field(default_factory=dict)
    files_sha256: str | None = None

    @property
    def num_classes(self) -> int:
        """How many classes the data set has, with images or without."""
        return len(self.class_names)


def without_seen(test: LabeledImages) -> LabeledImages:
    """Return the test images that are none of those to train on; ``skipped`` names the others.

    Raises:
        UserError: none is left.
    """
    if not test.seen:
        return test
    kept = np.ones(len(test.images), dtype=bool)
    kept[list(test.seen)] = False
    if not kept.any():
        raise UserError(
            f"all {len(kept)} test images are among those to train on ({test.seen[0]}); allowed: test images "
            "that nothing was trained on; put others into test/."
        )
    lost = sorted(set(test.labels.tolist()) - set(test.labels[kept].tolist()))
    return dataclasses.replace(
        test,
        images=test.images[kept],
        labels=test.labels[kept],
        skipped=(
            *test.skipped,
            *test.seen.values(),
            *(f"test/{test.class_names[label]}: no image of this class is left" for label in lost),
        ),
        seen={},
    )


def checksum(images: Images) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(images).data)
