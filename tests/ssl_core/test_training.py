"""One training: its configuration, the bits it gives, its measurements, its checkpoints."""

from __future__ import annotations

import copy
import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from ssl_core import files
from ssl_core.algorithms import ALGORITHMS, Batch, LossTerms
from ssl_core.data.config import DIVISION_FIELDS, DataConfig
from ssl_core.data.images import LabeledImages
from ssl_core.data.prepare import SplitImages, split_images
from ssl_core.data.recipe import Augmentation, Normalisation
from ssl_core.data.store import ImageStore
from ssl_core.errors import UserError
from ssl_core.files import write_atomically
from ssl_core.models.batch_norm import recompute_statistics
from ssl_core.names import (
    DIVERGENCE_NAMES,
    EVALUATED_NETWORKS,
    LR_SCHEDULE_NAMES,
    METRIC_NAMES,
    OPTIMIZER_NAMES,
    PRECISIONS,
)
from ssl_core.training import evaluate as evaluation
from ssl_core.training import loop
from ssl_core.training.checkpoint import from_bytes, to_bytes
from ssl_core.training.config import LARGEST_SEED, TrainingConfig
from ssl_core.training.evaluate import Evaluation, evaluate
from ssl_core.training.loop import Training
from ssl_core.training.profile import profile_steps
from ssl_core.training.seeds import STREAMS, generator_for
from ssl_core.training.step import STEP_PARTS

METHODS = tuple(ALGORITHMS)
STEPS = 6


@functools.cache
def tiny_images() -> SplitImages:
    """Return 80 noisy images of four classes, split and augmented as CIFAR-10 is."""
    random = np.random.default_rng(0)
    labels = np.arange(80, dtype=np.int64) % 4
    images = random.integers(0, 120, (80, 2, 8, 8))
    images[np.arange(80), labels % 2, 2 * labels] += 130
    data = LabeledImages(
        images=images.astype(np.uint8), labels=labels, class_names=("a", "b", "c", "d")
    )
    return split_images(DataConfig(dataset="cifar10", num_labels=10, num_validation=24), data)


@pytest.fixture(scope="module")
def tiny() -> SplitImages:
    return tiny_images()


def tiny_config(algorithm: str = "supervised", **changes: Any) -> TrainingConfig:
    """Return a training of a few steps; ``parameters`` are merged into the tuned ones."""
    parameters = {"learning_rate": 3e-3, "weight_decay": 0.02, "ema_horizon": 4.0}
    record = {
        "algorithm": algorithm,
        "dataset": "cifar10",
        "model": "wrn-10-1",
        "max_steps": STEPS,
        "batch_size": 4,
        "unlabeled_ratio": 2,
        "seed": 5,
        **changes,
        "parameters": parameters | changes.get("parameters", {}),
    }
    return TrainingConfig.from_record(record)


def frozen(value: Any) -> Any:
    """Return nested state as values that compare bit for bit."""
    if isinstance(value, Tensor):
        return (str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes())
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(item) for item in value]
    return value


def state_bits(training: Training) -> Any:
    return frozen(training.state_dict())


def weight_bits(training: Training) -> Any:
    """Return the parameters of both networks, without BatchNorm's statistics."""
    return [
        frozen(dict(network.named_parameters()))
        for network in (training.student, training.ema.network)
    ]


def report_bits(report: loop.TrainingReport) -> Any:
    return (
        report.step,
        report.terms,
        *(
            (part.correct.tobytes(), part.labels.tobytes(), part.finite)
            for part in (report.evaluated, report.other)
        ),
    )


def trained(config: TrainingConfig, shared: SplitImages, steps: int = STEPS) -> Training:
    training = Training(config, shared)
    training.run(steps)
    return training


class Recorder:
    """An algorithm that keeps every batch it is given and the terms it returns."""

    def __init__(self, algorithm: Any) -> None:
        self._algorithm = algorithm
        self.labeled_views = algorithm.labeled_views
        self.unlabeled_views = algorithm.unlabeled_views
        self.batches: list[Batch] = []
        self.terms: list[LossTerms] = []

    def __call__(
        self, student: Any, teacher: Any, batch: Batch, progress: Tensor, generator: Any
    ) -> LossTerms:
        self.batches.append(batch)
        self.terms.append(self._algorithm(student, teacher, batch, progress, generator))
        return self.terms[-1]


def recorder_of(config: TrainingConfig, shared: SplitImages, steps: int = STEPS) -> Recorder:
    training = Training(config, shared)
    recorder = Recorder(training.algorithm)
    training._device_step.algorithm = recorder
    training.run(steps)
    return recorder


def recorded(config: TrainingConfig, shared: SplitImages, steps: int = STEPS) -> list[Batch]:
    return recorder_of(config, shared, steps).batches


def assert_helps(message: str, *given: str) -> None:
    """One sentence: what was given, what is allowed, what to do."""
    for text in given:
        assert text in message
    assert "; allowed: " in message
    assert message.rpartition("; ")[2].endswith((".", "?"))
    assert "\n" not in message


CHOSEN: dict[str, Any] = {
    "dataset": "folder",
    "data_dir": "pictures",
    "image_size": 48,
    "num_labels": 30,
    "num_validation": 40,
    "split_seed": 3,
    "flip": False,
    "model": "wrn-16-2",
    "max_steps": 77,
    "batch_size": 12,
    "unlabeled_ratio": 3,
    "optimizer": "sgd",
    "lr_schedule": "step",
    "evaluate": "student",
    "metric": "balanced_accuracy",
    "precision": "bfloat16",
    "compile": True,
    "threads": 2,
    "device": "cpu",
    "seed": LARGEST_SEED,
}
"""Every setting, none at its default except the device."""


