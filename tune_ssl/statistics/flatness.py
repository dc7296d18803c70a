"""How flat is the optimum: how far may one hyperparameter move before accuracy falls?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from tune_ssl.statistics.crossed import Floats

GRID = 101
"""Points of a slice: a range is told to a hundredth."""

MOST_POINTS = 400
"""A Gaussian process costs the cube of their number."""

Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One hyperparameter moved, all others kept at the best configuration; accuracies in [0, 1].

    Args:
        places: (g,), ascending, in [0, 1] of the range on the scale it was searched on.
        loss: (g,), expected f(best) - f(place): what moving there costs.
        deviation: (g,), standard deviation of that loss.
        center: index of the best configuration's own place, where loss and deviation are 0.
    """

    places: Floats
    loss: Floats
    deviation: Floats
    center: int


@dataclass(frozen=True, kw_only=True)
class FlatRange:
    """Where a move costs no more than a tolerance, as parts [0, 1] of the range.

    Args:
        surely: where that has probability .95 or more.
        likely: where it has .5 or more, which is where the expected loss is within the tolerance.
        at_most: where it has .05 or more.
    """

    surely: Ends
    likely: Ends
    at_most: Ends


def flat_range(found: Slice, tolerance: float) -> FlatRange:
    """Return the range around the best in which accuracy stays within a tolerance of its own.

    P(t) = Phi((tolerance - loss(t)) / deviation(t)) at each place t, and an end lies where P last
    holds without a gap from the best outwards. Pointwise, as the slice itself.

    Args:
        tolerance: > 0, in accuracy.
    """
    steep = np.maximum(found.deviation, 1e-12)
    chance = ndtr((tolerance - found.loss) / steep)
    surely, likely, at_most = (
        _around(found.places, found.center, chance >= level) for level in (0.95, 0.5, 0.05)
    )
    return FlatRange(surely=surely, likely=likely, at_most=at_most)


def slices(
    points: npt.ArrayLike, values: npt.ArrayLike, noise: npt.ArrayLike, best: int
) -> list[Slice]:
    """Return a slice through the best trial for each column, by a Gaussian process over all trials.

    f has a constant mean and covariance s^2 exp(-sum_j (x_j - x'_j)^2 / 2 l_j^2); a value is f plus
    noise of variance ``noise`` plus one that is fitted, as s and l are, by maximal likelihood. With C the
    posterior covariance of f::

        loss(t) = E f(best) - E f(t),    deviation(t)^2 = C(best, best) + C(t, t) - 2 C(best, t)

    The best's own value is the model's, not the observed one, which was chosen for being high. What
    fitting s and l leaves unknown is not in the deviation (benchmarks/analysis.json says what
    that costs).

    Args:
        points: (n, d), in [0, 1].
        values: (n,), accuracies.
        noise: (n,), the least variance a value has: that of its images, and of what predicted it.
        best: row of the best trial.
    """
    table, observed, known = (np.asarray(x, dtype=np.float64) for x in (points, values, noise))
    rows = _thinned(observed, best)
    scale = float(observed[rows].std()) or 1.0
    model = _fit(
        table[rows], (observed[rows] - observed[rows].mean()) / scale, known[rows] / scale**2
    )
    return [_slice(model, table[best], column, scale) for column in range(table.shape[1])]


def predicted_finals(
    at_rung: npt.ArrayLike, final: npt.ArrayLike, cut_at_rung: npt.ArrayLike
) -> tuple[Floats, float]:
    """Return what trials cut at a rung would have reached, and the variance that leaves.

    A trial is cut for its value at the rung and for nothing else, so the least-squares line of
    final values over values at the rung, of the trials that went on, holds for those that did not
    (missing at random). It is extended below the values it was fitted on: a line is all there is.
    Its slope is kept in [0, 1], and what it predicts in [0, 1].

    Args:
        at_rung, final: (c,), of the trials that reached the full length, c >= 3.
        cut_at_rung: (p,), of the others.

    Raises:
        ValueError: there are fewer than three complete trials.
    """
    seen, reached, cut = (np.asarray(x, dtype=np.float64) for x in (at_rung, final, cut_at_rung))
    if len(seen) < 3:
        raise ValueError(f"there are {len(seen)} complete trials; at least 3 are needed; add some.")
    centered = seen - seen.mean()
    spread = float(centered @ centered)
    slope = float(centered @ reached) / spread if spread > 0 else 0.0
    slope = min(1.0, max(0.0, slope))
    left = reached - reached.mean() - slope * centered
    predicted = np.clip(reached.mean() + slope * (cut - seen.mean()), 0.0, 1.0)
    return predicted, float(left @ left) / (len(seen) - 2)


def _fit(points: Floats, values: Floats, noise: Floats) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    smooth = ConstantKernel(1.0, (0.05, 50.0)) * RBF([0.7] * points.shape[1], (0.15, 30.0))
    kernel = smooth + WhiteKernel(0.1, (1e-5, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound: no effect
        return GaussianProcessRegressor(kernel, alpha=1e-8 + noise).fit(points, values)


def _slice(model: Any, best: Floats, column: int, scale: float) -> Slice:
    """Return the slice of a fitted process through a point; ``scale`` is the unit of its values."""
    places = np.unique(np.append(np.linspace(0.0, 1.0, GRID), best[column]))
    center = int(np.searchsorted(places, best[column]))
    moved = np.tile(best, (len(places), 1))
    moved[:, column] = places
    smooth = model.kernel_.k1
    across = smooth(moved, model.X_train_)
    mean = across @ model.alpha_
    explained = np.linalg.solve(model.L_, across.T)
    covariance = smooth(moved) - explained.T @ explained
    own = np.diag(covariance)
    variance = own[center] + own - 2 * covariance[center]
    return Slice(
        places=places,
        loss=scale * (mean[center] - mean),
        deviation=scale * np.sqrt(np.maximum(variance, 0.0)),
        center=center,
    )


def _around(places: Floats, center: int, holds: npt.NDArray[np.bool_]) -> Ends:
    """Return the ends of the run of places around the center that hold, the center always."""
    low = high = center
    while low > 0 and holds[low - 1]:
        low -= 1
    while high < len(places) - 1 and holds[high + 1]:
        high += 1
    return float(places[low]), float(places[high])


def _thinned(values: Floats, best: int) -> npt.NDArray[np.int64]:
    """Return the rows of at most ``MOST_POINTS`` values, evenly over their order, the best among them."""
    order = np.argsort(-values, kind="stable")
    places = np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).round().astype(int)
    return np.union1d(order[places], [best])
