"""Which images are labeled, unlabeled and for validation."""

from __future__ import annotations

import hashlib
import itertools
from fractions import Fraction

import numpy as np
import pytest

from ssl_core.data.config import DataConfig
from ssl_core.data.digits import load_training_images
from ssl_core.data.images import UNKNOWN_LABEL, Indices
from ssl_core.data.prepare import prepare
from ssl_core.data.splits import Split, draw_split
from ssl_core.errors import UserError

DIGITS_SEED_0 = "ea27ca27d9bee134a194422087b9568b97c19fbd5175cf7db78315e131526352"
"""Digits, 20 labels, 400 validation images, seed 0: a run that names this draw can be repeated."""


def labels_of(*sizes: int, unknown: int = 0, seed: int = 0) -> np.ndarray:
    """Return shuffled labels with that many images per class, and some without a label."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.concatenate([labels, np.full(unknown, UNKNOWN_LABEL)]).astype(np.int64)
    return np.random.default_rng(seed).permutation(labels)


def draw(
    labels: np.ndarray,
    num_labels: int | None = None,
    num_validation: int | None = None,
    seed: int = 0,
) -> Split:
    classes = int(labels.max()) + 1
    names = tuple(f"class {index}" for index in range(classes))
    return draw_split(
        labels, names, num_labels=num_labels, num_validation=num_validation, seed=seed
    )


def per_class(labels: np.ndarray, indices: Indices) -> list[int]:
    return np.bincount(labels[indices], minlength=labels.max() + 1).tolist()


def largest_remainder(sizes: list[int], total: int) -> tuple[list[int], list[Fraction]]:
    """Return the whole parts of exact shares, and the remainders."""
    shares = [Fraction(size * total, sum(sizes)) for size in sizes]
    return [int(share) for share in shares], [share - int(share) for share in shares]


DIGITS = load_training_images().labels
UNEVEN = labels_of(3, 17, 40, 140, unknown=50)
EVEN = labels_of(30, 30, 30)


class TestValidation:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize(("labels", "count"), [(DIGITS, 400), (UNEVEN, 61), (EVEN, 10)])
    def test_it_is_stratified_by_largest_remainder(self, labels, count, seed):
        drawn = per_class(labels, draw(labels, None, count, seed).validation)
        sizes = [int((labels == label).sum()) for label in range(labels.max() + 1)]
        whole, remainders = largest_remainder(sizes, count)
        extra = [got - low for got, low in zip(drawn, whole, strict=True)]
        assert sum(drawn) == count
        assert set(extra) <= {0, 1}
        rounded_up = [r for r, more in zip(remainders, extra, strict=True) if more]
        rounded_down = [r for r, more in zip(remainders, extra, strict=True) if not more]
        assert min(rounded_up, default=1) >= max(rounded_down, default=0)

    @pytest.mark.parametrize("seed", range(10))
    def test_it_does_not_depend_on_the_number_of_labels(self, seed):
        validations = {
            draw(DIGITS, count, 400, seed).validation.tobytes()
            for count in (10, 11, 20, 50, 300, 797, None)
        }
        assert len(validations) == 1

    def test_the_default_number_does_not_depend_on_the_number_of_labels_either(self):
        validations = [draw(DIGITS, count).validation for count in (10, 20, 299, None)]
        assert {len(validation) for validation in validations} == {598}
        assert len({validation.tobytes() for validation in validations}) == 1

    def test_half_of_the_labeled_images_are_drawn_where_no_number_is_given(self):
        split = draw(UNEVEN)
        assert len(split.validation) == 100
        assert len(split.labeled) == 100
        assert sorted([*split.validation, *split.labeled]) == np.flatnonzero(UNEVEN >= 0).tolist()

    def test_all_that_validation_leaves_is_labeled_where_no_number_is_given(self):
        split = draw(EVEN, None, 30)
        assert per_class(EVEN, split.labeled) == [20, 20, 20]


class TestLabels:
    @pytest.mark.parametrize("seed", range(10))
    def test_the_smaller_draw_is_among_the_larger(self, seed):
        draws = [
            set(draw(DIGITS, n, 400, seed).labeled.tolist()) for n in (10, 13, 17, 20, 23, 50, 403)
        ]
        for small, large in itertools.pairwise(draws):
            assert small < large

    @pytest.mark.parametrize("seed", range(10))
    def test_the_smaller_draw_is_among_the_larger_with_uneven_classes(self, seed):
        draws = [
            set(draw(UNEVEN, n, 20, seed).labeled.tolist()) for n in (4, 5, 6, 7, 10, 30, 100, 180)
        ]
        for small, large in itertools.pairwise(draws):
            assert small < large

    @pytest.mark.parametrize("seed", range(5))
    def test_every_class_gets_the_same_number(self, seed):
        assert per_class(DIGITS, draw(DIGITS, 20, 400, seed).labeled) == [2] * 10
        counts = per_class(DIGITS, draw(DIGITS, 27, 400, seed).labeled)
        assert sorted(counts) == [2] * 3 + [3] * 7

    def test_who_gets_the_odd_one_is_drawn(self):
        winners = {
            int(np.argmax(per_class(EVEN, draw(EVEN, 4, 9, seed).labeled))) for seed in range(30)
        }
        assert winners == {0, 1, 2}

    def test_a_class_that_runs_out_leaves_its_turn_to_the_others(self):
        labels = labels_of(2, 50, 50)
        assert per_class(labels, draw(labels, 30, 1, 0).labeled) == [2, 14, 14]

    def test_as_many_labels_as_there_are_images_can_be_drawn(self):
        split = draw(EVEN, 60, 30)
        assert per_class(EVEN, split.labeled) == [20, 20, 20]


class TestPools:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize(
        ("labels", "count", "validation"), [(DIGITS, 20, 400), (UNEVEN, 30, 40), (EVEN, None, None)]
    )
    def test_unlabeled_is_everything_but_validation_and_holds_the_labeled(
        self, labels, count, validation, seed
    ):
        split = draw(labels, count, validation, seed)
        labeled, unlabeled = set(split.labeled.tolist()), set(split.unlabeled.tolist())
        for_validation = set(split.validation.tolist())
        assert unlabeled == set(range(len(labels))) - for_validation
        assert labeled <= unlabeled
        assert not labeled & for_validation

    @pytest.mark.parametrize("seed", range(5))
    def test_images_of_unknown_class_are_in_the_unlabeled_pool_and_nowhere_else(self, seed):
        split = draw(UNEVEN, 30, 40, seed)
        unknown = set(np.flatnonzero(UNEVEN == UNKNOWN_LABEL).tolist())
        assert unknown <= set(split.unlabeled.tolist())
        assert not unknown & {*split.labeled.tolist(), *split.validation.tolist()}

    def test_every_list_is_sorted_without_repeats_and_of_int64(self):
        split = draw(UNEVEN, 30, 40)
        for indices in (split.labeled, split.unlabeled, split.validation):
            assert indices.dtype == np.int64
            assert np.all(np.diff(indices) > 0)

    def test_every_image_can_be_labeled_and_can_be_for_validation(self):
        splits = [draw(EVEN, 3, 9, seed) for seed in range(300)]
        for chosen in (
            np.concatenate([split.labeled for split in splits]),
            np.concatenate([split.validation for split in splits]),
        ):
            counts = np.bincount(chosen, minlength=90)
            mean = len(chosen) / 90
            assert counts.min() > 0
            assert np.abs(counts - mean).max() < 5 * np.sqrt(mean)


class TestSeeds:
    def test_the_same_seed_gives_the_same_draw(self):
        assert draw(UNEVEN, 30, 40, 7).fingerprint() == draw(UNEVEN, 30, 40, 7).fingerprint()

    def test_the_draw_reads_and_moves_no_global_generator(self):
        np.random.seed(1)
        first = draw(DIGITS, 20, 400, 3)
        one = np.random.random()
        np.random.seed(1)
        assert np.random.random() == one
        assert draw(DIGITS, 20, 400, 3).fingerprint() == first.fingerprint()

    def test_different_seeds_draw_different_images(self):
        splits = [draw(DIGITS, 20, 400, seed) for seed in range(50)]
        assert len({split.labeled.tobytes() for split in splits}) == 50
        assert len({split.validation.tobytes() for split in splits}) == 50
        assert len({split.fingerprint() for split in splits}) == 50

    @pytest.mark.parametrize("seed", [0, 2**32 - 1])
    def test_the_smallest_and_the_largest_seed_can_be_used(self, seed):
        config = DataConfig(num_labels=20, num_validation=400, split_seed=seed)
        assert len(prepare(config).labeled) == 20

    @pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "0", None, True])
    def test_another_seed_is_refused(self, seed):
        with pytest.raises(UserError, match=r"split_seed is .*; allowed: a whole number 0 to"):
            DataConfig(split_seed=seed)


class TestFingerprint:
    def test_it_is_the_same_for_ever(self):
        assert draw(DIGITS, 20, 400, 0).fingerprint() == DIGITS_SEED_0
        assert prepare(DataConfig(num_labels=20, num_validation=400)).fingerprint == DIGITS_SEED_0

    def test_it_is_the_sha256_of_the_three_lists(self):
        split = draw(UNEVEN, 30, 40, 2)
        text = b"".join(
            b"".join(int(index).to_bytes(8, "little") for index in indices) + b"|"
            for indices in (split.labeled, split.unlabeled, split.validation)
        )
        assert split.fingerprint() == hashlib.sha256(text).hexdigest()

    def test_it_depends_on_each_list_and_on_which_is_which(self):
        one, two = np.array([1, 2]), np.array([3])
        splits = [
            Split(labeled=a, unlabeled=b, validation=c, seed=0)
            for a, b, c in ((one, one, two), (one, two, one), (two, one, one), (one, one, one))
        ]
        assert len({split.fingerprint() for split in splits}) == 4

    def test_it_does_not_depend_on_how_the_lists_are_stored(self):
        split = draw(EVEN, 6, 9)
        stored = Split(
            labeled=split.labeled.astype(">i8"),
            unlabeled=np.repeat(split.unlabeled, 2)[::2],
            validation=split.validation.astype(np.int32),
            seed=split.seed,
        )
        assert stored.fingerprint() == split.fingerprint()


def refusal(labels: np.ndarray, num_labels: int | None, num_validation: int | None) -> str:
    """Return the message with which a draw is refused: given, and what to do."""
    with pytest.raises(UserError) as caught:
        draw(labels, num_labels, num_validation)
    message = str(caught.value)
    assert message.endswith(".")
    assert ";" in message
    return message


class TestRefused:
    @pytest.mark.parametrize("count", [0, 1, 9, -3])
    def test_fewer_labels_than_classes(self, count):
        message = refusal(DIGITS, count, 400)
        assert f"labels is {count}, fewer than the 10 classes" in message
        assert "--labels 10" in message

    @pytest.mark.parametrize(("labels", "validation"), [(798, 400), (20, 1178), (1198, 1)])
    def test_more_images_than_there_are(self, labels, validation):
        message = refusal(DIGITS, labels, validation)
        for number in (str(labels), str(validation), "at most 1197"):
            assert number in message

    def test_images_of_unknown_class_do_not_count(self):
        message = refusal(labels_of(5, 5, unknown=100), 8, 3)
        assert "at most 10" in message

    @pytest.mark.parametrize("count", [0, -1])
    def test_no_validation_images(self, count):
        message = refusal(DIGITS, 20, count)
        assert f"validation is {count}" in message
        assert "at least 1" in message

    def test_a_class_without_images(self):
        labels = labels_of(5, 0, 5)
        message = refusal(labels, 3, 3)
        assert "class 'class 1' has no labeled images" in message

    def test_a_class_of_which_validation_takes_all(self):
        labels = labels_of(1, 1, 98)
        message = refusal(labels, 3, 80)
        assert "class 'class 0' would have no labeled image to train on" in message
        assert "80 validation" in message

    def test_a_class_with_few_images_keeps_one_label_for_training(self):
        split = draw(labels_of(2, 50, 50), 30, 51)
        assert per_class(labels_of(2, 50, 50), split.labeled)[0] == 1

    def test_a_single_image_per_class_is_too_few(self):
        refusal(labels_of(1, 1), None, None)

    @pytest.mark.parametrize("name", ["num_labels", "num_validation"])
    @pytest.mark.parametrize("count", [0, -1, 2.5, "20", True])
    def test_a_number_that_is_none(self, name, count):
        with pytest.raises(UserError, match=rf"{name} is .*; allowed: a whole number >= 1; "):
            DataConfig(**{name: count})