class TestConfiguration:
    @pytest.mark.parametrize("dataset", ["digits", "svhn", "cifar10", "cifar100", "folder"])
    @pytest.mark.parametrize("method", METHODS)
    def test_what_defaults_give_is_read_back_equal(self, method, dataset):
        config = TrainingConfig.from_record({"algorithm": method, "dataset": dataset})
        record = config.to_record()
        assert TrainingConfig.from_record(record) == config
        assert TrainingConfig.from_record(json.loads(json.dumps(record))) == config
        assert TrainingConfig.from_record(yaml.safe_load(yaml.safe_dump(record))) == config

    @pytest.mark.parametrize("method", METHODS)
    def test_what_was_chosen_is_read_back_equal(self, method):
        default = TrainingConfig.from_record({"algorithm": method}).to_record()["parameters"]
        chosen = {
            name: value if isinstance(value, bool | int) or value == 0 else value * 0.7 + 1e-9
            for name, value in default.items()
        }
        record = {"algorithm": method, "parameters": chosen, **CHOSEN}
        config = TrainingConfig.from_record(record)
        written = yaml.safe_load(yaml.safe_dump(config.to_record()))
        assert TrainingConfig.from_record(written) == config
        assert {key: written[key] for key in CHOSEN} == CHOSEN
        assert written["parameters"] == chosen
        for key, value in CHOSEN.items():
            holder = config.data if key in vars(config.data) else config
            assert getattr(holder, key) == value

    @pytest.mark.parametrize("divergence", DIVERGENCE_NAMES)
    def test_every_divergence_is_read_back(self, divergence):
        record = {
            "algorithm": "mean_teacher",
            "divergence": divergence,
            "parameters": {"unlabeled_weight": 2.5},
        }
        config = TrainingConfig.from_record(record)
        assert config.divergence == divergence
        assert TrainingConfig.from_record(config.to_record()) == config

    def test_a_record_holds_every_field(self):
        fields = {field.name for field in dataclasses.fields(TrainingConfig)}
        fields |= {field.name for field in dataclasses.fields(DataConfig)}
        config = tiny_config("ict")
        record = config.to_record()
        written = record.keys() | record["parameters"].keys()
        written |= {"method", "data"}  # written field by field
        assert fields - {*DIVISION_FIELDS} <= written
        assert written.isdisjoint(DIVISION_FIELDS)  # written where there is one
        method = {field.name for field in dataclasses.fields(config.method)} - {"divergence"}
        assert method <= record["parameters"].keys()

    def test_a_configuration_that_takes_all_labels_is_read_back_equal(self):
        """None means all the labels there are, also where the card of a data set names fewer."""
        config = dataclasses.replace(tiny_config(), data=DataConfig(dataset="digits"))
        assert TrainingConfig.from_record(config.to_record()) == config

    def test_a_missing_value_takes_its_default_and_null_means_missing(self):
        bare = TrainingConfig.from_record({"algorithm": "vat"})
        nulls = {"model": None, "max_steps": None, "optimizer": None}
        assert TrainingConfig.from_record({"algorithm": "vat", **nulls}) == bare
        assert (bare.data.num_labels, bare.data.num_validation) == (20, 400)
        assert (bare.model, bare.max_steps, bare.batch_size) == ("wrn-10-1", 450, 50)

    def test_a_configuration_cannot_be_changed(self):
        config = tiny_config()
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.seed = 3
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.data.split_seed = 3

    @pytest.mark.parametrize(
        ("key", "near"),
        [
            ("max_step", "max_steps"),
            ("Batch_Size", "batch_size"),
            ("num_label", "num_labels"),
            ("lr_shedule", "lr_schedule"),
            ("paramters", "parameters"),
        ],
    )
    def test_an_unknown_key_is_refused_with_the_nearest(self, key, near):
        with pytest.raises(UserError) as caught:
            TrainingConfig.from_record({"algorithm": "ict", key: 3})
        assert_helps(str(caught.value), "the configuration", repr(key))
        assert f"did you mean {near!r}?" in str(caught.value)

    @pytest.mark.parametrize(
        ("method", "key", "near"),
        [
            ("ict", "unlabeled_wieght", "unlabeled_weight"),
            ("ict", "mixup_alfa", "mixup_alpha"),
            ("vat", "eps_relativ", "eps_relative"),
            ("supervised", "lerning_rate", "learning_rate"),
        ],
    )
    def test_an_unknown_parameter_is_refused_with_the_nearest(self, method, key, near):
        with pytest.raises(UserError) as caught:
            TrainingConfig.from_record({"algorithm": method, "parameters": {key: 1.0}})
        assert_helps(str(caught.value), f"parameters of {method}", repr(key))
        assert f"did you mean {near!r}?" in str(caught.value)

    @pytest.mark.parametrize(
        ("method", "parameter"),
        [
            ("supervised", "unlabeled_weight"),
            ("vat", "mixup_alpha"),
            ("ict", "threshold"),
            ("ict", "divergence"),
        ],
    )
    def test_a_parameter_of_another_method_is_refused(self, method, parameter):
        with pytest.raises(UserError, match=f"parameters of {method} '{parameter}'"):
            TrainingConfig.from_record({"algorithm": method, "parameters": {parameter: 0.5}})

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("algorithm", "icd"),
            ("algorithm", None),
            ("divergence", "klm"),
            ("divergence", 3),
            ("parameters", "learning_rate: 3"),
            ("parameters", [1]),
            ("dataset", "digit"),
            ("dataset", None),
            ("data_dir", 3),
            ("image_size", -1),
            ("image_size", "large"),
            ("num_labels", 0),
            ("num_labels", 2.5),
            ("num_labels", True),
            ("num_validation", 0),
            ("num_validation", "all"),
            ("split_seed", -1),
            ("split_seed", 2**32),
            ("flip", "no"),
            ("model", "resnet"),
            ("model", "wrn-11-2"),
            ("model", "wrn-28-0"),
            ("model", 3),
            ("max_steps", 0),
            ("max_steps", 10.0),
            ("max_steps", math.nan),
            ("batch_size", 1),
            ("batch_size", "50"),
            ("unlabeled_ratio", 0),
            ("unlabeled_ratio", 1.5),
            ("optimizer", "adamW"),
            ("optimizer", ["sgd"]),
            ("lr_schedule", "linear"),
            ("evaluate", "teacher"),
            ("metric", "loss"),
            ("precision", "float16"),
            ("compile", 1),
            ("threads", 0),
            ("device", "abacus"),
            ("device", 3),
            ("seed", -1),
            ("seed", LARGEST_SEED + 1),
            ("seed", 0.5),
        ],
    )
    def test_an_illegal_setting_is_refused(self, key, value):
        record = {"algorithm": "ict", "dataset": "cifar10", key: value}
        with pytest.raises(UserError) as caught:
            TrainingConfig.from_record(record)
        assert_helps(str(caught.value))
        assert key.replace("_", "-") in str(caught.value).replace("_", "-")

    @pytest.mark.parametrize(
        ("method", "parameter", "value"),
        [
            ("supervised", "learning_rate", 0.0),
            ("supervised", "learning_rate", -1e-3),
            ("supervised", "learning_rate", math.inf),
            ("supervised", "learning_rate", math.nan),
            ("supervised", "learning_rate", "1e-3"),
            ("supervised", "learning_rate", None),
            ("supervised", "learning_rate", True),
            pytest.param("supervised", "learning_rate", 10**400, id="beyond every float"),
            ("supervised", "weight_decay", -1e-9),
            ("supervised", "ema_horizon", 0.99),
            ("supervised", "entropy_weight", 0.1),
            ("pseudo_label", "threshold", 1.0),
            ("pseudo_label", "threshold", -0.1),
            ("pi_model", "unlabeled_weight", -1.0),
            ("pi_model", "ramp_fraction", 1.1),
            ("pi_model", "consistency_on_labeled", "no"),
            ("mean_teacher", "entropy_weight", -0.1),
            ("mean_teacher", "consistency_on_labeled", "no"),
            ("vat", "eps_relative", 0.0),
            ("ict", "mixup_alpha", 0.0),
            ("ict", "mix_logits", "no"),
            ("ict", "supervised_mixup", "no"),
            ("mixmatch", "temperature", 0.0),
            ("mixmatch", "num_guesses", 0),
            ("mixmatch", "num_guesses", 1.5),
        ],
    )
    def test_an_illegal_parameter_is_refused(self, method, parameter, value):
        with pytest.raises(UserError) as caught:
            TrainingConfig.from_record({"algorithm": method, "parameters": {parameter: value}})
        assert_helps(str(caught.value), f"{parameter} is {value!r}")

    def test_the_method_has_to_be_named(self):
        with pytest.raises(UserError, match="no 'algorithm'; name one"):
            TrainingConfig.from_record({"dataset": "digits"})

    def test_supervised_takes_no_divergence(self):
        with pytest.raises(UserError) as caught:
            TrainingConfig.from_record({"algorithm": "supervised", "divergence": "kl"})
        assert_helps(str(caught.value), "divergence is 'kl' with supervised")

    def test_reverse_kl_is_refused_for_one_hot_targets(self):
        record = {
            "algorithm": "pseudo_label",
            "divergence": "reverse_kl",
            "parameters": {"unlabeled_weight": 1.0},
        }
        with pytest.raises(UserError, match="'reverse_kl' is not defined against one-hot"):
            TrainingConfig.from_record(record)

    def test_a_weight_nobody_published_has_to_be_given(self):
        with pytest.raises(UserError) as caught:
            TrainingConfig.from_record({"algorithm": "ict", "divergence": "js"})
        assert_helps(str(caught.value), "unlabeled_weight", "ict", "js")

    @pytest.mark.parametrize(
        ("key", "values"),
        [
            ("optimizer", OPTIMIZER_NAMES),
            ("lr_schedule", LR_SCHEDULE_NAMES),
            ("evaluate", EVALUATED_NETWORKS),
            ("metric", METRIC_NAMES),
            ("precision", PRECISIONS),
            ("seed", (0, 2**63 - 1)),
            ("batch_size", (2,)),
            ("max_steps", (1,)),
        ],
    )
    def test_every_legal_value_is_taken(self, key, values):
        for value in values:
            assert tiny_config(**{key: value}).to_record()[key] == value


