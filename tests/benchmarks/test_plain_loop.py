"""The opponent of the step benchmark is a correct one: in evaluation mode its losses are ours."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.plain_loop import METHODS, PlainWideResNet, begin_alike, in_order
from ssl_core.algorithms import ALGORITHMS, Batch, ict, mixmatch
from ssl_core.models.wide_resnet import build_model
from ssl_core.names import parse_model_name

CLASSES, COUNT = 4, 6


def networks(model: str) -> tuple[nn.Module, nn.Module]:
    """Return our network and the plain one with the same weights and statistics, for evaluation."""
    generator = torch.Generator().manual_seed(0)
    own = build_model(model, in_channels=3, num_classes=CLASSES, generator=generator)
    plain = PlainWideResNet(*parse_model_name(model), 3, CLASSES)
    begin_alike(plain, own)
    return own.double().eval(), plain.double().eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("model", ["wrn-10-1", "wrn-16-2"])
def test_the_networks_are_the_same(model):
    own, plain = networks(model)
    shown = images(COUNT)
    torch.testing.assert_close(plain(shown), own(shown))


@pytest.mark.parametrize("method", METHODS)
def test_the_losses_are_ours(method, monkeypatch):
    torch.manual_seed(3)
    student, plain_student = networks("wrn-10-1")
    teacher, plain_teacher = copy.deepcopy(student), copy.deepcopy(plain_student)
    for network in (teacher, plain_teacher):
        for parameter in network.parameters():
            parameter.data.mul_(1.1)
    for network in (student, plain_student):  # some predictions shall pass the threshold, not all
        in_order(network)[-1].weight.data.mul_(20)
    losses, views = METHODS[method]
    labeled, labels = images(COUNT), torch.arange(COUNT) % CLASSES
    unlabeled = [images(COUNT) for _ in range(views)]
    paired = COUNT if views == 1 else COUNT * (1 + views)
    draws = {
        "directions": images(COUNT),
        "order": torch.randperm(paired),
        "share": torch.rand(paired, dtype=torch.float64),
    }
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: draws["directions"])
    monkeypatch.setattr(torch, "randperm", lambda *count, **options: draws["order"])
    for module in (ict, mixmatch):
        monkeypatch.setattr(module, "draw_mixing_coefficients", lambda *given: draws["share"])

    entry = ALGORITHMS[method]
    batch = Batch(labeled=(labeled,), labels=labels, unlabeled=tuple(unlabeled))
    terms = entry.Algorithm(entry.Config())(
        student, teacher, batch, torch.tensor(1.0), torch.Generator()
    )
    found = losses(plain_student, plain_teacher, labeled, labels, unlabeled, draws)
    torch.testing.assert_close(found[0], terms.labeled)
    torch.testing.assert_close(found[1].double(), terms.unlabeled.double())
    assert (float(found[1].detach()) > 0) == (method != "supervised")
