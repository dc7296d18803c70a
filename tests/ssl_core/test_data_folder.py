"""A user's own images: both layouts, every kind of picture, and everything that can be wrong."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_core.data import folder
from ssl_core.data.catalogue import AUTO, DATASET_CARDS
from ssl_core.data.config import DataConfig
from ssl_core.data.folder import load_test_images, load_training_images
from ssl_core.data.images import UNKNOWN_LABEL, LabeledImages, without_seen
from ssl_core.data.prepare import prepare
from ssl_core.data.sources import load_training_images as load_by_name
from ssl_core.errors import UserError
from ssl_core.training.config import TrainingConfig

SIDE = 16


def grey(value: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Return a picture of one grey; its value tells which picture it is."""
    return Image.new("L", size, value)


def put(path: Path, image: Image.Image | bytes | int = 0, **options: Any) -> Path:
    """Write a picture, the picture of one grey, or bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        (grey(image) if isinstance(image, int) else image).save(path, **options)
    return path


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode: str = "L", seed: int = 0, size: int = SIDE) -> Image.Image:
    shape = (size, size) if mode == "L" else (size, size, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def load(root: Path, image_size: int = SIDE) -> LabeledImages:
    return load_training_images(root, image_size)


def greys(loaded: LabeledImages) -> list[int]:
    """Return which pictures of one grey were loaded, in their order."""
    return loaded.images[:, 0, 0, 0].tolist()


def refusal(root: Path, reader: Callable[[Path, int], LabeledImages] = load_training_images) -> str:
    """Return the message with which a folder is refused: one sentence, with a way out."""
    with pytest.raises(UserError) as caught:
        reader(root, SIDE)
    message = str(caught.value)
    assert "; allowed: " in message
    assert message.count("; ") >= 2
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.fixture
def partly(tmp_path) -> Path:
    """``labeled`` and ``unlabeled``: five pictures with a label, four without."""
    root = tmp_path / "partly"
    for value, name in enumerate(["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png", "dog/c.png"]):
        put(root / "labeled" / name, 10 + value)
    for value, name in enumerate(["a.png", "b.png", "cat/a.png", "deep/er/a.png"]):
        put(root / "unlabeled" / name, 20 + value)
    return root


@pytest.fixture
def tree(tmp_path) -> Path:
    """``train``: four pictures of each of three classes."""
    root = tmp_path / "tree"
    for label, name in enumerate(["bird", "cat", "dog"]):
        for index in range(4):
            put(root / "train" / name / f"{index}.png", 10 * (label + 1) + index)
    return root


class TestLayouts:
    def test_labels_exist_for_the_labeled_images_only(self, partly):
        loaded = load(partly)
        assert loaded.images.shape == (9, 1, SIDE, SIDE)
        assert loaded.images.dtype == np.uint8
        assert loaded.labels.dtype == np.int64
        assert loaded.class_names == ("cat", "dog")
        assert greys(loaded) == [10, 11, 12, 13, 14, 20, 21, 22, 23]
        assert loaded.labels.tolist() == [0, 0, 1, 1, 1, -1, -1, -1, -1]
        assert loaded.skipped == ()

    def test_a_folder_below_unlabeled_that_is_named_as_a_class_gives_no_label(self, partly):
        loaded = load(partly)
        assert loaded.labels[greys(loaded).index(22)] == UNKNOWN_LABEL

    def test_a_folder_below_unlabeled_makes_no_class(self, partly):
        put(partly / "unlabeled" / "zebra" / "a.png", 99)
        assert load(partly).class_names == ("cat", "dog")

    def test_a_labeled_tree_gives_every_image_its_label(self, tree):
        loaded = load(tree)
        assert loaded.class_names == ("bird", "cat", "dog")
        assert loaded.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert greys(loaded) == [10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33]

    def test_labeled_images_suffice_without_unlabeled_ones(self, partly):
        for path in sorted((partly / "unlabeled").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (partly / "unlabeled").rmdir()
        assert load(partly).labels.tolist() == [0, 0, 1, 1, 1]

    def test_pictures_in_folders_below_a_class_belong_to_it(self, tree):
        put(tree / "train" / "cat" / "2019" / "may" / "a.png", 29)
        loaded = load(tree)
        assert loaded.labels[greys(loaded).index(29)] == 1

    def test_a_search_on_partly_labeled_images_has_no_label_of_the_others(self, partly):
        shared = prepare(
            DataConfig(dataset="folder", data_dir=str(partly), image_size=SIDE, num_validation=2)
        )
        drawn = np.concatenate([shared.labeled, shared.validation])
        assert sorted(drawn.tolist()) == [0, 1, 2, 3, 4]
        assert {5, 6, 7, 8} <= set(shared.unlabeled.tolist())
        assert set(shared.labels.tolist()) == {0, 1}
        assert UNKNOWN_LABEL not in shared.validation_labels

    def test_the_folder_is_found_by_the_name_of_the_data_set(self, tree):
        assert np.array_equal(load_by_name("folder", str(tree), SIDE).images, load(tree).images)

    def test_the_default_side_is_32(self, tree):
        assert load_by_name("folder", str(tree), None).images.shape == (12, 1, 32, 32)


SEEN_AS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: stored.T[:, ::-1],
    7: lambda stored: stored.T[::-1, ::-1],
    8: lambda stored: stored.T[::-1],
}
"""How a viewer shows the stored pixels for each value of EXIF's Orientation."""