class TestSeeds:
    def test_streams_seeds_and_steps_are_independent(self):
        first = [
            torch.rand(1, generator=generator_for(seed, stream, step=step)).item()
            for seed in (0, 1, LARGEST_SEED)
            for stream in STREAMS
            for step in (0, 1, 1000)
        ]
        assert len(set(first)) == 3 * len(STREAMS) * 3

    def test_one_stream_is_the_same_each_time(self):
        for stream in STREAMS:
            one, two = (torch.rand(9, generator=generator_for(3, stream)) for _ in range(2))
            assert torch.equal(one, two)


class TestDeterminism:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_same_seed_gives_the_same_bits(self, method, tiny):
        config = tiny_config(method)
        torch.manual_seed(1)
        np.random.seed(1)
        one = trained(config, tiny)
        torch.manual_seed(2)
        np.random.seed(2)
        two = trained(config, tiny)
        assert state_bits(one) == state_bits(two)
        assert report_bits(one.report()) == report_bits(two.report())
        assert state_bits(one) == state_bits(two)

    @pytest.mark.parametrize("method", METHODS)
    def test_another_seed_gives_other_bits(self, method, tiny):
        one, two = (trained(tiny_config(method, seed=seed), tiny) for seed in (0, 1))
        for name, parameter in one.student.named_parameters():
            assert not torch.equal(parameter, two.student.get_parameter(name)), name

    def test_another_seed_gives_other_batches(self, tiny):
        one, two = (recorded(tiny_config(seed=seed), tiny) for seed in (0, 1))
        for first, second in zip(one, two, strict=True):
            assert not torch.equal(first.labeled[0], second.labeled[0])

    def test_another_process_gives_the_same_bits(self, tiny):
        script = (
            "from tests.ssl_core.test_training import *\n"
            "training = trained(tiny_config('mixmatch'), tiny_images())\n"
            "print(digest(training))\n"
        )
        root = Path(__file__).parents[2]
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            assert ended.stdout.strip() == digest(trained(tiny_config("mixmatch"), tiny))
        finally:
            torch.set_num_threads(threads)

    @pytest.mark.parametrize("method", METHODS)
    def test_slices_by_seconds_do_not_change_the_bits(self, method, tiny):
        config = tiny_config(method)
        sliced = Training(config, tiny)
        slices = 0
        while sliced.step < STEPS:
            before = sliced.step
            sliced.run(STEPS, seconds=0.0)
            slices += 1
            assert sliced.step == before + 1
        assert slices == STEPS
        assert state_bits(sliced) == state_bits(trained(config, tiny))

    def test_a_slice_of_many_seconds_ends_at_the_step_asked_for(self, tiny):
        training = Training(tiny_config(), tiny)
        training.run(3, seconds=3600.0)
        assert training.step == 3
        training.run(3, seconds=0.0)
        training.run(2)
        assert training.step == 3

    def test_validation_images_and_labels_do_not_reach_the_weights(self, tiny):
        noise = tiny.images.copy()
        noise[tiny.validation] = 255 - noise[tiny.validation]
        other = dataclasses.replace(
            tiny, images=noise, validation_labels=(tiny.validation_labels + 1) % 4
        )
        for method in METHODS:
            one, two = (Training(tiny_config(method), shared) for shared in (tiny, other))
            for training in (one, two):
                training.run(1)
                training.report()
                training.run(3)
            assert weight_bits(one) == weight_bits(two)

    @pytest.mark.parametrize("method", METHODS)
    def test_training_and_measuring_leave_all_arrays_as_they_are(self, method, tiny):
        shared = copy.deepcopy(tiny)
        store = ImageStore(shared.images)
        before = store.checksum()
        training = Training(tiny_config(method), shared, store)
        training.run(STEPS)
        training.report()
        assert store.checksum() == before
        for name, value in vars(shared).items():
            if isinstance(value, np.ndarray):
                assert np.array_equal(value, getattr(tiny, name)), name


def digest(training: Training) -> str:
    return hashlib.sha256(repr(weight_bits(training)).encode()).hexdigest()


