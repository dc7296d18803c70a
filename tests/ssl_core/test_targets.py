"""Sharpening, hard pseudo-labels and confidence masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_core.targets import confidence_mask, hard_pseudo_labels, one_hot, sharpen
from tests.examples import EXAMPLES


def rows(*values: list[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


@st.composite
def distributions(draw):
    """One row of probabilities, none so small that a root of it is lost."""
    weights = draw(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=8))
    return rows([weight / sum(weights) for weight in weights])


def test_sharpen_squares_at_temperature_one_half():
    expected = rows([0.36 / 0.52, 0.16 / 0.52])
    torch.testing.assert_close(sharpen(rows([0.6, 0.4]), 0.5), expected)


def test_sharpen_takes_the_root_at_temperature_two():
    torch.testing.assert_close(sharpen(rows([0.8, 0.2]), 2.0), rows([2 / 3, 1 / 3]))


def test_sharpen_leaves_probabilities_alone_at_temperature_one():
    probabilities = rows([0.5, 0.3, 0.2], [0.0, 0.9, 0.1])
    torch.testing.assert_close(sharpen(probabilities, 1.0), probabilities)


def test_sharpen_tends_to_one_hot_as_the_temperature_falls():
    torch.testing.assert_close(sharpen(rows([0.4, 0.35, 0.25]), 1e-3), rows([1.0, 0.0, 0.0]))


def test_sharpen_tends_to_uniform_as_the_temperature_rises():
    expected = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(sharpen(rows([0.9, 0.09, 0.01]), 1e6), expected, atol=1e-5, rtol=0)


def test_sharpen_keeps_a_tie_and_a_zero():
    torch.testing.assert_close(sharpen(rows([0.5, 0.5, 0.0]), 0.1), rows([0.5, 0.5, 0.0]))


def test_sharpen_of_tiny_float32_probabilities_is_finite_and_normalised():
    sharp = sharpen(rows([1.0, 1e-30, 0.0], [1e-20, 1.0, 1e-38], dtype=torch.float32), 0.1)
    assert torch.isfinite(sharp).all()
    torch.testing.assert_close(sharp.sum(dim=1), torch.ones(2))


def test_sharpen_agrees_with_numpy():
    random = np.random.RandomState(0)
    probabilities = random.dirichlet(np.full(6, 0.7), size=20)
    for temperature in (0.3, 0.5, 0.9):
        powers = probabilities ** (1 / temperature)
        expected = powers / powers.sum(axis=1, keepdims=True)
        found = sharpen(torch.from_numpy(probabilities), temperature)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)


@EXAMPLES
@given(probabilities=distributions(), temperature=st.floats(0.1, 1.0))
def test_sharpening_keeps_the_order_and_never_lowers_the_confidence(probabilities, temperature):
    sharp = sharpen(probabilities, temperature)
    assert sharp.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert sharp.amax() >= probabilities.amax() - 1e-12
    order = probabilities[0].argsort()
    assert (sharp[0, order].diff() >= -1e-12).all()


def test_one_hot_literal_and_dtype():
    expected = rows([0, 0, 1], [1, 0, 0], dtype=torch.float32)
    found = one_hot(torch.tensor([2, 0]), 3)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert one_hot(torch.tensor([1]), 3, torch.float64).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hard_pseudo_labels_mark_the_most_probable_class(dtype):
    found = hard_pseudo_labels(rows([0.2, 0.5, 0.3], [0.1, 0.1, 0.8], dtype=dtype))
    assert torch.equal(found, rows([0, 1, 0], [0, 0, 1], dtype=dtype))
    assert found.dtype == dtype


def test_confidence_mask_keeps_the_threshold_itself():
    probabilities = rows([0.75, 0.25], [0.5, 0.5], [0.125, 0.875])
    assert confidence_mask(probabilities, 0.75).tolist() == [1.0, 0.0, 1.0]
    assert confidence_mask(probabilities, 0.875).tolist() == [0.0, 0.0, 1.0]
    assert confidence_mask(probabilities, 0.9).tolist() == [0.0, 0.0, 0.0]


def test_confidence_mask_keeps_every_row_at_zero():
    probabilities = torch.softmax(torch.randn(20, 10), dim=1)
    assert confidence_mask(probabilities, 0.0).tolist() == [1.0] * 20


def test_confidence_mask_has_the_dtype_of_the_probabilities():
    assert confidence_mask(rows([0.9, 0.1]), 0.5).dtype == torch.float64
    assert confidence_mask(rows([0.9, 0.1], dtype=torch.float32), 0.5).dtype == torch.float32