class TestPictures:
    @pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.JPG", "a.jpeg", "a.JpEg"])
    def test_png_and_jpeg_are_read_in_any_case_of_their_suffix(self, tree, name):
        kind = "PNG" if name.lower().endswith("png") else "JPEG"
        put(tree / "train" / "cat" / name, encoded(grey(200), kind))
        assert 200 in greys(load(tree))

    @pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF"])
    def test_another_format_under_a_suffix_of_ours_is_skipped_and_named(self, tree, kind):
        put(tree / "train" / "cat" / "odd.png", encoded(grey(200), kind))
        loaded = load(tree)
        assert len(loaded.images) == 12
        assert len(loaded.skipped) == 1
        assert "odd.png" in loaded.skipped[0]

    def test_a_jpeg_named_png_is_still_read(self, tree):
        put(tree / "train" / "cat" / "a.png", encoded(grey(200), "JPEG"))
        assert 200 in greys(load(tree))

    @pytest.mark.parametrize(
        ("mode", "colour", "expected"),
        [
            ("1", 1, (255,)),
            ("L", 77, (77,)),
            ("LA", (77, 128), (77,)),
            ("RGB", (10, 20, 30), (10, 20, 30)),
            ("RGBA", (10, 20, 30, 128), (10, 20, 30)),
        ],
    )
    def test_a_png_of_any_mode_keeps_its_colours(self, tmp_path, mode, colour, expected):
        put(tmp_path / "train" / "cat" / "a.png", Image.new(mode, (9, 11), colour))
        (tmp_path / "train" / "dog").mkdir()
        images = load(tmp_path).images
        assert images.shape == (1, len(expected), SIDE, SIDE)
        for channel, value in enumerate(expected):
            assert (images[:, channel] == value).all()

    def test_a_palette_is_looked_up_before_the_picture_is_resized(self, tmp_path):
        picture = Image.new("P", (40, 40), 1)
        picture.putpalette([255, 255, 255, 200, 100, 50])
        put(tmp_path / "train" / "cat" / "a.png", picture)
        (tmp_path / "train" / "dog").mkdir()
        images = load(tmp_path).images
        assert images.shape == (1, 3, SIDE, SIDE)
        assert [np.unique(images[:, channel]).tolist() for channel in range(3)] == [
            [200],
            [100],
            [50],
        ]

    def test_a_palette_with_a_transparent_colour_is_read(self, tmp_path):
        picture = Image.new("P", (SIDE, SIDE), 1)
        picture.putpalette([255, 255, 255, 200, 100, 50])
        put(tmp_path / "train" / "cat" / "a.png", picture, transparency=0)
        (tmp_path / "train" / "dog").mkdir()
        loaded = load(tmp_path)
        assert loaded.skipped == ()
        assert loaded.images[0, :, 0, 0].tolist() == [200, 100, 50]

    def test_16_bits_of_grey_are_scaled_and_not_clipped(self, tmp_path):
        levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
        put(tmp_path / "train" / "cat" / "a.png", Image.fromarray(levels))
        (tmp_path / "train" / "dog").mkdir()
        loaded = load(tmp_path)
        assert loaded.skipped == ()
        assert np.array_equal(loaded.images[0, 0], np.arange(256).reshape(16, 16))

    def test_12_bits_stored_as_16_are_refused_and_not_crushed(self, tmp_path):
        """As microscopes write them: shifted to 8 bits, 16 levels would be left of 4,096."""
        for name, top in (("dim", 4095), ("black", 0), ("bright", 4096)):
            levels = np.linspace(0, top, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
            put(tmp_path / "train" / "cat" / f"{name}.png", Image.fromarray(levels))
        (tmp_path / "train" / "dog").mkdir()
        loaded = load(tmp_path)
        assert len(loaded.images) == 2
        (why,) = loaded.skipped
        assert why.startswith("train/cat/dim.png: ")
        assert "uses 12 bits or fewer" in why

    def test_a_cmyk_jpeg_becomes_rgb(self, tmp_path):
        put(tmp_path / "train" / "cat" / "a.jpg", Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)))
        (tmp_path / "train" / "dog").mkdir()
        red, green, blue = load(tmp_path).images[0, :, 5, 5]
        assert red > 200
        assert max(green, blue) < 60

    def test_grey_pictures_alone_have_one_channel(self, tree):
        assert load(tree).images.shape[1] == 1

    def test_one_colour_picture_gives_all_three_channels(self, tree):
        put(tree / "train" / "cat" / "colour.png", Image.new("RGB", (SIDE, SIDE), (1, 2, 3)))
        images = load(tree).images
        assert images.shape == (13, 3, SIDE, SIDE)
        assert images.flags.c_contiguous
        assert (images[0] == 10).all()
        assert [image[:, 0, 0].tolist() for image in images].count([1, 2, 3]) == 1

    @pytest.mark.parametrize("size", [(1, 1), (3, 50), (200, 8), (64, 64), (16, 15)])
    def test_a_picture_of_any_size_becomes_one_square(self, tree, size):
        put(tree / "train" / "cat" / "a.png", grey(200, size))
        loaded = load(tree)
        assert loaded.images.shape[2:] == (SIDE, SIDE)
        assert (loaded.images[greys(loaded).index(200)] == 200).all()

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_a_picture_of_the_right_size_keeps_every_pixel(self, tmp_path, mode):
        pictures = [noise(mode, seed) for seed in (1, 2)]
        for name, picture in zip(("cat", "dog"), pictures, strict=True):
            put(tmp_path / "train" / name / "a.png", picture)
        expected = np.stack([np.asarray(picture).reshape(SIDE, SIDE, -1) for picture in pictures])
        assert np.array_equal(load(tmp_path).images, expected.transpose(0, 3, 1, 2))

    def test_a_resized_picture_keeps_up_up_and_left_left(self, tmp_path):
        wide = np.zeros((30, 60), dtype=np.uint8)
        wide[:15, 30:] = 255
        put(tmp_path / "train" / "cat" / "a.png", Image.fromarray(wide))
        (tmp_path / "train" / "dog").mkdir()
        image = load(tmp_path).images[0, 0]
        assert (image[:7, 9:] > 200).all()
        assert (image[:7, :7] < 50).all()
        assert (image[9:] < 50).all()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_picture_is_turned_as_its_exif_says(self, tmp_path, orientation):
        stored = noise(seed=5)
        exif = Image.Exif()
        exif[0x0112] = orientation
        put(tmp_path / "train" / "cat" / "a.png", stored, exif=exif)
        (tmp_path / "train" / "dog").mkdir()
        seen = SEEN_AS[orientation](np.asarray(stored))
        assert np.array_equal(load(tmp_path).images[0, 0], seen)

    def test_a_jpeg_is_turned_before_it_is_made_square(self, tmp_path):
        stored = np.zeros((20, 60), dtype=np.uint8)
        stored[:, 40:] = 255
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn clockwise: its right end is shown at the bottom
        put(tmp_path / "train" / "cat" / "a.jpg", Image.fromarray(stored), exif=exif)
        (tmp_path / "train" / "dog").mkdir()
        image = load(tmp_path).images[0, 0]
        assert (image[12:] > 200).all()
        assert (image[:9] < 50).all()