@pytest.fixture
def every_warning() -> Iterator[None]:
    """Let torch repeat the warnings it otherwise gives once per process."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("every_warning")
@pytest.mark.filterwarnings("error")
def test_read_only_arrays_are_used_without_a_warning(tiny):
    """Arrays that several processes map are read-only."""
    shared = copy.deepcopy(tiny)
    for value in vars(shared).values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    training = Training(tiny_config("mixmatch"), shared)
    training.run(2)
    training.report()
    writable = Training(tiny_config("mixmatch"), tiny)
    writable.run(2)
    assert weight_bits(training) == weight_bits(writable)


class TestBatches:
    @pytest.mark.parametrize("method", METHODS)
    def test_labeled_batches_are_the_same_for_every_method(self, method, tiny):
        expected = recorded(tiny_config("supervised"), tiny)
        batches = recorded(tiny_config(method), tiny)
        for mine, theirs in zip(batches, expected, strict=True):
            assert torch.equal(mine.labels, theirs.labels)
            assert torch.equal(mine.labeled[0], theirs.labeled[0])

    @pytest.mark.parametrize("method", ["pi_model", "mean_teacher"])
    def test_labeled_batches_are_the_same_where_a_method_asks_for_two_views(self, method, tiny):
        expected = recorded(tiny_config("supervised"), tiny)
        both = {"consistency_on_labeled": True}
        batches = recorded(tiny_config(method, parameters=both), tiny)
        for mine, theirs in zip(batches, expected, strict=True):
            assert torch.equal(mine.labels, theirs.labels)
            assert torch.equal(mine.labeled[0], theirs.labeled[0])

    @pytest.mark.parametrize("change", ["learning_rate", "optimizer", "weight_decay"])
    def test_batches_do_not_depend_on_what_is_trained(self, change, tiny):
        changed = (
            tiny_config("ict", optimizer="sgd")
            if change == "optimizer"
            else tiny_config("ict", parameters={change: 0.5})
        )
        for mine, theirs in zip(
            recorded(changed, tiny), recorded(tiny_config("ict"), tiny), strict=True
        ):
            assert torch.equal(mine.labeled[0], theirs.labeled[0])
            assert torch.equal(mine.unlabeled[0], theirs.unlabeled[0])

    @pytest.mark.parametrize("method", METHODS)
    def test_batches_have_the_sizes_and_views_asked_for(self, method, tiny):
        training = Training(tiny_config(method), tiny)
        for batch in recorded(tiny_config(method), tiny):
            assert len(batch.labeled) == training.algorithm.labeled_views
            assert len(batch.unlabeled) == training.algorithm.unlabeled_views
            assert all(view.shape == (4, 2, 8, 8) for view in batch.labeled)
            assert all(view.shape == (8, 2, 8, 8) for view in batch.unlabeled)
            assert batch.labels.shape == (4,)

    def test_images_and_labels_of_a_batch_belong_together_and_to_their_pool(self, tiny):
        """Without augmentation every row is one image, found by its pixels."""
        plain = dataclasses.replace(
            tiny,
            augmentation=Augmentation(max_shift=0, flip=False, noise=0.0),
            normalisation=Normalisation(mean=(0.0, 0.0), std=(1.0, 1.0)),
        )
        position = {image.tobytes(): index for index, image in enumerate(tiny.images)}
        label_of = dict(zip(tiny.labeled.tolist(), tiny.labels.tolist(), strict=True))

        def rows(images: Tensor) -> list[int]:
            return [position[image.astype(np.uint8).tobytes()] for image in images.numpy()]

        labeled, unlabeled = [], []
        for batch in recorded(tiny_config("mixmatch", max_steps=14), plain, 14):
            found = rows(batch.labeled[0])
            assert [label_of[index] for index in found] == batch.labels.tolist()
            labeled += found
            assert rows(batch.unlabeled[0]) == rows(batch.unlabeled[1])
            unlabeled += rows(batch.unlabeled[0])
        for start in range(0, 50, 10):  # passes over the ten labeled images
            assert sorted(labeled[start : start + 10]) == tiny.labeled.tolist()
        for start in range(0, 112, 56):  # passes over the pool
            assert sorted(unlabeled[start : start + 56]) == tiny.unlabeled.tolist()

    def test_views_of_one_image_and_repeats_of_it_are_augmented_anew(self, tiny):
        batches = recorded(tiny_config("mixmatch"), tiny)
        for batch in batches:
            first, second = batch.unlabeled
            assert not (first == second).all(dim=(1, 2, 3)).any()
        rows = torch.cat([batch.labeled[0] for batch in batches])
        assert len({row.numpy().tobytes() for row in rows}) == len(rows) > len(tiny.labeled)


class TestEvaluationChangesNothing:
    @pytest.mark.parametrize("method", METHODS)
    def test_training_goes_on_as_if_nothing_had_been_measured(self, method, tiny):
        config = tiny_config(method)
        measured = Training(config, tiny)
        measured.report()
        for step in (1, 2, 5):
            measured.run(step)
            measured.report()
            measured.report()
        measured.run(STEPS)
        plain = trained(config, tiny)
        assert weight_bits(measured) == weight_bits(plain)
        states = [measured.state_dict(), plain.state_dict()]
        for part in ("optimizer", "labeled_order", "unlabeled_order", "generators", "ema_updates"):
            assert frozen(states[0][part]) == frozen(states[1][part]), part

    def test_the_networks_are_left_in_training_mode(self, tiny):
        training = trained(tiny_config(), tiny, 1)
        training.report()
        for network in (training.student, training.ema.network):
            assert all(module.training for module in network.modules())

    @pytest.mark.parametrize("method", METHODS)
    def test_statistics_do_not_depend_on_what_was_measured_before(self, method, tiny):
        config = tiny_config(method)
        often, once = Training(config, tiny), Training(config, tiny)
        for step in (0, 2, 4):
            often.run(step)
            often.report()
        often.run(STEPS)
        once.run(STEPS)
        for network in (once.student, once.ema.network):
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.fill_(math.nan)
                    module.running_var.fill_(1e9)
        first, second = often.report(), once.report()
        assert first.evaluated.correct.tolist() == second.evaluated.correct.tolist()
        assert first.other.correct.tolist() == second.other.correct.tolist()
        for one, two in (
            (often.student, once.student),
            (often.ema.network, once.ema.network),
        ):
            assert frozen(dict(one.named_buffers())) == frozen(dict(two.named_buffers()))

    def test_measuring_twice_at_one_step_gives_the_same(self, tiny):
        training = trained(tiny_config("ict"), tiny)
        first, second = training.report(), training.report()
        assert first.evaluated.correct.tolist() == second.evaluated.correct.tolist()
        assert first.other.correct.tolist() == second.other.correct.tolist()


def statistics_batches(
    config: TrainingConfig, shared: SplitImages, monkeypatch, steps: int = 2
) -> list[list[Tensor]]:
    """Return what feeds the BatchNorm statistics of the networks measured at one step."""
    seen: list[list[Tensor]] = []

    def spy(network: nn.Module, batches: list[Tensor]) -> None:
        seen.append(list(batches))
        recompute_statistics(network, batches)

    monkeypatch.setattr(loop, "recompute_statistics", spy)
    trained(config, shared, steps).report()
    return seen


class TestStatistics:
    def test_they_are_the_mean_over_batches_of_mean_and_unbiased_variance(self):
        norm = nn.BatchNorm2d(2, momentum=0.0)
        norm.running_mean.fill_(7.0)
        random = np.random.default_rng(0)
        batches = [random.normal(3.0, 2.0, (4, 2, 3, 3)).astype(np.float32) for _ in range(8)]
        recompute_statistics(norm, [torch.from_numpy(batch) for batch in batches])
        means = np.mean([batch.mean(axis=(0, 2, 3)) for batch in batches], axis=0)
        variances = np.mean([batch.var(axis=(0, 2, 3), ddof=1) for batch in batches], axis=0)
        np.testing.assert_allclose(norm.running_mean, means, rtol=1e-5)
        np.testing.assert_allclose(norm.running_var, variances, rtol=1e-5)
        assert norm.momentum == 0.0
        assert norm.training

    def test_both_networks_are_fed_the_same_eight_batches_of_the_unlabeled_size(
        self, tiny, monkeypatch
    ):
        student, average = statistics_batches(tiny_config("ict"), tiny, monkeypatch)
        assert [batch.shape for batch in student] == [(8, 2, 8, 8)] * 8
        assert frozen(student) == frozen(average)
        assert len({batch.numpy().tobytes() for batch in student}) == 8

    @pytest.mark.parametrize("method", METHODS)
    def test_they_are_the_same_images_for_every_method(self, method, tiny, monkeypatch):
        expected = statistics_batches(tiny_config("supervised"), tiny, monkeypatch)
        assert frozen(statistics_batches(tiny_config(method), tiny, monkeypatch)) == frozen(
            expected
        )

    def test_another_step_or_seed_draws_other_images(self, tiny, monkeypatch):
        draws = [
            statistics_batches(tiny_config(seed=seed), tiny, monkeypatch, steps)
            for seed, steps in ((0, 1), (0, 2), (1, 1))
        ]
        assert len({repr(frozen(draw)) for draw in draws}) == 3

    def test_they_come_from_unlabeled_images_alone(self, tiny, monkeypatch):
        plain = dataclasses.replace(
            tiny,
            augmentation=Augmentation(max_shift=0, flip=False, noise=0.0),
            normalisation=Normalisation(mean=(0.0, 0.0), std=(1.0, 1.0)),
        )
        pool = {tiny.images[index].tobytes() for index in tiny.unlabeled}
        batches, _ = statistics_batches(tiny_config(), plain, monkeypatch)
        used = {image.astype(np.uint8).tobytes() for batch in batches for image in batch.numpy()}
        assert used == pool  # 64 draws in passes over 56 images

    def test_measuring_uses_the_recomputed_statistics(self, tiny):
        training = trained(tiny_config("ict"), tiny)
        report = training.report()
        again = evaluate(
            training.evaluated_network,
            ImageStore(tiny.images),
            tiny.validation,
            tiny.validation_labels,
            tiny.normalisation,
            torch.device("cpu"),
        )
        assert again.correct.tolist() == report.evaluated.correct.tolist()


class TestEvaluatedNetwork:
    def test_both_networks_are_measured_and_the_configured_one_is_evaluated(self, tiny):
        reports = {}
        for choice in EVALUATED_NETWORKS:
            config = tiny_config(evaluate=choice, parameters={"ema_horizon": 30.0})
            training = trained(config, tiny)
            reports[choice] = training.report()
            network = training.student if choice == "student" else training.ema.network
            assert training.evaluated_network is network
        ema, student = reports["ema"], reports["student"]
        assert ema.evaluated.correct.tolist() == student.other.correct.tolist()
        assert ema.other.correct.tolist() == student.evaluated.correct.tolist()
        assert ema.evaluated.correct.tolist() != ema.other.correct.tolist()
        assert ema.evaluated.labels.tolist() == tiny.validation_labels.tolist()

    def test_which_network_is_evaluated_does_not_change_the_training(self, tiny):
        one, two = (
            trained(tiny_config("mean_teacher", evaluate=choice), tiny)
            for choice in EVALUATED_NETWORKS
        )
        assert weight_bits(one) == weight_bits(two)

    @pytest.mark.parametrize("horizon", [1.0, 3.0, 1000.0])
    def test_the_average_is_a_plain_mean_first_and_then_a_moving_one(self, horizon, tiny):
        training = Training(tiny_config(parameters={"ema_horizon": horizon}), tiny)
        expected: dict[str, np.ndarray] = {}
        for step in range(1, STEPS + 1):
            training.run(step)
            decay = min(1 - 1 / step, 1 - 1 / horizon)
            for name, parameter in training.student.named_parameters():
                value = parameter.detach().numpy().astype(np.float64)
                before = expected.get(name, np.zeros_like(value))
                expected[name] = decay * before + (1 - decay) * value
        for name, parameter in training.ema.network.named_parameters():
            np.testing.assert_allclose(parameter.numpy(), expected[name], rtol=1e-4, atol=1e-6)

    def test_the_terms_are_means_since_the_last_report(self, tiny):
        config = tiny_config("ict")
        single = Training(config, tiny)
        each = []
        for step in range(1, STEPS + 1):
            single.run(step)
            each.append(single.report().terms)
        joined = Training(config, tiny)
        joined.run(2)
        first = joined.report().terms
        joined.run(STEPS)
        second = joined.report().terms
        assert {"total", "labeled", "unlabeled", "unlabeled_weight"} <= first.keys()
        for name in first:
            assert first[name] == pytest.approx(np.mean([terms[name] for terms in each[:2]]))
            assert second[name] == pytest.approx(np.mean([terms[name] for terms in each[2:]]))

    def test_a_report_before_the_first_step_has_no_terms(self, tiny):
        report = Training(tiny_config(), tiny).report()
        assert report.step == 0
        assert report.terms == {}
        assert len(report.evaluated.correct) == 24


def stored(training: Training) -> dict[str, Any]:
    """Return the state as another process would read it."""
    data = to_bytes(training.state_dict())
    return from_bytes(data, sha256=hashlib.sha256(data).hexdigest(), name="trial 3")


def finish(config: TrainingConfig, stops: tuple[int, ...] = ()) -> Any:
    """Train in pieces, each in a new Training, and return what the end is like."""
    shared = tiny_images()
    training = Training(config, shared)
    for stop in stops:
        training.run(stop)
        state = stored(training)
        training = Training(config, shared)
        training.load_state_dict(state)
        assert training.step == stop
    training.run(config.max_steps)
    report = training.report()
    return report_bits(report), state_bits(training)


@functools.cache
def uninterrupted(method: str) -> Any:
    return finish(tiny_config(method))


class TestCheckpoints:
    @pytest.mark.parametrize("stops", [(0, 3), (1,), (2, 2, 5), (1, 2, 3, 4, 5, 6)])
    @pytest.mark.parametrize("method", METHODS)
    def test_a_continued_training_ends_bit_for_bit_where_the_whole_one_does(self, method, stops):
        assert finish(tiny_config(method), stops) == uninterrupted(method)

    @pytest.mark.parametrize("schedule", LR_SCHEDULE_NAMES)
    @pytest.mark.parametrize("optimizer", OPTIMIZER_NAMES)
    def test_it_does_so_with_every_optimiser_and_schedule(self, optimizer, schedule):
        config = tiny_config("mixmatch", optimizer=optimizer, lr_schedule=schedule)
        assert finish(config, (2, 5)) == finish(config)

    @pytest.mark.parametrize(
        "changes",
        [
            {"precision": "bfloat16"},
            {"evaluate": "student"},
            {"batch_size": 13, "unlabeled_ratio": 7},
            {"parameters": {"consistency_on_labeled": True, "entropy_weight": 0.1}},
        ],
        ids=["bfloat16", "student", "batches larger than the pools", "more terms"],
    )
    def test_it_does_so_with_other_settings(self, changes):
        config = tiny_config("mean_teacher", **changes)
        assert finish(config, (2, 5)) == finish(config)

    def test_it_does_so_where_reports_lie_between(self, tiny):
        config = tiny_config("vat")
        whole = Training(config, tiny)
        whole.run(3)
        whole.report()
        whole.run(STEPS)
        first = Training(config, tiny)
        first.run(3)
        first.report()
        second = Training(config, tiny)
        second.load_state_dict(stored(first))
        second.run(STEPS)
        assert report_bits(second.report()) == report_bits(whole.report())
        assert state_bits(second) == state_bits(whole)

    def test_loading_replaces_all_that_a_used_training_holds(self, tiny):
        config = tiny_config("ict")
        state = stored(trained(config, tiny, 2))
        used = trained(config, tiny, 5)
        used.load_state_dict(state)
        used.run(STEPS)
        assert state_bits(used) == state_bits(trained(config, tiny))

    def test_one_state_can_be_loaded_twice(self, tiny):
        config = tiny_config("ict")
        state = stored(trained(config, tiny, 2))
        whole = state_bits(trained(config, tiny))
        for _ in range(2):
            training = Training(config, tiny)
            training.load_state_dict(state)
            training.run(STEPS)
            assert state_bits(training) == whole

    def test_storing_does_not_change_the_training(self, tiny):
        config = tiny_config("mixmatch")
        training = Training(config, tiny)
        for step in range(STEPS):
            to_bytes(training.state_dict())
            training.run(step + 1)
        assert state_bits(training) == state_bits(trained(config, tiny))

    @pytest.mark.parametrize("damage", ["one bit", "cut short", "cut to nothing", "longer"])
    def test_a_damaged_checkpoint_is_refused_by_name(self, damage, tiny):
        data = to_bytes(trained(tiny_config(), tiny, 1).state_dict())
        sha256 = hashlib.sha256(data).hexdigest()
        middle = len(data) // 2
        spoiled = {
            "one bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "cut short": data[:middle],
            "cut to nothing": b"",
            "longer": data + b"\0",
        }[damage]
        name = "trials/0007/checkpoint/000003.pt"
        with pytest.raises(UserError) as caught:
            from_bytes(spoiled, sha256=sha256, name=name)
        assert_helps(str(caught.value), name, f"{len(spoiled)} bytes")

    def test_a_checkpoint_runs_no_code(self, tmp_path):
        class Trap:
            def __reduce__(self) -> Any:
                return (os.mkdir, (str(tmp_path / "never"),))

        data = to_bytes({"trap": Trap()})
        with pytest.raises(Exception, match=r"(?i)weights.only"):
            from_bytes(data, sha256=hashlib.sha256(data).hexdigest(), name="trap")
        assert not (tmp_path / "never").exists()


SCHEDULE_FACTORS = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: math.cos(7 * math.pi / 16 * progress),
    "step": lambda progress: 1.0 if progress < 0.8 else 0.2,
}


class TestProgress:
    @pytest.mark.parametrize("optimizer", OPTIMIZER_NAMES)
    @pytest.mark.parametrize("schedule", LR_SCHEDULE_NAMES)
    @pytest.mark.parametrize("steps", [5, 10])
    def test_the_learning_rate_follows_progress(self, schedule, optimizer, steps, tiny):
        config = tiny_config(
            optimizer=optimizer,
            lr_schedule=schedule,
            max_steps=steps,
            parameters={"learning_rate": 0.01},
        )
        training = Training(config, tiny)
        for step in range(steps):
            training.run(step + 1)
            rates = {group["lr"] for group in training.state_dict()["optimizer"]["param_groups"]}
            expected = 0.01 * SCHEDULE_FACTORS[schedule](step / steps)
            assert list(rates) == [pytest.approx(expected, rel=1e-6)]

    @pytest.mark.parametrize("steps", [4, 10])
    @pytest.mark.parametrize("method", [name for name in METHODS if name != "supervised"])
    def test_the_unlabeled_weight_follows_progress(self, method, steps, tiny):
        parameters = {"unlabeled_weight": 3.0, "ramp_fraction": 0.5}
        config = tiny_config(method, max_steps=steps, parameters=parameters)
        for step, terms in enumerate(recorder_of(config, tiny, steps).terms):
            part = min(step / steps / 0.5, 1.0)
            ramp = part if method == "mixmatch" else math.exp(-5 * (1 - part) ** 2)
            weight = float(terms.diagnostics["unlabeled_weight"])
            assert weight == pytest.approx(3.0 * ramp, rel=1e-5)
            assert float(terms.total.detach()) == pytest.approx(
                float(terms.labeled.detach() + weight * terms.unlabeled.detach()), rel=1e-5
            )

    def test_the_learning_rate_reaches_the_weights(self, tiny):
        """The first step of Adam moves a weight by the learning rate."""
        for rate in (1e-3, 2e-3):
            parameters = {"learning_rate": rate, "weight_decay": 0.0}
            training = Training(tiny_config(parameters=parameters), tiny)
            before = copy.deepcopy(training.student.state_dict())
            training.run(1)
            moved = training.student.classifier.weight - before["classifier.weight"]
            torch.testing.assert_close(moved.abs().max(), torch.tensor(rate), rtol=1e-3, atol=0)


class TestWeightDecay:
    @pytest.mark.parametrize("optimizer", OPTIMIZER_NAMES)
    def test_it_acts_on_kernels_only(self, optimizer, tiny):
        with_decay, without = (
            trained(tiny_config(optimizer=optimizer, parameters={"weight_decay": decay}), tiny, 1)
            for decay in (0.5, 0.0)
        )
        acted = {True: 0, False: 0}
        for name, parameter in with_decay.student.named_parameters():
            kernel = parameter.dim() > 1
            acted[kernel] += 1
            assert torch.equal(parameter, without.student.get_parameter(name)) != kernel, name
        assert acted[True] >= 10  # convolutions, shortcuts and the classifier
        assert acted[False] >= 10  # BatchNorm's scales and offsets, and the classifier's offsets

    def test_with_adamw_it_is_decoupled_from_the_gradient(self, tiny):
        rate, decay = 0.01, 0.5
        initial = Training(tiny_config(), tiny).student
        with_decay, without = (
            trained(tiny_config(parameters={"learning_rate": rate, "weight_decay": w}), tiny, 1)
            for w in (decay, 0.0)
        )
        for name, before in initial.named_parameters():
            if before.dim() > 1:
                shrunk = without.student.get_parameter(name) - rate * decay * before
                torch.testing.assert_close(
                    with_decay.student.get_parameter(name), shrunk, rtol=1e-4, atol=1e-6
                )


class TestNonFiniteLoss:
    def test_a_sound_training_is_finite(self, tiny):
        training = trained(tiny_config("mixmatch"), tiny)
        assert training.finite is True
        report = training.report()
        assert report.evaluated.finite is True
        assert report.other.finite is True

    @pytest.mark.parametrize("method", METHODS)
    def test_a_huge_learning_rate_is_noticed_and_stays_so(self, method, tiny):
        parameters = {"learning_rate": 1e30}
        training = trained(tiny_config(method, optimizer="sgd", parameters=parameters), tiny)
        assert training.finite is False
        report = training.report()
        assert report.other.finite is False
        assert training.finite is False

    @pytest.mark.parametrize("value", [math.inf, math.nan])
    @pytest.mark.parametrize("method", METHODS)
    def test_one_bad_weight_is_noticed_and_not_forgotten(self, method, value, tiny):
        training = trained(tiny_config(method), tiny, 2)
        assert training.finite is True
        sound = stored(training)
        with torch.no_grad():
            training.student.classifier.weight[0, 0] = value
        training.run(3)
        assert training.finite is False

        # Heal everything but the memory of it.
        remembered = stored(training)["finite"]
        later = Training(training.config, tiny)
        later.load_state_dict(sound | {"finite": remembered, "term_sums": {}, "term_count": 0})
        later.run(4)
        assert math.isfinite(later.report().terms["total"])
        assert later.finite is False

    def test_an_unlabeled_term_that_is_not_finite_is_noticed(self, tiny):
        training = Training(tiny_config("mean_teacher"), tiny)
        with torch.no_grad():
            training.ema.network.classifier.weight.fill_(math.nan)
        training.run(1)
        assert training.finite is False

    def test_a_network_that_broke_in_the_last_step_is_noticed_when_measured(self, tiny):
        training = trained(tiny_config(), tiny)
        with torch.no_grad():
            training.student.classifier.bias[1] = math.nan
        report = training.report()
        assert report.other.finite is False
        assert report.evaluated.finite is True


class TestBfloat16:
    @pytest.mark.parametrize("algorithm", METHODS)
    def test_every_weight_learns(self, algorithm, tiny):
        """A pass without gradients shares its cast weights with later ones in some versions of torch."""
        training = trained(tiny_config(algorithm, precision="bfloat16"), tiny, 1)
        assert all(float(weight.grad.abs().max()) > 0 for weight in training.student.parameters())

    @pytest.mark.parametrize("method", METHODS)
    def test_it_is_close_to_float32_and_not_the_same(self, method, tiny):
        # A threshold of 0 keeps rounding from deciding which pseudo-labels count.
        extra = {"threshold": 0.0} if method == "pseudo_label" else {}
        parameters = {"learning_rate": 1e-3, **extra}
        full, half = (
            trained(tiny_config(method, precision=precision, parameters=parameters), tiny, 3)
            for precision in ("float32", "bfloat16")
        )
        assert half.finite
        assert weight_bits(half) != weight_bits(full)
        for name, parameter in half.student.named_parameters():
            assert parameter.dtype == torch.float32
            theirs = full.student.get_parameter(name)
            # Three steps of Adam at 1e-3 move a weight by at most about 3e-3 either way.
            torch.testing.assert_close(parameter, theirs, rtol=0, atol=8e-3)
        half_terms, full_terms = half.report().terms, full.report().terms
        assert half_terms.keys() == full_terms.keys()
        assert half_terms["labeled"] == pytest.approx(full_terms["labeled"], rel=0.05)
        assert half_terms["total"] == pytest.approx(full_terms["total"], rel=0.1)

    @pytest.mark.parametrize("method", METHODS)
    def test_the_gradient_reaches_every_weight_as_in_float32(self, method, tiny):
        """A cast of the weights kept from a pass without gradients would cut it off."""
        gradients = []
        for precision in PRECISIONS:
            parameters = {"threshold": 0.0} if method == "pseudo_label" else {}
            training = Training(
                tiny_config(method, precision=precision, parameters=parameters), tiny
            )
            training.run(1)
            gradients.append(
                torch.cat([weight.grad.flatten() for weight in training.student.parameters()])
            )
        full, half = gradients
        assert float(torch.cosine_similarity(full, half, dim=0)) > 0.98
        assert float(half.norm() / full.norm()) == pytest.approx(1.0, abs=0.1)

    def test_networks_are_measured_in_float32(self, tiny, monkeypatch):
        kinds: list[torch.dtype] = []
        training = trained(tiny_config(precision="bfloat16"), tiny, 2)
        for network in (training.student, training.ema.network):
            network.register_forward_hook(lambda _m, _i, logits: kinds.append(logits.dtype))
        training.report()
        assert set(kinds) == {torch.float32}


class Linear(nn.Module):
    """Logits from pixels by a matrix, with a BatchNorm whose mode shows."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weights = np.random.default_rng(seed).normal(size=(5, 3 * 4 * 4)).astype(np.float32)
        self.weights = nn.Parameter(torch.from_numpy(weights))
        self.modes: list[bool] = []
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.sizes.append(len(images))
        assert not torch.is_grad_enabled()
        return images.flatten(1) @ self.weights.T


