"""How images are augmented, in which order they are drawn, and what a training may reach."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_core.data import prepare as preparing
from ssl_core.data.augment import (
    add_noise,
    augmented_view,
    normalise,
    random_flip,
    random_shift,
)
from ssl_core.data.batches import ShuffledPasses
from ssl_core.data.catalogue import DATASET_CARDS
from ssl_core.data.config import DataConfig
from ssl_core.data.images import LabeledImages, checksum
from ssl_core.data.prepare import SplitImages, prepare, resolved, split_images
from ssl_core.data.recipe import Augmentation, Normalisation, default_shift
from ssl_core.data.store import ImageStore
from ssl_core.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    shape = (count, channels, height, width)
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))


def moved(image: np.ndarray, rows: int, columns: int, margin: int) -> np.ndarray:
    """Return one image (channels, height, width) cut out of its own reflection."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    top, left = margin + rows, margin + columns
    return padded[:, top : top + height, left : left + width]


def reference_view(
    images: np.ndarray, augmentation: Augmentation, normalisation: Normalisation, seed: int
) -> np.ndarray:
    """Return the augmented view, image by image and channel by channel, with the same draws."""
    draws = generator(seed)
    count, channels = images.shape[:2]
    coins = torch.rand(count, generator=draws).numpy() if augmentation.flip else np.ones(count)
    most = augmentation.max_shift
    offsets = torch.randint(-most, most + 1, (count, 2), generator=draws).numpy()
    view = np.empty(images.shape, dtype=np.float64)
    for index, image in enumerate(images):
        mirrored = image[:, :, ::-1] if coins[index] < 0.5 else image
        shifted = moved(mirrored, int(offsets[index, 0]), int(offsets[index, 1]), most)
        for channel in range(channels):
            mean, std = normalisation.mean[channel], normalisation.std[channel]
            view[index, channel] = (shifted[channel].astype(np.float64) - mean) / std
    if augmentation.noise:
        view += augmentation.noise * torch.randn(images.shape, generator=draws).numpy()
    return view


class TestAugmentedView:
    @pytest.mark.parametrize("noise", [0.0, 0.15])
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize(
        ("max_shift", "shape"), [(0, (5, 1, 8, 8)), (1, (9, 1, 8, 8)), (2, (7, 3, 12, 10))]
    )
    def test_it_is_the_reference_image_by_image(self, max_shift, shape, flip, noise):
        images = random_images(*shape)
        augmentation = Augmentation(max_shift=max_shift, flip=flip, noise=noise)
        normalisation = Normalisation(
            mean=(100.0, 120.5, 90.25)[: shape[1]], std=(50.0, 60.5, 0.75)[: shape[1]]
        )
        for seed in range(5):
            view = augmented_view(images, augmentation, normalisation, generator(seed))
            assert view.dtype == torch.float32
            expected = reference_view(images.numpy(), augmentation, normalisation, seed)
            np.testing.assert_allclose(view.numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_it_leaves_the_images_as_they_are(self):
        images = random_images(6)
        before = images.clone()
        view = augmented_view(
            images,
            Augmentation(max_shift=0, flip=False, noise=0.0),
            Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3),
            generator(),
        )
        view.zero_()
        assert torch.equal(images, before)

    def test_the_same_generator_state_gives_the_same_view_and_the_next_another(self):
        images = random_images(6)
        arguments = (
            Augmentation(max_shift=1, flip=True, noise=0.1),
            Normalisation(mean=(120.0,) * 3, std=(60.0,) * 3),
        )
        draws = generator(3)
        first = augmented_view(images, *arguments, draws)
        second = augmented_view(images, *arguments, draws)
        assert torch.equal(first, augmented_view(images, *arguments, generator(3)))
        assert not torch.equal(first, second)

    def test_nothing_is_drawn_from_the_global_generator(self):
        images = random_images(6)
        before = torch.random.get_rng_state()
        augmented_view(
            images,
            Augmentation(max_shift=1, flip=True, noise=0.1),
            Normalisation(mean=(120.0,) * 3, std=(60.0,) * 3),
            generator(),
        )
        assert torch.equal(torch.random.get_rng_state(), before)


