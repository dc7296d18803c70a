"""How small a difference so many images tell: against counting, a simulation and the ranking's own test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tune_ssl.best import SIGNIFICANCE, mcnemar_p_value
from tune_ssl.statistics import power
from tune_ssl.statistics.power import mcnemar_power, separable_difference


def simulated(images: int, difference: float, disagreement: float, tables: int = 20_000) -> float:
    """Return the share of simulated pairs that the exact test separates at 5 %."""
    random = np.random.default_rng(0)
    better, worse = (disagreement + difference) / 2, (disagreement - difference) / 2
    wins, losses, _ = random.multinomial(images, [better, worse, 1 - disagreement], tables).T
    pairs, times = np.unique(np.stack([wins, losses]), axis=1, return_counts=True)
    tails = [
        2 * sum(math.comb(int(a + b), k) for k in range(min(a, b) + 1)) / 2 ** int(a + b)
        for a, b in pairs.T
    ]
    return float(times[np.array(tails) < 0.05].sum() / tables)


@pytest.mark.parametrize("images", [20, 100, 400, 2000])
def test_the_difference_it_names_is_found_in_80_percent_of_simulated_pairs(images):
    found = separable_difference(images)
    assert simulated(images, found, max(power.DISAGREEMENT, found)) == pytest.approx(0.8, abs=0.012)


@pytest.mark.parametrize("disagreement", [0.05, 0.2, 0.5])
def test_so_it_is_for_other_disagreements(disagreement):
    found = separable_difference(300, disagreement=disagreement)
    assert simulated(300, found, max(disagreement, found)) == pytest.approx(0.8, abs=0.012)


def test_equal_configurations_are_separated_in_at_most_5_percent():
    for images in (10, 57, 400, 1000):
        assert mcnemar_power(images, 0.0, disagreement=0.1) <= 0.05
    assert mcnemar_power(2000, 0.0, disagreement=0.1) > 0.03


def test_a_power_is_the_sum_over_all_outcomes():
    better, worse = 0.3, 0.1
    total = 0.0
    for wins in range(13):
        for losses in range(13 - wins):
            first = np.array([True] * wins + [False] * losses)
            if len(first) and mcnemar_p_value(first, ~first) < SIGNIFICANCE:
                ways = math.comb(12, wins) * math.comb(12 - wins, losses)
                total += ways * better**wins * worse**losses * 0.6 ** (12 - wins - losses)
    assert mcnemar_power(12, 0.2, disagreement=0.4) == pytest.approx(total, rel=1e-9)


def test_critical_counts_are_the_ranking_s():
    counts = np.arange(200)
    critical = power._critical(counts, SIGNIFICANCE)
    for count, most in zip(counts.tolist(), critical.astype(int).tolist(), strict=True):
        losses = [number for number in range(count // 2 + 1) if _separates(count, number)]
        assert most == max(losses, default=-1)


def _separates(count: int, losses: int) -> bool:
    first = np.arange(count) >= losses
    return count > 0 and mcnemar_p_value(first, ~first) < SIGNIFICANCE


def test_five_images_separate_nothing_and_six_nearly_nothing():
    assert separable_difference(1) is None
    assert separable_difference(5) is None
    assert separable_difference(6) == pytest.approx(0.8 ** (1 / 6), abs=1e-4)


def test_more_images_tell_smaller_differences_and_more_disagreement_larger_ones():
    by_images = [separable_difference(images) for images in (10, 20, 50, 100, 400, 1000, 7326)]
    assert by_images == sorted(by_images, reverse=True)
    by_share = [separable_difference(400, disagreement=share) for share in (0.05, 0.1, 0.2, 0.4)]
    assert by_share == sorted(by_share)
    assert by_share[3] == pytest.approx(2 * by_share[1], rel=0.1), "about as the root"


@pytest.mark.parametrize(("images", "points"), [(100, 8.8), (400, 4.6), (5000, 1.3)])
def test_what_the_documents_say(images, points):
    assert 100 * separable_difference(images) == pytest.approx(points, abs=0.05)
