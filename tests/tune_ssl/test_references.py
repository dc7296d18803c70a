"""The reference lines: what they are fitted on, and what they answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.tune_ssl.fakes import tiny_images
from tune_ssl import references
from tune_ssl.references import REFERENCES, label_spreading, nearest_neighbour, predicted


def two_blobs():
    """Return 40 images of one pixel in two heaps, dark and bright, with one label each; labels of
    two classes, and validation images that would turn the answers round."""
    random = np.random.default_rng(0)
    heaps = np.concatenate([random.integers(0, 40, 20), random.integers(200, 240, 20)])
    wrong = np.full(8, 20)
    images = np.concatenate([heaps, wrong]).astype(np.uint8).reshape(-1, 1, 1, 1)
    return dataclasses.replace(
        tiny_images(),
        images=images,
        labeled=np.array([0, 20]),
        labels=np.array([0, 1]),
        unlabeled=np.arange(40),
        validation=np.arange(40, 48),
        validation_labels=np.ones(8, dtype=np.int64),
    )


@pytest.mark.parametrize("fit", REFERENCES.values(), ids=REFERENCES)
def test_each_tells_heaps_apart_by_one_label_each(fit):
    drawn = two_blobs()
    answers = predicted(fit(drawn), drawn.images[:40])
    assert answers.tolist() == [0] * 20 + [1] * 20


def test_the_nearest_neighbour_has_seen_labeled_images_alone():
    assert nearest_neighbour(two_blobs()).n_samples_fit_ == 2


def test_labels_are_spread_over_the_unlabeled_pool_and_no_validation_image():
    model = label_spreading(two_blobs())
    assert len(model.X_) == 40
    assert np.unique(model.transduction_).tolist() == [0, 1]


def test_a_pool_too_large_for_a_graph_has_no_label_spreading(monkeypatch):
    assert references.references_for(two_blobs()) == ("1-NN", "LabelSpreading")
    monkeypatch.setattr(references, "LARGEST_POOL", 39)
    assert references.references_for(two_blobs()) == ("1-NN",)