class TestSkippedFiles:
    def only_skipped(self, root: Path, name: str) -> str:
        """Return the one reason for which a file was skipped; all others are still there."""
        loaded = load(root)
        assert greys(loaded) == [10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33]
        assert loaded.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        (reason,) = loaded.skipped
        shown, _, why = reason.partition(": ")
        assert shown.endswith(name)
        assert why
        return reason

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"this is a text, not a picture\n",
            encoded(noise(seed=1), "PNG")[:150],
            encoded(noise(seed=1), "PNG")[:20],
            encoded(noise("RGB"), "JPEG")[:40],
            encoded(noise("RGB", size=64), "JPEG")[:-2000],
            bytes(1000),
        ],
        ids=["empty", "text", "half png", "png head", "jpeg head", "half jpeg", "zeros"],
    )
    @pytest.mark.parametrize("name", ["cat/0a.png", "dog/zz.jpg"])
    def test_a_file_that_is_no_picture_is_skipped_and_named(self, tree, content, name):
        put(tree / "train" / name, content)
        assert name in self.only_skipped(tree, name)

    def test_a_png_with_a_wrong_pixel_sum_is_skipped_and_named(self, tree):
        data = bytearray(encoded(noise(seed=1), "PNG"))
        data[data.index(b"IDAT") + 30] ^= 0xFF
        put(tree / "train" / "cat" / "broken.png", bytes(data))
        self.only_skipped(tree, "cat/broken.png")

    def test_a_broken_unlabeled_picture_is_skipped_and_named(self, partly):
        put(partly / "unlabeled" / "aa.png", b"broken")
        loaded = load(partly)
        assert greys(loaded) == [10, 11, 12, 13, 14, 20, 21, 22, 23]
        assert loaded.labels.tolist() == [0, 0, 1, 1, 1, -1, -1, -1, -1]
        assert "unlabeled/aa.png" in loaded.skipped[0]

    def test_the_skipped_files_reach_the_search(self, tree):
        put(tree / "train" / "cat" / "broken.png", b"broken")
        shared = prepare(DataConfig(dataset="folder", data_dir=str(tree), image_size=SIDE))
        assert len(shared.skipped) == 1
        assert "broken.png" in shared.skipped[0]

    def test_a_picture_of_absurd_size_is_skipped_and_named(self, tree, monkeypatch):
        put(tree / "train" / "cat" / "huge.png", grey(9, (400, 400)))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        self.only_skipped(tree, "cat/huge.png")

    def test_an_error_without_words_is_named_by_its_kind(self, tree, monkeypatch):
        put(tree / "train" / "cat" / "odd.png", 99)
        real = folder._square

        def fail(path: Path, image_size: int) -> Any:
            if path.name == "odd.png":
                raise MemoryError
            return real(path, image_size)

        monkeypatch.setattr(folder, "_square", fail)
        assert self.only_skipped(tree, "cat/odd.png") == "train/cat/odd.png: MemoryError"
        with pytest.raises(UserError, match=r"cannot be read \(MemoryError\)"):
            folder.read_image(tree / "train" / "cat" / "odd.png", SIDE, 1)

    def test_other_files_are_neither_read_nor_named(self, tree):
        for name in ("notes.txt", "labels.csv", "png", "a.png.bak"):
            put(tree / "train" / "cat" / name, b"something else")
        loaded = load(tree)
        assert len(loaded.images) == 12
        assert loaded.skipped == ()

    def test_a_folder_named_as_a_picture_is_none(self, tree):
        (tree / "train" / "cat" / "a.png").mkdir()
        loaded = load(tree)
        assert len(loaded.images) == 12
        assert loaded.skipped == ()

    @pytest.mark.parametrize("name", [".hidden.png", "._cat.png"])
    def test_hidden_files_are_neither_read_nor_named(self, tree, name):
        """Macs leave a ``._name.png`` beside every picture they copy to another disk."""
        put(tree / "train" / "cat" / name, 99)
        loaded = load(tree)
        assert 99 not in greys(loaded)
        assert loaded.skipped == ()

    def test_hidden_folders_are_neither_classes_nor_read(self, tree):
        put(tree / "train" / ".cache" / "a.png", 99)
        put(tree / "train" / "cat" / ".thumbnails" / "a.png", 98)
        loaded = load(tree)
        assert loaded.class_names == ("bird", "cat", "dog")
        assert len(loaded.images) == 12
        assert loaded.skipped == ()


def exif_entry(tag: int, kind: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, 1) + value.ljust(4, b"\0")


def exif_with(*entries: bytes) -> bytes:
    """Return EXIF bytes that ask for a quarter turn and hold further entries."""
    turned = exif_entry(0x0112, 3, struct.pack("<H", 6))
    listed = b"".join((turned, *entries))
    count = struct.pack("<H", 1 + len(entries))
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + count + listed + bytes(4)


