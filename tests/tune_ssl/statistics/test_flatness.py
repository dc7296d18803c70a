"""How flat an optimum is: literals, limits, and a surface whose flat range is known."""

from __future__ import annotations

import numpy as np
import pytest

from tune_ssl.statistics.flatness import (
    MOST_POINTS,
    Slice,
    flat_range,
    predicted_finals,
    slices,
)

PLACES = np.linspace(0, 1, 101)


def parabola(deviation: float) -> Slice:
    """Return a slice that loses (t - .5)^2, with a deviation that grows with the distance."""
    return Slice(
        places=PLACES,
        loss=(PLACES - 0.5) ** 2,
        deviation=deviation * np.abs(PLACES - 0.5),
        center=50,
    )


def test_without_doubt_all_three_ranges_are_where_the_loss_is_within_the_tolerance() -> None:
    found = flat_range(parabola(0.0), 0.0401)
    assert found.surely == found.likely == found.at_most == pytest.approx((0.3, 0.7))


def test_doubt_narrows_what_is_sure_and_widens_what_is_possible() -> None:
    """At distance d: (.0401 - d^2) / .1 d is +-1.645 at d = .134 and at d = .298."""
    found = flat_range(parabola(0.1), 0.0401)
    assert found.likely == pytest.approx((0.3, 0.7))
    assert found.surely == pytest.approx((0.37, 0.63))
    assert found.at_most == pytest.approx((0.21, 0.79))


def test_a_range_ends_at_the_first_gap_and_holds_the_best_always() -> None:
    loss = np.where((PLACES > 0.6) & (PLACES < 0.8), 1.0, 0.0)
    around = Slice(places=PLACES, loss=loss, deviation=np.zeros(101), center=10)
    assert flat_range(around, 0.01).at_most == pytest.approx((0.0, 0.6))
    steep = Slice(places=PLACES, loss=np.ones(101), deviation=np.zeros(101), center=10)
    assert flat_range(steep, 0.01).at_most == pytest.approx((0.1, 0.1))


def surface(generator, count, noise):
    """Return points, values and best of .9 - .4 (x0 - .5)^2, which does not depend on x1."""
    points = generator.random((count, 2))
    true = 0.9 - 0.4 * (points[:, 0] - 0.5) ** 2
    values = true + generator.normal(0, noise, count)
    return points, values, int(values.argmax())


def test_the_flat_range_of_a_known_surface_is_found() -> None:
    points, values, best = surface(np.random.default_rng(0), 120, 0.002)
    curved, flat = slices(points, values, np.zeros(120), best)
    assert curved.loss[curved.center] == curved.deviation[curved.center] == 0.0
    assert curved.places[curved.center] == points[best, 0]
    reference = 0.9 - 0.4 * (points[best, 0] - 0.5) ** 2
    np.testing.assert_allclose(
        curved.loss, reference - (0.9 - 0.4 * (curved.places - 0.5) ** 2), atol=0.006
    )
    np.testing.assert_allclose(flat.loss, 0.0, atol=0.003)
    assert flat_range(flat, 0.01).surely == (0.0, 1.0)
    low, high = flat_range(curved, 0.01).likely
    half = np.sqrt((0.01 + 0.4 * (points[best, 0] - 0.5) ** 2) / 0.4)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.04)


def test_what_is_called_sure_is_flat_and_what_is_flat_is_called_possible() -> None:
    """16 searches of 30 noisy trials, both ends of a range; benchmarks/analysis.py counts more exactly."""
    generator = np.random.default_rng(3)
    sure, possible = [], []
    for _ in range(16):
        points, values, best = surface(generator, 30, 0.015)
        at = points[best, 0]
        half = np.sqrt((0.02 + 0.4 * (at - 0.5) ** 2) / 0.4)
        low, high = max(0.0, 0.5 - half), min(1.0, 0.5 + half)
        found = flat_range(slices(points, values, np.full(30, 1e-4), best)[0], 0.02)
        sure.append(found.surely[0] >= low - 0.01 and found.surely[1] <= high + 0.01)
        possible.append(found.at_most[0] <= low + 0.01 and found.at_most[1] >= high - 0.01)
    assert np.mean(sure) >= 0.85
    assert np.mean(possible) >= 0.6


def test_known_noise_makes_less_sure() -> None:
    points, values, best = surface(np.random.default_rng(1), 40, 0.001)
    sure, unsure = (
        slices(points, values, np.full(40, noise), best)[0].deviation.max() for noise in (0.0, 4e-4)
    )
    assert unsure > 2 * sure


def test_values_that_are_all_the_same_and_many_points_are_no_trouble() -> None:
    generator = np.random.default_rng(0)
    points = generator.random((20, 1))
    (found,) = slices(points, np.full(20, 0.5), np.zeros(20), 3)
    np.testing.assert_allclose(found.loss, 0.0, atol=1e-6)
    points, values, best = surface(generator, MOST_POINTS + 200, 0.01)
    assert len(slices(points, values, np.zeros(len(values)), best)) == 2


def test_a_trial_that_was_cut_is_predicted_by_the_line_of_those_that_went_on() -> None:
    predicted, variance = predicted_finals([0.4, 0.5, 0.6], [0.70, 0.75, 0.80], [0.2, 0.45])
    assert predicted == pytest.approx([0.6, 0.725])
    assert variance == pytest.approx(0.0)
    _, variance = predicted_finals([0.4, 0.4, 0.6, 0.6], [0.7, 0.8, 0.7, 0.8], [0.1])
    assert variance == pytest.approx(4 * 0.05**2 / 2)


def test_a_prediction_stays_an_accuracy_and_its_line_neither_falls_nor_is_steeper_than_one() -> (
    None
):
    assert predicted_finals([0.4, 0.5, 0.6], [0.8, 0.7, 0.6], [0.1])[0] == pytest.approx([0.7])
    assert predicted_finals([0.4, 0.5, 0.6], [0.1, 0.4, 0.7], [0.0])[0] == pytest.approx([0.0])
    assert predicted_finals([0.4, 0.5, 0.6], [0.4, 0.7, 1.0], [0.4])[0] == pytest.approx([0.6])
    assert predicted_finals([0.5, 0.5, 0.5], [0.4, 0.7, 1.0], [0.1])[0] == pytest.approx([0.7])
    with pytest.raises(ValueError, match="2 complete"):
        predicted_finals([0.4, 0.5], [0.8, 0.7], [0.1])