class TestShift:
    @staticmethod
    def offsets_of(max_shift: int, count: int) -> list[tuple[int, int]]:
        """Return by how much each of many copies of one image moved, found by comparing pixels."""
        image = torch.arange(144, dtype=torch.uint8).view(1, 1, 12, 12)
        result = random_shift(image.expand(count, -1, -1, -1), max_shift, generator(5)).numpy()
        known = {
            moved(image[0].numpy(), rows, columns, 4).tobytes(): (rows, columns)
            for rows in range(-4, 5)
            for columns in range(-4, 5)
        }
        assert len(known) == 81
        return [known[one.tobytes()] for one in result]

    @pytest.mark.parametrize("max_shift", [1, 2, 4])
    def test_every_offset_of_the_range_is_reached_and_none_beyond(self, max_shift):
        reach = range(-max_shift, max_shift + 1)
        offsets = self.offsets_of(max_shift, 2000)
        assert set(offsets) == {(rows, columns) for rows in reach for columns in reach}

    def test_offsets_are_uniform_and_rows_and_columns_independent(self):
        offsets = self.offsets_of(1, 9000)
        for rows in (-1, 0, 1):
            for columns in (-1, 0, 1):
                assert abs(offsets.count((rows, columns)) - 1000) < 5 * np.sqrt(1000)

    def test_each_image_of_a_batch_moves_by_its_own_draw(self):
        assert len(set(self.offsets_of(1, 50))) == 9

    def test_all_channels_of_an_image_move_together(self):
        one = random_images(20, channels=1)
        result = random_shift(one.expand(-1, 3, -1, -1), 2, generator())
        assert torch.equal(result[:, 0], result[:, 1])
        assert torch.equal(result[:, 0], result[:, 2])

    def test_the_border_is_reflected_without_repeating_the_edge(self):
        row = torch.tensor([[[[1, 2, 3, 4]]]], dtype=torch.uint8).expand(200, 1, 4, 4)
        seen = {tuple(image[0, 0].tolist()) for image in random_shift(row, 2, generator())}
        assert seen == {(3, 2, 1, 2), (2, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 3), (3, 4, 3, 2)}

    def test_a_shift_of_0_moves_nothing(self):
        images = random_images(5)
        assert torch.equal(random_shift(images, 0, generator()), images)

    @pytest.mark.parametrize(
        ("side", "shift"), [(8, 1), (16, 1), (28, 2), (32, 2), (48, 3), (64, 4), (224, 14)]
    )
    def test_the_largest_shift_is_a_sixteenth_of_the_side_and_at_least_1(self, side, shift):
        assert default_shift(side) == shift


class TestFlip:
    def test_each_image_is_mirrored_left_to_right_with_probability_one_half(self):
        image = random_images(1)
        result = random_flip(image.expand(4000, -1, -1, -1), generator())
        mirrored = (result == image.flip(3)).all(dim=(1, 2, 3))
        kept = (result == image).all(dim=(1, 2, 3))
        assert torch.equal(mirrored, ~kept)
        assert abs(int(mirrored.sum()) - 2000) < 5 * np.sqrt(1000)

    @pytest.mark.parametrize("dataset", ["digits", "svhn"])
    def test_flipping_digits_is_refused(self, dataset):
        with pytest.raises(UserError, match=rf"flip is on with {dataset}; allowed: off, .*; .+"):
            DataConfig(dataset=dataset, flip=True)

    @pytest.mark.parametrize("dataset", ["digits", "svhn"])
    @pytest.mark.parametrize("flip", [None, False])
    def test_digits_are_never_mirrored(self, dataset, flip):
        """Every view of an image is one of its nine or twenty-five shifts."""
        side = 8 if dataset == "digits" else 32
        shared = split_images(
            DataConfig(dataset=dataset, num_labels=2, num_validation=2, flip=flip), source(side)
        )
        assert not shared.augmentation.flip
        image = torch.from_numpy(shared.images[:1])
        views = augmented_view(
            image.expand(300, -1, -1, -1), shared.augmentation, shared.normalisation, generator()
        )
        most = shared.augmentation.max_shift
        reach = range(-most, most + 1)
        shifted = [
            moved(image[0].numpy(), rows, columns, most) for rows in reach for columns in reach
        ]
        allowed = normalise(torch.from_numpy(np.stack(shifted)), shared.normalisation)
        seen = {view.numpy().tobytes() for view in views}
        assert seen == {view.numpy().tobytes() for view in allowed}

    @pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "folder"])
    @pytest.mark.parametrize(("given", "expected"), [(None, True), (True, True), (False, False)])
    def test_elsewhere_flipping_is_the_users_choice(self, dataset, given, expected):
        config = DataConfig(dataset=dataset, num_labels=2, num_validation=2, flip=given)
        assert split_images(config, source(8)).augmentation.flip == expected


