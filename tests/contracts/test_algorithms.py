"""One contract over every step of every algorithm: a method is under it by being listed.

1. At unlabeled weight 0 the gradient of the total is that of the labeled term, bit for bit.
2. Trained at weight 0 it ends where supervised does: ``test_trainings.py``.
3. At a weight above 0 the gradient reaches the student's logits of unlabeled rows, and neither
   targets nor teacher; for every divergence the method accepts.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_core.algorithms import ALGORITHMS, Batch, LossTerms
from ssl_core.errors import UserError
from ssl_core.models.wide_resnet import build_model
from ssl_core.names import SEARCHED_DIVERGENCE_NAMES
from ssl_core.training.config import TrainingConfig
from tests.contracts.variants import (
    AT_WEIGHT_0,
    AT_WEIGHT_3,
    CELLS,
    OVER_METHODS,
    OVER_SEMI_SUPERVISED,
    OVER_VARIANTS,
    SEMI_SUPERVISED,
    VARIANTS,
    accepted_divergences,
    chosen,
    fields_of,
)

LABELED, UNLABELED, CLASSES = 4, 8, 3


# One step of an algorithm, seen from outside.


class Watched:
    """A network that remembers every call: images, logits, and whether a graph was built."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.calls: list[tuple[Tensor, Tensor]] = []
        self.with_gradients: list[bool] = []

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        self.calls.append((images, logits))
        self.with_gradients.append(torch.is_grad_enabled())
        return logits

    def rows_reached(self, term: Tensor) -> list[int]:
        """Return, call by call, the number of logit rows with a gradient other than zero."""
        differentiable = [logits for _, logits in self.calls if logits.requires_grad]
        found = torch.autograd.grad(term, differentiable, retain_graph=True, allow_unused=True)
        by_call = dict(zip(map(id, differentiable), found, strict=True))
        gradients = [by_call.get(id(logits)) for _, logits in self.calls]
        return [0 if g is None else int(g.abs().amax(dim=1).count_nonzero()) for g in gradients]


class Step:
    """One step of an algorithm on random images; the teacher's parameters would take gradients."""

    def __init__(self, method: str, flag: str = "", **wanted: Any):
        entry = ALGORITHMS[method]
        algorithm = entry.Algorithm(entry.Config(**chosen(method, flag, **wanted)))
        generator = torch.Generator().manual_seed(0)
        network = build_model(
            "wrn-10-1", in_channels=1, num_classes=CLASSES, generator=generator
        ).train()
        teacher = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1.1)

        def views(rows: int, count: int) -> tuple[Tensor, ...]:
            return tuple(torch.randn(rows, 1, 8, 8, generator=generator) for _ in range(count))

        self.flag = flag
        self.batch = Batch(
            labeled=views(LABELED, algorithm.labeled_views),
            labels=torch.tensor([0, 1, 2, 0]),
            unlabeled=views(UNLABELED, algorithm.unlabeled_views),
        )
        self.student, self.teacher = Watched(network), Watched(teacher)
        self.terms: LossTerms = algorithm(
            self.student, self.teacher, self.batch, torch.tensor(0.5), generator
        )

    def gradients(self, term: Tensor) -> list[Tensor]:
        parameters = list(self.student.network.parameters())
        return list(torch.autograd.grad(term, parameters, retain_graph=True))


@pytest.mark.parametrize(("method", "flag", "divergence"), [("supervised", "", None), *CELLS])
def test_at_weight_0_the_gradient_of_the_total_is_that_of_the_labeled_term(
    method, flag, divergence
):
    step = Step(method, flag, divergence=divergence, **AT_WEIGHT_0)
    assert torch.equal(step.terms.total, step.terms.labeled)
    both = (step.gradients(term) for term in (step.terms.total, step.terms.labeled))
    for total, labeled in zip(*both, strict=True):
        assert torch.equal(total, labeled)
        assert labeled.abs().max() > 0


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def step(request):
    """One step at unlabeled weight 3 of every method, flag and divergence."""
    method, flag, divergence = request.param
    return Step(method, flag, divergence=divergence, **AT_WEIGHT_3)


PASSES_FOR_ENTROPY = {"ict": 1}
"""Of the student, beside those without it: ICT shows it mixed images only."""


@OVER_SEMI_SUPERVISED
def test_entropy_minimisation_takes_no_pass_more_than_it_needs(method):
    calls = [
        len(Step(method, **AT_WEIGHT_3, entropy_weight=weight).student.calls)
        for weight in (0.0, 0.1)
    ]
    assert calls[1] - calls[0] == PASSES_FOR_ENTROPY.get(method, 0)


