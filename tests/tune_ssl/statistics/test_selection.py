"""Naming the winner, and what the search promised too much: literals, limits, a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tune_ssl.statistics.selection import bootstrap_optimism, optimism, order_by_validation

# Naming the winner.


def test_the_searchs_own_draw_is_left_out() -> None:
    accuracies = [[0.99, 0.80, 0.82], [0.70, 0.83, 0.85], [0.90, 0.84, 0.80]]
    order = order_by_validation(accuracies, [0, 1001, 1002], search_draw=0)
    assert [ranked.position for ranked in order] == [1, 2, 0]
    assert [ranked.validation for ranked in order] == pytest.approx([0.84, 0.82, 0.81])


def test_among_equal_means_the_earlier_rank_wins_whatever_the_order_of_summation() -> None:
    accuracies = [[0.5, 0.5, 0.5], [0.1, 0.7, 0.9], [0.9, 0.7, 0.1], [0.7, 0.9, 0.1]]
    assert len({float(np.mean(row)) for row in accuracies[1:]}) > 1  # as floats they differ
    order = order_by_validation(accuracies, [1, 2, 3], search_draw=0)
    assert [ranked.position for ranked in order] == [1, 2, 3, 0]


def test_a_winner_needs_a_fresh_draw_and_numbers() -> None:
    with pytest.raises(ValueError, match="draw 7"):
        order_by_validation([[0.9, 0.8]], [7, 7], search_draw=7)
    with pytest.raises(ValueError, match="not finite"):
        order_by_validation([[0.9, np.nan]], [1, 2], search_draw=0)


# Optimism by retraining.


def test_optimism_by_hand() -> None:
    """Gains of .10, .14 and .06 on fresh draws, of .20 in the search."""
    found = optimism(
        search_best=0.95,
        search_default=0.75,
        retrained_best=[0.85, 0.90, 0.80],
        retrained_default=[0.75, 0.76, 0.74],
    )
    assert found.excess.mean == pytest.approx(0.10)
    half = 4.302653 * 0.04 / np.sqrt(3)
    assert found.excess.low == pytest.approx(0.10 - half, abs=1e-6)
    assert found.excess.high == pytest.approx(0.10 + half, abs=1e-6)
    assert found.by_chance == pytest.approx(4.302653 * 0.04 * np.sqrt(4 / 3), abs=1e-6)


def test_on_draws_of_their_own_chance_has_the_variances_of_both() -> None:
    best, default = [0.85, 0.90, 0.80], [0.75, 0.76, 0.74]
    found = optimism(
        search_best=0.95,
        search_default=0.75,
        retrained_best=best,
        retrained_default=default,
        paired=False,
    )
    variance = 0.05**2 + 0.01**2 + 0.04**2 / 3
    assert found.by_chance == pytest.approx(4.302653 * np.sqrt(variance), abs=1e-6)
    assert found.excess.mean == pytest.approx(0.10)


def test_what_the_draw_does_to_both_is_no_optimism() -> None:
    found = optimism(
        search_best=0.95,
        search_default=0.85,
        retrained_best=[0.75, 0.65, 0.85],
        retrained_default=[0.65, 0.55, 0.75],
    )
    assert found.excess.mean == pytest.approx(0.0)
    assert found.by_chance == pytest.approx(0.0)


def test_retrainings_of_both_are_paired() -> None:
    for default in ([0.7, 0.7, 0.7], [0.7]):
        with pytest.raises(ValueError, match="2 retrainings of the best"):
            optimism(
                search_best=0.9,
                search_default=0.8,
                retrained_best=[0.9, 0.8],
                retrained_default=default,
            )


def test_without_choosing_the_excess_is_within_chance_95_times_in_100() -> None:
    """4,000 searches that chose nothing, S = 5; sd / sqrt(S), as of the interval, would miss half."""
    generator = np.random.default_rng(5)
    within = 0
    for _ in range(4000):
        best = generator.normal(0.9, 0.03, 6)
        found = optimism(
            search_best=best[0],
            search_default=0.8,
            retrained_best=best[1:],
            retrained_default=[0.8] * 5,
        )
        within += abs(found.excess.mean) <= found.by_chance
    assert 0.94 <= within / 4000 <= 0.96


# Optimism by bootstrap.


def test_one_trial_has_no_optimism() -> None:
    correct = np.random.default_rng(0).random((1, 300)) < 0.8
    found = bootstrap_optimism(correct, generator=np.random.default_rng(1), resamples=4000)
    assert found.excess == pytest.approx(0.0, abs=0.002)
    assert found.same_winner == 1.0


def test_a_trial_far_better_than_all_others_is_chosen_again_and_promises_nothing() -> None:
    generator = np.random.default_rng(0)
    correct = generator.random((20, 400)) < np.array([0.95] + [0.3] * 19)[:, None]
    found = bootstrap_optimism(correct[::-1], generator=np.random.default_rng(1))
    assert found.same_winner == 1.0
    assert found.excess == pytest.approx(0.0, abs=0.005)
    assert found.out_of_bag == pytest.approx(correct[0].mean(), abs=0.005)


def test_the_earlier_of_equal_trials_is_the_one_chosen() -> None:
    row = np.random.default_rng(0).random(50) < 0.5
    found = bootstrap_optimism(np.stack([row, row]), generator=np.random.default_rng(1))
    assert found.same_winner == 1.0


def test_the_optimism_of_a_choice_among_equals_is_found() -> None:
    """30 trials, all .8 on images like these: the best of 30 promises E[max of 30] standard errors.

    In-bag minus out-of-bag would find sqrt(2) of it, in-bag minus all images 1 / sqrt(2).
    """
    generator = np.random.default_rng(2)
    excess, promised = [], []
    for _ in range(60):
        correct = generator.random((30, 400)) < 0.8
        excess.append(bootstrap_optimism(correct, generator=generator, resamples=150).excess)
        promised.append(correct.mean(axis=1).max() - 0.8)
    normal = np.linspace(-8, 8, 4001)
    largest = np.trapezoid(
        normal * 30 * stats.norm.cdf(normal) ** 29 * stats.norm.pdf(normal), normal
    )
    assert np.mean(promised) == pytest.approx(largest * np.sqrt(0.8 * 0.2 / 400), rel=0.08)
    assert np.mean(excess) == pytest.approx(np.mean(promised), rel=0.12)


def test_the_same_generator_gives_the_same_bootstrap() -> None:
    correct = np.random.default_rng(0).random((5, 60)) < 0.7
    first, second = (bootstrap_optimism(correct, generator=np.random.default_rng(4)) for _ in "ab")
    assert first == second
    with pytest.raises(ValueError, match="1 images"):
        bootstrap_optimism(np.ones((3, 1)), generator=np.random.default_rng(0))
