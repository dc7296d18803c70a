"""The published values, written down again from the papers, and their conversion."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch

from ssl_core.algorithms import ALGORITHMS
from ssl_core.divergences import DIVERGENCES
from ssl_core.models.ema import decay_from_horizon
from ssl_core.published import (
    EMA_FOR_EVALUATION,
    PUBLISHED,
    SGD_LEARNING_RATE,
    published_default,
    published_divergence,
    weight_relative_to_mse,
)
from ssl_core.training.config import TrainingConfig

TRAINING = {"learning_rate", "weight_decay", "ema_horizon"}
INPUTS = 3 * 32 * 32

# Oliver et al. 2018 hparams; Miyato et al. 2018, vat_tf; Verma et al. 2019; Berthelot et al. 2019.
OLIVER_RAMP = 200_000 / 500_000
EXPECTED = {
    ("supervised", None, "cifar10"): {"learning_rate": 3e-3},
    ("pseudo_label", "kl", "cifar10"): {
        "learning_rate": 3e-4,
        "unlabeled_weight": 1,
        "threshold": 0.95,
        "ramp_fraction": OLIVER_RAMP,
    },
    ("pi_model", "mse", "cifar10"): {
        "learning_rate": 3e-4,
        "unlabeled_weight": 20,
        "ramp_fraction": OLIVER_RAMP,
    },
    ("vat", "kl", "cifar10"): {
        "learning_rate": 1e-3,
        "unlabeled_weight": 1,
        "eps_relative": 8 / math.sqrt(INPUTS),
        "ramp_fraction": 0,
    },
    ("vat", "kl", "svhn"): {
        "learning_rate": 1e-3,
        "unlabeled_weight": 1,
        "eps_relative": 3.5 / math.sqrt(INPUTS),
        "ramp_fraction": 0,
    },
    ("vat", "reverse_kl", "cifar10"): {
        "learning_rate": 3e-3,
        "unlabeled_weight": 0.3,
        "eps_relative": 6 / math.sqrt(INPUTS),
        "ramp_fraction": OLIVER_RAMP,
    },
    ("vat", "reverse_kl", "svhn"): {
        "learning_rate": 3e-3,
        "unlabeled_weight": 0.3,
        "eps_relative": 1 / math.sqrt(INPUTS),
        "ramp_fraction": OLIVER_RAMP,
    },
    ("mean_teacher", "mse", "cifar10"): {
        "learning_rate": 4e-4,
        "unlabeled_weight": 8,
        "ramp_fraction": OLIVER_RAMP,
    },
    ("ict", "mse", "cifar10"): {
        "learning_rate": 2e-3,
        "weight_decay": 0.02,
        "unlabeled_weight": 100,
        "mixup_alpha": 1.0,
        "ramp_fraction": 0.25,
    },
    ("ict", "mse", "svhn"): {
        "learning_rate": 2e-3,
        "weight_decay": 0.02,
        "unlabeled_weight": 100,
        "mixup_alpha": 0.1,
        "ramp_fraction": 0.25,
    },
    ("mixmatch", "mse", "cifar10"): {
        "learning_rate": 2e-3,
        "weight_decay": 0.02,
        "unlabeled_weight": 75,
        "mixup_alpha": 0.75,
        "temperature": 0.5,
        "ramp_fraction": 16_384 / 2**20,
    },
    ("mixmatch", "mse", "svhn"): {
        "learning_rate": 2e-3,
        "weight_decay": 0.02,
        "unlabeled_weight": 250,
        "mixup_alpha": 0.75,
        "temperature": 0.5,
        "ramp_fraction": 16_384 / 2**20,
    },
}
DECAYS = {"mean_teacher": 0.95, "ict": 0.999, "mixmatch": 0.999}


def default(algorithm, divergence, setting="cifar10", num_classes=10, optimizer="adamw"):
    return published_default(
        algorithm, divergence, num_classes=num_classes, setting=setting, optimizer=optimizer
    )


@pytest.mark.parametrize(("algorithm", "divergence", "setting"), EXPECTED)
def test_published_values_are_those_of_the_paper(algorithm, divergence, setting):
    expected = EXPECTED[algorithm, divergence, setting]
    found = default(algorithm, divergence, setting).parameters
    # Two of the values are rounded where they are written: eps to three places, the ramp to two.
    wanted = {"weight_decay": 0} | expected
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=0.03)
    exact = {"learning_rate", "unlabeled_weight", "threshold", "mixup_alpha", "temperature"}
    for name in exact & set(wanted):
        assert found[name] == wanted[name]
    assert set(found) - set(wanted) == {"ema_horizon"}


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.algorithm}-{row.setting}")
def test_every_row_of_the_table_is_checked(row):
    assert (row.algorithm, row.divergence, row.setting or "cifar10") in EXPECTED
    assert row.source
    assert row.as_published


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.algorithm}-{row.setting}")
def test_the_average_has_the_published_decay_or_the_one_of_evaluation(row):
    decay = decay_from_horizon(row.parameters["ema_horizon"])
    assert decay == pytest.approx(DECAYS.get(row.algorithm, 0.999), abs=1e-12)
    assert EMA_FOR_EVALUATION == 1000.0


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.algorithm}-{row.setting}")
def test_a_row_names_every_tuned_field_and_makes_a_config(row):
    fields = {field.name for field in dataclasses.fields(ALGORITHMS[row.algorithm].Config)}
    own = {name: value for name, value in row.parameters.items() if name not in TRAINING}
    assert set(row.parameters) >= TRAINING
    assert set(own) <= fields
    untuned = {
        "entropy_weight",
        "divergence",
        "num_guesses",
        "consistency_on_labeled",
        "mix_logits",
        "supervised_mixup",
    }
    assert fields - untuned <= set(own)
    ALGORITHMS[row.algorithm].Config(**own)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_defaults_of_a_config_are_the_published_values_for_cifar10(algorithm):
    published = default(algorithm, published_divergence(algorithm)).parameters
    config = ALGORITHMS[algorithm].Config()
    for name, value in published.items():
        if name not in TRAINING:
            assert getattr(config, name) == value, name
    assert getattr(config, "divergence", None) == published_divergence(algorithm)
    assert config.entropy_weight == 0.0
    assert getattr(config, "num_guesses", 2) == 2
    flags = ("consistency_on_labeled", "mix_logits", "supervised_mixup")
    assert not any(getattr(config, flag, False) for flag in flags)


def test_vat_never_mixes_miyatos_direction_with_olivers_weight():
    miyato, oliver = (default("vat", direction) for direction in ("kl", "reverse_kl"))
    assert ("Miyato" in miyato.source, "Oliver" in oliver.source) == (True, True)
    pairs = {
        (d.parameters["unlabeled_weight"], d.parameters["learning_rate"]) for d in (miyato, oliver)
    }
    assert pairs == {(1.0, 1e-3), (0.3, 3e-3)}
    assert miyato.note == oliver.note == ""


# Divergences nobody published.


@pytest.mark.parametrize(
    ("divergence", "with_ten_classes", "with_a_hundred"),
    [
        ("mse", 1.0, 1.0),
        ("l1", 0.3, 0.3),
        ("kl", 0.05, 0.005),
        ("reverse_kl", 0.05, 0.005),
        ("js", 0.25, 0.025),
        ("notebook_kl", 1.0, 1.0),
        ("notebook_js", 1.0, 1.0),
    ],
)
def test_weights_relative_to_mse(divergence, with_ten_classes, with_a_hundred):
    assert weight_relative_to_mse(divergence, 10) == pytest.approx(with_ten_classes)
    assert weight_relative_to_mse(divergence, 100) == pytest.approx(with_a_hundred)


@pytest.mark.parametrize(
    ("algorithm", "divergence", "expected"),
    [
        ("pi_model", "l1", 6.0),  # 20 x .3
        ("pi_model", "notebook_kl", 20.0),  # its one number for all columns
        ("mean_teacher", "notebook_js", 8.0),
        ("ict", "notebook_kl", 1000.0),  # 100, and it summed over ten classes
        ("ict", "notebook_js", 1000.0),
        ("pi_model", "kl", 1.0),  # 20 x .5 / 10
        ("pi_model", "js", 5.0),  # 20 x 2.5 / 10
        ("mean_teacher", "reverse_kl", 0.4),  # 8 x .5 / 10
        ("ict", "js", 25.0),
        ("mixmatch", "kl", 3.75),
        ("vat", "mse", 20.0),  # 1 / (.5 / 10)
        ("vat", "js", 5.0),
        ("pseudo_label", "mse", 20.0),
        ("pseudo_label", "l1", 6.0),
    ],
)
def test_a_weight_nobody_published_is_converted_and_says_so(algorithm, divergence, expected):
    found = default(algorithm, divergence)
    own = default(algorithm, published_divergence(algorithm))
    assert found.parameters["unlabeled_weight"] == pytest.approx(expected, rel=1e-6)
    assert f"converted from {published_divergence(algorithm)}" in found.note
    assert own.note == ""
    others = set(own.parameters) - {"unlabeled_weight"}
    assert all(found.parameters[name] == own.parameters[name] for name in others)


@pytest.mark.parametrize(
    ("algorithm", "notebook_weight", "reduce"),
    [
        ("pi_model", 20.0, lambda terms: terms.mean()),
        ("mean_teacher", 8.0, lambda terms: terms.mean()),
        ("ict", 100.0, lambda terms: terms.sum(dim=1).mean()),
    ],
)
@pytest.mark.parametrize("divergence", ["notebook_kl", "notebook_js"])
def test_at_its_default_the_weighted_loss_is_the_notebooks_with_its_gradient(
    algorithm, notebook_weight, reduce, divergence
):
    """What the notebook's calls of torch's own kl_div compute, for ten classes."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(6, 10, generator=generator, dtype=torch.float64).softmax(1)
    logits = torch.randn(6, 10, generator=generator, dtype=torch.float64).requires_grad_()
    kl_div = functools.partial(torch.nn.functional.kl_div, reduction="none")
    if divergence == "notebook_kl":
        theirs = reduce(kl_div(logits.softmax(1), target))  # where log-probabilities belong
    else:
        squashed = logits.softmax(1).softmax(1)
        theirs = reduce(0.5 * kl_div(target.log_softmax(1), squashed))
    weight = default(algorithm, divergence).parameters["unlabeled_weight"]
    ours = weight * DIVERGENCES[divergence](target, logits.log_softmax(1)).mean()
    torch.testing.assert_close(ours, notebook_weight * theirs)
    (expected,) = torch.autograd.grad(notebook_weight * theirs, logits)
    (found,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(found, expected)


def test_a_conversion_scales_with_the_number_of_classes():
    ten, hundred = (default("pi_model", "kl", num_classes=c) for c in (10, 100))
    assert ten.parameters["unlabeled_weight"] == 10 * hundred.parameters["unlabeled_weight"]


def test_without_a_number_of_classes_a_weight_that_needs_one_is_left_out():
    assert "unlabeled_weight" not in default("pi_model", "kl", num_classes=None).parameters
    assert default("pi_model", "mse", num_classes=None).parameters["unlabeled_weight"] == 20.0


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - {"ict"}))
def test_sgd_takes_fixmatchs_rate_where_nobody_published_one_and_says_so(algorithm):
    found = default(algorithm, published_divergence(algorithm), optimizer="sgd")
    assert found.parameters["learning_rate"] == SGD_LEARNING_RATE == 0.03
    assert "FixMatch" in found.note


