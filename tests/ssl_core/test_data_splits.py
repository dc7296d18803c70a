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
from ssl_core.data.splits import LARGEST_DEFAULT_VALIDATION, Split, draw_split
from ssl_core.errors import UserError

DIGITS_SEED_0 = "ea27ca27d9bee134a194422087b9568b97c19fbd5175cf7db78315e131526352"
"""Digits, 20 labels, 400 validation images, seed 0: a run that names this draw can be repeated."""

DIGITS_DRAWS = {
    (20, 400, 1): "34af92ead40f7f629e75ad41e5a9b5fddda9729072c9c0dfdaa1ffa88902aceb",
    (20, 400, 12345): "9de560864d18a4531b29247df2b427dccca0ef183ddc7d0e5f9b3df62e7ae123",
    (10, 10, 2): "6965f2d5ce383a2cc46ae688177adebea9a3bbaf7a699a67469fd2132d3aaa9c",
    (27, 100, 3): "e5bc7b38974b3347b52a151b93366079b2a1381026cf4e482e32f8c24533399b",
    (40, 599, 7): "f81a48d15848139c8bd3333234139bd022c0473aacef8c5ae22a413ac8d0f0d9",
    (797, 400, 4): "4c577bded314a4c29d30fb6f41824aa39c300145c5c555a964f0b527e280909b",
    (None, None, 0): "d4037f4d34c8fad4fabe6f01cfb7be6b2f74862c6784cece32aae56a2c7d9a9f",
    (None, 400, 5): "547cfcb726f176da7f36bfdbb0867e6f2ceb118352792d25153e8efcf03f5c30",
    (50, None, 2**32 - 1): "42d935d06ce60ade55dcf66ed1fc97b9b43966ece314d07b4fb5b938e7a0aa2b",
}
CIFAR10_DRAWS = {
    (4000, 5000, 0): "be8ff6db7b19735c97bbc7c39beef1b069b698fc1e781da9f5506843a4e77b5c",
    (40, 5000, 1): "19216803735feafcea7b31d375d2e740e5a0b5cf30641d0472437d15f8a214a5",
    (250, 5000, 3): "1f8c520f7d48ebe5ed8c0ed98cc196a0c9aa277b2683d26418773f558b683655",
}
CIFAR100_DRAWS = {
    (10_000, 5000, 0): "6940b6d9dd141f535327ad28bfc8e6142e27bf9428c5a7609f8573031ed3a9da",
    (400, 5000, 1): "18cbdf9067c21bac40c33b6f880dded22a8bb31e5fd9f68152741e3ca57cb536",
}
UNEVEN_DRAWS = {
    (30, 60, 0): "37bac842316f0298482459c84f4334f6f7d6911e558d82c30b0b93c0099a6a94",
    (None, None, 1): "2df3fabe6bc49f6fee122fece3188dfc8b454393352b9591eb3e28b4b5db5f67",
}
PINNED = {
    "digits": (load_training_images().labels, DIGITS_DRAWS),
    "as many per class as CIFAR-10": (np.arange(50_000) % 10, CIFAR10_DRAWS),
    "as many per class as CIFAR-100": (np.arange(50_000) % 100, CIFAR100_DRAWS),
    "uneven, none rare": (np.repeat(np.arange(4), [7, 17, 40, 140]), UNEVEN_DRAWS),
}
"""Draws made before every class was sure of a validation image; they have all classes and stay."""


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

    def test_but_never_more_than_choosing_needs(self):
        split = draw(labels_of(8000, 4000), 40)
        assert len(split.validation) == LARGEST_DEFAULT_VALIDATION == 5000
        assert len(split.unlabeled) == 7000
        assert len(draw(labels_of(5000, 4998)).validation) == 4999

    def test_all_that_validation_leaves_is_labeled_where_no_number_is_given(self):
        split = draw(EVEN, None, 30)
        assert per_class(EVEN, split.labeled) == [20, 20, 20]


