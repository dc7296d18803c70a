"""The benchmark of protocol oliver: its reference agrees with our step, and would tell where one differs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import protocol_oliver
from benchmarks.protocol_oliver import METHODS, agreement, oliver_images, whitening_residual
from ssl_core.data.images import LabeledImages

STEPS = (0, 150_000, 450_000)


@pytest.fixture(scope="module")
def shared():
    """Return small colour images of ten classes, whitened."""
    random = np.random.RandomState(0)
    coarse = random.uniform(0, 255, (600, 3, 2, 2)).repeat(4, axis=2).repeat(4, axis=3)
    images = (coarse + random.uniform(-30, 30, (600, 3, 8, 8))).clip(0, 255).astype(np.uint8)
    names = tuple(str(number) for number in range(10))
    labels = np.arange(600, dtype=np.int64) % 10
    source = LabeledImages(images=images, labels=labels, class_names=names)
    return oliver_images(source, labels=100, validation=100)


@pytest.mark.parametrize("method", METHODS)
def test_loss_gradient_statistics_and_rate_are_the_papers(method, shared):
    found = agreement(method, shared, "wrn-10-1", STEPS)
    assert found["equations"] < 1e-6  # MixMatch draws in float32
    assert found["views"] < 1e-3
    assert found["loss"] < 1e-5
    assert found["gradient"] < 2e-2
    assert found["statistics"] < 1e-5
    assert found["rate"] < 1e-7


def test_the_matrix_is_the_inverse_root(shared):
    assert whitening_residual(shared) < 1e-3


def test_another_equation_is_told(shared, monkeypatch):
    doubled = protocol_oliver.REFERENCES["pi_model"]
    monkeypatch.setitem(
        protocol_oliver.REFERENCES,
        "pi_model",
        lambda given, draws: tuple(
            factor * term for factor, term in zip((1, 2), doubled(given, draws), strict=True)
        ),
    )
    assert agreement("pi_model", shared, "wrn-10-1", (450_000,))["equations"] > 1e-2
