"""SVHN, CIFAR-10 and CIFAR-100, read by torchvision, which checks their files' MD5 sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from ssl_core.data.images import LabeledImages
from ssl_core.errors import UserError

FILES_TO_PLACE = {
    "svhn": "train_32x32.mat (and test_32x32.mat to confirm)",
    "cifar10": "the folder cifar-10-batches-py",
    "cifar100": "the folder cifar-100-python",
}


def load_svhn(data_dir: Path, *, train: bool) -> LabeledImages:
    """Return SVHN's 73,257 training or 26,032 test images, (N, 3, 32, 32)."""
    from torchvision.datasets import SVHN

    data = _open(
        "svhn", data_dir, lambda get: SVHN(data_dir, "train" if train else "test", download=get)
    )
    return LabeledImages(
        images=np.ascontiguousarray(data.data, dtype=np.uint8),
        labels=np.asarray(data.labels, dtype=np.int64),
        class_names=tuple(str(digit) for digit in range(10)),
    )


def load_cifar10(data_dir: Path, *, train: bool) -> LabeledImages:
    """Return CIFAR-10's 50,000 training or 10,000 test images, (N, 3, 32, 32)."""
    from torchvision.datasets import CIFAR10

    return _cifar(_open("cifar10", data_dir, lambda get: CIFAR10(data_dir, train, download=get)))


def load_cifar100(data_dir: Path, *, train: bool) -> LabeledImages:
    """Return CIFAR-100's 50,000 training or 10,000 test images, (N, 3, 32, 32)."""
    from torchvision.datasets import CIFAR100

    return _cifar(_open("cifar100", data_dir, lambda get: CIFAR100(data_dir, train, download=get)))


def _cifar(data: Any) -> LabeledImages:
    return LabeledImages(
        images=np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)),
        labels=np.asarray(data.targets, dtype=np.int64),
        class_names=tuple(data.classes),
    )


def _open(name: str, data_dir: Path, read: Callable[[bool], Any]) -> Any:
    """Read the files in ``data_dir``; where they are missing or damaged, download them first."""
    try:
        return read(False)
    except RuntimeError:
        pass  # torchvision's "not found or corrupted"
    except OSError as error:
        raise UserError(
            f"data set {name} in {data_dir} cannot be read ({error}); allowed: files you may read; change "
            "their permissions, or give another --data-dir."
        ) from error
    try:
        with _no_new_empty_folders(data_dir):
            return read(True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"data set {name} is not whole in {data_dir} and could not be downloaded ({error}); "
            f"allowed: a folder that holds {FILES_TO_PLACE[name]}; fetch it where there is a network "
            "and give its folder as --data-dir."
        ) from error


@contextmanager
def _no_new_empty_folders(folder: Path) -> Iterator[None]:
    """Remove the folder and its parents at the end, where they are new and empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in new:
            with suppress(OSError):  # torchvision did not make it, or it has files now
                path.rmdir()
