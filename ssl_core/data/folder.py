"""A user's own images, in one of two layouts.

``DIR/labeled/<class>/*`` with ``DIR/unlabeled/*``: labels exist only for the labeled images, and
none are invented. Or ``DIR/train/<class>/*``: a labeled tree from which labels are drawn and
the rest is used without them. A folder that mixes them is refused: whichever part was left out,
it would be images somebody meant to be used. Either may have ``DIR/test/<class>/*`` for a final,
sealed test.

PNG and JPEG of any size are resized to one square. Images that are not used are named, with the
reason: those that cannot be read, have another format, lie outside the layout, are reached
through a link to a folder or out of DIR; those that are the same to the last pixel as one before them (a
labeled image among the unlabeled ones); and the same image in two classes, of which neither is believed.
Hidden files, and files that are no images, are not. Test images are as they are; one that is among
those to train on is told of.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ssl_core.data.config import is_utf8
from ssl_core.data.images import UNKNOWN_LABEL, Images, LabeledImages
from ssl_core.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
OTHER_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".pbm", ".pgm"),
    *(".pnm", ".ppm", ".svg", ".tga", ".tif", ".tiff", ".webp"),
)
"""Of images that are not read."""

TWELVE_BITS = 1 << 12
FORMATS = ("PNG", "JPEG")
BILINEAR = Image.Resampling.BILINEAR

PARTS = ("labeled", "unlabeled", "train", "test")
LAYOUT = "labeled/<class>/* and unlabeled/*, or train/<class>/*"


class _Files(NamedTuple):
    """Image files with their labels, and the reasons for which others are not used."""

    used: list[tuple[Path, int]]
    unused: list[str]


class _Read(NamedTuple):
    """One image file: its pixels, if they are kept, a digest of them, and whether its format has colour."""

    pixels: Images | None
    digest: bytes
    colour: bool


def is_labeled_tree(data_dir: Path) -> bool:
    """Return whether the layout is ``train/<class>/*``, in which every image has a label.

    Raises:
        UserError: the folder has neither layout, or parts of both.
    """
    if not data_dir.is_dir():
        raise UserError(
            f"data-dir {str(data_dir)!r} is no folder; allowed: one with {LAYOUT}; give its place with --data-dir."
        )
    labeled, unlabeled, train = ((data_dir / name).is_dir() for name in PARTS[:3])
    if not labeled and not train:
        there = ", ".join(
            _shown(f"{entry.name}/") for entry in _entries(data_dir) if entry.is_dir()
        )
        raise UserError(
            f"data-dir {str(data_dir)!r} has neither labeled/ nor train/ but {there or 'no folder at all'}; allowed: "
            f"{LAYOUT}; rename or arrange your folders so."
        )
    if labeled and train:
        raise UserError(
            f"data-dir {str(data_dir)!r} has both labeled/ and train/; allowed: {LAYOUT}; move what shall "
            "be used into labeled/ and unlabeled/, or one of the two folders out of it."
        )
    if unlabeled and train:
        raise UserError(
            f"data-dir {str(data_dir)!r} has both train/ and unlabeled/; allowed: {LAYOUT}; rename train/ "
            "to labeled/, or move one of the two folders out of it."
        )
    return train


def load_training_images(data_dir: Path, image_size: int) -> LabeledImages:
    """Return the images of ``labeled`` and ``unlabeled``, or of ``train``, as squares.

    They have three channels where any of them has colour, else one.

    Raises:
        UserError: the folder has neither layout or parts of both, no readable image, or fewer
            than two classes.
    """
    files, class_names = _training_files(data_dir)
    return _collect(data_dir, files, _read_training(data_dir, files, image_size), class_names)


def load_test_images(data_dir: Path, image_size: int) -> LabeledImages:
    """Return the images of ``test/<class>/*``, with classes and channels of the training images.

    Raises:
        UserError: there is no ``test``, it has a class the training images lack, or they cannot
            be used.
    """
    class_names = check_test_folder(data_dir)
    trained_on, _ = _training_files(data_dir)
    known = _read_training(data_dir, trained_on, image_size, keep_pixels=False)
    files = _class_files(data_dir, "test", class_names)
    read = _read_each(data_dir, files, image_size, within=data_dir / "test")
    test = _collect(data_dir, files, read, class_names, channels=_channels_of(known))
    places = {
        file.digest: path
        for (path, _), file in zip(trained_on.used, known, strict=True)
        if not isinstance(file, str)
    }
    used = [
        labeled for labeled, file in zip(files.used, read, strict=True) if not isinstance(file, str)
    ]
    seen = {}
    for index, (path, _) in enumerate(used):
        training = places.get(_digest(test.images[index].transpose(1, 2, 0)))
        if training is not None:
            seen[index] = _reason(data_dir, path, _same_as(data_dir, training))
    named = [
        f"{class_names[label]} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path, label in used
    ]
    files_sha256 = hashlib.sha256("\n".join(sorted(named)).encode()).hexdigest()
    return dataclasses.replace(test, seen=seen, files_sha256=files_sha256)


def check_test_folder(data_dir: Path) -> tuple[str, ...]:
    """Return the names of the classes, where ``test/`` is there and has no others. Reads no image.

    Raises:
        UserError: there is no ``test``, or it has a class the training images lack.
    """
    _, class_names = _training_part(data_dir)
    test_dir = data_dir / "test"
    if not test_dir.is_dir():
        raise UserError(
            f"data-dir {str(data_dir)!r} has no test/; allowed: test/<class>/* with images no search saw; "
            "add it, or judge by the labels there are: confirm --cross-validate 5."
        )
    unknown = [name for name in _class_names(test_dir) if name not in class_names]
    if unknown:
        raise UserError(
            f"test/{unknown[0]} is no class of the training images; allowed: {', '.join(class_names)}; "
            "rename it."
        )
    return class_names


def read_image(path: Path, image_size: int, channels: int) -> Images:
    """Return one image file as (channels, image_size, image_size), as a search would see it.

    Raises:
        UserError: it is no readable PNG or JPEG image.
    """
    try:
        return _with_channels(_square(path, image_size), channels)
    except Exception as error:  # whatever a stranger's file makes a decoder do
        raise UserError(
            f"{str(path)!r} cannot be read ({str(error) or type(error).__name__}); allowed: a PNG or JPEG "
            "image; leave it out."
        ) from error


def _training_part(data_dir: Path) -> tuple[str, tuple[str, ...]]:
    """Return the folder of the labeled training images, and the names of the classes."""
    part = "train" if is_labeled_tree(data_dir) else "labeled"
    return part, _class_names(data_dir / part)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(entry.name for entry in _entries(folder) if entry.is_dir())
    for name in names:
        if not is_utf8(name):
            raise UserError(
                f"class {name!r} of {str(folder)!r} has a name that is not UTF-8; allowed: names in UTF-8, "
                "because a run's files hold them; rename the folder."
            )
    return names


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder and is not hidden, sorted."""
    try:
        return sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
    except OSError as error:
        raise UserError(
            f"{str(folder)!r} cannot be listed ({error.strerror}); allowed: a folder you may read; change "
            "its permissions."
        ) from error


def _class_files(data_dir: Path, part: str, class_names: tuple[str, ...]) -> _Files:
    """Return the files of each class of a part, and what lies beside its classes."""
    files = _Files([], [])
    for label, name in enumerate(class_names):
        found, unused = _files(data_dir, data_dir / part / name)
        files.used.extend((path, label) for path in found)
        files.unused.extend(unused)
    files.unused.extend(
        _reason(data_dir, entry, "an image in no folder of a class")
        for entry in _entries(data_dir / part)
        if _is_named_as_image(entry.name) and not entry.is_dir()
    )
    return files


def _outside_of_parts(data_dir: Path) -> list[str]:
    """Return why what lies in the data folder itself is not used; other folders are not searched."""
    reasons = []
    for entry in _entries(data_dir):
        if entry.name in PARTS:
            if not entry.is_dir():
                reasons.append(_reason(data_dir, entry, "no folder, or a link to none"))
        elif entry.is_dir():
            reasons.append(_reason(data_dir, entry, f"a folder that is none of {', '.join(PARTS)}"))
        elif _is_named_as_image(entry.name):
            reasons.append(_reason(data_dir, entry, f"an image outside of {', '.join(PARTS)}"))
    return reasons


def _files(data_dir: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """Return the image files below a folder, sorted, and why others are not used."""
    found: list[Path] = []
    unused: list[str] = []

    def leave_out(error: OSError) -> None:
        why = f"a folder that cannot be listed ({error.strerror})"
        unused.append(_reason(data_dir, Path(error.filename), why))

    if not folder.is_dir():
        return found, unused
    for parent, folders, names in os.walk(folder, onerror=leave_out):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        links = [Path(parent, name) for name in folders if Path(parent, name).is_symlink()]
        unused += [_reason(data_dir, link, "a link to a folder is not followed") for link in links]
        paths = [Path(parent, name) for name in names if name[0] != "."]
        found += [path for path in paths if path.name.lower().endswith(IMAGE_SUFFIXES)]
        others = [path for path in paths if path.name.lower().endswith(OTHER_SUFFIXES)]
        unused += [_reason(data_dir, path, "only PNG and JPEG are read") for path in others]
    return sorted(found), unused


def _is_named_as_image(name: str) -> bool:
    return name.lower().endswith((*IMAGE_SUFFIXES, *OTHER_SUFFIXES))


def _reason(data_dir: Path, path: Path, why: str) -> str:
    """Return one printable line that names a file and says why it is not used."""
    return _shown(f"{path.relative_to(data_dir)}: {why}")


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} class" if len(names) == 1 else f"{len(names)} classes"


def _shown(text: str) -> str:
    """Return a text with escapes for what cannot be printed, such as bytes that are no UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _training_files(data_dir: Path) -> tuple[_Files, tuple[str, ...]]:
    """Return the files of the training images, unlabeled ones last, and the names of the classes."""
    part, class_names = _training_part(data_dir)
    if len(class_names) < 2:
        raise UserError(
            f"data-dir {str(data_dir)!r} has {_classes(class_names)}; allowed: two or more folders of "
            f"labeled images, one per class, in {part}/; add the others."
        )
    files = _class_files(data_dir, part, class_names)
    if part == "labeled":
        pool, unused = _files(data_dir, data_dir / "unlabeled")
        files.used.extend((path, UNKNOWN_LABEL) for path in pool)
        files.unused.extend(unused)
    files.unused.extend(_outside_of_parts(data_dir))
    return files, class_names


def _read_training(
    data_dir: Path, files: _Files, image_size: int, *, keep_pixels: bool = True
) -> list[_Read | str]:
    """Return what can be read of the training images, each once, or why it is not used."""
    read = _read_each(
        data_dir,
        files,
        image_size,
        within=data_dir,
        barred=data_dir / "test",
        keep_pixels=keep_pixels,
    )
    return _without_repeated(data_dir, files.used, read)


def _read_each(
    data_dir: Path,
    files: _Files,
    image_size: int,
    *,
    within: Path,
    barred: Path | None = None,
    keep_pixels: bool = True,
) -> list[_Read | str]:
    """Return for each file what it holds, or why it is not used: it is to lie ``within`` a folder."""
    inside = within.resolve()
    outside = None if barred is None else barred.resolve()

    def read(file: tuple[Path, int]) -> _Read | str:
        try:
            pixels = _decode(file[0], inside, outside, image_size)
        except Exception as error:  # of a stranger's file; it costs that file only
            return _reason(data_dir, file[0], str(error) or type(error).__name__)
        return _Read(pixels if keep_pixels else None, _digest(pixels), pixels.ndim == 3)

    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        return list(pool.map(read, files.used))


def _without_repeated(
    data_dir: Path, files: list[tuple[Path, int]], read: list[_Read | str]
) -> list[_Read | str]:
    """Return what was read, with a reason in the place of an image that is another one's double."""
    alike: dict[bytes, list[int]] = {}
    for index, file in enumerate(read):
        if not isinstance(file, str):
            alike.setdefault(file.digest, []).append(index)
    kept = list(read)
    for group in alike.values():
        classes = {files[index][1]: index for index in reversed(group)}  # each with its first
        classes.pop(UNKNOWN_LABEL, None)
        for index in group if len(classes) > 1 else group[1:]:
            path, label = files[index]
            others = [first for other, first in classes.items() if other != label]
            if len(classes) < 2:
                why = _same_as(data_dir, files[group[0]][0])
            elif label == UNKNOWN_LABEL:
                why = f"{_same_as(data_dir, files[min(others)][0])}, which is in two classes"
            else:
                why = f"{_same_as(data_dir, files[min(others)][0])}, of another class"
            kept[index] = _reason(data_dir, path, why)
    return kept


def _digest(pixels: Images) -> bytes:
    """Return what images (side, side) or (side, side, channels) have in common that look the same."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return hashlib.sha256(pixels.tobytes()).digest()


def _same_as(data_dir: Path, path: Path) -> str:
    return f"at this size the same image as {path.relative_to(data_dir)}"


def _decode(path: Path, inside: Path, barred: Path | None, image_size: int) -> Images:
    """Return the pixels of a file that may be used; raise what is wrong with it."""
    target = path.resolve(strict=True)
    if not target.is_relative_to(inside):
        raise ValueError("a link that leads out of the data folder")
    if barred is not None and target.is_relative_to(barred):
        raise ValueError("a link to a test image")
    return _square(path, image_size)


def _square(path: Path, image_size: int) -> Images:
    """Return an image file's pixels, (side, side) grey or (side, side, 3) colour."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe waits for a writer, for ever
        raise ValueError("no regular file but a pipe, a socket, a device or a folder")
    with Image.open(path, formats=FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(_eight_bit(upright).resize((image_size, image_size), BILINEAR))


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA") or mode.startswith("I")


def _eight_bit(image: Any) -> Any:
    """Return the image as 8-bit grey where it has no colour, else as RGB."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        wide = np.asarray(image).astype(np.uint32)
        if 0 < wide.max() < TWELVE_BITS:
            raise ValueError(
                "16-bit grey of which it uses 12 bits or fewer: as 8 bits hardly anything of it would be "
                "left; scale its values to 0 .. 65535, or store it as 8 bits"
            )
        return Image.fromarray((wide >> 8).astype(np.uint8))
    return image.convert("L" if _is_grey(image.mode) else "RGB")


def _collect(
    data_dir: Path,
    files: _Files,
    read: list[_Read | str],
    class_names: tuple[str, ...],
    channels: int | None = None,
) -> LabeledImages:
    """Return what could be read; ``channels`` None for three where any image has colour."""
    used = [
        (file.pixels, label)
        for (_, label), file in zip(files.used, read, strict=True)
        if not isinstance(file, str) and file.pixels is not None
    ]
    skipped = tuple(sorted([*files.unused, *(why for why in read if isinstance(why, str))]))
    if not used:
        raise UserError(
            f"data-dir {str(data_dir)!r} has no readable image; allowed: {', '.join(IMAGE_SUFFIXES)} files "
            f"in {LAYOUT}; {f'first problem: {skipped[0]}.' if skipped else 'put images there.'}"
        )
    channels = channels or _channels_of(read)
    return LabeledImages(
        images=np.stack([_with_channels(pixels, channels) for pixels, _ in used]),
        labels=np.array([label for _, label in used], dtype=np.int64),
        class_names=class_names,
        skipped=skipped,
    )


def _channels_of(read: list[_Read | str]) -> int:
    return 3 if any(not isinstance(file, str) and file.colour for file in read) else 1


def _with_channels(image: Images, channels: int) -> Images:
    """Return pixels as (channels, side, side): grey repeated, or colour turned to grey."""
    if image.ndim == 3 and channels == 1:
        image = np.asarray(Image.fromarray(image).convert("L"))
    if image.ndim == 3:
        return image.transpose(2, 0, 1)
    return np.repeat(image[None], channels, axis=0)
