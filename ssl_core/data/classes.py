"""Which of a data set's classes are told apart, where that is not all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssl_core.data.images import UNKNOWN_LABEL, LabeledImages
from ssl_core.errors import UserError, unknown_name


def class_indices(given: str, class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the places of classes among a data set's, each once, in the data set's order.

    Args:
        given: a comma list of names, or of places from 0; a name goes before a place.

    Raises:
        UserError: a class is unknown, or there are fewer than two.
    """
    places = {str(place): place for place in range(len(class_names))}
    places |= {name: place for place, name in enumerate(class_names)}
    words = [word.strip() for word in given.split(",") if word.strip()]
    for word in words:
        if word not in places:
            raise unknown_name("labeled class", word, tuple(class_names))
    chosen = sorted({places[word] for word in words})
    if len(chosen) < 2:
        raise UserError(
            f"labeled-classes is {given!r}, {len(chosen)} of the data set's {len(class_names)}; allowed: two "
            "or more to tell apart; name another."
        )
    return tuple(chosen)


def restricted(source: LabeledImages, labeled_classes: str) -> LabeledImages:
    """Return the same images with some classes alone, numbered anew from 0 in their old order.

    An image of another class stays, as one of which no class is known.

    Raises:
        UserError: see ``class_indices``.
    """
    chosen = class_indices(labeled_classes, source.class_names)
    renumbered = np.full(source.num_classes + 1, UNKNOWN_LABEL, dtype=np.int64)  # [-1] stays -1
    renumbered[list(chosen)] = np.arange(len(chosen))
    return dataclasses.replace(
        source,
        labels=renumbered[source.labels],
        class_names=tuple(source.class_names[place] for place in chosen),
    )


def of_classes(source: LabeledImages, labeled_classes: str | None) -> LabeledImages:
    """Return the images of some classes and no others, numbered as ``restricted`` does; None for all.

    Raises:
        UserError: see ``class_indices``; or no image is of these classes.
    """
    if labeled_classes is None:
        return source
    renumbered = restricted(source, labeled_classes)
    kept = renumbered.labels != UNKNOWN_LABEL
    if not kept.any():
        raise UserError(
            f"no image is of the labeled classes {labeled_classes}; allowed: images of each of them; add such "
            "images, or name other classes."
        )
    return dataclasses.replace(
        renumbered, images=renumbered.images[kept], labels=renumbered.labels[kept]
    )
