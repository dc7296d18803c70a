"""A smaller unlabeled pool, one of other classes, a long tail: what each draws, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
from PIL import Image

from ssl_core.data.classes import class_indices, of_classes, restricted
from ssl_core.data.config import DataConfig
from ssl_core.data.digits import load_training_images
from ssl_core.data.images import UNKNOWN_LABEL, LabeledImages
from ssl_core.data.pools import fill_pool, long_tail, mismatched
from ssl_core.data.prepare import SplitImages, prepare, split_images
from ssl_core.data.splits import draw_split
from ssl_core.errors import UserError

ANIMALS = "bird,cat,deer,dog,frog,horse"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = load_training_images()
SIX = "2,3,4,5,6,7"


def drawn(**settings) -> SplitImages:
    """Draw from the digits, 20 labels and 400 validation images unless told otherwise."""
    return split_images(DataConfig(**{"num_labels": 20, "num_validation": 400, **settings}), DIGITS)


def counts(indices, classes=10) -> list[int]:
    """Return how many digits of each class are among some images."""
    return np.bincount(DIGITS.labels[indices], minlength=classes).tolist()


def extras(shared: SplitImages) -> np.ndarray:
    return np.setdiff1d(shared.unlabeled, shared.labeled)


def of_others(shared: SplitImages) -> int:
    """Return how many of a pool's images are of none of the six classes."""
    return sum(counts(shared.unlabeled)[place] for place in (0, 1, 8, 9))


class TestAmount:
    @pytest.mark.parametrize("seed", range(5))
    def test_the_smaller_pool_is_in_the_larger_and_holds_the_labeled(self, seed):
        pools = [
            set(drawn(num_unlabeled=size, split_seed=seed).unlabeled.tolist())
            for size in (20, 21, 100, 200, 797)
        ]
        labeled = set(drawn(split_seed=seed).labeled.tolist())
        assert [len(pool) for pool in pools] == [20, 21, 100, 200, 797]
        assert pools[0] == labeled
        for small, large in itertools.pairwise(pools):
            assert small < large
        assert pools[-1] == set(drawn(split_seed=seed).unlabeled.tolist())

    def test_labels_and_validation_images_stay_as_they_were_drawn(self):
        before, after = drawn(split_seed=3), drawn(split_seed=3, num_unlabeled=100)
        assert np.array_equal(before.labeled, after.labeled)
        assert np.array_equal(before.validation, after.validation)
        assert not set(after.unlabeled.tolist()) & set(after.validation.tolist())
        assert before.fingerprint != after.fingerprint

    def test_another_seed_draws_another_pool(self):
        one, other = (extras(drawn(num_unlabeled=100, split_seed=seed)) for seed in (0, 1))
        assert len(np.intersect1d(one, other)) < 40

    @pytest.mark.parametrize(
        ("size", "words"), [(19, "fewer than the 20 labels"), (798, "777 images can join the 20")]
    )
    def test_fewer_than_the_labels_or_more_than_there_is_is_refused(self, size, words):
        with pytest.raises(UserError, match=words) as caught:
            drawn(num_unlabeled=size)
        assert "797" in str(caught.value)
        assert "; allowed: " in str(caught.value)

    def test_the_normalisation_is_that_of_the_pool(self):
        shared = drawn(num_unlabeled=50)
        pixels = shared.images[shared.unlabeled].astype(np.float64)
        assert shared.normalisation.mean == pytest.approx([pixels.mean()])


