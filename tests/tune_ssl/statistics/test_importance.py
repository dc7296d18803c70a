"""Importances by bootstrap: an evaluator whose answer is known, and how often a dummy is believed."""

from __future__ import annotations

import numpy as np
import pytest

from tune_ssl.statistics.importance import LARGEST_RESAMPLE, bootstrap_importance


def squared_correlations(points, values, seed):
    """The share each column explains by itself, for values that are linear in it."""
    assert np.isfinite(seed)
    columns, centered = points - points.mean(axis=0), values - values.mean()
    return (centered @ columns) ** 2 / ((columns**2).sum(axis=0) * (centered @ centered))


def linear(generator, count=60):
    points = generator.random((count, 3))
    return points, 2 * points[:, 0] + points[:, 1] + generator.normal(0, 0.3, count)


def test_what_explains_is_found_and_what_does_not_is_no_more_than_a_dummy() -> None:
    points, values = linear(np.random.default_rng(0), count=200)
    found = bootstrap_importance(
        points, values, squared_correlations, generator=np.random.default_rng(1)
    )
    first, second, third = found.columns
    total = 4 / 12 + 1 / 12 + 0.09
    assert first.share == pytest.approx(4 / 12 / total, abs=0.08)
    assert second.share == pytest.approx(1 / 12 / total, abs=0.08)
    assert (first.above_dummy, second.above_dummy, third.above_dummy) == (True, True, False)
    assert found.dummy < found.dummy_limit < second.share
    for one in found.columns:
        assert one.low <= one.share <= one.high


def test_the_interval_is_the_bootstraps() -> None:
    """Column 0 of a resample is 1 where trial 0 is in it: never, or with probability .9."""

    def has_first(points, _values, _seed):
        return [float((points[:, 0] == 0).any()), 0.5, 0.0]

    points = np.arange(8.0).reshape(4, 2)
    found = bootstrap_importance(
        points, np.arange(4.0), has_first, generator=np.random.default_rng(0)
    )
    assert (found.columns[0].low, found.columns[0].share, found.columns[0].high) == (0.0, 1.0, 1.0)
    assert (found.columns[1].low, found.columns[1].high) == (0.5, 0.5)


def test_a_trial_drawn_twice_has_its_dummy_twice_and_keeps_its_value() -> None:
    def check(points, values, _seed):
        assert (points[:, 0] == values).all()
        assert len(set(points[:, -1])) == len(set(values)) < len(values)
        assert ((points[:, -1] >= 0) & (points[:, -1] < 1)).all()
        return [0.0, 0.0]

    values = np.arange(30.0)
    bootstrap_importance(values[:, None], values, check, generator=np.random.default_rng(0))


def test_every_resample_has_a_dummy_and_a_seed_of_its_own() -> None:
    seeds, dummies = set(), set()

    def note(points, _values, seed):
        seeds.add(seed)
        dummies.add(float(points[:, -1].max()))
        return [0.0, 0.0]

    bootstrap_importance(np.ones((5, 1)), np.ones(5), note, generator=np.random.default_rng(0))
    assert len(seeds) == len(dummies) == 100


def test_a_large_search_is_resampled_in_part() -> None:
    def check(points, _values, _seed):
        assert len(points) == LARGEST_RESAMPLE
        return [0.0, 0.0]

    bootstrap_importance(
        np.ones((1000, 1)), np.ones(1000), check, generator=np.random.default_rng(0), resamples=3
    )
    with pytest.raises(ValueError, match="1 trials"):
        bootstrap_importance([[1.0]], [1.0], check, generator=np.random.default_rng(0))


def test_a_column_without_effect_is_believed_in_at_most_five_of_a_hundred_searches() -> None:
    """200 searches of 40 trials, three columns: two explain, one does not."""
    generator = np.random.default_rng(4)
    believed, found_real = 0, 0
    for _ in range(200):
        points, values = linear(generator, count=40)
        found = bootstrap_importance(
            points, values, squared_correlations, generator=generator, resamples=40
        )
        believed += found.columns[2].above_dummy
        found_real += found.columns[0].above_dummy
    assert believed / 200 <= 0.05
    assert found_real / 200 >= 0.95