class TestEveryClass:
    """Each has an image to train on and one to choose on, however rare it is."""

    @pytest.mark.parametrize(
        ("sizes", "validation", "expected"),
        [
            ((3, 997), 100, [1, 99]),
            ((2, 2, 2, 994), 10, [1, 1, 1, 7]),
            ((5, 5, 90), 3, [1, 1, 1]),
            ((4, 40, 400), 20, [1, 2, 17]),
            ((2, 98), 80, [1, 79]),
            ((2, 3, 95), 97, [1, 2, 94]),
        ],
    )
    def test_a_share_that_would_leave_a_class_out_is_moved_by_as_little_as_it_takes(
        self, sizes, validation, expected
    ):
        labels = labels_of(*sizes)
        split = draw(labels, None, validation)
        assert per_class(labels, split.validation) == expected
        left = [size - drawn for size, drawn in zip(sizes, expected, strict=True)]
        assert per_class(labels, split.labeled) == left

    def test_any_sizes_and_any_numbers_that_are_allowed_give_every_class_both(self):
        random = np.random.default_rng(5)
        moved = 0
        for seed in range(400):
            sizes = [int(random.integers(2, random.choice([4, 300]))) for _ in range(7)]
            validation = int(random.integers(7, sum(sizes) - 6))
            count = int(random.integers(7, sum(sizes) - validation + 1))
            labels = labels_of(*sizes, unknown=3, seed=seed)
            split = draw(labels, count, validation, seed)
            drawn = per_class(np.maximum(labels, 0), split.validation)
            assert (len(split.validation), len(split.labeled)) == (validation, count)
            assert min(drawn) >= 1
            assert min(per_class(np.maximum(labels, 0), split.labeled)) >= 1
            whole, _ = largest_remainder(sizes, validation)
            moved += any(got - low not in (0, 1) for got, low in zip(drawn, whole, strict=True))
        assert moved > 20, "some of these need more than largest remainders"

    def test_the_validation_images_of_a_rare_class_do_not_depend_on_the_number_of_labels(self):
        draws = [draw(UNEVEN, count, 20, 3).validation for count in (4, 10, 100, None)]
        assert per_class(UNEVEN, draws[0])[0] == 1
        assert len({validation.tobytes() for validation in draws}) == 1


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
        labels = labels_of(3, 50, 50)
        assert per_class(labels, draw(labels, 30, 3, 0).labeled) == [2, 14, 14]

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

    @pytest.mark.parametrize(("labels", "draws"), PINNED.values(), ids=PINNED.keys())
    def test_draws_that_had_every_class_are_what_they_always_were(self, labels, draws):
        for (count, validation, seed), fingerprint in draws.items():
            assert draw(labels, count, validation, seed).fingerprint() == fingerprint

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

    @pytest.mark.parametrize("count", [0, -1, 1, 9])
    @pytest.mark.parametrize("labels", [20, None])
    def test_fewer_validation_images_than_classes(self, count, labels):
        message = refusal(DIGITS, labels, count)
        assert f"validation is {count}, fewer than the 10 classes" in message
        assert "allowed: at least 1 image per class" in message
        assert "--validation 10" in message

    def test_so_many_validation_images_that_a_class_keeps_none_to_train_on(self):
        assert len(draw(DIGITS, None, 1187).labeled) == 10
        message = refusal(DIGITS, None, 1188)
        assert "validation is 1188 of 1197" in message
        assert "allowed: at most 1187" in message
        assert "lower --validation" in message

    def test_a_class_without_images(self):
        labels = labels_of(5, 0, 5)
        message = refusal(labels, 3, 3)
        assert "class 'class 1' has no labeled images" in message

    def test_a_class_with_a_single_image(self):
        message = refusal(labels_of(98, 1, 20), 3, 80)
        assert "class 'class 1' has 1 labeled image; allowed: at least 2 per class" in message
        assert "add labeled images or remove the class" in message

    def test_a_class_with_few_images_keeps_one_label_for_training(self):
        split = draw(labels_of(2, 50, 50), 30, 51)
        assert per_class(labels_of(2, 50, 50), split.labeled)[0] == 1

    def test_two_images_per_class_are_enough_and_one_is_too_few(self):
        labels = labels_of(2, 2)
        split = draw(labels)
        assert per_class(labels, split.labeled) == per_class(labels, split.validation) == [1, 1]
        refusal(labels_of(1, 1), None, None)

    @pytest.mark.parametrize("name", ["num_labels", "num_validation"])
    @pytest.mark.parametrize("count", [0, -1, 2.5, "20", True])
    def test_a_number_that_is_none(self, name, count):
        with pytest.raises(UserError, match=rf"{name} is .*; allowed: a whole number >= 1; "):
            DataConfig(**{name: count})