BAD_EXIF = {
    "resolution is a text": exif_with(exif_entry(0x011A, 2, b"a\0")),
    "compression is a text": exif_with(exif_entry(0x0103, 2, b"x\0")),
    "width of samples beyond 16 bits": exif_with(exif_entry(0x0102, 4, b"\xff\xff\xff\xff")),
    "description is a float": exif_with(exif_entry(0x010E, 11, bytes(4))),
    "cut after four bytes": b"Exif\0\0II*\0",
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("exif", BAD_EXIF.values(), ids=BAD_EXIF.keys())
def test_bad_exif_costs_at_most_its_own_picture(tree, exif, kind):
    """The pixels are whole: the picture is used, or skipped and named; the others are loaded."""
    name = f"bad.{kind.lower()}"
    put(tree / "train" / "cat" / name, encoded(grey(99), kind, exif=exif))
    loaded = load(tree)
    assert [value for value in greys(loaded) if value != 99] == [
        *(10, 11, 12, 13),
        *(20, 21, 22, 23),
        *(30, 31, 32, 33),
    ]
    assert (99 in greys(loaded)) != any(name in reason for reason in loaded.skipped)


class TestUnusedImages:
    """Whoever put an image there meant it to be used: it is named, counted and told why not."""

    def only_unused(self, root: Path, name: str, why: str) -> None:
        before = greys(load(root))
        (reason,) = load(root).skipped
        assert reason == f"{name}: {why}"
        assert 99 not in before

    @pytest.mark.parametrize(
        "suffix", [".bmp", ".webp", ".tif", ".TIFF", ".gif", ".avif", ".heic", ".jfif"]
    )
    @pytest.mark.parametrize("place", ["labeled/cat", "labeled/cat/may", "unlabeled"])
    def test_another_format(self, partly, place, suffix):
        put(partly / place / f"a{suffix}", encoded(grey(99), "PNG"))
        self.only_unused(partly, f"{place}/a{suffix}", "only PNG and JPEG are read")
        assert len(load(partly).images) == 9

    @pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp"])
    def test_an_image_beside_the_classes(self, partly, tree, suffix):
        for root, part in ((partly, "labeled"), (tree, "train")):
            put(root / part / f"stray{suffix}", encoded(grey(99), "PNG"))
            self.only_unused(root, f"{part}/stray{suffix}", "an image in no folder of a class")

    def test_an_image_beside_the_classes_of_the_test_images(self, tree):
        put(tree / "test" / "cat" / "a.png", 200)
        put(tree / "test" / "cat" / "b.bmp", 201)
        put(tree / "test" / "c.png", 202)
        assert load(tree).skipped == ()
        assert load_test_images(tree, SIDE).skipped == (
            "test/c.png: an image in no folder of a class",
            "test/cat/b.bmp: only PNG and JPEG are read",
        )

    def test_what_lies_outside_of_the_layout(self, tree):
        put(tree / "stray.png", 99)
        put(tree / "validation" / "cat" / "a.png", 99)
        put(tree / "readme.txt", b"a text")
        put(tree / ".cache" / "a.png", 99)
        loaded = load(tree)
        assert 99 not in greys(loaded)
        assert loaded.skipped == (
            "stray.png: an image outside of labeled, unlabeled, train, test",
            "validation: a folder that is none of labeled, unlabeled, train, test",
        )

    def test_a_link_to_a_folder(self, partly):
        put(partly / "originals" / "a.png", 99)
        (partly / "labeled" / "cat" / "more").symlink_to("../../originals")
        (partly / "unlabeled" / "more.png").symlink_to("../originals")
        assert 99 not in greys(load(partly))
        assert load(partly).skipped == (
            "labeled/cat/more: a link to a folder is not followed",
            "originals: a folder that is none of labeled, unlabeled, train, test",
            "unlabeled/more.png: a link to a folder is not followed",
        )

    def test_unlabeled_that_is_a_link_to_nothing(self, partly):
        (partly / "unlabeled").rename(partly.parent / "elsewhere")
        (partly / "unlabeled").symlink_to(partly / "gone")
        self.only_unused(partly, "unlabeled", "no folder, or a link to none")

    def test_a_folder_that_may_not_be_listed(self, tree, monkeypatch):
        put(tree / "train" / "cat" / "private" / "a.png", 99)
        scan = os.scandir

        def refuse(path: Any) -> Any:
            if str(path).endswith("private"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        self.only_unused(
            tree, "train/cat/private", "a folder that cannot be listed (Permission denied)"
        )

    def test_they_reach_the_search_beside_those_that_cannot_be_read_in_order(self, tree):
        put(tree / "train" / "dog" / "0.webp", 99)
        put(tree / "train" / "cat" / "z.png", b"broken")
        put(tree / "train" / "bird" / "a.gif", 99)
        config = DataConfig(dataset="folder", data_dir=str(tree), image_size=SIDE)
        names = [reason.partition(": ")[0] for reason in prepare(config).skipped]
        assert names == ["train/bird/a.gif", "train/cat/z.png", "train/dog/0.webp"]

    def test_names_are_relative_however_the_folder_was_given(self, tree, tmp_path, monkeypatch):
        put(tree / "train" / "cat" / "broken.png", b"broken")
        put(tree / "train" / "cat" / "a.gif", 99)
        (tmp_path / "link").symlink_to(tree)
        monkeypatch.chdir(tree)
        for given in (tree, tmp_path / "link", Path(), Path("train/..")):
            names = [reason.partition(": ")[0] for reason in load(given).skipped]
            assert names == ["train/cat/a.gif", "train/cat/broken.png"]


@pytest.fixture
def pipe() -> Iterator[Callable[[Path], None]]:
    """Make pipes; whoever opens one to read gets its end after 5 s, so that a test cannot hang."""
    made: list[Path] = []
    done = Event()

    def make(path: Path) -> None:
        os.mkfifo(path)
        made.append(path)

    def release_readers() -> None:
        while not done.wait(5):
            for path in made:
                with suppress(OSError):  # nobody reads
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    thread = Thread(target=release_readers)
    thread.start()
    yield make
    done.set()
    thread.join()


class TestSpecialFiles:
    """Opening a pipe waits for a writer for ever, and a device may never end."""

    WHY = "no regular file but a pipe, a socket, a device or a folder"

    def assert_is_skipped(self, root: Path, name: str) -> None:
        loaded = load(root)
        assert len(loaded.images) == 12
        assert loaded.skipped == (f"{name}: {self.WHY}",)

    def test_a_pipe(self, tree, pipe):
        pipe(tree / "train" / "cat" / "x.png")
        self.assert_is_skipped(tree, "train/cat/x.png")

    def test_a_link_to_a_pipe(self, tree, pipe):
        pipe(tree / "train" / "cat" / "pipe")
        (tree / "train" / "cat" / "x.png").symlink_to("pipe")
        self.assert_is_skipped(tree, "train/cat/x.png")

    def test_a_socket(self, tree, monkeypatch):
        monkeypatch.chdir(tree / "train" / "cat")  # the address of a socket is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.png")
        self.assert_is_skipped(tree, "train/cat/x.png")

    def test_pipes_elsewhere(self, partly, pipe):
        for place in ("unlabeled/x.jpg", "labeled/x.png", "x.png", "labeled/cat/x.gif"):
            pipe(partly / place)
        loaded = load(partly)
        assert len(loaded.images) == 9
        assert len(loaded.skipped) == 4

    def test_a_pipe_among_test_and_training_images(self, tree, pipe):
        put(tree / "test" / "cat" / "a.png", 200)
        pipe(tree / "test" / "cat" / "x.png")
        pipe(tree / "train" / "cat" / "x.png")
        loaded = load_test_images(tree, SIDE)
        assert greys(loaded) == [200]
        assert loaded.skipped == (f"test/cat/x.png: {self.WHY}",)

    @pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
    def test_a_classifier_refuses_it(self, tmp_path, pipe, kind):
        path = {"device": Path("/dev/zero")}.get(kind, tmp_path / "x.png")
        if kind == "pipe":
            pipe(path)
        elif kind == "folder":
            path.mkdir()
        with pytest.raises(UserError, match=r"cannot be read \(no regular file.*; allowed: a PNG"):
            folder.read_image(path, SIDE, 1)


def named_in_bytes(path: Path, name: bytes) -> Path:
    """Return a path below ``path`` with a name of any bytes, or skip where there are no such."""
    found = path / os.fsdecode(name)
    try:
        found.mkdir(parents=True)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    return found


class TestNamesThatAreNoText:
    def test_a_data_folder_is_refused_before_its_name_reaches_a_file(self, tmp_path):
        root = named_in_bytes(tmp_path, b"photos-\xff")
        with pytest.raises(UserError) as caught:
            DataConfig(dataset="folder", data_dir=str(root))
        message = str(caught.value)
        assert "is not UTF-8; allowed: a path in UTF-8" in message
        assert "rename the folder" in message
        message.encode()  # it can be printed

    @pytest.mark.parametrize("name", ["photos", "фото", "写真 2", "bilder-ä", "a?b", "\ufffd"])
    def test_a_name_in_any_script_is_taken(self, name):
        assert DataConfig(dataset="folder", data_dir=name).data_dir == name

    def test_a_class_is_refused(self, tree):
        put(named_in_bytes(tree / "train", b"eel-\xff") / "a.png")
        message = refusal(tree)
        assert "rename the folder" in message
        message.encode()

    def test_a_picture_is_used_and_a_reason_can_be_printed(self, tree):
        odd = named_in_bytes(tree / "train" / "cat", b"\xff\n\x1b[31m")
        put(odd / "a.png", 99)
        put(odd / "b.png", b"broken")
        put(odd / "c.gif", 98)
        loaded = load(tree)
        assert 99 in greys(loaded)
        assert len(loaded.skipped) == 2
        for reason in loaded.skipped:
            assert reason.isprintable()
            assert reason.startswith("train/cat/\\udcff\\n\\x1b[31m/")
            assert json.loads(json.dumps(reason)) == reason


class TestLinks:
    def test_a_link_out_of_the_folder_is_skipped_with_the_reason(self, tree, tmp_path):
        outside = put(tmp_path / "outside" / "secret.png", 99)
        (tree / "train" / "cat" / "link.png").symlink_to(outside)
        loaded = load(tree)
        assert 99 not in greys(loaded)
        assert len(loaded.images) == 12
        (reason,) = loaded.skipped
        assert "train/cat/link.png" in reason
        assert "out of the data folder" in reason

    def test_a_link_to_a_sibling_whose_name_begins_alike_leads_out(self, tree):
        outside = put(tree.with_name("tree-private") / "a.png", 99)
        (tree / "train" / "cat" / "link.png").symlink_to(outside)
        loaded = load(tree)
        assert 99 not in greys(loaded)
        assert len(loaded.skipped) == 1

    def test_a_class_that_is_a_link_out_of_the_folder_is_skipped_file_by_file(self, tree, tmp_path):
        put(tmp_path / "outside" / "a.png", 98)
        put(tmp_path / "outside" / "b.png", 99)
        (tree / "train" / "eel").symlink_to(tmp_path / "outside")
        loaded = load(tree)
        assert len(loaded.images) == 12
        assert [reason.partition(": ")[0].split("/")[-1] for reason in loaded.skipped] == [
            "a.png",
            "b.png",
        ]

    def test_unlabeled_that_is_a_link_out_of_the_folder_is_skipped_file_by_file(
        self, partly, tmp_path
    ):
        (partly / "unlabeled").rename(tmp_path / "pool")
        (partly / "unlabeled").symlink_to(tmp_path / "pool")
        loaded = load(partly)
        assert loaded.labels.tolist() == [0, 0, 1, 1, 1]
        assert len(loaded.skipped) == 4

    def test_a_folder_below_a_class_that_leads_out_is_not_read(self, tree, tmp_path):
        put(tmp_path / "outside" / "a.png", 99)
        (tree / "train" / "cat" / "more").symlink_to(tmp_path / "outside")
        assert 99 not in greys(load(tree))

    def test_a_link_within_the_folder_is_followed(self, tree):
        put(tree / "originals" / "a.png", 99)
        (tree / "train" / "cat" / "link.png").symlink_to("../../originals/a.png")
        loaded = load(tree)
        assert loaded.labels[greys(loaded).index(99)] == 1
        assert not any("link.png" in reason for reason in loaded.skipped)

    def test_a_link_to_nothing_is_skipped_and_named(self, tree):
        (tree / "train" / "cat" / "link.png").symlink_to("gone.png")
        loaded = load(tree)
        assert len(loaded.images) == 12
        assert "train/cat/link.png" in loaded.skipped[0]

    def test_a_link_to_itself_is_skipped_and_named(self, tree):
        (tree / "train" / "cat" / "link.png").symlink_to("link.png")
        loaded = load(tree)
        assert len(loaded.images) == 12
        assert "train/cat/link.png" in loaded.skipped[0]

    def test_a_circle_of_folders_ends(self, tree):
        (tree / "train" / "cat" / "again").symlink_to("..")
        assert len(load(tree).images) == 12
        assert load(tree).skipped == ("train/cat/again: a link to a folder is not followed",)

    def test_the_data_folder_itself_may_be_a_link(self, tree, tmp_path):
        (tmp_path / "link").symlink_to(tree)
        assert np.array_equal(load(tmp_path / "link").images, load(tree).images)

    def test_the_data_folder_may_be_relative(self, tree, monkeypatch):
        monkeypatch.chdir(tree)
        loaded = load(Path())
        assert np.array_equal(loaded.images, load(tree).images)
        assert loaded.skipped == ()


class TestOrder:
    def test_the_order_does_not_depend_on_the_file_system(self, partly, monkeypatch):
        expected = load(partly)
        walk, listing = os.walk, Path.iterdir

        def walk_backwards(*args: Any, **options: Any) -> Any:
            for parent, folders, names in walk(*args, **options):
                folders.sort(reverse=True)
                yield parent, folders, sorted(names, reverse=True)

        monkeypatch.setattr(folder.os, "walk", walk_backwards)
        monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listing(self))[::-1]))
        loaded = load(partly)
        assert loaded.class_names == expected.class_names
        assert greys(loaded) == greys(expected)
        assert np.array_equal(loaded.labels, expected.labels)

    def test_the_order_does_not_depend_on_the_order_of_writing(self, tmp_path):
        names = [f"{name}/{index}.png" for name in ("a", "B", "ä") for index in range(5)]
        for order, root in ((names, tmp_path / "one"), (names[::-1], tmp_path / "two")):
            for name in order:
                put(root / "train" / name, names.index(name))
        one, two = load(tmp_path / "one"), load(tmp_path / "two")
        assert one.class_names == two.class_names == ("B", "a", "ä")
        assert greys(one) == greys(two)
        assert np.array_equal(one.labels, two.labels)

    def test_the_skipped_files_come_in_the_same_order(self, tree):
        for name in ("dog/x.png", "bird/y.png", "cat/z.png"):
            put(tree / "train" / name, b"broken")
        named = [reason.partition(": ")[0] for reason in load(tree).skipped]
        assert [Path(name).name for name in named] == ["y.png", "z.png", "x.png"]

    def test_loading_twice_gives_the_same_bytes(self, partly):
        assert load(partly).images.tobytes() == load(partly).images.tobytes()