class TestClassNames:
    @pytest.mark.parametrize(
        ("given", "places"),
        [
            (ANIMALS, (2, 3, 4, 5, 6, 7)),
            ("2,3,4,5,6,7", (2, 3, 4, 5, 6, 7)),
            (" horse , 2 ,bird,", (2, 7)),
        ],
    )
    def test_names_and_places_mean_classes_in_the_data_set_s_order(self, given, places):
        assert class_indices(given, CIFAR10) == places

    def test_a_name_goes_before_a_place(self):
        assert class_indices("1,2", ("2", "1", "x")) == (0, 1)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("brid,cat", "did you mean 'bird'"),
            ("10,cat", "unknown labeled class '10'"),
            ("-1,cat", "unknown labeled class '-1'"),
            ("cat", "1 of the data set's 10; allowed: two"),
            ("cat,3", "1 of the data set's 10; allowed: two"),
            (" , ", "0 of the data set's 10"),
        ],
    )
    def test_what_is_none_or_too_few_is_refused(self, given, words):
        with pytest.raises(UserError, match=words):
            class_indices(given, CIFAR10)

    def test_others_are_renumbered_away(self):
        images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
        labels = np.array([3, 0, UNKNOWN_LABEL, 1, 3, 2])
        source = LabeledImages(images=images, labels=labels, class_names=("a", "b", "c", "d"))
        some = restricted(source, "d,b")
        assert some.class_names == ("b", "d")
        assert some.labels.tolist() == [1, -1, -1, 0, 1, -1]
        judging = of_classes(source, "d,b")
        assert judging.labels.tolist() == [1, 0, 1]
        assert judging.images.ravel().tolist() == [0, 3, 4]
        assert of_classes(source, None) is source


class TestMismatch:
    def test_labels_and_validation_are_of_the_labeled_classes_numbered_from_0(self):
        shared = drawn(labeled_classes=SIX, class_mismatch=50.0)
        assert (shared.num_classes, shared.class_names) == (6, ("2", "3", "4", "5", "6", "7"))
        for indices, labels in (
            (shared.labeled, shared.labels),
            (shared.validation, shared.validation_labels),
        ):
            assert np.array_equal(DIGITS.labels[indices], labels + 2)

    @pytest.mark.parametrize("percent", [0.0, 25.0, 50.0, 75.0, 100.0])
    def test_so_many_of_the_extra_images_are_of_other_classes_at_one_size(self, percent):
        shared = drawn(labeled_classes=SIX, class_mismatch=percent, num_unlabeled=220)
        assert len(shared.unlabeled) == 220
        assert of_others(shared) == 2 * percent
        assert set(shared.labeled.tolist()) <= set(shared.unlabeled.tolist())
        assert not set(shared.unlabeled.tolist()) & set(shared.validation.tolist())

    @pytest.mark.parametrize(
        ("classes", "scarcer"), [(SIX, "inside"), ("0,1,2,3,4,5,6,7", "outside")]
    )
    def test_where_no_size_is_given_it_is_the_same_for_every_mismatch(self, classes, scarcer):
        sizes = {
            len(drawn(labeled_classes=classes, class_mismatch=percent).unlabeled)
            for percent in (0.0, 30.0, 100.0)
        }
        labeled = np.isin(DIGITS.labels, [int(name) for name in classes.split(",")]).sum()
        there = {"inside": labeled - 420, "outside": 1197 - labeled}
        assert scarcer == min(there, key=there.get)
        assert sizes == {20 + there[scarcer]}

    def test_without_a_mismatch_all_that_validation_leaves_is_the_pool(self):
        shared = drawn(labeled_classes=SIX)
        assert len(shared.unlabeled) == 1197 - 400
        assert of_others(shared) > 400

    def test_pools_are_nested_for_a_mismatch(self):
        pools = [
            set(drawn(labeled_classes=SIX, class_mismatch=35.0, num_unlabeled=n).unlabeled.tolist())
            for n in range(20, 200)
        ]
        for small, large in itertools.pairwise(pools):
            assert small < large

    @pytest.mark.parametrize(
        ("total", "percent", "expected"), [(10, 50, 5), (3, 50, 2), (0, 70, 0), (7, 100, 7)]
    )
    def test_a_share_is_rounded_to_the_nearest(self, total, percent, expected):
        assert mismatched(total, percent) == expected

    def test_more_than_there_is_is_refused_with_what_every_mismatch_allows(self):
        with pytest.raises(UserError, match=r"476 of other classes.*allowed: at most 321"):
            drawn(labeled_classes=SIX, class_mismatch=0.0, num_unlabeled=700)

    def test_which_other_class_an_image_is_of_changes_nothing_that_is_sent(self):
        """No label of the unlabeled pool reaches a worker: it does not depend on them."""
        labels = DIGITS.labels.copy()
        others = np.isin(labels, [0, 1, 8, 9])
        labels[others] = np.random.default_rng(0).choice([0, 1, 8, 9], others.sum())
        config = DataConfig(
            num_labels=20, num_validation=400, labeled_classes=SIX, class_mismatch=50.0
        )
        one, other = (
            pickle.dumps(split_images(config, source))
            for source in (DIGITS, dataclasses.replace(DIGITS, labels=labels))
        )
        assert one == other

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"class_mismatch": 50.0}, "class-mismatch is 50 and labeled-classes was not given"),
            ({"labeled_classes": SIX, "class_mismatch": 101.0}, "class_mismatch is 101"),
            ({"labeled_classes": SIX, "class_mismatch": -1.0}, "class_mismatch is -1"),
            (
                {"labeled_classes": SIX, "imbalance": 10.0},
                "imbalance is 10 with labeled-classes alone",
            ),
            ({"labeled_classes": ""}, "labeled_classes is ''"),
            ({"labeled_classes": 5}, "labeled_classes is 5"),
            ({"imbalance": 0.5}, "imbalance is 0.5"),
            ({"num_unlabeled": 0}, "num_unlabeled is 0"),
        ],
    )
    def test_settings_that_mean_nothing_are_refused(self, settings, words):
        with pytest.raises(UserError, match=words):
            DataConfig(**settings)

    def test_a_mismatch_of_all_classes_is_refused(self):
        with pytest.raises(UserError, match="all 10 classes are labeled ones"):
            drawn(labeled_classes="0,1,2,3,4,5,6,7,8,9", class_mismatch=0.0)


