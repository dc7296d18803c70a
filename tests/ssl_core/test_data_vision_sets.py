"""SVHN, CIFAR-10 and CIFAR-100 through torchvision's readers, on small files in the real formats."""

from __future__ import annotations

import hashlib
import pickle
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torchvision.datasets.cifar
import torchvision.datasets.svhn
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from ssl_core.data.config import DataConfig
from ssl_core.data.prepare import prepare
from ssl_core.data.sources import load_test_images, load_training_images
from ssl_core.errors import UserError

NAMES = ("svhn", "cifar10", "cifar100")
CIFAR10_NAMES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR100_NAMES = [f"fine {index:02d}" for index in range(100)]
REMEDY = {
    "svhn": "train_32x32.mat",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}


@pytest.fixture(autouse=True)
def requests(monkeypatch) -> list[str]:
    """Fail every download, and return the addresses asked for."""
    asked: list[str] = []

    def refuse(request: Any, *_args: Any, **_kwargs: Any) -> None:
        asked.append(getattr(request, "full_url", request))
        raise URLError("there is no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def random_images(count: int, seed: int) -> np.ndarray:
    """Return (count, 3, 32, 32) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def write_svhn(root: Path, part: str, images: np.ndarray, digits: list[int], monkeypatch) -> None:
    """Write a part as SVHN does: X (32, 32, 3, N), y (N, 1) with 10 for the digit 0."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{part}_32x32.mat"
    y = np.array([[10 if digit == 0 else digit] for digit in digits], dtype=np.uint8)
    scipy.io.savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": y})
    url, name, _ = SVHN.split_list[part]
    monkeypatch.setitem(SVHN.split_list, part, [url, name, md5(path)])


def write_cifar(
    root: Path, cls: type, batches: dict[str, dict[str, Any]], meta: dict[str, Any], monkeypatch
) -> None:
    """Write batches as CIFAR does, and let torchvision expect their MD5 sums."""
    folder = root / cls.base_folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, batch in batches.items():
        (folder / name).write_bytes(pickle.dumps(batch))
    meta_path = folder / cls.meta["filename"]
    meta_path.write_bytes(pickle.dumps(meta))
    expect_as_they_are(root, cls, monkeypatch)


def expect_as_they_are(root: Path, cls: type, monkeypatch) -> None:
    """Let torchvision expect the MD5 sums of the files as they lie there."""
    folder = root / cls.base_folder
    for part in ("train_list", "test_list"):
        listed = [[name, md5(folder / name)] for name, _ in getattr(cls, part)]
        monkeypatch.setattr(cls, part, listed)
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5(folder / cls.meta["filename"])})