@pytest.mark.parametrize("setting", ["cifar10", "svhn"])
def test_ict_has_an_sgd_configuration_of_its_own(setting):
    found = default("ict", "mse", optimizer="sgd", setting=setting)
    assert found.parameters["learning_rate"] == 0.1
    assert found.parameters["weight_decay"] == 1e-4
    assert "as published with SGD" in found.note


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_decoupled_decay_is_not_taken_for_an_l2_term(algorithm):
    divergence = published_divergence(algorithm)
    decoupled = default(algorithm, divergence, optimizer="adamw")
    assert decoupled.note == ""
    found = default(algorithm, divergence, optimizer="adam")
    assert found.parameters["weight_decay"] == 0.0
    assert ("L2" in found.note) == (decoupled.parameters["weight_decay"] > 0)


def test_asking_for_a_default_does_not_change_the_table():
    before = [dict(row.parameters) for row in PUBLISHED]
    for optimizer in ("sgd", "adamw"):
        default("vat", "mse", optimizer=optimizer).parameters["unlabeled_weight"] = -1.0
        default("vat", "kl", optimizer=optimizer).parameters["unlabeled_weight"] = -1.0
    assert [dict(row.parameters) for row in PUBLISHED] == before


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_configuration_that_names_only_the_method_is_the_published_one(algorithm):
    config = TrainingConfig.from_record({"algorithm": algorithm})
    published = default(algorithm, published_divergence(algorithm)).parameters
    published["ema_horizon"] = min(published["ema_horizon"], config.max_steps / 10)
    for name, value in published.items():
        assert getattr(config if name in TRAINING else config.method, name) == value
