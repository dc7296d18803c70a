"""The corrected resampled t: by hand, and that it covers where plain t does not."""

from __future__ import annotations

import numpy as np
import pytest

from tune_ssl.statistics.folds import corrected_interval, fold_scores


def test_the_interval_by_hand() -> None:
    """Two repeats of two folds: s^2 = .02 / 3, times 1/4 + 1; t of three degrees of freedom."""
    found = corrected_interval([[0.8, 0.6], [0.7, 0.7]])
    assert found.mean == pytest.approx(0.7)
    half = 3.182446 * np.sqrt(1.25 * 0.02 / 3)
    assert found.high - found.mean == pytest.approx(min(0.3, half), abs=1e-6)
    assert corrected_interval([[0.8, 0.6], [0.7, 0.7]], clip=(-1, 2)).low == pytest.approx(
        0.7 - half, abs=1e-6
    )


def test_repeats_alone_make_it_no_shorter_than_the_share_held_out() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(0.8, 0.02, (400, 5))
    half = corrected_interval(scores).high - 0.8
    assert half == pytest.approx(1.96 * 0.02 * np.sqrt(1 / 4), rel=0.05)


def test_fewer_than_two_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        corrected_interval([[0.8], [0.7]])


def test_scores_are_means_over_the_images_of_a_fold() -> None:
    outcomes = [[1, 0, 1, 1], [0, 0, 1, 0]]
    folds = [[1, 2, 1, 2], [2, 2, 1, 1]]
    assert fold_scores(outcomes, folds, 2).tolist() == [[1.0, 0.5], [0.5, 0.0]]


def test_it_covers_where_repeats_judge_on_the_same_images() -> None:
    """600 cross-validations of 100 images, 10 x 5 folds: plain t is too sure, this is not."""
    generator = np.random.default_rng(1)
    covered = plain = 0
    for _ in range(600):
        chances = generator.random(100)  # of every image, .5 on average
        folds = np.stack([generator.permutation(np.arange(100) % 5) + 1 for _ in range(10)])
        scores = fold_scores(generator.random((10, 100)) < chances, folds, 5)
        found = corrected_interval(scores)
        covered += found.low <= 0.5 <= found.high
        plain += abs(scores.mean() - 0.5) <= 2.01 * scores.std(ddof=1) / np.sqrt(50)
    assert covered / 600 > 0.95
    assert plain / 600 < 0.7