def test_the_unlabeled_gradient_reaches_every_unlabeled_row_of_the_student(step):
    assert step.terms.unlabeled.abs() > 0
    reached = step.student.rows_reached(step.terms.unlabeled)
    assert sum(reached) >= UNLABELED
    if not step.flag:
        labeled_images = step.batch.labeled[0]
        for (images, _), rows in zip(step.student.calls, reached, strict=True):
            assert images is not labeled_images or rows == 0


def test_the_total_carries_the_unlabeled_gradient_at_its_weight(step):
    terms = step.terms
    torch.testing.assert_close(terms.total, terms.labeled + 3.0 * terms.unlabeled)
    parts = (step.gradients(term) for term in (terms.total, terms.labeled, terms.unlabeled))
    total, labeled, unlabeled = (torch.cat([g.flatten() for g in part]) for part in parts)
    assert unlabeled.abs().max() > 0
    expected = labeled + 3.0 * unlabeled
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_no_gradient_flows_into_the_teacher_and_no_graph_is_built_there(step):
    parameters = list(step.teacher.network.parameters())
    assert all(parameter.requires_grad for parameter in parameters)
    found = torch.autograd.grad(step.terms.total, parameters, retain_graph=True, allow_unused=True)
    assert found == (None,) * len(parameters)
    assert not any(step.teacher.with_gradients)


def test_no_gradient_flows_into_targets_and_no_graph_is_built_for_them(step):
    """A pass of the student that builds a graph gets a gradient: no target does.

    The exception is a pass whose input wants one, as the probing pass of VAT does.
    """
    reached = step.student.rows_reached(step.terms.total)
    for (images, logits), rows in zip(step.student.calls, reached, strict=True):
        if not images.requires_grad:
            assert (rows > 0) == logits.requires_grad


@OVER_METHODS
def test_terms_are_scalars_and_diagnostics_carry_no_gradient(method):
    terms = Step(method, **AT_WEIGHT_3).terms
    assert terms.total.requires_grad
    for term in (terms.total, terms.labeled, terms.unlabeled, *terms.diagnostics.values()):
        assert term.shape == ()
    assert not any(term.requires_grad for term in terms.diagnostics.values())


@OVER_VARIANTS
def test_batch_norm_statistics_are_not_touched_by_any_pass(method, flag):
    step = Step(method, flag, **AT_WEIGHT_3)
    for watched in (step.student, step.teacher):
        for norm in watched.network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
                assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))


def test_vat_finds_its_direction_in_float32_under_bfloat16():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = Step("vat", **AT_WEIGHT_3)
    labeled, clean, probing, perturbed = (logits.dtype for _, logits in step.student.calls)
    assert (clean, probing) == (torch.float32, torch.float32)
    assert (labeled, perturbed) == (torch.bfloat16, torch.bfloat16)


# What a Config accepts.


@OVER_SEMI_SUPERVISED
def test_a_method_accepts_the_divergences_that_are_searched(method):
    assert set(accepted_divergences(method)) >= set(SEARCHED_DIVERGENCE_NAMES)


def test_reverse_kl_is_refused_for_one_hot_targets_and_accepted_elsewhere():
    accepting = {m for m in SEMI_SUPERVISED if "reverse_kl" in accepted_divergences(m)}
    assert set(SEMI_SUPERVISED) - accepting == {"pseudo_label"}
    with pytest.raises(UserError, match=r"reverse_kl.*one-hot.*use kl"):
        ALGORITHMS["pseudo_label"].Config(divergence="reverse_kl")


@OVER_SEMI_SUPERVISED
def test_an_unknown_divergence_is_refused(method):
    with pytest.raises(UserError, match=r"unknown divergence 'mes'.*did you mean 'mse'"):
        ALGORITHMS[method].Config(divergence="mes")


@OVER_METHODS
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", None])
def test_an_illegal_number_is_refused_by_its_name(method, value):
    for name, field in fields_of(method).items():
        if field.type in (float, "float"):
            with pytest.raises(UserError, match=name):
                ALGORITHMS[method].Config(**{name: value})


@pytest.mark.parametrize(("method", "flag"), [pair for pair in VARIANTS if pair[1]])
def test_a_flag_that_is_neither_true_nor_false_is_refused(method, flag):
    for value in ("no", "false", 2, None):
        with pytest.raises(UserError, match=flag):
            ALGORITHMS[method].Config(**{flag: value})


def test_entropy_minimisation_is_refused_for_supervised_with_the_reason():
    with pytest.raises(UserError, match="would use the unlabeled images"):
        ALGORITHMS["supervised"].Config(entropy_weight=0.1)
    with pytest.raises(UserError, match="would use the unlabeled images"):
        TrainingConfig.from_record(
            {"algorithm": "supervised", "parameters": {"entropy_weight": 0.1}}
        )


@OVER_METHODS
def test_a_config_cannot_be_changed(method):
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALGORITHMS[method].Config().entropy_weight = 1.0
