"""Global contrast normalisation and ZCA whitening against scikit-learn's PCA and plain NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from ssl_core.data.augment import augmented_view, normalise, random_flip, random_shift
from ssl_core.data.config import DataConfig
from ssl_core.data.images import LabeledImages
from ssl_core.data.prepare import prepare, split_images
from ssl_core.data.recipe import Augmentation, Normalisation
from ssl_core.data.whitening import contrast_normalised, fit_whitening
from ssl_core.errors import UserError

CHANNELS, SIDE = 3, 8
INPUTS = CHANNELS * SIDE * SIDE


def some_images(count: int = 500, seed: int = 0) -> np.ndarray:
    """Return images whose pixels go together, as those of photographs do."""
    random = np.random.RandomState(seed)
    coarse = random.uniform(0, 255, (count, CHANNELS, SIDE // 4, SIDE // 4))
    fine = random.uniform(-40, 40, (count, CHANNELS, SIDE, SIDE))
    images = coarse.repeat(4, axis=2).repeat(4, axis=3) + fine
    return images.clip(0, 255).astype(np.uint8)


def by_hand(images: np.ndarray) -> np.ndarray:
    """Return images freed of their mean and brought to norm 55, one at a time."""
    rows = []
    for image in images:
        row = image.astype(np.float64).ravel()
        row = row - row.sum() / len(row)
        rows.append(55.0 * row / np.sqrt((row**2).sum()))
    return np.stack(rows)


def test_an_image_has_mean_zero_and_norm_55():
    rows = contrast_normalised(some_images(20))
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((rows**2).sum(axis=1), 55.0**2)
    np.testing.assert_allclose(rows, by_hand(some_images(20)))


def test_an_image_of_one_colour_value_becomes_zero_and_not_nan():
    assert (contrast_normalised(np.full((1, CHANNELS, SIDE, SIDE), 77, np.uint8)) == 0).all()


def test_the_matrix_is_the_one_of_a_pca_with_a_tenth_added_to_every_variance():
    images, rows = some_images(), np.arange(500)
    found = fit_whitening(images, rows)
    pca = PCA(svd_solver="full").fit(by_hand(images))
    scales = 1.0 / np.sqrt(pca.explained_variance_ + 0.1)
    wanted = pca.components_.T @ np.diag(scales) @ pca.components_
    np.testing.assert_allclose(found.matrix, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.mean, pca.mean_, rtol=1e-4, atol=1e-6)
    assert found.matrix.dtype == found.mean.dtype == np.float32


def test_whitened_images_are_those_of_plain_numpy():
    images = some_images()
    found = normalise(torch.from_numpy(images), fit_whitening(images, np.arange(400)))
    rows = by_hand(images)
    mean, covariance = rows[:400].mean(axis=0), np.cov(rows[:400], rowvar=False)
    left, values, _ = np.linalg.svd(covariance + 0.1 * np.eye(INPUTS))
    wanted = (rows - mean) @ left @ np.diag(values**-0.5) @ left.T
    assert found.dtype == torch.float32
    assert found.shape == images.shape
    np.testing.assert_allclose(found.numpy().reshape(500, -1), wanted, rtol=1e-3, atol=2e-4)


def test_an_image_without_contrast_is_whitened_to_finite_numbers():
    whitening = fit_whitening(some_images(), np.arange(500))
    flat = torch.full((2, CHANNELS, SIDE, SIDE), 200, dtype=torch.uint8)
    wanted = -whitening.mean @ whitening.matrix
    found = normalise(flat, whitening)[0].flatten()
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_the_bits_do_not_depend_on_the_number_of_threads():
    images, rows = some_images(), np.arange(500)
    fits = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            fits.append(fit_whitening(images, rows))
    assert (fits[0].matrix == fits[1].matrix).all()
    assert (fits[0].mean == fits[1].mean).all()


def test_more_images_than_a_chunk_give_the_same_as_all_at_once():
    images = some_images(2500)
    found = fit_whitening(images, np.arange(2500))
    covariance = np.cov(by_hand(images), rowvar=False)
    values, vectors = np.linalg.eigh(covariance + 0.1 * np.eye(INPUTS))
    wanted = vectors @ np.diag(values**-0.5) @ vectors.T
    np.testing.assert_allclose(found.matrix, wanted, rtol=1e-4, atol=1e-6)


def test_images_too_large_for_a_matrix_are_refused():
    with pytest.raises(UserError, match=r"3 x 33 x 33 = 3267 inputs; allowed: at most 3072"):
        fit_whitening(np.zeros((4, 3, 33, 33), np.uint8), np.arange(4))


class TestOnlyWhatIsTrainedOnIsFitted:
    config = DataConfig(dataset="folder", num_labels=20, num_validation=200, normalisation="zca")

    def source(self, images: np.ndarray) -> LabeledImages:
        labels = np.arange(len(images), dtype=np.int64) % 2
        return LabeledImages(images=images, labels=labels, class_names=("a", "b"))

    def test_other_validation_images_change_nothing(self):
        images = some_images()
        first = split_images(self.config, self.source(images))
        images = images.copy()
        images[first.validation] = some_images(200, seed=9)
        again = split_images(self.config, self.source(images))
        assert (first.normalisation.matrix == again.normalisation.matrix).all()
        assert (first.normalisation.mean == again.normalisation.mean).all()

    @pytest.mark.parametrize("part", ["labeled", "unlabeled"])
    def test_another_training_image_does(self, part):
        images = some_images()
        first = split_images(self.config, self.source(images))
        images = images.copy()
        images[getattr(first, part)[0]] = 255 - some_images(1, seed=9)[0]
        again = split_images(self.config, self.source(images))
        assert (first.normalisation.matrix != again.normalisation.matrix).any()

    def test_test_images_have_no_part_in_it(self, monkeypatch):
        from ssl_core.data import sources

        def refuse(*_: object) -> None:
            raise AssertionError("test images were asked for")

        for name in ("load_test_images",):
            monkeypatch.setattr(sources, name, refuse)
            monkeypatch.setattr(sources.digits, name, refuse)
        shared = prepare(DataConfig(normalisation="zca"))
        wanted = fit_whitening(shared.images, shared.unlabeled)
        assert (shared.normalisation.matrix == wanted.matrix).all()


class TestViews:
    images = torch.from_numpy(some_images(40))

    def test_images_are_whitened_before_they_are_moved(self):
        whitening = fit_whitening(self.images.numpy(), np.arange(40))
        augmentation = Augmentation(max_shift=2, flip=True, noise=0.0)
        view = augmented_view(
            self.images, augmentation, whitening, torch.Generator().manual_seed(3)
        )
        generator = torch.Generator().manual_seed(3)
        whitened = normalise(self.images, whitening)
        assert torch.equal(view, random_shift(random_flip(whitened, generator), 2, generator))
        moved_first = torch.Generator().manual_seed(3)
        moved = random_shift(random_flip(self.images, moved_first), 2, moved_first)
        assert not torch.allclose(view, normalise(moved, whitening), atol=1e-2)

    def test_noise_is_added_to_the_whitened_image(self):
        whitening = fit_whitening(self.images.numpy(), np.arange(40))
        still = Augmentation(max_shift=0, flip=False, noise=0.15)
        view = augmented_view(self.images, still, whitening, torch.Generator().manual_seed(3))
        noise = view - normalise(self.images, whitening)
        assert noise.std().item() == pytest.approx(0.15, rel=0.05)

    def test_two_whitenings_are_told_apart_on_the_device(self):
        first, second = (fit_whitening(some_images(60, seed), np.arange(60)) for seed in (1, 2))
        one, other = normalise(self.images, first), normalise(self.images, second)
        assert not torch.allclose(one, other)
        assert torch.equal(one, normalise(self.images, first))


def test_symmetric_spans_minus_one_to_one():
    shared = prepare(DataConfig(normalisation="symmetric"))
    assert shared.normalisation == Normalisation(mean=(127.5,), std=(127.5,))
    ends = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    found = normalise(ends, shared.normalisation).flatten().tolist()
    assert found == pytest.approx([-1.0, -0.6, 1.0])


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(UserError, match=r"unknown normalisation 'zac'.*did you mean 'zca'"):
        dataclasses.replace(DataConfig(), normalisation="zac")
