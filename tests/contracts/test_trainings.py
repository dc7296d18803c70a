"""One contract over every algorithm in a whole training: a method is under it by being listed.

Trained at weight 0, a method that does not mix labeled images ends bit for bit where supervised
does. Further: one step, seeds, checkpoints, augmentation, ramps, and what is evaluated.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_core.algorithms import Batch, LossTerms
from ssl_core.data.prepare import SplitImages
from ssl_core.data.recipe import Augmentation, Normalisation
from ssl_core.training.checkpoint import from_bytes, to_bytes
from ssl_core.training.config import TrainingConfig
from ssl_core.training.loop import Training
from ssl_core.training.seeds import STREAMS, generator_for
from tests.contracts.variants import (
    AT_WEIGHT_3,
    OVER_METHODS,
    OVER_SEMI_SUPERVISED,
    OVER_VARIANTS,
    VARIANTS,
    chosen,
)

CLASSES, BATCH, RATIO = 3, 4, 2
MIXES_LABELED = {("mixmatch", ""), ("ict", "supervised_mixup")}


def tiny_images(identical: bool = False) -> SplitImages:
    """Return 64 random images of 3 classes: 6 labeled, 44 unlabeled, 20 for validation."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, size=(64, 1, 8, 8)).astype(np.uint8)
    if identical:
        images[:] = images[0]
    labels = random.permutation(np.arange(64) % CLASSES)
    return SplitImages(
        images=images,
        labeled=np.arange(6),
        labels=labels[:6],
        unlabeled=np.arange(44),
        validation=np.arange(44, 64),
        validation_labels=labels[44:],
        class_names=("a", "b", "c"),
        skipped=(),
        normalisation=Normalisation(mean=(127.0,), std=(74.0,)),
        augmentation=Augmentation(max_shift=1, flip=False, noise=0.0),
        fingerprint="none",
    )


class Recorder:
    """An algorithm that keeps every batch and every term, and passes them on."""

    def __init__(self, algorithm: Any) -> None:
        self._algorithm = algorithm
        self.labeled_views = algorithm.labeled_views
        self.unlabeled_views = algorithm.unlabeled_views
        self.batches: list[Batch] = []
        self.terms: list[LossTerms] = []

    def __call__(self, student, teacher, batch, progress, generator):
        self.batches.append(batch)
        self.terms.append(self._algorithm(student, teacher, batch, progress, generator))
        return self.terms[-1]


def training(
    method: str,
    flag: str = "",
    *,
    shared: SplitImages | None = None,
    parameters: dict[str, float] | None = None,
    weight: float = 1.0,
    **settings: Any,
) -> Training:
    record = {
        "algorithm": method,
        "parameters": chosen(method, flag, **(AT_WEIGHT_3 | {"unlabeled_weight": weight}))
        | {"learning_rate": 1e-3, "weight_decay": 0.01, "ema_horizon": 5.0}
        | (parameters or {}),
        "max_steps": 12,
        "batch_size": BATCH,
        "unlabeled_ratio": RATIO,
        "model": "wrn-10-1",
        "seed": 7,
    }
    config = TrainingConfig.from_record(record | settings)
    return Training(config, tiny_images() if shared is None else shared)


def recorded(*args: Any, **kwargs: Any) -> tuple[Training, Recorder]:
    run = training(*args, **kwargs)
    recorder = Recorder(run.algorithm)
    run._device_step.algorithm = recorder
    return run, recorder


def parameters_of(run: Training) -> list[Tensor]:
    return [*run.student.parameters(), *run.ema.network.parameters()]


def assert_equal_parameters(one: Training, other: Training) -> None:
    for first, second in zip(parameters_of(one), parameters_of(other), strict=True):
        assert torch.equal(first, second)


