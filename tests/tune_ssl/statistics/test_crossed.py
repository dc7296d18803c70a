"""The crossed interval and paired differences: literal tables, limits, coverage of a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tune_ssl.statistics.crossed import (
    Interval,
    MeanSquares,
    balanced_outcomes,
    crossed_interval,
    mean_products,
    paired_difference,
    t_quantile,
    variance_of_mean,
)


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


def test_images_that_say_less_than_the_rest_add_nothing() -> None:
    """By hand: rows 1/2 and 1/2, columns 1/2 and 1/2, MS_S = MS_I = 0, MS_E = 1."""
    interval = crossed_interval(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


def test_the_variance_never_falls_below_that_of_the_draws() -> None:
    squares = MeanSquares(*(np.array(value) for value in (3.0, 1.0, 2.0)))
    variance, freedom = variance_of_mean(squares, (4, 10))
    assert variance == 3.0 / 40
    assert freedom == 3


def test_more_counted_for_the_draws_lowers_the_freedom_and_nothing_else() -> None:
    squares = MeanSquares(*(np.array(value) for value in (1.0, 5.0, 2.0)))
    variance, freedom = variance_of_mean(squares, (4, 11))
    assert variance == 4.0 / 44
    assert freedom == pytest.approx(16 / (1 / 3 + 25 / 10 + 4 / 30))
    same, fewer = variance_of_mean(squares, (4, 11), least_draws=2.0)
    assert same == variance
    assert fewer == pytest.approx(25 / (4 / 3 + 25 / 10 + 4 / 30))
    assert variance_of_mean(squares, (4, 11), least_draws=0.5)[1] == freedom


def test_the_quantile_is_students_t() -> None:
    assert t_quantile(0.95, 10) == pytest.approx(2.228, abs=5e-4)  # any table of t
    assert t_quantile(0.99, 4) == pytest.approx(4.604, abs=5e-4)
    assert t_quantile(1 - 1e-7, 19) == pytest.approx(stats.t.isf(5e-8, 19), rel=1e-9)


def test_mean_products_are_the_mean_squares_of_every_contrast() -> None:
    tables = np.random.default_rng(0).normal(size=(3, 5, 11))
    contrast = np.array([1.0, -2.0, 0.5])
    alone = mean_products(np.tensordot(contrast, tables, axes=1)[None])
    for products, expected in zip(mean_products(tables), alone, strict=True):
        assert contrast @ products @ contrast == pytest.approx(expected[0, 0])


def test_a_paired_difference_is_that_of_the_means_and_has_its_sign() -> None:
    generator = np.random.default_rng(3)
    first = (generator.random((8, 90)) < 0.9).astype(float)
    second = (generator.random((8, 90)) < 0.6).astype(float)
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.mean == pytest.approx(first.mean() - second.mean())
    assert (one.low, one.high) == (-other.high, -other.low)
    assert one.excludes_zero
    assert one == crossed_interval(first - second, clip=(-1, 1))


def test_what_a_draw_and_an_image_do_to_both_cancels() -> None:
    generator = np.random.default_rng(1)
    common = generator.normal(0, 0.3, (6, 1)) + generator.normal(0, 0.3, (1, 50))
    first, second = (common + generator.normal(0, 0.01, (6, 50)) for _ in range(2))
    paired = paired_difference(first, second)
    alone = crossed_interval(first, clip=(-9, 9))
    assert paired.high - paired.low < 0.05 * (alone.high - alone.low)


def test_a_configuration_is_not_distinguishable_from_itself() -> None:
    table = np.random.default_rng(0).random((4, 9)) < 0.7
    assert paired_difference(table, table) == Interval(mean=0.0, low=0.0, high=0.0)
    assert not paired_difference(table, table).excludes_zero


def test_zero_is_excluded_on_either_side_only() -> None:
    assert Interval(mean=0.2, low=0.1, high=0.3).excludes_zero
    assert Interval(mean=-0.2, low=-0.3, high=-0.1).excludes_zero
    assert not Interval(mean=0.2, low=-0.1, high=0.5).excludes_zero
    assert not Interval(mean=0.2, low=0.0, high=0.4).excludes_zero


def test_tables_of_different_retrainings_are_not_paired() -> None:
    with pytest.raises(ValueError, match="4 x 9 and 5 x 9"):
        paired_difference(np.zeros((4, 9)), np.zeros((5, 9)))


def test_equal_classes_make_balanced_accuracy_accuracy() -> None:
    table = np.random.default_rng(0).random((5, 40)) < 0.7
    labels = np.arange(40) % 4
    balanced = balanced_outcomes(table, labels)
    assert balanced.mean(axis=1) == pytest.approx(table.mean(axis=1))


def test_balanced_accuracy_by_hand() -> None:
    """Class 0 has 3 images and 2/3, 1/3 correct, class 1 has one and 1, 0."""
    table = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    balanced = balanced_outcomes(table, [0, 0, 0, 1])
    assert balanced.mean(axis=1) == pytest.approx([(2 / 3 + 1) / 2, (1 / 3 + 0) / 2])
    # A_0 = 1/2 and A_1 = 1/2; an image of class 0 counts 4 / (2 * 3), that of class 1 4 / 2
    assert balanced[0] == pytest.approx([0.5 + 1 / 3, 0.5 + 1 / 3, 0.5 - 1 / 3, 0.5 + 1])


def test_classes_of_different_size_and_accuracy_have_no_width_of_their_own() -> None:
    """All of class 0 correct and none of class 1: no image differs from its class."""
    table = np.repeat(np.array([[1.0] * 30 + [0.0] * 3]), 4, axis=0)
    interval = crossed_interval(balanced_outcomes(table, [0] * 30 + [1] * 3))
    assert (interval.low, interval.high) == pytest.approx((0.5, 0.5))