class Written:
    """What a test wrote: images and labels of both parts, in the order of the files."""

    def __init__(self, name: str, root: Path, monkeypatch) -> None:
        self.name, self.root = name, root
        self.num_classes = 100 if name == "cifar100" else 10
        per_part = {"train": 5 * 2 * self.num_classes, "test": self.num_classes}
        random = np.random.default_rng(99)
        self.images = {
            part: random_images(count, seed) for seed, (part, count) in enumerate(per_part.items())
        }
        self.labels = {
            part: random.permutation(np.arange(count) % self.num_classes).tolist()
            for part, count in per_part.items()
        }
        getattr(self, f"_write_{name}")(monkeypatch)

    def _write_svhn(self, monkeypatch) -> None:
        for part in ("train", "test"):
            write_svhn(self.root, part, self.images[part], self.labels[part], monkeypatch)

    def _write_cifar10(self, monkeypatch) -> None:
        batches = {}
        for index in range(5):
            rows = slice(20 * index, 20 * (index + 1))
            batches[f"data_batch_{index + 1}"] = {
                "batch_label": f"training batch {index + 1} of 5",
                "data": self.images["train"][rows].reshape(20, 3072),
                "labels": self.labels["train"][rows],
            }
        batches["test_batch"] = {
            "data": self.images["test"].reshape(10, 3072),
            "labels": self.labels["test"],
        }
        meta = {"label_names": CIFAR10_NAMES, "num_cases_per_batch": 20, "num_vis": 3072}
        write_cifar(self.root, CIFAR10, batches, meta, monkeypatch)

    def _write_cifar100(self, monkeypatch) -> None:
        batches = {
            part: {
                "data": self.images[part].reshape(-1, 3072),
                "fine_labels": self.labels[part],
                "coarse_labels": [label // 5 for label in self.labels[part]],
            }
            for part in ("train", "test")
        }
        meta = {
            "fine_label_names": CIFAR100_NAMES,
            "coarse_label_names": [f"coarse {index}" for index in range(20)],
        }
        write_cifar(self.root, CIFAR100, batches, meta, monkeypatch)

    def file(self, part: str) -> Path:
        """Return one of the files of a part."""
        return {
            ("svhn", "train"): self.root / "train_32x32.mat",
            ("svhn", "test"): self.root / "test_32x32.mat",
            ("cifar10", "train"): self.root / "cifar-10-batches-py" / "data_batch_3",
            ("cifar10", "test"): self.root / "cifar-10-batches-py" / "test_batch",
            ("cifar100", "train"): self.root / "cifar-100-python" / "train",
            ("cifar100", "test"): self.root / "cifar-100-python" / "test",
        }[self.name, part]


@pytest.fixture(params=NAMES)
def written(request, tmp_path, monkeypatch) -> Written:
    return Written(request.param, tmp_path / "files", monkeypatch)


LOADERS: dict[str, Callable[..., Any]] = {"train": load_training_images, "test": load_test_images}


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_image_and_label_arrives_in_the_order_of_the_files(written, part, requests):
    loaded = LOADERS[part](written.name, str(written.root), None)
    assert loaded.images.dtype == np.uint8
    assert loaded.images.flags.c_contiguous
    assert loaded.labels.dtype == np.int64
    assert np.array_equal(loaded.images, written.images[part])
    assert loaded.labels.tolist() == written.labels[part]
    assert requests == []


def test_the_classes_have_the_names_of_the_data_set(written):
    expected = {
        "svhn": tuple("0123456789"),
        "cifar10": tuple(CIFAR10_NAMES),
        "cifar100": tuple(CIFAR100_NAMES),
    }
    for load in LOADERS.values():
        assert load(written.name, str(written.root), None).class_names == expected[written.name]


def test_svhn_calls_the_digit_0_class_0_although_its_file_says_10(tmp_path, monkeypatch):
    write_svhn(tmp_path, "train", random_images(5, 3), [0, 9, 0, 1, 5], monkeypatch)
    raw = scipy.io.loadmat(tmp_path / "train_32x32.mat")["y"].ravel()
    assert raw.tolist() == [10, 9, 10, 1, 5]
    assert load_training_images("svhn", str(tmp_path), None).labels.tolist() == [0, 9, 0, 1, 5]


def test_cifar100_labels_are_the_fine_ones(tmp_path, monkeypatch):
    written = Written("cifar100", tmp_path, monkeypatch)
    labels = load_training_images("cifar100", str(tmp_path), None).labels
    assert labels.max() == 99
    assert labels.tolist() == written.labels["train"]


def test_a_search_can_be_prepared_from_the_files(written):
    shared = prepare(
        DataConfig(
            dataset=written.name,
            data_dir=str(written.root),
            num_labels=2 * written.num_classes,
            num_validation=3 * written.num_classes,
        )
    )
    assert shared.images.shape == (10 * written.num_classes, 3, 32, 32)
    assert np.array_equal(shared.labels, np.array(written.labels["train"])[shared.labeled])
    assert shared.augmentation.max_shift == 2
    assert shared.augmentation.flip == (written.name != "svhn")
    assert shared.augmentation.noise == (0.0 if written.name == "svhn" else 0.15)


def test_svhn_trains_without_its_test_file(tmp_path, monkeypatch, requests):
    written = Written("svhn", tmp_path, monkeypatch)
    written.file("test").unlink()
    loaded = load_training_images("svhn", str(tmp_path), None)
    assert np.array_equal(loaded.images, written.images["train"])
    assert requests == []


def test_training_reads_nothing_of_the_test_file(written, monkeypatch):
    """Its bytes are no pickle and no .mat; only their MD5 sum is what torchvision expects."""
    before = load_training_images(written.name, str(written.root), None)
    written.file("test").write_bytes(b"these are no images" * 100)
    if written.name == "svhn":
        url, name, _ = SVHN.split_list["test"]
        monkeypatch.setitem(SVHN.split_list, "test", [url, name, md5(written.file("test"))])
    else:
        cls = CIFAR10 if written.name == "cifar10" else CIFAR100
        expect_as_they_are(written.root, cls, monkeypatch)
    after = load_training_images(written.name, str(written.root), None)
    assert np.array_equal(before.images, after.images)
    assert np.array_equal(before.labels, after.labels)
    with pytest.raises((ValueError, pickle.UnpicklingError)):  # it really is unreadable now
        load_test_images(written.name, str(written.root), None)


def message_for(name: str, folder: Path, part: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        LOADERS[part](name, str(folder), None)
    return str(caught.value)


def assert_helps(message: str, name: str, folder: Path) -> None:
    """The message names the data set, the folder, what belongs there and what to do."""
    assert f"data set {name} " in message
    assert str(folder) in message
    assert "could not be downloaded" in message
    assert REMEDY[name] in message
    assert "--data-dir" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_missing_files_without_a_network_are_a_user_error(name, part, tmp_path, requests):
    folder = tmp_path / "nowhere"
    message = message_for(name, folder, part)
    assert_helps(message, name, folder)
    assert "there is no network here" in message
    assert requests  # the download was tried


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_download_that_fails_leaves_no_new_folder_behind(name, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message_for(name, Path("new/newer/newest"), part)
    with pytest.raises(UserError):
        LOADERS[part](name, None, None)  # in data/
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_download_that_fails_leaves_what_was_there(name, tmp_path):
    empty, used = tmp_path / "empty", tmp_path / "used"
    empty.mkdir()
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    for folder in (empty, used, used / "new"):
        message_for(name, folder)
    assert empty.is_dir()
    assert [path.name for path in used.iterdir()] == ["notes.txt"]


def test_a_download_that_is_cut_off_leaves_the_files_it_got(tmp_path, monkeypatch):
    def download(_url: str, root: Path, filename: str, _md5: str) -> None:
        Path(root).mkdir(parents=True)
        (Path(root) / filename).write_bytes(b"half of it")
        raise URLError("the network is gone")

    monkeypatch.setattr(torchvision.datasets.svhn, "download_url", download)
    message_for("svhn", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["train_32x32.mat"]


def test_a_file_that_is_missing_among_others_is_a_user_error(written):
    written.file("train").unlink()
    assert_helps(message_for(written.name, written.root), written.name, written.root)


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty"])
def test_a_damaged_file_is_never_used(written, damage):
    path = written.file("train")
    data = bytearray(path.read_bytes())
    if damage == "one bit":
        data[len(data) // 2] ^= 1
    else:
        data = data[: len(data) // 2] if damage == "cut short" else bytearray()
    path.write_bytes(bytes(data))
    assert_helps(message_for(written.name, written.root), written.name, written.root)


def test_a_folder_in_the_place_of_a_file_is_a_user_error(written):
    written.file("train").unlink()
    written.file("train").mkdir()
    assert_helps(message_for(written.name, written.root), written.name, written.root)


def test_a_damaged_test_file_is_a_user_error(written):
    written.file("test").write_bytes(b"half of it")
    message = message_for(written.name, written.root, "test")
    assert_helps(message, written.name, written.root)


def test_a_damaged_list_of_names_is_a_user_error(tmp_path, monkeypatch):
    written = Written("cifar10", tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(b"no names")
    assert_helps(message_for("cifar10", tmp_path), "cifar10", tmp_path)
    assert written.num_classes == 10


@pytest.mark.parametrize("name", NAMES)
def test_a_file_given_as_the_folder_is_a_user_error(name, tmp_path):
    path = tmp_path / "file"
    path.write_text("no folder")
    assert_helps(message_for(name, path), name, path)


def test_a_file_that_may_not_be_read_is_a_user_error(written, monkeypatch):
    def refuse(*_args: Any, **_kwargs: Any) -> str:
        raise PermissionError(13, "Permission denied", str(written.file("train")))

    monkeypatch.setattr(torchvision.datasets.utils, "calculate_md5", refuse)
    message = message_for(written.name, written.root)
    assert f"data set {written.name} " in message
    assert str(written.root) in message


def test_a_missing_file_is_downloaded_where_there_is_a_network(tmp_path, monkeypatch):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    written = Written("svhn", elsewhere, monkeypatch)

    def download(_url: str, root: Path, filename: str, _md5: str) -> None:
        Path(root).mkdir(parents=True, exist_ok=True)
        (Path(root) / filename).write_bytes((elsewhere / filename).read_bytes())

    monkeypatch.setattr(torchvision.datasets.svhn, "download_url", download)
    loaded = load_training_images("svhn", str(here), None)
    assert np.array_equal(loaded.images, written.images["train"])
    assert [path.name for path in here.iterdir()] == ["train_32x32.mat"]


def test_a_missing_archive_is_downloaded_where_there_is_a_network(tmp_path, monkeypatch):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    written = Written("cifar10", elsewhere, monkeypatch)

    def download(_url: str, root: Path, **_kwargs: Any) -> None:
        (elsewhere / CIFAR10.base_folder).rename(Path(root) / CIFAR10.base_folder)

    here.mkdir()
    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", download)
    loaded = load_training_images("cifar10", str(here), None)
    assert np.array_equal(loaded.images, written.images["train"])


def test_without_a_folder_the_files_are_sought_in_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = Written("svhn", tmp_path / "data", monkeypatch)
    loaded = load_training_images("svhn", None, None)
    assert np.array_equal(loaded.images, written.images["train"])


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written = Written("svhn", tmp_path / "images", monkeypatch)
    loaded = load_training_images("svhn", "~/images", None)
    assert np.array_equal(loaded.images, written.images["train"])


@pytest.mark.parametrize("name", [*NAMES, "digits"])
def test_images_of_one_size_take_no_image_size(name, tmp_path):
    with pytest.raises(UserError, match=rf"image-size is 64 with {name}; allowed: none"):
        load_training_images(name, str(tmp_path), 64)