class TestRepeated:
    def test_an_image_that_was_there_before_is_left_out_and_named(self, tmp_path):
        put(tmp_path / "labeled" / "cat" / "a.png", 1)
        put(tmp_path / "labeled" / "cat" / "b.png", 2)
        put(tmp_path / "labeled" / "cat" / "c.png", 1)
        put(tmp_path / "labeled" / "dog" / "d.png", 3)
        put(tmp_path / "unlabeled" / "e.png", 4)
        put(tmp_path / "unlabeled" / "f.png", 2)
        loaded = load(tmp_path)
        assert greys(loaded) == [1, 2, 3, 4]
        assert loaded.labels.tolist() == [0, 0, 1, -1]
        assert loaded.skipped == (
            "labeled/cat/c.png: at this size the same image as labeled/cat/a.png",
            "unlabeled/f.png: at this size the same image as labeled/cat/b.png",
        )

    def test_of_one_in_two_classes_neither_is_believed(self, tmp_path):
        put(tmp_path / "labeled" / "cat" / "a.png", 1)
        put(tmp_path / "labeled" / "cat" / "aa.png", 1)
        put(tmp_path / "labeled" / "cat" / "b.png", 2)
        put(tmp_path / "labeled" / "dog" / "c.png", 1)
        put(tmp_path / "labeled" / "dog" / "d.png", 3)
        put(tmp_path / "unlabeled" / "e.png", 1)
        loaded = load(tmp_path)
        assert greys(loaded) == [2, 3]
        same = "at this size the same image as"
        assert loaded.skipped == (
            f"labeled/cat/a.png: {same} labeled/dog/c.png, of another class",
            f"labeled/cat/aa.png: {same} labeled/dog/c.png, of another class",
            f"labeled/dog/c.png: {same} labeled/cat/a.png, of another class",
            f"unlabeled/e.png: {same} labeled/cat/a.png, which is in two classes",
        )

    def test_one_that_differs_in_a_pixel_or_in_colour_is_another(self, tmp_path):
        other = grey(1)
        other.putpixel((0, 0), 2)
        for number, image in enumerate((1, other, Image.new("RGB", (SIDE, SIDE), (1, 1, 2)))):
            put(tmp_path / "train" / ("cat", "dog")[number % 2] / f"{number}.png", image)
        loaded = load(tmp_path)
        assert (len(loaded.images), loaded.skipped) == (3, ())

    def test_grey_kept_as_colour_is_no_other_image(self, tmp_path):
        put(tmp_path / "train" / "cat" / "a.png", noise("L"))
        put(tmp_path / "train" / "cat" / "b.png", noise("L").convert("RGB"))
        (tmp_path / "train" / "dog").mkdir()
        assert len(load(tmp_path).images) == 1

    @pytest.mark.parametrize("colour", [False, True])
    def test_a_test_image_that_was_trained_on_is_told_of(self, tmp_path, colour):
        for name, value in (("cat", 1), ("dog", 2)):
            put(tmp_path / "labeled" / name / "a.png", value)
        put(tmp_path / "unlabeled" / "b.png", noise("RGB" if colour else "L"))
        for name, image in (
            ("a", grey(2)),
            ("b", noise("RGB" if colour else "L")),
            ("c", 4),
            ("d", 4),
        ):
            put(tmp_path / "test" / "cat" / f"{name}.png", image)
        put(tmp_path / "test" / "cat" / "e.png", grey(1).convert("RGB"))
        put(tmp_path / "test" / "cat" / "broken.png", b"")
        test = load_test_images(tmp_path, SIDE)
        assert len(test.images) == 5
        same = "at this size the same image as"
        assert test.seen == {
            0: f"test/cat/a.png: {same} labeled/dog/a.png",
            1: f"test/cat/b.png: {same} unlabeled/b.png",
            4: f"test/cat/e.png: {same} labeled/cat/a.png",
        }

    def test_test_files_are_the_same_set_at_every_size(self, tmp_path):
        for name, value in (("cat", 1), ("dog", 2)):
            put(tmp_path / "train" / name / "a.png", value)
            put(tmp_path / "test" / name / "a.png", noise("RGB"))
        found = {load_test_images(tmp_path, size).files_sha256 for size in (8, SIDE, 2 * SIDE)}
        (tmp_path / "test" / "cat" / "a.png").rename(tmp_path / "test" / "cat" / "z.png")
        found.add(load_test_images(tmp_path, SIDE).files_sha256)
        (same,) = found
        put(tmp_path / "test" / "dog" / "a.png", 7)
        other = load_test_images(tmp_path, SIDE).files_sha256
        (tmp_path / "test" / "dog" / "a.png").rename(tmp_path / "test" / "cat" / "b.png")
        assert len({same, other, load_test_images(tmp_path, SIDE).files_sha256}) == 3

    def test_it_judges_nothing_and_what_is_left_is_said(self, tmp_path):
        for name, value in (("cat", 1), ("dog", 2)):
            put(tmp_path / "train" / name / "a.png", value)
            put(tmp_path / "test" / name / "a.png", 2)
        put(tmp_path / "test" / "cat" / "b.png", 4)
        left = without_seen(load_test_images(tmp_path, SIDE))
        assert (greys(left), left.labels.tolist(), left.seen) == ([4], [0], {})
        assert left.skipped == (
            "test/cat/a.png: at this size the same image as train/dog/a.png",
            "test/dog/a.png: at this size the same image as train/dog/a.png",
            "test/dog: no image of this class is left",
        )
        put(tmp_path / "test" / "cat" / "b.png", 1)
        with pytest.raises(
            UserError, match=r"all 3 test images are .*test/cat/a\.png: at this size"
        ):
            without_seen(load_test_images(tmp_path, SIDE))
        unseen = load(tmp_path)
        assert without_seen(unseen) is unseen


