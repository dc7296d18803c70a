"""The scans of digits: real images, and a test part that nothing else ever contains."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ssl_core.data import digits
from ssl_core.data.config import DataConfig
from ssl_core.data.images import LabeledImages
from ssl_core.data.prepare import prepare
from ssl_core.data.sources import load_test_images, load_training_images
from ssl_core.errors import UserError

TEST_INDICES_SHA256 = "8c1b24b66b0385d0ae327b6ef05c7f8a23162c57ee33a6f1405e7a07fc5b5f85"


@pytest.fixture(scope="module")
def training() -> LabeledImages:
    return digits.load_training_images()


@pytest.fixture(scope="module")
def test_part() -> LabeledImages:
    return digits.load_test_images()


def pixels_of(images: np.ndarray) -> set[bytes]:
    """Return the pixels of every image; no two of the 1,797 scans are equal."""
    return {image.tobytes() for image in images}


def test_there_are_1197_training_and_600_test_scans_of_8x8_uint8(training, test_part):
    assert training.images.shape == (1197, 1, 8, 8)
    assert test_part.images.shape == (600, 1, 8, 8)
    for part in (training, test_part):
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64
        assert part.labels.shape == part.images.shape[:1]
        assert part.class_names == tuple("0123456789")
        assert part.num_classes == 10
        assert part.skipped == ()


def test_the_two_parts_are_disjoint_and_together_the_whole_file(training, test_part):
    in_training, in_test = pixels_of(training.images), pixels_of(test_part.images)
    assert len(in_training) == 1197
    assert len(in_test) == 600
    assert not in_training & in_test


def test_every_image_is_the_real_scan_with_its_label(training, test_part):
    bunch = load_digits()
    label_of = {}
    for scan, label in zip(bunch.images, bunch.target, strict=True):
        grey = np.array([[round(float(value) * 255 / 16) for value in row] for row in scan])
        label_of[grey.astype(np.uint8).tobytes()] = int(label)
    for part in (training, test_part):
        for image, label in zip(part.images, part.labels, strict=True):
            assert label_of[image.tobytes()] == label


def test_all_17_levels_of_grey_stay_apart_and_fill_the_range(training):
    levels = np.unique(training.images)
    assert len(levels) == 17
    assert levels[0] == 0
    assert levels[-1] == 255


def test_the_training_images_keep_the_order_of_the_file(training):
    kept = np.setdiff1d(np.arange(1797), digits.test_indices())
    assert np.array_equal(training.labels, load_digits().target[kept])


def test_the_test_images_are_stratified(test_part):
    per_class = np.bincount(load_digits().target)
    share = per_class * (600 / 1797)
    assert np.abs(np.bincount(test_part.labels, minlength=10) - share).max() < 1


def test_the_test_images_are_the_same_for_ever():
    indices = digits.test_indices()
    assert indices.dtype == np.int64
    assert len(indices) == 600
    assert np.all(np.diff(indices) > 0)
    assert indices[0] >= 0
    assert indices[-1] < 1797
    assert hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest() == TEST_INDICES_SHA256


def test_the_two_doors_lead_to_the_two_parts(training, test_part):
    assert np.array_equal(load_training_images("digits", None, None).images, training.images)
    assert np.array_equal(load_test_images("digits", None, None).images, test_part.images)


@pytest.mark.parametrize("load", [load_training_images, load_test_images])
def test_a_data_folder_is_refused_and_not_ignored(load, tmp_path):
    with pytest.raises(
        UserError, match=r"data-dir is .* with digits; allowed: none.*; leave it out"
    ):
        load("digits", str(tmp_path), None)
    with pytest.raises(UserError, match="data-dir is 'photos' with digits"):
        prepare(DataConfig(data_dir="photos", num_labels=20, num_validation=400))


@pytest.mark.parametrize("split_seed", [0, 1, 12345])
def test_a_search_gets_no_test_image(split_seed, test_part):
    shared = prepare(DataConfig(num_labels=20, num_validation=400, split_seed=split_seed))
    assert len(shared.images) == 1197
    assert not pixels_of(shared.images) & pixels_of(test_part.images)
    for indices in (shared.labeled, shared.unlabeled, shared.validation):
        assert indices.min() >= 0
        assert indices.max() < 1197


def test_a_search_gets_the_same_bytes_whatever_the_test_part_holds(monkeypatch):
    config = DataConfig(num_labels=20, num_validation=400)
    before = pickle.dumps(prepare(config))
    bunch = load_digits()
    hidden = digits.test_indices()
    random = np.random.default_rng(0)
    noise = {
        "images": bunch.images.copy(),
        "target": bunch.target.copy(),
    }
    noise["images"][hidden] = random.integers(0, 17, (600, 8, 8))
    noise["target"][hidden] = random.integers(0, 10, 600)
    replaced = type(bunch)(**noise)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: replaced)
    assert not np.array_equal(digits.load_test_images().labels, bunch.target[hidden])
    assert pickle.dumps(prepare(config)) == before


def test_preparing_does_not_call_the_loader_of_test_images(monkeypatch):
    def fail() -> LabeledImages:
        raise AssertionError("the test images were opened")

    monkeypatch.setattr(digits, "load_test_images", fail)
    assert prepare(DataConfig(num_labels=20, num_validation=400)).num_classes == 10
    with pytest.raises(AssertionError, match="were opened"):  # the trap is where the door leads
        load_test_images("digits", None, None)


def test_the_default_division_is_20_400_and_797(training):
    shared = prepare(DataConfig(num_labels=20, num_validation=400))
    assert (len(shared.labeled), len(shared.validation), len(shared.unlabeled)) == (20, 400, 797)
    assert np.array_equal(shared.images, training.images)
    assert np.array_equal(shared.labels, training.labels[shared.labeled])
    assert np.array_equal(shared.validation_labels, training.labels[shared.validation])
    assert dataclasses.asdict(shared.augmentation) == {"max_shift": 1, "flip": False, "noise": 0.0}
