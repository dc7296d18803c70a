"""What fewer trials would have found: literals, all subsets counted, limits, a known truth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.examples import EXAMPLES
from tune_ssl.statistics.search_size import (
    best_of,
    default_wins,
    none_drawn,
    resampled_accuracies,
)

CUT = -np.inf


def test_none_drawn_is_the_hypergeometric_chance() -> None:
    assert none_drawn(2, 5, 2) == pytest.approx(3 / 10)
    assert none_drawn([0, 1, 4, 5], 5, 2) == pytest.approx([1.0, 6 / 10, 0.0, 0.0])
    assert none_drawn([0, 3, 5], 5, 0) == pytest.approx([1.0, 1.0, 1.0])
    assert none_drawn(5000, 10_000, 10) == pytest.approx(0.5**10, rel=0.01)


accuracies = some.lists(some.sampled_from([CUT, 0.2, 0.5, 0.7, 0.9]), min_size=1, max_size=7)


@EXAMPLES
@given(accuracies, some.sampled_from([0.2, 0.6, 0.9]), some.data())
def test_the_best_of_some_is_the_mean_over_all_subsets(others, floor, data) -> None:
    drawn = data.draw(some.integers(0, len(others)))
    maxima = [max([floor, *chosen]) for chosen in combinations(others, drawn)]
    found = best_of(others, floor, drawn)
    assert found.mean == pytest.approx(np.mean(maxima))
    assert found.low == pytest.approx(np.quantile(maxima, 0.05, method="inverted_cdf"))
    assert found.high == pytest.approx(np.quantile(maxima, 0.95, method="inverted_cdf"))


@EXAMPLES
@given(
    accuracies, some.lists(some.sampled_from([CUT, 0.5, 0.7]), min_size=1, max_size=2), some.data()
)
def test_a_default_wins_in_the_share_of_subsets_in_which_nothing_is_better(
    others, defaults, data
) -> None:
    defaults = [0.6, *defaults]
    drawn = data.draw(some.integers(0, len(others)))
    won = np.mean(
        [max(defaults) >= max(chosen, default=0) for chosen in combinations(others, drawn)]
    )
    values = [*defaults, *others]
    is_default = [True] * len(defaults) + [False] * len(others)
    (found,) = default_wins(values, is_default, [len(defaults) + drawn])
    assert found.on_these_images == pytest.approx(won)
    assert found.on_such_images is None
    assert found.first == (max(defaults) >= max(others[:drawn], default=0))


def test_drawing_with_replacement_would_promise_too_little() -> None:
    """Dodge et al. 2019 give the best of 2 of {0, 1} as 3/4; every two of these hold the 1."""
    assert best_of([0.0, 1.0], 0.0, 2).mean == 1.0
    assert best_of([0.0, 1.0], 0.0, 1).mean == 0.5


def test_the_best_of_k_is_estimated_without_bias() -> None:
    """Of 12 uniform trials the best of 5 is 5/6 on average; drawn with replacement it is .80."""
    generator = np.random.default_rng(0)
    found = [best_of(generator.random(12), 0.0, 5).mean for _ in range(4000)]
    assert np.mean(found) == pytest.approx(5 / 6, abs=0.005)


def test_more_trials_are_never_worse_and_a_default_wins_ever_less() -> None:
    values = np.random.default_rng(1).random(40)
    means = [best_of(values, 0.6, drawn).mean for drawn in range(41)]
    assert (np.diff(means) >= -1e-12).all()
    assert means[0] == 0.6
    assert means[-1] == values.max()
    is_default = np.arange(40) == 0
    chances = [
        win.on_these_images for win in default_wins([0.6, *values[1:]], is_default, range(1, 41))
    ]
    assert chances[0] == 1.0
    assert (np.diff(chances) <= 1e-12).all()


def test_a_tie_goes_to_the_default_and_a_trial_that_was_cut_beats_nobody() -> None:
    (found,) = default_wins([0.8, 0.8, CUT], [True, False, False], [3])
    assert found.on_these_images == found.first == 1.0


def test_images_are_drawn_anew_and_first_keeps_the_order() -> None:
    """Two resamples: in one trial 1 is better, in the other trial 2."""
    resampled = [[0.5, 0.6, 0.4], [0.5, 0.4, 0.6]]
    two, three = default_wins([0.5, 0.6, 0.4], [True, False, False], [2, 3], resampled=resampled)
    assert (two.on_these_images, two.on_such_images, two.first) == pytest.approx((0.5, 0.5, 0.5))
    assert (three.on_these_images, three.on_such_images, three.first) == (0.0, 0.0, 0.0)


def test_resampled_accuracies_have_the_standard_error_of_the_images_and_are_paired() -> None:
    correct = np.random.default_rng(0).random((2, 400)) < 0.8
    correct[1] = correct[0]
    found = resampled_accuracies(correct, generator=np.random.default_rng(1))
    assert found.shape == (2000, 2)
    assert (found[:, 0] == found[:, 1]).all()
    accuracy = correct[0].mean()
    assert found[:, 0].mean() == pytest.approx(accuracy, abs=0.002)
    assert found[:, 0].std() == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 400), rel=0.06)


def test_there_must_be_a_default_and_sizes_in_its_range() -> None:
    with pytest.raises(ValueError, match="no published default"):
        default_wins([CUT, 0.5], [True, False], [2])
    for size in (1, 4):
        with pytest.raises(ValueError, match="allowed: 2 to 3"):
            default_wins([0.5, 0.5, 0.5], [True, True, False], [size])