class TestRefused:
    def test_a_folder_that_does_not_exist(self, tmp_path):
        assert str(tmp_path / "gone") in refusal(tmp_path / "gone")

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        assert str(tmp_path / "a.png") in refusal(put(tmp_path / "a.png"))

    def test_an_empty_folder(self, tmp_path):
        message = refusal(tmp_path)
        assert str(tmp_path) in message
        assert "labeled/" in message
        assert "train/" in message

    @pytest.mark.parametrize("layout", ["labeled", "train"])
    def test_a_layout_without_a_class(self, tmp_path, layout):
        (tmp_path / layout).mkdir()
        assert "0 classes" in refusal(tmp_path)

    def test_pictures_without_labeled_and_train(self, tmp_path):
        put(tmp_path / "cat" / "a.png")
        put(tmp_path / "unlabeled" / "a.png")
        put(tmp_path / "test" / "cat" / "a.png")
        assert "neither labeled/ nor train/" in refusal(tmp_path)

    @pytest.mark.parametrize("layout", ["labeled", "train"])
    def test_one_class_only(self, tmp_path, layout):
        put(tmp_path / layout / "cat" / "a.png")
        if layout == "labeled":
            put(tmp_path / "unlabeled" / "a.png")
        message = refusal(tmp_path)
        assert str(tmp_path) in message
        assert "two or more" in message

    @pytest.mark.parametrize("reader", [load_training_images, load_test_images])
    @pytest.mark.parametrize("layout", ["partly", "tree"])
    def test_parts_of_both_layouts(self, layout, reader, request):
        """Either part left out would be images that somebody meant to be used."""
        root = request.getfixturevalue(layout)
        put(root / "test" / "cat" / "a.png", 200)
        put(root / ("train" if layout == "partly" else "unlabeled") / "cat" / "a.png", 99)
        message = refusal(root, reader)
        assert str(root) in message
        other = "labeled/ and train/" if layout == "partly" else "train/ and unlabeled/"
        assert f"has both {other}; allowed: {folder.LAYOUT}; " in message

    def test_a_folder_that_may_not_be_listed(self, tree, monkeypatch):
        def refuse(_path: Path) -> Any:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "iterdir", refuse)
        assert "cannot be listed (Permission denied)" in refusal(tree)

    @pytest.mark.parametrize("layout", ["labeled", "train"])
    def test_folders_of_texts(self, tmp_path, layout):
        for name in ("cat", "dog"):
            put(tmp_path / layout / name / "a.txt", b"a text")
        assert "no readable image" in refusal(tmp_path)

    def test_texts_named_png_are_quoted_as_the_first_problem(self, tmp_path):
        for name in ("cat", "dog"):
            put(tmp_path / "train" / name / "a.png", b"a text")
        message = refusal(tmp_path)
        assert "no readable image" in message
        assert "cat/a.png" in message

    @pytest.mark.parametrize("content", [None, b"broken"], ids=["empty", "only broken files"])
    @pytest.mark.parametrize("layout", ["labeled", "train"])
    def test_a_class_without_images(self, tmp_path, layout, content):
        for index in range(8):
            put(tmp_path / layout / ("cat", "dog")[index % 2] / f"{index}.png", index)
        (tmp_path / layout / "eel").mkdir()
        if content:
            put(tmp_path / layout / "eel" / "a.png", content)
        config = DataConfig(dataset="folder", data_dir=str(tmp_path), image_size=SIDE)
        with pytest.raises(UserError, match=r"class 'eel' has no labeled images; allowed: .+; .+"):
            prepare(config)

    def test_no_folder_given(self):
        with pytest.raises(UserError, match=r"needs --data-dir; allowed: .*train/<class>/\*"):
            load_by_name("folder", None, None)

    @pytest.mark.parametrize("size", [7, 0, -8, 1025])
    def test_a_side_too_small_or_too_large(self, tree, size):
        with pytest.raises(
            UserError, match=f"image-size is {size}; allowed: a whole number 8 to 1024"
        ):
            load_by_name("folder", str(tree), size)