NORMALISATION = Normalisation(mean=(100.0, 120.0, 140.0), std=(50.0, 60.0, 70.0))


class TestEvaluate:
    @staticmethod
    def problem(count: int = 1203) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return images, rows to classify, labels by a noisy NumPy classifier, who is right."""
        random = np.random.default_rng(3)
        images = random.integers(0, 256, (2000, 3, 4, 4), dtype=np.uint8)
        rows = random.permutation(2000)[:count]
        mean, std = (np.array(v)[:, None, None] for v in dataclasses.astuple(NORMALISATION))
        inputs = ((images[rows] - mean) / std).reshape(count, -1)
        weights = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
        predicted = (inputs @ weights.T.astype(np.float64)).argmax(axis=1)
        labels = np.where(random.random(count) < 0.3, random.integers(0, 5, count), predicted)
        return images, rows, labels.astype(np.int64), predicted == labels

    def run(self, network: nn.Module, count: int = 1203) -> tuple[Evaluation, np.ndarray]:
        images, rows, labels, correct = self.problem(count)
        measured = evaluate(
            network, ImageStore(images), rows, labels, NORMALISATION, torch.device("cpu")
        )
        assert measured.labels.tolist() == labels.tolist()
        return measured, correct

    @pytest.mark.parametrize("count", [1, 499, 500, 501, 1203])
    def test_each_image_is_classified_as_numpy_does(self, count):
        network = Linear()
        measured, correct = self.run(network, count)
        assert measured.correct.dtype == np.bool_
        assert measured.correct.tolist() == correct.tolist()
        assert measured.accuracy == pytest.approx(correct.mean())
        assert measured.finite is True
        assert sum(network.sizes) == count

    @pytest.mark.parametrize("training", [True, False])
    def test_it_measures_in_evaluation_mode_and_restores_the_mode(self, training):
        network = Linear().train(training)
        self.run(network)
        assert set(network.modes) == {False}
        assert network.training is training

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("row", [0, 600, 1202])
    def test_one_logit_that_is_not_finite_is_noticed(self, row, value):
        class Broken(Linear):
            def forward(self, images: Tensor) -> Tensor:
                logits = super().forward(images)
                start = sum(self.sizes) - len(images)
                if start <= row < start + len(images):
                    logits[row - start, 2] = value
                return logits

        measured, _ = self.run(Broken())
        assert measured.finite is False

    def test_it_does_not_depend_on_the_size_of_its_batches(self, monkeypatch):
        expected, _ = self.run(Linear())
        monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 7)
        measured, _ = self.run(Linear())
        assert measured.correct.tolist() == expected.correct.tolist()


def measured(correct: list[int], labels: list[int]) -> Evaluation:
    return Evaluation(
        correct=np.array(correct, dtype=bool), labels=np.array(labels, dtype=np.int64), finite=True
    )


class TestMetrics:
    def test_by_hand(self):
        one = measured([1, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1])
        assert one.accuracy == pytest.approx(4 / 6)
        assert one.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
        assert one.standard_error("accuracy") == pytest.approx(math.sqrt(4 / 6 * 2 / 6 / 6))
        by_class = 3 / 4 * 1 / 4 / 4 + 1 / 2 * 1 / 2 / 2
        assert one.standard_error("balanced_accuracy") == pytest.approx(math.sqrt(by_class) / 2)

    @pytest.mark.parametrize("seed", range(5))
    def test_against_numpy(self, seed):
        random = np.random.default_rng(seed)
        labels = random.choice(4, size=300, p=[0.6, 0.3, 0.08, 0.02])
        correct = random.random(300) < np.array([0.9, 0.5, 0.3, 0.8])[labels]
        one = measured(correct.tolist(), labels.tolist())
        shares = np.array([correct[labels == label].mean() for label in range(4)])
        sizes = np.bincount(labels, minlength=4)
        assert one.value("accuracy") == one.accuracy == pytest.approx(np.average(correct))
        assert one.value("balanced_accuracy") == one.balanced_accuracy
        assert one.balanced_accuracy == pytest.approx(np.average(shares))
        error = np.std(correct) / np.sqrt(300)  # of a mean of zeros and ones
        assert one.standard_error("accuracy") == pytest.approx(error)
        error = np.sqrt(np.sum(shares * (1 - shares) / sizes)) / 4
        assert one.standard_error("balanced_accuracy") == pytest.approx(error)

    def test_they_agree_on_equal_classes(self):
        one = measured([1, 1, 0, 1, 1, 0], [0, 0, 0, 2, 2, 2])
        assert one.accuracy == pytest.approx(one.balanced_accuracy)
        errors = [one.standard_error(metric) for metric in METRIC_NAMES]
        assert errors[0] == pytest.approx(errors[1])

    def test_a_class_without_images_does_not_count(self):
        assert measured([1, 0], [0, 3]).balanced_accuracy == pytest.approx(0.5)

    @pytest.mark.parametrize("metric", METRIC_NAMES)
    @pytest.mark.parametrize("right", [0, 1])
    def test_all_or_nothing_has_no_binomial_error(self, right, metric):
        one = measured([right] * 6, [0, 0, 0, 1, 1, 2])
        assert one.value(metric) == right
        assert one.standard_error(metric) == 0.0

    def test_the_standard_error_is_that_of_repeated_draws(self):
        random = np.random.default_rng(0)
        labels = np.repeat([0, 1], [30, 10])
        chance = np.where(labels == 0, 0.8, 0.4)
        values = [
            measured((random.random(40) < chance).tolist(), labels.tolist()).balanced_accuracy
            for _ in range(4000)
        ]
        expected = math.sqrt(0.8 * 0.2 / 30 + 0.4 * 0.6 / 10) / 2
        assert np.std(values) == pytest.approx(expected, rel=0.05)


class TestAtomicWriting:
    def write_badly(self, folder: Path) -> Path:
        """Put the old file there, try to write the new one, and see that nothing changed."""
        path = folder / "state.pt"
        path.write_bytes(b"old")
        with pytest.raises((OSError, KeyboardInterrupt)):
            write_atomically(path, b"new" * 10_000)
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in folder.iterdir()] == ["state.pt"]
        return path

    @staticmethod
    def open_full(_path: Path, mode: str) -> Any:
        return open("/dev/full", mode)

    def test_the_file_is_there_with_its_folders_and_nothing_else(self, tmp_path):
        path = tmp_path / "some" / "where" / "state.pt"
        write_atomically(path, b"first")
        assert path.read_bytes() == b"first"
        write_atomically(path, b"second, longer")
        write_atomically(path, b"")
        assert path.read_bytes() == b""
        assert [entry.name for entry in path.parent.iterdir()] == ["state.pt"]

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_the_old_file_stays_where_a_call_fails(self, call, error, tmp_path, monkeypatch):
        def fail(*_args: Any) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(files.os, call, fail)
            path = self.write_badly(tmp_path)
        write_atomically(path, b"new")
        assert path.read_bytes() == b"new"

    def test_the_old_file_stays_where_only_a_part_can_be_written(self, tmp_path):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            self.write_badly(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full")
    def test_the_old_file_stays_where_the_disk_is_full(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "open", self.open_full, raising=False)
        self.write_badly(tmp_path)

    def test_the_old_file_stays_where_the_new_one_cannot_be_opened(self, tmp_path, monkeypatch):
        def fail(*_args: Any) -> None:
            raise PermissionError(errno.EACCES, "read only")

        monkeypatch.setattr(files, "open", fail, raising=False)
        self.write_badly(tmp_path)

    def test_a_folder_in_its_place_stays_and_nothing_is_left_beside_it(self, tmp_path):
        (tmp_path / "state.pt").mkdir()
        with pytest.raises(OSError, match="directory"):
            write_atomically(tmp_path / "state.pt", b"new")
        assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]

    def test_the_bytes_are_on_the_disk_before_the_name_changes(self, tmp_path, monkeypatch):
        path = tmp_path / "state.pt"
        path.write_bytes(b"old")
        calls: list[str] = []
        fsync, replace = os.fsync, os.replace

        def spy_fsync(descriptor: int) -> None:
            is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
            calls.append("fsync folder" if is_folder else "fsync file")
            assert path.read_bytes() == (b"new" if is_folder else b"old")
            fsync(descriptor)

        def spy_replace(source: Path, target: Path) -> None:
            calls.append("replace")
            assert Path(source).read_bytes() == b"new"
            assert Path(source).parent == Path(target).parent
            replace(source, target)

        monkeypatch.setattr(files.os, "fsync", spy_fsync)
        monkeypatch.setattr(files.os, "replace", spy_replace)
        write_atomically(path, b"new")
        assert calls == ["fsync file", "replace", "fsync folder"]


def test_the_parts_of_a_profile_are_the_step() -> None:
    training = Training(tiny_config("ict", max_steps=20), tiny_images())
    found = profile_steps(training)
    assert training.step == 15
    assert tuple(found.parts) == STEP_PARTS
    assert all(spent > 0 for spent in found.parts.values())
    spent_in_operators = sum(operator.milliseconds for operator in found.operators)
    assert spent_in_operators <= sum(found.parts.values())
    calls = {operator.name: operator.calls for operator in found.operators}
    kernels = sum(isinstance(module, nn.Conv2d) for module in training.student.modules())
    passes = 3  # of the teacher, and of the student over labeled and over mixed images
    assert calls["aten::mkldnn_convolution"] == passes * kernels
