"""The one place where tune_ssl opens a test set: weights, or fitted reference lines, go in,
correctness comes out.

It is done in processes of their own that train nothing and choose nothing; the process that
named the winner gets yes and no per image, and never an image.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ssl_core.errors import UserError
from tune_ssl.storage import DamagedFileError, RunStorage
from tune_ssl.trial import pack_correct

if TYPE_CHECKING:
    from ssl_core.data.images import LabeledImages


@dataclass(frozen=True, kw_only=True)
class SealedImages:
    """Where the test images are, and on what they are classified; no image.

    ``data_dir``, ``image_size`` and ``labeled_classes`` as in ``DataConfig``: networks are judged on
    the test images of these classes.
    """

    dataset: str
    data_dir: str | None
    image_size: int | None
    device: str
    threads: int
    labeled_classes: str | None = None


class Opened(NamedTuple):
    """A test set's fingerprint, the SHA-256 of images and labels, and the labels of those that judge.

    The fingerprint is of all test images, whichever classes judge and whatever was trained on: it is
    the same set that is opened. ``skipped`` names files that judge nothing, with the reason.
    """

    sha256: str
    labels: list[int]
    class_names: list[str]
    skipped: tuple[str, ...] = ()


class StoredWeights(NamedTuple):
    """A file of weights below a storage's root."""

    root: str
    path: str
    sha256: str


class SealedTest:
    """Test images behind other processes; use ``sealed_test``."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def open(self) -> Opened:
        """Read the test images and return what names them.

        Raises:
            UserError: they are not there, or cannot be read.
        """
        return self._pool.submit(_opened).result()

    def measure(self, weights: Sequence[StoredWeights]) -> Iterator[str]:
        """Yield for each file of weights which images its network classified, packed.

        Raises:
            UserError: a file is gone or not as it was stored, or is of other classes.
        """
        return self._pool.map(_measured, weights)

    def refer(self, models: Sequence[Any]) -> Iterator[str]:
        """Yield for each fitted model of ``tune_ssl.references`` which images it classified, packed."""
        return self._pool.map(_referred, models)


@contextmanager
def sealed_test(images: SealedImages, processes: int) -> Iterator[SealedTest]:
    """Have processes ready that can open the test images; nothing is read before ``open``."""
    pool = ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),  # a fork would inherit what this process has chosen from
        initializer=_remember,
        initargs=(images,),
    )
    try:
        yield SealedTest(pool)
    finally:
        pool.shutdown(cancel_futures=True)


def classified(data: bytes, test: LabeledImages, device: str, name: str) -> Any:
    """Return the ``Evaluation`` of a file of weights on test images.

    The network, its BatchNorm statistics and its normalisation are those it was measured with on
    the validation images; so is the way its answers are counted.

    Raises:
        UserError: the weights are of other classes.
    """
    import torch

    from ssl_core.data.store import ImageStore
    from ssl_core.training.classifier import Classifier
    from ssl_core.training.evaluate import evaluate

    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        classifier = Classifier.from_file(file.name, device)
    if classifier.card.class_names != test.class_names:
        raise UserError(
            f"weights {name} tell {', '.join(classifier.card.class_names)} apart and the test images are of "
            f"{', '.join(test.class_names)}; allowed: the classes of the training images; restore them."
        )
    return evaluate(
        classifier.network,
        ImageStore(test.images, device),
        np.arange(len(test.images)),
        test.labels,
        classifier.card.normalisation,
        torch.device(device),
    )


# Below, what runs in the other processes; each reads the images once.

_place: SealedImages | None = None
_test: LabeledImages | None = None


def _remember(place: SealedImages) -> None:
    global _place
    _place = place


def _images() -> LabeledImages:
    global _test
    assert _place is not None
    if _test is None:
        from ssl_core.data.sources import load_test_images
        from ssl_core.training.device import set_up_process

        set_up_process(_place.threads)
        _test = load_test_images(_place.dataset, _place.data_dir, _place.image_size)
    return _test


def _judging() -> LabeledImages:
    from ssl_core.data.classes import of_classes
    from ssl_core.data.images import without_seen

    assert _place is not None
    return of_classes(without_seen(_images()), _place.labeled_classes)


def _opened() -> Opened:
    whole, test = _images(), _judging()
    digest = hashlib.sha256(np.ascontiguousarray(whole.images).tobytes())
    digest.update(np.ascontiguousarray(whole.labels, dtype="<i8").tobytes())
    sha256 = whole.files_sha256 or digest.hexdigest()  # files are the same test set at every size
    return Opened(sha256, test.labels.tolist(), list(test.class_names), test.skipped)


def _measured(weights: StoredWeights) -> str:
    assert _place is not None
    storage = RunStorage(weights.root)
    name = f"{storage.shown}/{weights.path}"
    try:
        data = storage.read_stored(weights.path, weights.sha256)
    except DamagedFileError as error:
        raise UserError(
            f"weights {name} are not those the retraining stored; allowed: the file as it was; restore it, or "
            "have everything retrained."
        ) from error
    except OSError as error:
        raise UserError(
            f"weights {name} cannot be read ({error}); allowed: the file a retraining stored; restore it, or "
            "have everything retrained."
        ) from error
    evaluation = classified(data, _judging(), _device(), Path(name).name)
    return pack_correct(evaluation.correct)


def _referred(model: Any) -> str:
    from tune_ssl.references import predicted

    test = _judging()
    return pack_correct(predicted(model, test.images) == test.labels)


def _device() -> str:
    """Return the retrainings' device, or the CPU where this host, a cluster's head maybe, lacks it."""
    import torch

    assert _place is not None
    wanted = _place.device
    missing = (wanted == "cuda" and not torch.cuda.is_available()) or (
        wanted == "mps" and not torch.backends.mps.is_available()
    )
    return "cpu" if missing else wanted
