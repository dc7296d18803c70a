"""Mixup and its coefficients."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from ssl_core.mixing import draw_mixing_coefficients, keep_first_dominant, mix


def draws(alpha: float, count: int = 20_000, seed: int = 0) -> torch.Tensor:
    return draw_mixing_coefficients(alpha, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5, 0.75, 1.0, 4.0])
def test_coefficients_follow_the_beta_distribution(alpha):
    """Kolmogorov-Smirnov below 1/2, where float32 resolves them, and a fair share there."""
    coefficients = draws(alpha).double().numpy()
    lower = coefficients[coefficients < 0.5]
    share = stats.binomtest(len(lower), len(coefficients)).pvalue
    fit = stats.kstest(lower, lambda x: stats.beta.cdf(x, alpha, alpha) / 0.5).pvalue
    assert share > 1e-3
    assert fit > 1e-3


@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_the_test_of_the_distribution_tells_neighbouring_alphas_apart(alpha):
    coefficients = draws(1.1 * alpha).double().numpy()
    lower = coefficients[coefficients < 0.5]
    fit = stats.kstest(lower, lambda x: stats.beta.cdf(x, alpha, alpha) / 0.5).pvalue
    assert fit < 1e-3


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_a_small_alpha_gives_no_nan_and_no_lump_at_one_half(alpha):
    """Where both gamma variates underflow, their ratio is 0/0, or 1/2 if they are clamped."""
    coefficients = draws(alpha, count=200_000)
    assert torch.isfinite(coefficients).all()
    assert (coefficients == 0.5).sum() == 0
    assert coefficients.min() >= 0.0
    assert coefficients.max() <= 1.0


def test_coefficients_are_float32_and_depend_on_the_generator_alone():
    state = torch.get_rng_state()
    first = draws(0.75, count=100, seed=3)
    torch.manual_seed(123)
    again, other = draws(0.75, count=100, seed=3), draws(0.75, count=100, seed=4)
    torch.set_rng_state(state)
    assert first.shape == (100,)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawing_advances_the_generator_and_leaves_the_global_one_alone():
    generator = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    first = draw_mixing_coefficients(1.0, 10, generator)
    second = draw_mixing_coefficients(1.0, 10, generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, second)


def test_each_row_has_its_own_coefficient():
    assert draws(1.0, count=50).unique().numel() == 50


def test_the_first_of_a_pair_is_made_the_dominant_one():
    coefficients = torch.tensor([0.0, 0.2, 0.5, 0.7, 1.0], dtype=torch.float64)
    expected = torch.tensor([1.0, 0.8, 0.5, 0.7, 1.0], dtype=torch.float64)
    torch.testing.assert_close(keep_first_dominant(coefficients), expected)


def test_mix_is_a_convex_combination_row_by_row():
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[0.0, 4.0], [0.0, 4.0], [0.0, 4.0]])
    found = mix(first, second, torch.tensor([1.0, 0.25, 0.0]))
    assert found.tolist() == [[1.0, 0.0], [0.25, 3.0], [0.0, 4.0]]


def test_mix_of_images_uses_one_coefficient_per_image():
    first, second = torch.ones(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)
    found = mix(first, second, torch.tensor([0.75, 0.125]))
    assert found.shape == (2, 3, 4, 5)
    assert found[0].unique().tolist() == [0.75]
    assert found[1].unique().tolist() == [0.125]


def test_mix_keeps_the_dtype_of_what_is_mixed():
    first = torch.ones(2, 3, dtype=torch.float64)
    assert mix(first, first, torch.tensor([0.3, 0.6])).dtype == torch.float64
