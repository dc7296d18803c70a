"""The door to the test set: weights are judged as they were measured, and only as they were stored."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from ssl_core.data.classes import of_classes
from ssl_core.data.config import DataConfig
from ssl_core.data.images import LabeledImages
from ssl_core.data.prepare import prepare
from ssl_core.errors import UserError
from ssl_core.training.config import TrainingConfig
from tune_ssl import sealed
from tune_ssl.references import nearest_neighbour
from tune_ssl.sealed import SealedImages, StoredWeights, classified
from tune_ssl.trial import TrainingFactory, unpack_correct

RECORD = {
    "algorithm": "supervised",
    "max_steps": 30,
    "batch_size": 10,
    "num_labels": 20,
    "num_validation": 200,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a little; return the stored weights, what was measured, and the validation images."""
    shared = prepare(DataConfig(num_labels=20, num_validation=200))
    work = TrainingFactory(shared)(TrainingConfig.from_record(RECORD).to_record())
    work.run(30)
    measured = work.measure()
    root = tmp_path_factory.mktemp("storage")
    data = work.weights()
    (root / "weights").write_bytes(data)
    stored = StoredWeights(str(root), "weights", hashlib.sha256(data).hexdigest())
    validation = LabeledImages(
        images=shared.images[shared.validation],
        labels=shared.validation_labels,
        class_names=shared.class_names,
    )
    return stored, measured, validation


@pytest.fixture
def inside(trained, monkeypatch):
    """Be in one of the processes that open the test set, the validation images in its place."""
    place = SealedImages(dataset="digits", data_dir=None, image_size=None, device="cpu", threads=1)
    monkeypatch.setattr(sealed, "_place", place)
    monkeypatch.setattr(sealed, "_test", trained[2])


def test_weights_classify_images_as_the_training_that_stored_them_did(trained):
    stored, measured, validation = trained
    with open(f"{stored.root}/{stored.path}", "rb") as file:
        evaluation = classified(file.read(), validation, "cpu", "weights")
    expected = unpack_correct(measured.details["correct"])
    assert 0 < expected.sum() < len(expected)
    assert np.array_equal(evaluation.correct, expected)


@pytest.mark.usefixtures("inside")
def test_another_process_gives_back_yes_and_no_alone(trained):
    stored, measured, _ = trained
    assert sealed._measured(stored) == measured.details["correct"]


@pytest.mark.usefixtures("inside")
def test_weights_that_are_gone_or_others_are_refused(trained, tmp_path):
    stored, _, _ = trained
    with pytest.raises(UserError, match="cannot be read"):
        sealed._measured(stored._replace(path="gone"))
    with pytest.raises(UserError, match="are not those the retraining stored"):
        sealed._measured(stored._replace(sha256="0" * 64))


def test_so_are_weights_of_other_classes(trained, monkeypatch):
    stored, _, validation = trained
    other = LabeledImages(
        images=validation.images,
        labels=validation.labels,
        class_names=validation.class_names[::-1],
    )
    with (
        open(f"{stored.root}/{stored.path}", "rb") as file,
        pytest.raises(UserError, match="apart"),
    ):
        classified(file.read(), other, "cpu", "weights")


@pytest.mark.usefixtures("inside")
def test_what_was_trained_on_judges_nothing_and_is_counted_with_the_rest(trained, monkeypatch):
    _, _, validation = trained
    whole = sealed._opened()
    seen = dataclasses.replace(validation, skipped=("broken",), seen={1: "the same", 3: "as well"})
    monkeypatch.setattr(sealed, "_test", seen)
    opened = sealed._opened()
    assert opened.labels == np.delete(validation.labels, [1, 3]).tolist()
    assert opened.skipped == ("broken", "the same", "as well")
    assert opened.sha256 == whole.sha256, "mending the training images makes no other test set"


@pytest.fixture
def inside_with_two_classes(inside, monkeypatch):
    """Be there to judge digits 3 and 7 alone."""
    monkeypatch.setattr(sealed, "_place", dataclasses.replace(sealed._place, labeled_classes="7,3"))


@pytest.mark.usefixtures("inside_with_two_classes")
def test_of_some_classes_their_images_judge_and_the_whole_set_is_counted(trained, monkeypatch):
    _, _, validation = trained
    opened = sealed._opened()
    kept = validation.labels[np.isin(validation.labels, [3, 7])]
    assert opened.class_names == ["3", "7"]
    assert opened.labels == (kept == 7).astype(int).tolist()
    monkeypatch.setattr(sealed, "_place", dataclasses.replace(sealed._place, labeled_classes=None))
    assert sealed._opened().sha256 == opened.sha256, "one test set, one ledger"


@pytest.mark.usefixtures("inside_with_two_classes")
def test_networks_and_reference_lines_are_judged_on_those(trained, tmp_path):
    _, _, validation = trained
    shared = prepare(DataConfig(num_labels=20, num_validation=200, labeled_classes="3,7"))
    work = TrainingFactory(shared)(
        TrainingConfig.from_record(RECORD | {"labeled_classes": "3,7"}).to_record()
    )
    work.run(30)
    assert work.measure().value > 0.9
    data = work.weights()  # with the BatchNorm statistics it was measured with
    (tmp_path / "weights").write_bytes(data)
    stored = StoredWeights(str(tmp_path), "weights", hashlib.sha256(data).hexdigest())
    judging = of_classes(validation, "3,7")
    for found in (
        unpack_correct(sealed._measured(stored)),
        unpack_correct(sealed._referred(nearest_neighbour(shared))),
    ):
        assert len(found) == len(judging.labels)
        assert found.mean() > 0.9, "numbered as they were trained"


@pytest.mark.usefixtures("inside_with_two_classes")
def test_a_network_of_all_classes_is_no_network_of_two(trained):
    with pytest.raises(UserError, match="apart and the test images are of 3, 7"):
        sealed._measured(trained[0])


@pytest.mark.usefixtures("inside")
def test_a_fingerprint_is_of_images_and_labels(trained, monkeypatch):
    _, _, validation = trained
    before = sealed._opened()
    assert before.labels == validation.labels.tolist()
    labels = validation.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    images = validation.images.copy()
    images[0, 0, 0, 0] ^= 1
    for changed in (
        LabeledImages(images=validation.images, labels=labels, class_names=validation.class_names),
        LabeledImages(images=images, labels=validation.labels, class_names=validation.class_names),
    ):
        monkeypatch.setattr(sealed, "_test", changed)
        assert sealed._opened().sha256 != before.sha256
        of_files = dataclasses.replace(changed, files_sha256="f" * 64)
        monkeypatch.setattr(sealed, "_test", of_files)
        assert sealed._opened().sha256 == "f" * 64, "whatever size its files were brought to"