class TestNoise:
    def test_it_is_gaussian_of_that_deviation_and_different_for_every_input(self):
        images = torch.zeros(100, 3, 8, 8)
        noise = add_noise(images, 0.15, generator())
        assert noise.dtype == torch.float32
        assert abs(float(noise.std()) - 0.15) < 5 * 0.15 / np.sqrt(2 * noise.numel())
        assert abs(float(noise.mean())) < 5 * 0.15 / np.sqrt(noise.numel())
        assert len(torch.unique(noise)) > 0.99 * noise.numel()

    def test_only_the_data_sets_of_the_papers_with_noise_have_it(self):
        noisy = {name for name, card in DATASET_CARDS.items() if card.noise > 0}
        assert noisy == {"cifar10", "cifar100"}


def source(side: int = 8, channels: int = 1, count: int = 60, classes: int = 2) -> LabeledImages:
    """Return random images whose classes take turns."""
    return LabeledImages(
        images=random_images(count, channels, side, side).numpy(),
        labels=np.arange(count, dtype=np.int64) % classes,
        class_names=tuple(f"class {index}" for index in range(classes)),
    )


class TestNormalisation:
    def test_it_is_fitted_on_the_training_images_without_validation(self):
        images = random_images(60, 3).numpy()
        images[:, 1] //= 3
        data = dataclasses.replace(source(), images=images)
        config = DataConfig(dataset="cifar10", num_labels=4, num_validation=30)
        first = split_images(config, data)
        pool = np.setdiff1d(np.arange(60), first.validation)
        np.testing.assert_allclose(first.normalisation.mean, images[pool].mean(axis=(0, 2, 3)))
        np.testing.assert_allclose(first.normalisation.std, images[pool].std(axis=(0, 2, 3)))

        images[first.validation] = 255
        assert split_images(config, data).normalisation == first.normalisation
        images[first.unlabeled[-1]] = 255
        assert split_images(config, data).normalisation != first.normalisation

    def test_it_is_exact_over_many_images(self):
        random = np.random.default_rng(0)
        images = random.integers(200, 203, (9000, 1, 8, 8), dtype=np.uint8)
        data = dataclasses.replace(source(count=9000), images=images)
        shared = split_images(DataConfig(num_labels=20, num_validation=10), data)
        pool = images[shared.unlabeled].astype(np.float64)
        np.testing.assert_allclose(shared.normalisation.mean, [pool.mean()], rtol=1e-12)
        np.testing.assert_allclose(shared.normalisation.std, [pool.std()], rtol=1e-8)

    def test_training_images_have_mean_0_and_deviation_1_afterwards(self):
        data = dataclasses.replace(source(), images=random_images(60, 3).numpy())
        shared = split_images(DataConfig(dataset="cifar10", num_labels=4, num_validation=10), data)
        pool = normalise(torch.from_numpy(shared.images[shared.unlabeled]), shared.normalisation)
        assert pool.dtype == torch.float32
        torch.testing.assert_close(pool.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        deviation = pool.std(dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(deviation, torch.ones(3), atol=1e-5, rtol=0)

    def test_images_of_one_colour_stay_finite(self):
        data = dataclasses.replace(source(), images=np.full((60, 1, 8, 8), 7, dtype=np.uint8))
        shared = split_images(DataConfig(num_labels=4, num_validation=10), data)
        pixels = normalise(torch.from_numpy(shared.images), shared.normalisation)
        assert torch.isfinite(pixels).all()


class TestShuffledPasses:
    @pytest.mark.parametrize(
        ("count", "batch_size"), [(20, 5), (20, 7), (20, 50), (3, 100), (7, 7)]
    )
    def test_every_pass_has_every_index_once(self, count, batch_size):
        passes = ShuffledPasses(count, batch_size, generator())
        batches = [passes.next() for _ in range(2 * count)]
        assert {len(batch) for batch in batches} == {batch_size}
        assert {batch.dtype for batch in batches} == {torch.int64}
        drawn = torch.cat(batches).view(-1, count)
        assert len(drawn) == 2 * batch_size
        for one in drawn:
            assert sorted(one.tolist()) == list(range(count))
        if len(drawn) > 2:
            assert len({tuple(one.tolist()) for one in drawn}) > 1

    def test_a_batch_larger_than_the_pool_spans_passes(self):
        passes = ShuffledPasses(20, 50, generator())
        first, second = passes.next(), passes.next()
        assert set(np.bincount(first).tolist()) == {2, 3}
        assert np.bincount(torch.cat([first, second])).tolist() == [5] * 20

    @pytest.mark.parametrize("pause", [0, 1, 2, 5])
    @pytest.mark.parametrize(("count", "batch_size"), [(20, 7), (5, 12)])
    def test_a_stored_state_continues_with_the_same_batches(self, count, batch_size, pause):
        passes = ShuffledPasses(count, batch_size, generator(1))
        for _ in range(pause):
            passes.next()
        buffer = pickle.dumps(passes.state_dict())
        expected = [passes.next().tolist() for _ in range(6)]
        other = ShuffledPasses(count, batch_size, generator(999))
        other.next()
        other.load_state_dict(pickle.loads(buffer))
        assert [other.next().tolist() for _ in range(6)] == expected

    def test_a_state_does_not_change_while_drawing_goes_on(self):
        passes = ShuffledPasses(20, 7, generator())
        passes.next()
        state = passes.state_dict()
        before = copy.deepcopy(state)
        for _ in range(5):
            passes.next()
        assert torch.equal(state["pending"], before["pending"])
        assert torch.equal(state["generator"], before["generator"])

    def test_writing_to_a_batch_does_not_change_those_to_come(self):
        expected = [batch.tolist() for batch in drawn_batches(generator(2), spoil=False)]
        assert [batch.tolist() for batch in drawn_batches(generator(2), spoil=True)] == expected

    def test_seeds_differ(self):
        orders = {tuple(ShuffledPasses(20, 20, generator(s)).next().tolist()) for s in range(20)}
        assert len(orders) == 20


def drawn_batches(draws: torch.Generator, *, spoil: bool) -> list[Tensor]:
    passes = ShuffledPasses(20, 7, draws)
    batches = []
    for _ in range(6):
        batch = passes.next()
        batches.append(batch.clone())
        if spoil:
            batch.zero_()
    return batches


class TestImageStore:
    def test_it_takes_the_rows_asked_for(self):
        images = random_images(10).numpy()
        store = ImageStore(images)
        taken = store.take(torch.tensor([3, 3, 0, 9]))
        assert taken.dtype == torch.uint8
        assert np.array_equal(taken.numpy(), images[[3, 3, 0, 9]])
        assert store.shape == (10, 3, 8, 8)
        assert len(store) == 10

    @pytest.mark.parametrize(
        "indices",
        [
            torch.arange(10),
            torch.tensor([4]),
            torch.tensor([2, 2, 2]),
            torch.arange(3, 7),
            torch.tensor(5),
        ],
        ids=["all", "one", "repeated", "neighbours", "a single number"],
    )
    def test_every_take_is_a_copy(self, indices):
        images = random_images(10).numpy()
        before = images.copy()
        store = ImageStore(images)
        taken = store.take(indices)
        assert not np.shares_memory(taken.numpy(), images)
        taken.zero_()
        taken.sub_(1)
        assert np.array_equal(images, before)
        assert np.array_equal(store.take(indices).numpy(), before[indices.numpy()])

    def test_read_only_images_can_be_taken(self):
        images = random_images(10).numpy()
        images.flags.writeable = False
        taken = ImageStore(images).take(torch.tensor([1, 2]))
        taken.zero_()
        assert images[1:3].any()

    def test_it_offers_nothing_but_take_len_shape_and_checksum(self):
        store = ImageStore(random_images(10).numpy())
        offered = {name for name in dir(store) if not name.startswith("_")}
        assert offered == {"take", "shape", "checksum"}
        for special in (
            "__getitem__",
            "__iter__",
            "__array__",
            "__array_interface__",
            "__dlpack__",
        ):
            assert not hasattr(store, special)

    def test_the_shape_cannot_be_set(self):
        store = ImageStore(random_images(10).numpy())
        with pytest.raises(AttributeError):
            store.shape = (1, 2)

    def test_the_checksum_is_the_crc_32_of_the_pixels(self):
        images = random_images(10).numpy()
        assert ImageStore(images).checksum() == zlib.crc32(images.tobytes()) == checksum(images)

    @pytest.mark.parametrize("position", [0, 777, -1])
    def test_the_checksum_catches_one_changed_bit(self, position):
        images = random_images(10).numpy()
        store = ImageStore(images)
        before = store.checksum()
        images.reshape(-1)[position] ^= 1
        assert store.checksum() != before
        images.reshape(-1)[position] ^= 1
        assert store.checksum() == before

    def test_a_checksum_does_not_depend_on_the_layout_in_memory(self):
        images = random_images(10).numpy()
        assert checksum(np.asfortranarray(images)) == checksum(images)
        assert checksum(np.repeat(images, 2, axis=0)[::2]) == checksum(images)


class TestPrepare:
    FIELDS = (
        "images",
        "labeled",
        "labels",
        "unlabeled",
        "validation",
        "validation_labels",
        "class_names",
        "skipped",
        "normalisation",
        "augmentation",
        "fingerprint",
    )

    def test_labels_exist_for_labeled_and_validation_images_only(self):
        shared = prepare(DataConfig(num_labels=20, num_validation=400))
        assert tuple(field.name for field in dataclasses.fields(SplitImages)) == self.FIELDS
        assert vars(shared).keys() == set(self.FIELDS)
        assert shared.labels.shape == (20,)
        assert shared.validation_labels.shape == (400,)
        assert len(shared.skipped) == 0

    def test_nothing_in_it_depends_on_the_labels_of_the_unlabeled_images(self, monkeypatch):
        data = source(count=200, classes=4)
        config = DataConfig(num_labels=12, num_validation=40)
        real = split_images(config, data)
        split = preparing.draw_split(
            data.labels, data.class_names, num_labels=12, num_validation=40, seed=0
        )
        monkeypatch.setattr(preparing, "draw_split", lambda *_args, **_options: split)
        other = data.labels.copy()
        hidden = np.setdiff1d(split.unlabeled, split.labeled)
        other[hidden] = (other[hidden] + 1) % 4
        changed = split_images(config, dataclasses.replace(data, labels=other))
        assert len(hidden) == 148
        assert pickle.dumps(changed) == pickle.dumps(real)

    def test_labels_belong_to_their_images(self):
        data = source(count=200, classes=4)
        shared = split_images(DataConfig(num_labels=12, num_validation=40), data)
        assert np.array_equal(shared.images, data.images)
        assert np.array_equal(shared.labels, data.labels[shared.labeled])
        assert np.array_equal(shared.validation_labels, data.labels[shared.validation])

    def test_it_holds_plain_arrays_and_values_and_loads_no_torch(self):
        """So that a driver can ship it without the time and memory torch takes."""
        shared = prepare(DataConfig(num_labels=20, num_validation=400))
        plain = (np.ndarray, tuple, str, Normalisation, Augmentation)
        assert all(isinstance(value, plain) for value in vars(shared).values())
        script = (
            "import sys\n"
            "from ssl_core.data.config import DataConfig\n"
            "from ssl_core.data.prepare import prepare\n"
            "prepare(DataConfig(num_labels=20, num_validation=400))\n"
            "assert 'torch' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

    def test_the_numbers_really_drawn_can_be_written_down(self):
        config = DataConfig(num_labels=None, num_validation=None)
        shared = prepare(config)
        written = resolved(config, shared)
        assert (written.num_labels, written.num_validation) == (599, 598)
        assert prepare(written).fingerprint == shared.fingerprint
        assert dataclasses.replace(written, num_labels=None, num_validation=None) == config
