"""The rules the benchmark compares: published quantiles, scipy's procedures, the right order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.corrections import (
    RULES,
    dunnett_cdf,
    modulus_cdf,
    pooled,
    prior_of_variances,
    range_cdf,
    studentised_quantile,
)
from tune_ssl.statistics.cells import pair_squares
from tune_ssl.statistics.crossed import MeanSquares, mean_products


@pytest.mark.parametrize("cells", [2, 7, 28])
@pytest.mark.parametrize("freedom", [4.0, 19.0, 120.0])
def test_tukeys_quantile_is_scipys(cells: int, freedom: float) -> None:
    expected = stats.studentized_range.ppf(0.95, cells, freedom)
    assert studentised_quantile(range_cdf, cells, 0.95, freedom) == pytest.approx(
        expected, rel=5e-4
    )


@pytest.mark.parametrize(
    ("freedom", "published"),
    [
        (5, (2.57, 3.03, 3.29, 3.48, 3.62)),
        (10, (2.23, 2.57, 2.76, 2.89, 2.99)),
        (20, (2.09, 2.38, 2.54, 2.65, 2.73)),
        (1e6, (1.96, 2.21, 2.35, 2.44, 2.51)),
    ],
)
def test_dunnetts_quantile_is_the_published_one(
    freedom: float, published: tuple[float, ...]
) -> None:
    """Dunnett 1964, Biometrics 20:482, two-sided 5 %, 1 to 5 treatments."""
    found = [studentised_quantile(dunnett_cdf, m, 0.95, freedom) for m in range(1, 6)]
    assert found == pytest.approx(list(published), abs=0.0051)


def test_the_maximum_modulus_is_above_dunnett_and_below_bonferroni() -> None:
    modulus = studentised_quantile(modulus_cdf, 6, 0.95, 19)
    assert studentised_quantile(dunnett_cdf, 6, 0.95, 19) < modulus
    assert modulus < stats.t.ppf(1 - 0.025 / 6, 19)
    assert studentised_quantile(modulus_cdf, 1, 0.95, 19) == pytest.approx(
        stats.t.ppf(0.975, 19), 1e-4
    )


def test_pooling_is_tukey_in_a_block_design() -> None:
    """Without image effects the pooled residual is that of a two-way table, cells by draws."""
    generator = np.random.default_rng(2)
    accuracies = generator.normal(0.8, 0.02, (4, 9)) + generator.normal(0, 0.1, 9)
    accuracies[2] += 0.05
    tables = np.repeat(accuracies[:, :, None], 20, axis=2)
    residual = accuracies - accuracies.mean(0) - accuracies.mean(1)[:, None] + accuracies.mean()
    error = np.sqrt(np.square(residual).sum() / (3 * 8) / 9)
    means = accuracies.mean(axis=1)
    ranges = np.abs(means[:, None] - means) / error
    claims = pooled(means, pair_squares(mean_products(tables)), (9, 20))
    among = stats.studentized_range.sf(ranges, 3, 24) < 0.025  # three cells beside the control
    np.fill_diagonal(among, False)
    assert (claims[1:, 1:] == among[1:, 1:]).all()
    assert claims[1:, 1:].any()
    against = ranges[0] / np.sqrt(2) > studentised_quantile(dunnett_cdf, 3, 0.975, 24)
    assert (claims[0, 1:] == against[1:]).all()


def test_two_cells_are_claimed_alike_by_all_rules() -> None:
    """At 4 standard errors all rules see two cells apart, at 1 none does."""
    squares = MeanSquares(*(np.full((2, 2), value) for value in (4.0, 3.0, 2.0)))
    error = np.sqrt((4 + 3 - 2) / (10 * 50))
    for gap, expected in ((4, True), (1, False)):
        means = np.array([0.0, gap * error])
        assert {bool(rule(means, squares, (10, 50))[0, 1]) for rule in RULES.values()} == {expected}


def test_a_prior_is_found_again() -> None:
    """s^2 = sigma^2 chi^2_9 / 9 with sigma^2 = f0 s0^2 / chi^2_f0, f0 = 6 and s0^2 = 3."""
    generator = np.random.default_rng(0)
    true = 6 * 3.0 / generator.chisquare(6, 20000)
    found = prior_of_variances(true * generator.chisquare(9, 20000) / 9, 9)
    assert found == pytest.approx((6.0, 3.0), rel=0.05)
    one, typical = prior_of_variances(3.0 * generator.chisquare(9, 20000) / 9, 9)
    assert one > 200
    assert typical == pytest.approx(3.0, rel=0.02)


def test_moderation_stays_between_own_and_pooled_variances() -> None:
    """A pair whose draws scatter a tenth as much as all others is not told apart by that alone."""
    rule = RULES["moderated"]
    draws = np.full((4, 4), 4.0)
    draws[0, 1] = draws[1, 0] = 0.04
    squares = MeanSquares(draws=draws, images=np.full((4, 4), 2.0), residual=np.full((4, 4), 2.0))
    means = np.array([0.0, 0.025, 0.012, 0.012])  # 4 standard errors of the pair 0 1
    assert RULES["dunnett_t3"](means, squares, (10, 100))[0, 1]
    assert not rule(means, squares, (10, 100)).any()
    assert rule(20 * means, squares, (10, 100))[0, 1]
