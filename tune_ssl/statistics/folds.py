"""Intervals for cross-validation: fold scores are correlated, because they share labels and images.

Every score is the accuracy of one training on the fold it did not see. Were the J = R K scores of R
repeats of K folds independent, their mean had variance s^2 / J. They are not: trainings share labels,
repeats judge on the same images. Nadeau and Bengio (2003, Machine Learning 52:239) take the correlation of
two scores to be the share of the labels that is held out, 1/K; the corrected variance is then::

    (1/J + n_held_out / n_others) s^2 = (1/J + 1/(K - 1)) s^2

with Student's t and J - 1 degrees of freedom. Repeats make it a little shorter, never short (Bouckaert and
Frank 2004). How often it covers is measured in ``benchmarks/cross_validation.json``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tune_ssl.statistics.crossed import ACCURACIES, Floats, Interval, clipped, t_quantile


def fold_scores(outcomes: npt.ArrayLike, folds: npt.ArrayLike, count: int) -> Floats:
    """Return the mean outcome of every fold, (R, K).

    Args:
        outcomes: (R, n), what was made of image i in repeat r: correct 0 or 1, or a weighted outcome.
        folds: (R, n), the fold of image i in repeat r, from 1.
        count: K; none is empty.
    """
    tables = zip(np.asarray(outcomes, dtype=np.float64), np.asarray(folds), strict=True)
    return np.array(
        [[row[own == fold].mean() for fold in range(1, count + 1)] for row, own in tables]
    )


def corrected_interval(
    scores: npt.ArrayLike, *, level: float = 0.95, clip: tuple[float, float] = ACCURACIES
) -> Interval:
    """Return the mean of fold scores and its interval by the corrected resampled t.

    Args:
        scores: (R, K), of R repeats of K folds: accuracies, or paired differences of two configurations.
        level: of the interval, in (0, 1).
        clip: the smallest and largest mean there can be.

    Raises:
        ValueError: there are fewer than two folds.
    """
    given = np.asarray(scores, dtype=np.float64)
    folds = given.shape[1]
    if folds < 2:
        raise ValueError(f"there are {folds} folds; at least 2 are needed; add some.")
    variance = (1 / given.size + 1 / (folds - 1)) * given.var(ddof=1)
    half = float(t_quantile(level, given.size - 1.0)) * float(variance) ** 0.5
    return clipped(float(given.mean()), half, clip)