class TestImbalance:
    def test_the_tail_is_exponential_in_the_order_of_the_classes(self):
        """CIFAR-10-LT: ratio 100 over 10 classes of 5,000."""
        by_class = [np.arange(5000) + 5000 * place for place in range(10)]
        tail = long_tail(by_class, 100.0)
        sizes = np.bincount(tail // 5000, minlength=10)
        assert sizes == pytest.approx([5000 * 100 ** (-place / 9) for place in range(10)], abs=1)
        assert len(np.unique(tail)) == len(tail)

    @pytest.mark.parametrize("total", [100, 1000, 4000])
    def test_every_beginning_has_its_shares_to_the_nearest_image(self, total):
        tail = long_tail([np.arange(5000) + 5000 * place for place in range(10)], 20.0)
        shares = 20.0 ** (-np.arange(10) / 9)
        sizes = np.bincount(tail[:total] // 5000, minlength=10)
        assert sizes == pytest.approx(total * shares / shares.sum(), abs=1)

    def test_it_begins_with_one_image_of_each_class(self):
        tail = long_tail([np.arange(50) + 50 * place for place in range(4)], 1000.0)
        assert (tail[:4] // 50).tolist() == [0, 1, 2, 3]

    def test_it_ends_where_a_class_would_need_more_than_it_has(self):
        tail = long_tail([np.arange(1000), np.arange(1000, 1005)], 10.0)
        assert np.bincount(tail // 1000).tolist() == [55, 5]

    @pytest.mark.parametrize("seed", range(3))
    def test_labels_and_pools_are_nested_and_validation_is_as_it_was(self, seed):
        draws = [drawn(imbalance=10.0, num_labels=n, split_seed=seed) for n in range(10, 60)]
        for small, large in itertools.pairwise(draws):
            assert set(small.labeled.tolist()) < set(large.labeled.tolist())
        assert len({draw.unlabeled.tobytes() for draw in draws}) == 1
        assert np.array_equal(draws[0].validation, drawn(split_seed=seed).validation)
        small, large = (
            set(drawn(imbalance=10.0, num_unlabeled=n, split_seed=seed).unlabeled.tolist())
            for n in (100, 200)
        )
        assert small < large

    def test_labeled_and_unlabeled_images_have_the_same_shape(self):
        shared = drawn(imbalance=5.0, num_labels=60, num_unlabeled=240)
        shares = 5.0 ** (-np.arange(10) / 9)
        for indices, total in ((shared.labeled, 60), (shared.unlabeled, 240)):
            assert counts(indices) == pytest.approx(total * shares / shares.sum(), abs=1)
        assert set(shared.labeled.tolist()) <= set(shared.unlabeled.tolist())

    def test_with_a_mismatch_it_is_of_the_labeled_classes(self):
        shared = drawn(
            imbalance=5.0,
            num_labels=30,
            num_unlabeled=110,
            labeled_classes=SIX,
            class_mismatch=25.0,
        )
        assert of_others(shared) == 20
        shares = 5.0 ** (-np.arange(6) / 5)
        assert counts(shared.unlabeled)[2:8] == pytest.approx(90 * shares / shares.sum(), abs=1)

    @pytest.mark.parametrize("ratio", [None, 1, 1.0])
    def test_a_ratio_of_1_is_no_imbalance(self, ratio):
        assert drawn(imbalance=ratio).fingerprint == drawn().fingerprint

    @pytest.mark.parametrize("labels", [None, 400])
    def test_more_labels_than_the_tail_has_are_refused(self, labels):
        with pytest.raises(UserError, match=r"tail ends after 325 images.*at most 325"):
            drawn(imbalance=10.0, num_labels=labels)


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        """Write a folder of 12 images each of three classes; return the function."""

        def write(part: str, unlabeled: int = 0):
            generator = np.random.default_rng(0)
            places = [f"{part}/{name}" for name in ("cat", "dog", "owl") for _ in range(12)]
            for number, place in enumerate([*places, *["unlabeled"] * unlabeled]):
                path = tmp_path / place
                path.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(path / f"{number}.png")
            return {"dataset": "folder", "data_dir": str(tmp_path), "image_size": 8}

        return write

    def test_a_labeled_tree_can_have_every_condition(self, folder):
        data = folder("train")
        shared = prepare(
            DataConfig(
                **data,
                num_labels=4,
                num_validation=8,
                labeled_classes="cat,owl",
                class_mismatch=50.0,
                num_unlabeled=12,
            )
        )
        assert shared.class_names == ("cat", "owl")
        dogs = np.arange(12, 24)
        assert len(np.intersect1d(shared.unlabeled, dogs)) == 4
        assert not np.intersect1d(np.concatenate([shared.labeled, shared.validation]), dogs).size
        tail = prepare(DataConfig(**data, num_labels=7, num_validation=6, imbalance=4.0))
        assert np.bincount(tail.labels).tolist() == [4, 2, 1]

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ({"labeled_classes": "cat,dog"}, "labeled-classes"),
            ({"imbalance": 5.0}, "imbalance"),
        ],
    )
    def test_images_without_labels_cannot_be_drawn_by_class(self, folder, settings, name):
        config = DataConfig(**folder("labeled", unlabeled=5), num_labels="auto", **settings)
        with pytest.raises(UserError, match=rf"{name} was given and 5 images of folder have no"):
            prepare(config)

    def test_but_fewer_of_them_can(self, folder):
        config = DataConfig(**folder("labeled", unlabeled=20), num_labels=6, num_unlabeled=15)
        assert len(prepare(config).unlabeled) == 15


def test_a_pool_without_conditions_is_everything_validation_leaves():
    labeled, inside = np.array([3, 1]), np.array([9, 2, 7])
    nobody = np.array([], dtype=np.int64)
    pool = fill_pool(labeled, inside, nobody, size=None, class_mismatch=None)
    assert pool.tolist() == [1, 2, 3, 7, 9]
    assert fill_pool(labeled, inside, nobody, size=3, class_mismatch=None).tolist() == [1, 3, 9]


def test_every_class_keeps_a_label_however_long_the_tail():
    labels = np.repeat(np.arange(5), 40)
    split = draw_split(
        labels,
        tuple("abcde"),
        num_labels=20,
        num_validation=50,
        seed=0,
        imbalance=1e6,
    )
    assert np.bincount(labels[split.labeled]).min() == 1
