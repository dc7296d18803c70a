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
from PIL import Image, ImageOps, UnidentifiedImageError

from ssl_core.data.images import UNKNOWN_LABEL, Images, LabeledImages
from ssl_core.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
SMALLEST_SIDE = 8

LAYOUT = "labeled/<class>/* and unlabeled/*, or train/<class>/*"


def load_training_images(data_dir: Path, image_size: int) -> LabeledImages:
    """Return the images of ``labeled`` and ``unlabeled``, or of ``train``, as squares.

    Raises:
        UserError: the folder has neither layout, no readable image, or fewer than two classes.
    """
    if not data_dir.is_dir():
        raise UserError(
            f"data-dir {str(data_dir)!r} is no folder; allowed: one with {LAYOUT}; check the path."
        )
    labeled_dir, unlabeled_dir, train_dir = (
        data_dir / name for name in ("labeled", "unlabeled", "train")
    )
    if labeled_dir.is_dir():
        files = _class_files(labeled_dir) + [
            (path, UNKNOWN_LABEL) for path in _files(unlabeled_dir)
        ]
        class_names = _class_names(labeled_dir)
    elif train_dir.is_dir():
        files = _class_files(train_dir)
        class_names = _class_names(train_dir)
    else:
        raise UserError(
            f"data-dir {str(data_dir)!r} has no labeled/ and no train/; allowed: {LAYOUT}; arrange your "
            "images so."
        )
    return _read(data_dir, files, class_names, image_size)


def load_test_images(data_dir: Path, image_size: int) -> LabeledImages:
    """Return the images of ``test/<class>/*``, with the classes of the training images.

    Raises:
        UserError: there is no ``test``, or it has a class the training images lack.
    """
    test_dir = data_dir / "test"
    source = data_dir / "labeled" if (data_dir / "labeled").is_dir() else data_dir / "train"
    if not test_dir.is_dir():
        raise UserError(
            f"data-dir {str(data_dir)!r} has no test/; allowed: test/<class>/* with images no search saw; "
            "add it, or report the validation accuracy as what it is."
        )
    class_names = _class_names(source)
    unknown = [name for name in _class_names(test_dir) if name not in class_names]
    if unknown:
        raise UserError(
            f"test/{unknown[0]} is no class of {source.name}/; allowed: {', '.join(class_names)}; rename it."
        )
    files = [
        (path, label) for label, name in enumerate(class_names) for path in _files(test_dir / name)
    ]
    return _read(data_dir, files, class_names, image_size)


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
        found += [Path(parent, name) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    return sorted(found)


def _read(
    root: Path, files: list[tuple[Path, int]], class_names: tuple[str, ...], image_size: int
) -> LabeledImages:
    if len(class_names) < 2:
        raise UserError(
            f"data-dir {str(root)!r} has {len(class_names)} classes; allowed: two or more folders of "
            "labeled images, one per class; add the others."
        )
    inside = root.resolve()
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        decoded = list(pool.map(lambda file: _decode(file[0], inside, image_size), files))
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
    return LabeledImages(
        images=_stack(pixels),
        labels=np.array(labels, dtype=np.int64),
        class_names=class_names,
        skipped=skipped,
    )


def _decode(path: Path, inside: Path, image_size: int) -> Images | str:
    """Return a file's pixels, (side, side) grey or (side, side, 3) colour, or why it is skipped."""
    name = path.relative_to(inside) if path.is_relative_to(inside) else path
    if not path.resolve().is_relative_to(inside):
        return f"{name}: a link that leads out of the data folder"
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            upright = ImageOps.exif_transpose(image)
            square = _eight_bit(upright).resize((image_size, image_size), Image.Resampling.BILINEAR)
            return np.asarray(square)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        return f"{name}: {error}"
    except Image.DecompressionBombError as error:
        return f"{name}: {error}"


def _eight_bit(image: Any) -> Any:
    """Return the image as 8-bit grey where it has no colour, else as RGB."""
    if image.mode in ("1", "L", "LA"):
        return image.convert("L")
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _stack(pixels: list[Images]) -> Images:
    """Return (N, 1, side, side) where every image is grey, else (N, 3, side, side)."""
    if any(image.ndim == 3 for image in pixels):
        pixels = [
            image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
            for image in pixels
        ]
        return np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2))
    return np.stack(pixels)[:, None]
