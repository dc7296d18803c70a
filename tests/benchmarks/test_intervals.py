"""The crossed interval: literal tables, limits, coverage on a simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.intervals import crossed_interval


def simulated(generator: np.random.Generator, seeds: int, images: int) -> np.ndarray:
    """Outcomes whose mean is 0, with effects of the seed, of the image and of both."""
    return (
        generator.normal(0, 0.03, (seeds, 1))
        + generator.normal(0, 0.2, (1, images))
        + generator.normal(0, 0.3, (seeds, images))
    )


def test_a_table_computed_by_hand() -> None:
    """MS_S, MS_I and MS_E from their definitions, with the means worked out by hand."""
    outcomes = np.array([[0.0, 2.0], [0.0, 3.0]])
    interval = crossed_interval(outcomes, clip=(-np.inf, np.inf))
    # means: seeds 1, 1.5; images 0, 2.5; grand 1.25
    ms_seeds = 2 * (0.25**2 + 0.25**2) / 1
    ms_images = 2 * (1.25**2 + 1.25**2) / 1
    ms_error = 4 * 0.25**2 / 1
    assert (ms_seeds, ms_images, ms_error) == (0.25, 6.25, 0.25)
    combined = ms_seeds + ms_images - ms_error
    freedom = combined**2 / (ms_seeds**2 + ms_images**2 + ms_error**2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(combined / 4)
    assert interval.mean == 1.25
    assert interval.low == pytest.approx(1.25 - half)
    assert interval.high == pytest.approx(1.25 + half)


def test_without_image_effects_it_is_students_t_over_the_seeds() -> None:
    accuracies = np.array([0.1, 0.4, 0.3, 0.6])
    outcomes = np.repeat(accuracies[:, None], 50, axis=1)
    interval = crossed_interval(outcomes)
    half = stats.t.ppf(0.975, 3) * accuracies.std(ddof=1) / 2
    assert interval.low == pytest.approx(accuracies.mean() - half)
    assert interval.high == pytest.approx(accuracies.mean() + half)


def test_equal_outcomes_have_no_width() -> None:
    interval = crossed_interval(np.ones((3, 7)))
    assert (interval.low, interval.mean, interval.high) == (1.0, 1.0, 1.0)


def test_an_accuracy_stays_between_0_and_1() -> None:
    outcomes = np.ones((2, 40))
    outcomes[0, :2] = 0
    interval = crossed_interval(outcomes)
    assert interval.high == 1.0
    assert interval.low < interval.mean < 1.0


def test_a_higher_level_is_wider() -> None:
    outcomes = simulated(np.random.default_rng(0), 5, 60)
    narrow = crossed_interval(outcomes, level=0.9, clip=(-1, 1))
    wide = crossed_interval(outcomes, level=0.99, clip=(-1, 1))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("shape", [(1, 10), (10, 1)])
def test_one_retraining_or_one_image_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="2 x 2"):
        crossed_interval(np.zeros(shape))


def test_nominal_95_percent_covers_the_truth_about_95_times_in_100() -> None:
    """2,000 tables of 8 x 80: .05 of them miss, .005 standard error. A nested one misses .15."""
    generator = np.random.default_rng(20)
    hits = 0
    for _ in range(2000):
        interval = crossed_interval(simulated(generator, 8, 80), clip=(-1, 1))
        hits += interval.low <= 0 <= interval.high
    assert 0.93 <= hits / 2000 <= 0.975