class TestLabelsNobodyChose:
    """A labeled tree without a number of labels would leave nothing unlabeled."""

    def of_a_record(self, root: Path, **given: Any) -> DataConfig:
        record = {"algorithm": "supervised", "dataset": "folder", "data_dir": str(root)}
        return TrainingConfig.from_record(record | {"image_size": SIDE} | given).data

    def test_a_labeled_tree_is_refused_before_an_image_is_read(self, tree, monkeypatch):
        monkeypatch.setattr(folder.Image, "open", None)
        with pytest.raises(UserError) as caught:
            prepare(self.of_a_record(tree))
        message = str(caught.value)
        assert str(tree) in message
        assert "train/" in message
        assert "; allowed: how many of those labels to use" in message
        assert "give --labels" in message

    def test_a_number_is_drawn_and_the_rest_is_unlabeled(self, tree):
        shared = prepare(self.of_a_record(tree, num_labels=3, num_validation=3))
        assert [len(part) for part in (shared.labeled, shared.unlabeled, shared.validation)] == [
            *(3, 9, 3)
        ]

    def test_all_can_be_labeled_where_somebody_says_so(self, tree):
        for given in (None, 6):
            shared = prepare(self.of_a_record(tree, num_labels=given))
            assert len(shared.labeled) == len(shared.unlabeled) == 6

    def test_what_lies_in_labeled_is_all_used_without_a_number(self, partly):
        shared = prepare(self.of_a_record(partly))
        assert (len(shared.labeled), len(shared.validation), len(shared.unlabeled)) == (3, 2, 7)

    def test_it_is_what_the_card_says_and_can_be_written_down(self, partly):
        assert DATASET_CARDS["folder"].num_labels == AUTO
        config = self.of_a_record(partly)
        assert config.num_labels == AUTO
        assert DataConfig(**json.loads(json.dumps(vars(config)))) == config

    @pytest.mark.parametrize("dataset", ["digits", "svhn", "cifar10", "cifar100"])
    def test_other_data_sets_need_a_number_or_none(self, dataset):
        with pytest.raises(UserError, match="num_labels is 'auto'; allowed: a whole number >= 1"):
            DataConfig(dataset=dataset, num_labels=AUTO)

    def test_without_a_folder_the_folder_is_asked_for(self):
        with pytest.raises(UserError, match="needs --data-dir"):
            prepare(DataConfig(dataset="folder", num_labels=AUTO))


