"""BatchNorm statistics that run along, as protocol oliver has them, and whitened input in a training."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssl_core.data.augment import normalise
from ssl_core.data.prepare import prepare
from ssl_core.errors import UserError
from ssl_core.models.batch_norm import update_statistics
from ssl_core.training.classifier import Card, Classifier, weights_to_bytes
from ssl_core.training.config import TrainingConfig
from ssl_core.training.loop import Training


def training(algorithm: str = "pi_model", **changes: Any) -> Training:
    record = {
        "algorithm": algorithm,
        "max_steps": 40,
        "batch_size": 8,
        "seed": 3,
        "batch_norm_momentum": 0.5,
        "evaluate": "student",
    } | changes
    config = TrainingConfig.from_record(record)
    return Training(config, prepare(config.data))


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def statistics(network: nn.Module) -> list[torch.Tensor]:
    return [
        value.clone() for norm in norms(network) for value in (norm.running_mean, norm.running_var)
    ]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class TestUpdate:
    def test_the_running_statistics_move_by_the_momentum(self):
        norm = nn.BatchNorm2d(1, momentum=0.0)
        first, second = torch.randn(2, 6, 1, 4, 4).unbind()
        for images in (3 * first + 2, second):
            update_statistics(norm, [norm], images, 0.25)
        means = [(3 * first + 2).mean(), second.mean()]
        variances = [(3 * first + 2).var(), second.var()]
        wanted_mean = 0.75 * (0.75 * 0.0 + 0.25 * means[0]) + 0.25 * means[1]
        wanted_variance = 0.75 * (0.75 * 1.0 + 0.25 * variances[0]) + 0.25 * variances[1]
        torch.testing.assert_close(norm.running_mean[0], wanted_mean)
        torch.testing.assert_close(norm.running_var[0], wanted_variance)
        assert norm.momentum == 0.0

    def test_the_momentum_is_put_back_where_a_pass_fails(self):
        norm = nn.BatchNorm2d(1, momentum=0.0)
        with pytest.raises(ValueError, match="4D input"):
            update_statistics(norm, [norm], torch.zeros(3), 0.25)
        assert norm.momentum == 0.0


@pytest.mark.parametrize("algorithm", ["supervised", "pi_model", "vat", "mixmatch"])
def test_a_step_feeds_them_its_labeled_and_unlabeled_images_together(algorithm):
    run, twin = training(algorithm), training(algorithm)
    run.run(1)
    twin._give_inputs()
    batch = twin._device_step.batch()
    network = twin.student
    for norm in norms(network):
        norm.momentum = 0.5
    with torch.no_grad():
        network(torch.cat([batch.labeled[0], batch.unlabeled[0]]))
    assert equal(statistics(run.student), statistics(network))


@pytest.mark.parametrize("evaluate", ["student", "ema"])
def test_only_the_evaluated_network_has_them(evaluate):
    run = training("mean_teacher", evaluate=evaluate)
    fresh = statistics(run.student)
    run.run(3)
    other = run.student if evaluate == "ema" else run.ema.network
    assert not equal(statistics(run.evaluated_network), fresh)
    assert equal(statistics(other), fresh)


@pytest.mark.parametrize("algorithm", ["supervised", "vat", "mean_teacher"])
def test_they_change_no_weight(algorithm):
    run, without = training(algorithm), training(algorithm, batch_norm_momentum=None)
    for one in (run, without):
        one.run(5)
    assert equal(list(run.student.parameters()), list(without.student.parameters()))
    assert equal(list(run.ema.network.parameters()), list(without.ema.network.parameters()))


@pytest.mark.parametrize("evaluate", ["student", "ema"])
def test_the_evaluated_network_is_measured_with_them_and_the_other_with_fresh_ones(evaluate):
    run = training(evaluate=evaluate)
    run.run(6)
    other = run.student if evaluate == "ema" else run.ema.network
    before, others = statistics(run.evaluated_network), statistics(other)
    report = run.report()
    assert equal(statistics(run.evaluated_network), before)
    assert not equal(statistics(other), others)
    network = copy.deepcopy(run.evaluated_network).eval()
    shared = run._shared
    images = normalise(torch.from_numpy(shared.images[shared.validation]), shared.normalisation)
    with torch.no_grad():
        answers = network(images).argmax(dim=1).numpy()
    np.testing.assert_array_equal(report.evaluated.correct, answers == shared.validation_labels)


def test_a_training_continued_from_a_checkpoint_ends_bit_for_bit():
    whole = training("mean_teacher", normalisation="zca", lr_schedule="step")
    whole.run(4)
    whole.report()
    state = copy.deepcopy(whole.state_dict())
    whole.run(9)
    rest = training("mean_teacher", normalisation="zca", lr_schedule="step")
    rest.load_state_dict(state)
    rest.run(9)
    assert equal(
        list(whole.student.state_dict().values()), list(rest.student.state_dict().values())
    )
    assert whole.report().evaluated.accuracy == rest.report().evaluated.accuracy


def test_a_training_too_short_for_its_momentum_is_refused():
    with pytest.raises(UserError, match=r"max-steps is 9999 .*; allowed: 10000 or more, because"):
        training(batch_norm_momentum=0.001, max_steps=9999)
    assert training(batch_norm_momentum=0.001, max_steps=10_000).config.max_steps == 10_000


@pytest.mark.parametrize("momentum", [0.0, 1.5, -0.1, "much"])
def test_a_momentum_that_is_none_is_refused(momentum):
    with pytest.raises(UserError, match=r"batch_norm_momentum is .*0 < number <= 1"):
        training(batch_norm_momentum=momentum)


def test_a_file_of_weights_whitens_its_input(tmp_path):
    run = training(normalisation="zca")
    run.run(12)
    shared = run._shared
    card = Card(
        model=run.config.model,
        class_names=shared.class_names,
        channels=1,
        image_size=8,
        normalisation=shared.normalisation,
    )
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_to_bytes(run.evaluated_network, card))
    classifier = Classifier.from_file(path)
    assert (classifier.card.normalisation.matrix == shared.normalisation.matrix).all()
    answers = classifier.probabilities(shared.images[shared.validation]).argmax(axis=1)
    report = run.report()
    np.testing.assert_array_equal(report.evaluated.correct, answers == shared.validation_labels)


def test_the_settings_are_in_a_training_s_record_and_come_back():
    config = training(normalisation="zca", protocol="oliver").config
    record = config.to_record()
    named = {key: record[key] for key in ("normalisation", "batch_norm_momentum", "protocol")}
    assert named == {"normalisation": "zca", "batch_norm_momentum": 0.5, "protocol": "oliver"}
    assert TrainingConfig.from_record(record) == config
    old = {key: value for key, value in record.items() if key not in named}
    default = TrainingConfig.from_record(old)
    assert default.batch_norm_momentum is None
    assert default.data.normalisation == "channels"