def flat(state: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by their path."""
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    else:
        return {path: state}
    return {k: v for key, value in items for k, v in flat(value, f"{path}/{key}").items()}


def assert_equal_state(one: Training, other: Training) -> None:
    first, second = flat(one.state_dict()), flat(other.state_dict())
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        assert same, name


@pytest.mark.parametrize(
    ("method", "flag"), [variant for variant in VARIANTS if variant not in MIXES_LABELED]
)
def test_trained_at_weight_0_a_method_ends_bit_for_bit_where_supervised_does(method, flag):
    line, run = training("supervised"), training(method, flag, weight=0.0)
    for one in (line, run):
        one.run(4)
    assert_equal_parameters(line, run)
    first, second = line.report(), run.report()
    assert first.evaluated.accuracy == second.evaluated.accuracy
    assert first.terms["labeled"] == second.terms["labeled"]


@OVER_METHODS
def test_every_method_sees_the_same_labeled_batches_at_the_same_seed(method):
    (line, expected), (run, found) = recorded("supervised"), recorded(method)
    for one in (line, run):
        one.run(4)
    for theirs, ours in zip(expected.batches, found.batches, strict=True):
        assert torch.equal(theirs.labeled[0], ours.labeled[0])
        assert torch.equal(theirs.labels, ours.labels)


@OVER_SEMI_SUPERVISED
def test_at_a_weight_above_0_the_training_differs_from_supervised(method):
    line, run = training("supervised"), training(method, weight=3.0)
    for one in (line, run):
        one.run(2)
    assert not torch.equal(line.student.classifier.weight, run.student.classifier.weight)


@OVER_METHODS
def test_one_step_changes_every_weight_and_leaves_batch_norm_statistics(method):
    run = training(method)
    before = [parameter.detach().clone() for parameter in run.student.parameters()]
    run.run(1)
    for old, new in zip(before, run.student.parameters(), strict=True):
        assert not torch.equal(old, new)
    for network in (run.student, run.ema.network):
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms
        for norm in norms:
            assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
            assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))
    assert all(parameter.grad is None for parameter in run.ema.network.parameters())


@OVER_METHODS
def test_the_average_follows_the_student_after_each_step(method):
    run = training(method)
    run.run(1)
    mean = [parameter.detach().clone() for parameter in run.student.parameters()]
    for own, students in zip(run.ema.network.parameters(), mean, strict=True):
        assert torch.equal(own, students)
    run.run(2)
    for own, first, second in zip(
        run.ema.network.parameters(), mean, run.student.parameters(), strict=True
    ):
        torch.testing.assert_close(own, (first + second) / 2)


@OVER_METHODS
def test_the_same_seed_gives_the_same_training_and_another_seed_another(method):
    runs = [training(method), training(method), training(method, seed=8)]
    for run in runs:
        run.run(3)
    assert_equal_state(runs[0], runs[1])
    assert same_reports(runs[0], runs[1])
    assert not torch.equal(runs[0].student.stem.weight, runs[2].student.stem.weight)


def same_reports(one: Training, other: Training) -> bool:
    first, second = one.report(), other.report()
    return (
        first.step == second.step
        and first.terms == second.terms
        and np.array_equal(first.evaluated.correct, second.evaluated.correct)
        and np.array_equal(first.other.correct, second.other.correct)
    )


@OVER_VARIANTS
def test_a_training_continued_from_a_checkpoint_ends_bit_for_bit_equal(method, flag):
    through, first = training(method, flag), training(method, flag)
    through.run(5)
    first.run(2)
    data = to_bytes(first.state_dict())
    second = training(method, flag)
    second.load_state_dict(
        from_bytes(data, sha256=hashlib.sha256(data).hexdigest(), name="of the test")
    )
    second.run(5)
    assert_equal_state(through, second)
    assert same_reports(through, second)


@OVER_METHODS
def test_a_report_changes_nothing_of_what_follows(method):
    watched, alone = training(method), training(method)
    for until in (1, 3):
        watched.run(until)
        watched.report()
    watched.run(4)
    alone.run(4)
    assert_equal_parameters(watched, alone)
    assert watched.student.training
    assert watched.ema.network.training


# Data, schedules and evaluation, as every method gets them.


@OVER_METHODS
def test_images_of_a_batch_are_shifted_each_by_its_own_draw(method):
    run, recorder = recorded(method, shared=tiny_images(identical=True))
    run.run(3)
    for batch in recorder.batches:
        for views in (batch.labeled, batch.unlabeled):
            for view in views:
                assert len(torch.unique(view, dim=0)) > 1


@OVER_METHODS
def test_the_views_of_an_image_differ_and_show_the_same_image(method):
    run, recorder = recorded(method)
    run.run(1)
    batch = recorder.batches[0]
    for views in (batch.labeled, batch.unlabeled):
        for one, other in itertools.pairwise(views):
            assert not torch.equal(one, other)
            # A shift by one pixel leaves most of an image's own values in it.
            for a, b in zip(one, other, strict=True):
                assert torch.isin(a, b).double().mean() > 0.5


def numbered_images() -> SplitImages:
    """Return images of one grey each, which tells their position whatever the augmentation."""
    shared = tiny_images()
    shared.images[:] = 4 * np.arange(64, dtype=np.uint8)[:, None, None, None]
    return shared


def positions_of(view: Tensor) -> list[int]:
    return ((view[:, 0, 0, 0] * 74.0 + 127.0) / 4).round().int().tolist()


@OVER_METHODS
def test_each_image_comes_from_its_own_pool_with_its_own_label(method):
    shared = numbered_images()
    run, recorder = recorded(method, shared=shared)
    run.run(8)
    unlabeled = set()
    for batch in recorder.batches:
        positions = positions_of(batch.labeled[0])
        assert set(positions) <= set(shared.labeled)
        assert batch.labels.tolist() == [shared.labels[position] for position in positions]
        for views in (batch.labeled, batch.unlabeled):
            assert all(positions_of(view) == positions_of(views[0]) for view in views)
        unlabeled |= {position for view in batch.unlabeled for position in positions_of(view)}
    # 8 steps of 8 images are more than one pass over the 44.
    assert unlabeled == (set(shared.unlabeled) if recorder.unlabeled_views else set())


def test_batch_norm_is_fed_by_the_unlabeled_pool():
    shared = numbered_images()
    seen = batches_of_the_evaluation(training("supervised", shared=shared))["ema"]
    assert {position for batch in seen for position in positions_of(batch)} == set(shared.unlabeled)


@OVER_SEMI_SUPERVISED
@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_a_ramp_is_a_fraction_of_the_budget(method, fraction):
    """A quarter into the training the weight is the same, whether it has 8 steps or 400,000."""
    weights = []
    for max_steps in (8, 400, 400_000):
        run, recorder = recorded(
            method, weight=5.0, parameters={"ramp_fraction": fraction}, max_steps=max_steps
        )
        run.step = max_steps // 4
        run.run(max_steps // 4 + 1)
        weights.append(recorder.terms[0].diagnostics["unlabeled_weight"].item())
    assert weights == pytest.approx([weights[0]] * 3, rel=1e-6)
    assert weights[0] == pytest.approx(5.0) if fraction == 0.25 else weights[0] < 4.9


@OVER_SEMI_SUPERVISED
def test_a_ramp_rises_and_then_stays(method):
    run, recorder = recorded(method, weight=5.0, parameters={"ramp_fraction": 0.5}, max_steps=8)
    run.run(8)
    weights = [terms.diagnostics["unlabeled_weight"].item() for terms in recorder.terms]
    assert all(earlier < later for earlier, later in itertools.pairwise(weights[:5]))
    assert weights[4:] == pytest.approx([5.0] * 4)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1.0, 1.0, 1.0]),
        ("step", [1.0, 1.0, 0.2]),
        ("cosine", [1.0, np.cos(7 * np.pi / 32), np.cos(7 * np.pi * 0.9 / 16)]),
    ],
)
@pytest.mark.parametrize("max_steps", [10, 1000])
def test_the_learning_rate_is_a_function_of_the_part_of_the_budget(schedule, factors, max_steps):
    run = training("supervised", lr_schedule=schedule, max_steps=max_steps)
    for progress, factor in zip((0.0, 0.5, 0.9), factors, strict=True):
        run.step = round(progress * max_steps)
        run.run(run.step + 1)
        rates = [group["lr"] for group in run.state_dict()["optimizer"]["param_groups"]]
        assert rates == pytest.approx([1e-3 * factor] * len(rates), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_weight_decay_acts_on_kernels_and_not_on_batch_norm_or_biases(optimizer):
    runs = [
        training("supervised", parameters={"weight_decay": decay}, optimizer=optimizer)
        for decay in (0.0, 0.5)
    ]
    for run in runs:
        run.run(1)
    (without, decayed) = (dict(run.student.named_parameters()) for run in runs)
    for name, parameter in without.items():
        assert torch.equal(parameter, decayed[name]) == (parameter.dim() == 1), name


def test_adamw_decays_a_kernel_by_rate_times_decay():
    runs = [training("supervised", parameters={"weight_decay": decay}) for decay in (0.0, 0.5)]
    start = runs[0].student.stem.weight.detach().clone()
    for run in runs:
        run.run(1)
    difference = runs[0].student.stem.weight - runs[1].student.stem.weight
    torch.testing.assert_close(difference, 1e-3 * 0.5 * start, rtol=1e-3, atol=1e-7)


def batches_of_the_evaluation(run: Training) -> dict[str, list[Tensor]]:
    """Report, and return the images each network was given in training mode meanwhile."""
    seen: dict[str, list[Tensor]] = {"student": [], "ema": []}
    networks = {"student": run.student, "ema": run.ema.network}
    hooks = [
        network.register_forward_pre_hook(
            lambda module, given, own=seen[name]: (
                own.append(given[0].clone()) if module.training else None
            )
        )
        for name, network in networks.items()
    ]
    run.report()
    for hook in hooks:
        hook.remove()
    return seen


@OVER_METHODS
def test_batch_norm_is_fed_by_the_same_unlabeled_images_for_every_method(method):
    line, run = training("supervised"), training(method)
    for one in (line, run):
        one.run(2)
    expected = batches_of_the_evaluation(line)["student"]
    assert len(expected) == 8
    for found in batches_of_the_evaluation(run).values():
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@OVER_METHODS
def test_each_network_is_evaluated_on_fresh_statistics_of_its_own(method):
    run = training(method)
    run.run(3)
    seen = batches_of_the_evaluation(run)
    for name, network in (("student", run.student), ("ema", run.ema.network)):
        # The first norm sees the stem's output: its statistics can be had without the network.
        kernel = network.stem.weight.detach()
        maps = [nn.functional.conv2d(batch, kernel, padding=1) for batch in seen[name]]
        norm = network.blocks[0].norm1
        means = torch.stack([own.mean(dim=(0, 2, 3)) for own in maps])
        torch.testing.assert_close(norm.running_mean, means.mean(dim=0), rtol=1e-4, atol=1e-5)
        spreads = torch.stack([own.transpose(0, 1).flatten(1).var(dim=1) for own in maps])
        torch.testing.assert_close(norm.running_var, spreads.mean(dim=0), rtol=1e-4, atol=1e-5)
    own, others = (network.last_norm.running_mean for network in (run.student, run.ema.network))
    assert not torch.allclose(own, others)


def test_stale_batch_norm_statistics_do_not_matter_to_a_report():
    clean, stale = training("supervised"), training("supervised")
    for run in (clean, stale):
        run.run(6)
    for network in (stale.student, stale.ema.network):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.fill_(100.0)
                module.running_var.fill_(1e-6)
    assert same_reports(clean, stale)


@OVER_METHODS
@pytest.mark.parametrize("evaluate", ["ema", "student"])
def test_the_network_that_is_evaluated_is_the_one_the_configuration_names(method, evaluate):
    run = training(method, evaluate=evaluate)
    run.run(2)
    with torch.no_grad():  # after two steps the networks agree on nearly all: set them apart
        run.student.classifier.bias[0] += 3.0
        run.ema.network.classifier.bias[1] += 3.0
    report = run.report()
    shared = tiny_images()
    images = (shared.images[shared.validation].astype(np.float32) - 127.0) / 74.0
    found = {}
    for name, network in (("student", run.student), ("ema", run.ema.network)):
        network.eval()
        with torch.no_grad():
            classes = network(torch.from_numpy(images)).argmax(dim=1).numpy()
        found[name] = classes == shared.validation_labels
    assert not np.array_equal(found["ema"], found["student"])
    other = "student" if evaluate == "ema" else "ema"
    assert np.array_equal(report.evaluated.correct, found[evaluate])
    assert np.array_equal(report.other.correct, found[other])
    assert run.evaluated_network is (run.ema.network if evaluate == "ema" else run.student)


@OVER_METHODS
def test_the_average_is_what_every_method_is_evaluated_by_unless_told_otherwise(method):
    assert TrainingConfig.from_record({"algorithm": method}).evaluate == "ema"


# Randomness and precision.


def test_the_streams_of_a_seed_are_different():
    draws = [torch.rand(4, generator=generator_for(3, stream)).tolist() for stream in STREAMS]
    draws += [torch.rand(4, generator=generator_for(4, "weights")).tolist()]
    draws += [torch.rand(4, generator=generator_for(3, "statistics", step=1)).tolist()]
    assert len({tuple(draw) for draw in draws}) == len(STREAMS) + 2


@OVER_METHODS
def test_the_global_generator_is_neither_read_nor_moved(method):
    before = torch.get_rng_state()
    runs = [training(method), training(method)]
    for seed, run in enumerate(runs):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        run.run(2)
        run.report()
        assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)
    assert_equal_parameters(*runs)


@OVER_METHODS
def test_the_terms_are_float32_under_bfloat16_and_near_those_of_float32(method):
    terms = []
    for precision in ("float32", "bfloat16"):
        run, recorder = recorded(method, precision=precision)
        run.run(1)
        assert recorder.terms[0].total.dtype == torch.float32
        terms.append(recorder.terms[0].labeled.item())
    assert terms[1] == pytest.approx(terms[0], rel=0.1)
    assert terms[1] != terms[0]