class TestSealedTestImages:
    def add_test(self, root: Path, names: tuple[str, ...] = ("cat", "dog")) -> None:
        for index, name in enumerate(names):
            put(root / "test" / name / "a.png", 200 + index)

    @pytest.mark.parametrize("layout", ["partly", "tree"])
    def test_training_images_are_the_same_with_and_without_test(self, layout, request):
        root = request.getfixturevalue(layout)
        before = load(root)
        self.add_test(root, ("cat", "dog", "a class nobody knows"))
        put(root / "test" / "cat" / "broken.png", b"broken")
        after = load(root)
        assert np.array_equal(before.images, after.images)
        assert np.array_equal(before.labels, after.labels)
        assert before.class_names == after.class_names
        assert after.skipped == ()

    @pytest.mark.parametrize("layout", ["partly", "tree"])
    def test_training_opens_no_file_below_test(self, layout, request, monkeypatch):
        root = request.getfixturevalue(layout)
        self.add_test(root)
        opened: list[Path] = []
        real = Image.open

        def spy(path: Path, *args: Any, **options: Any) -> Image.Image:
            opened.append(Path(path).resolve().relative_to(root.resolve()))
            return real(path, *args, **options)

        monkeypatch.setattr(folder.Image, "open", spy)
        load(root)
        assert len(opened) >= 9
        assert {path.parts[0] for path in opened} <= {"labeled", "unlabeled", "train"}
        load_test_images(root, SIDE)
        assert opened[-1].parts[0] == "test"  # the spy sees what the other door opens

    def test_a_link_into_test_brings_no_test_image_into_training(self, partly):
        self.add_test(partly)
        (partly / "unlabeled" / "link.png").symlink_to("../test/cat/a.png")
        assert 200 not in greys(load(partly))

    @pytest.mark.parametrize("layout", ["partly", "tree"])
    def test_test_images_have_the_labels_of_the_training_classes(self, layout, request):
        root = request.getfixturevalue(layout)
        self.add_test(root)
        loaded = load_test_images(root, SIDE)
        assert loaded.class_names == load(root).class_names
        assert greys(loaded) == [200, 201]
        assert [loaded.class_names[label] for label in loaded.labels] == ["cat", "dog"]

    def test_a_class_without_test_images_keeps_its_number(self, tree):
        self.add_test(tree, ("dog",))
        loaded = load_test_images(tree, SIDE)
        assert loaded.labels.tolist() == [2]
        assert loaded.class_names == ("bird", "cat", "dog")

    def test_an_unknown_class_is_refused_and_named(self, tree):
        self.add_test(tree, ("dog", "zebra"))
        message = refusal(tree, load_test_images)
        assert "test/zebra" in message
        assert "bird, cat, dog" in message

    def test_without_test_there_is_no_sealed_estimate(self, tree):
        assert "no test/" in refusal(tree, load_test_images)

    def test_an_empty_test_folder_is_refused(self, tree):
        (tree / "test" / "cat").mkdir(parents=True)
        assert "no readable image" in refusal(tree, load_test_images)

    def test_test_images_without_training_classes_are_refused(self, tmp_path):
        self.add_test(tmp_path)
        assert str(tmp_path) in refusal(tmp_path, load_test_images)

    def test_a_broken_test_image_is_skipped_and_named(self, tree):
        self.add_test(tree)
        put(tree / "test" / "cat" / "broken.png", b"broken")
        loaded = load_test_images(tree, SIDE)
        assert greys(loaded) == [200, 201]
        assert "test/cat/broken.png" in loaded.skipped[0]

    @pytest.mark.parametrize(("training", "sealed"), [("RGB", "L"), ("L", "RGB")])
    def test_test_images_have_as_many_channels_as_training_images(self, tmp_path, training, sealed):
        """A network trained on one kind of picture must be able to take the other."""
        for index, name in enumerate(("cat", "dog")):
            put(tmp_path / "train" / name / "a.png", noise(training, index))
            put(tmp_path / "test" / name / "a.png", noise(sealed, index))
        assert load_test_images(tmp_path, SIDE).images.shape[1] == load(tmp_path).images.shape[1]

    @pytest.mark.parametrize("where", ["broken", "out of the folder", "in test"])
    def test_a_colour_image_no_search_sees_does_not_decide_the_channels(self, tmp_path, where):
        """Its header alone says colour; what a search saw of the training images is grey."""
        for index, name in enumerate(("cat", "dog")):
            put(tmp_path / "data" / "train" / name / "a.png", noise("L", index))
            put(tmp_path / "data" / "test" / name / "a.png", noise("RGB", index))
        odd = tmp_path / "data" / "train" / "cat" / "odd.png"
        if where == "broken":
            put(odd, encoded(noise("RGB", size=64), "PNG")[:-4000])
        elif where == "in test":
            odd.symlink_to("../../test/cat/a.png")
        else:
            odd.symlink_to(put(tmp_path / "outside.png", noise("RGB")))
        with Image.open(odd) as header:
            assert header.mode == "RGB"
        training, sealed = load(tmp_path / "data"), load_test_images(tmp_path / "data", SIDE)
        assert len(training.skipped) == 1
        assert training.images.shape[1] == 1
        assert sealed.images.shape == (2, 1, SIDE, SIDE)

    def test_test_images_are_turned_to_the_grey_or_colour_of_the_training_images(self, tmp_path):
        for name in ("cat", "dog"):
            put(tmp_path / "train" / name / "a.png", noise("L"))
            put(tmp_path / "test" / name / "a.png", Image.new("RGB", (SIDE, SIDE), (10, 200, 30)))
        luma = round(0.299 * 10 + 0.587 * 200 + 0.114 * 30)
        assert (load_test_images(tmp_path, SIDE).images == luma).all()
        put(tmp_path / "train" / "cat" / "b.png", noise("RGB"))
        assert load_test_images(tmp_path, SIDE).images[0, :, 0, 0].tolist() == [10, 200, 30]
