"""A user's own images, in one of two layouts.

``DIR/labeled/<class>/*`` with ``DIR/unlabeled/*``: labels exist only for the labeled images, and
none are invented. Or ``DIR/train/<class>/*``: a labeled tree from which labels are drawn and
the rest is used without them. Either may have ``DIR/test/<class>/*`` for a final, sealed test.

PNG and JPEG of any size are resized to one square. A file that cannot be read is skipped and
named; so is one that a symbolic link takes out of DIR.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ssl_core.data.images import UNKNOWN_LABEL, Images, LabeledImages
from ssl_core.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
BILINEAR = Image.Resampling.BILINEAR

LAYOUT = "labeled/<class>/* and unlabeled/*, or train/<class>/*"


def load_training_images(data_dir: Path, image_size: int) -> LabeledImages:
    """Return the images of ``labeled`` and ``unlabeled``, or of ``train``, as squares.

    Raises:
        UserError: the folder has neither layout, no readable image, or fewer than two classes.
    """
    files, class_names = _training_files(data_dir)
    decoded = _decode_all(data_dir, files, image_size, excluded=data_dir / "test")
    return _collect(data_dir, files, decoded, class_names, channels=None)


def load_test_images(data_dir: Path, image_size: int) -> LabeledImages:
    """Return the images of ``test/<class>/*``, with classes and channels of the training images.

    Raises:
        UserError: there is no ``test``, or it has a class the training images lack.
    """
    training_files, class_names = _training_files(data_dir)
    test_dir = data_dir / "test"
    if not test_dir.is_dir():
        raise UserError(
            f"data-dir {str(data_dir)!r} has no test/; allowed: test/<class>/* with images no search saw; "
            "add it, or report the validation accuracy as what it is."
        )
    unknown = [name for name in _class_names(test_dir) if name not in class_names]
    if unknown:
        raise UserError(
            f"test/{unknown[0]} is no class of the training images; allowed: {', '.join(class_names)}; "
            "rename it."
        )
    files = [
        (path, label) for label, name in enumerate(class_names) for path in _files(test_dir / name)
    ]
    colour = any(_has_colour(path) for path, _ in training_files)
    decoded = _decode_all(test_dir, files, image_size, excluded=None)
    return _collect(data_dir, files, decoded, class_names, channels=3 if colour else 1)


def read_image(path: Path, image_size: int, channels: int) -> Images:
    """Return one image file as (channels, image_size, image_size), as a search would see it.

    Raises:
        UserError: it is no readable PNG or JPEG image.
    """
    try:
        return _with_channels(_square(path, image_size), channels)
    except Exception as error:  # whatever a stranger's file makes a decoder do
        raise UserError(
            f"{str(path)!r} cannot be read ({error or type(error).__name__}); allowed: a PNG or JPEG "
            "image; leave it out."
        ) from error


def _training_files(data_dir: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    """Return the training files with their labels, and the names of the classes."""
    if not data_dir.is_dir():
        raise UserError(
            f"data-dir {str(data_dir)!r} is no folder; allowed: one with {LAYOUT}; check the path."
        )
    labeled_dir, train_dir = data_dir / "labeled", data_dir / "train"
    if labeled_dir.is_dir():
        without = [(path, UNKNOWN_LABEL) for path in _files(data_dir / "unlabeled")]
        return _class_files(labeled_dir) + without, _class_names(labeled_dir)
    if train_dir.is_dir():
        return _class_files(train_dir), _class_names(train_dir)
    raise UserError(
        f"data-dir {str(data_dir)!r} has no labeled/ and no train/; allowed: {LAYOUT}; arrange your "
        "images so."
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    )


def _class_files(folder: Path) -> list[tuple[Path, int]]:
    return [
        (path, label)
        for label, name in enumerate(_class_names(folder))
        for path in _files(folder / name)
    ]


def _files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted; links to folders are not followed."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        found += [
            Path(parent, name)
            for name in names
            if name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES)
        ]
    return sorted(found)


def _decode_all(
    root: Path, files: list[tuple[Path, int]], image_size: int, *, excluded: Path | None
) -> list[Images | str]:
    """Return each file's pixels, or why it is skipped; what lies outside of root is."""
    inside = root.resolve()
    barred = None if excluded is None else excluded.resolve()
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        return list(pool.map(lambda file: _decode(file[0], inside, barred, image_size), files))


def _decode(path: Path, inside: Path, barred: Path | None, image_size: int) -> Images | str:
    """Return a file's pixels, (side, side) grey or (side, side, 3) colour, or why it is skipped."""
    name = path.relative_to(inside) if path.is_relative_to(inside) else path
    try:
        target = path.resolve(strict=True)
        if not target.is_relative_to(inside):
            return f"{name}: a link that leads out of the data folder"
        if barred is not None and target.is_relative_to(barred):
            return f"{name}: a link to a test image"
        return _square(path, image_size)
    except Exception as error:  # whatever a stranger's file makes a decoder do costs that file only
        return f"{name}: {error or type(error).__name__}"


def _square(path: Path, image_size: int) -> Images:
    """Return an image file's pixels, (side, side) grey or (side, side, 3) colour."""
    with Image.open(path, formats=FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(_eight_bit(upright).resize((image_size, image_size), BILINEAR))


def _has_colour(path: Path) -> bool:
    """Return whether a file is a readable image with colour; only its header is read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return not _is_grey(image.mode)
    except Exception:  # as in _decode: it was skipped there, with the reason
        return False


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA") or mode.startswith("I")


def _eight_bit(image: Any) -> Any:
    """Return the image as 8-bit grey where it has no colour, else as RGB."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    return image.convert("L" if _is_grey(image.mode) else "RGB")


def _collect(
    root: Path,
    files: list[tuple[Path, int]],
    decoded: list[Images | str],
    class_names: tuple[str, ...],
    *,
    channels: int | None,
) -> LabeledImages:
    """Return what could be read; ``channels`` None for three where any image has colour."""
    if len(class_names) < 2:
        raise UserError(
            f"data-dir {str(root)!r} has {len(class_names)} classes; allowed: two or more folders of "
            "labeled images, one per class; add the others."
        )
    pixels = [result for result in decoded if not isinstance(result, str)]
    skipped = tuple(result for result in decoded if isinstance(result, str))
    labels = [
        label
        for (_, label), result in zip(files, decoded, strict=True)
        if not isinstance(result, str)
    ]
    if not pixels:
        raise UserError(
            f"data-dir {str(root)!r} has no readable image; allowed: {', '.join(IMAGE_SUFFIXES)} files in "
            f"{LAYOUT}; {f'first problem: {skipped[0]}.' if skipped else 'put images there.'}"
        )
    if channels is None:
        channels = 3 if any(image.ndim == 3 for image in pixels) else 1
    return LabeledImages(
        images=np.stack([_with_channels(image, channels) for image in pixels]),
        labels=np.array(labels, dtype=np.int64),
        class_names=class_names,
        skipped=skipped,
    )


def _with_channels(image: Images, channels: int) -> Images:
    """Return pixels as (channels, side, side): grey repeated, or colour turned to grey."""
    if image.ndim == 3 and channels == 1:
        image = np.asarray(Image.fromarray(image).convert("L"))
    if image.ndim == 3:
        return image.transpose(2, 0, 1)
    return np.repeat(image[None], channels, axis=0)
