"""Intervals for accuracies of retrainings judged on one set of test images, and for differences.

Every retraining is tested on the same images, so draws and images are crossed, not nested. With
a draw's effect a_s, an image's b_i and the rest e_si, all random::

    y_si = mu + a_s + b_i + e_si
    Var(mean) = (E[MS_S] + E[MS_I] - E[MS_E]) / (S n)

An interval from either source alone is too short. The images are a sample too: what is claimed is
about images like these, not about these 600.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

ACCURACIES = (0.0, 1.0)
DIFFERENCES = (-1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its two-sided interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference with this interval is distinguishable from none."""
        return self.low > 0.0 or self.high < 0.0

    @property
    def verdict(self) -> str:
        """What a table says of a difference with this interval."""
        if not self.excludes_zero:
            return "not distinguishable"
        return "better" if self.low > 0 else "worse"


class MeanSquares(NamedTuple):
    """Mean squares of a two-way table without replication, or such of many tables at once."""

    draws: Floats
    images: Floats
    residual: Floats


def crossed_interval(
    outcomes: npt.ArrayLike, *, level: float = 0.95, clip: tuple[float, float] = ACCURACIES
) -> Interval:
    """Return the mean of a retrainings x images table and its interval.

    Variance and degrees of freedom are those of ``variance_of_mean``; the quantile is Student's t.

    Args:
        outcomes: (S, n), what retraining s did on image i: correct 0 or 1, a share of several
            retrainings, or a paired difference.
        level: of the interval, in (0, 1).
        clip: the smallest and largest mean there can be.

    Raises:
        ValueError: there are fewer than two retrainings or images.
    """
    table = np.asarray(outcomes, dtype=np.float64)
    squares = mean_products(table[None])
    variance, freedom = variance_of_mean(squares, table.shape)
    half = t_quantile(level, freedom) * np.sqrt(variance)
    return clipped(float(table.mean()), float(half[0, 0]), clip)


def paired_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, *, level: float = 0.95
) -> Interval:
    """Return the difference of two configurations' accuracies, first minus second.

    The crossed interval of the table of differences: what a draw, or an image, does to both
    cancels. ``excludes_zero`` says whether the two are distinguishable.

    Args:
        first, second: (S, n) each, of the same draws, seeds and images in the same order.

    Raises:
        ValueError: the tables differ in shape, or are smaller than 2 x 2.
    """
    one, other = (np.asarray(table, dtype=np.float64) for table in (first, second))
    if one.shape != other.shape:
        raise ValueError(
            f"the tables are {_size(one.shape)} and {_size(other.shape)}; paired ones have the same "
            "retrainings and images; leave out what only one of them has."
        )
    return crossed_interval(one - other, level=level, clip=DIFFERENCES)


def mean_products(tables: Floats) -> MeanSquares:
    """Return the mean products of K tables, each entry a pair of tables.

    Those of a contrast of tables follow: the mean squares of sum_k c_k Y_k are c' M c. On the
    diagonal stand the mean squares of each table.

    Args:
        tables: (K, S, n).

    Returns:
        Three (K, K) matrices; with S - 1, n - 1 and (S - 1)(n - 1) degrees of freedom.

    Raises:
        ValueError: there are fewer than two retrainings or images.
    """
    _, draws, images = tables.shape
    if draws < 2 or images < 2:
        raise ValueError(
            f"the table is {_size((draws, images))}; at least 2 x 2 is needed; add retrainings or images."
        )
    grand = tables.mean(axis=(1, 2), keepdims=True)
    by_draw = tables.mean(axis=2, keepdims=True) - grand
    by_image = tables.mean(axis=1, keepdims=True) - grand
    rest = tables - grand - by_draw - by_image
    return MeanSquares(
        draws=images * _products(by_draw) / (draws - 1),
        images=draws * _products(by_image) / (images - 1),
        residual=_products(rest) / ((draws - 1) * (images - 1)),
    )


def variance_of_mean(
    squares: MeanSquares, shape: tuple[int, ...], *, least_draws: float = 0.0
) -> tuple[Floats, Floats]:
    """Return the variance of a table's mean and its degrees of freedom, elementwise.

    (MS_S + MS_I - MS_E) / (S n), not below MS_S / (S n); degrees of freedom after Satterthwaite
    (1946), (MS_S + MS_I - MS_E)^2 / (MS_S^2/(S-1) + MS_I^2/(n-1) + MS_E^2/((S-1)(n-1))), which
    are S - 1 where the images add nothing.

    Args:
        shape: (S, n).
        least_draws: MS_S counts as no less than this in the degrees of freedom, see ``cells``;
            the variance is not touched.
    """
    draws, images = shape
    beyond = np.maximum(squares.images - squares.residual, 0.0)
    variance = (squares.draws + beyond) / (draws * images)
    counted = np.maximum(squares.draws, least_draws)
    spread = counted**2 / (draws - 1) + (beyond > 0) * (
        squares.images**2 / (images - 1) + squares.residual**2 / ((draws - 1) * (images - 1))
    )
    nothing = spread == 0  # equal outcomes everywhere: the width is 0 with any freedom
    freedom = (counted + beyond) ** 2 / np.where(nothing, 1.0, spread)
    return variance, np.where(nothing, draws - 1.0, freedom)


def t_quantile(level: npt.ArrayLike, freedom: npt.ArrayLike) -> Floats:
    """Return c with P(|t| <= c) = level, for Student's t; elementwise."""
    tail = (1.0 - np.asarray(level)) / 2
    return np.asarray(-special.stdtrit(freedom, tail), dtype=np.float64)


def clipped(mean: float, half: float, clip: tuple[float, float]) -> Interval:
    """Return mean +- half, within the values there can be."""
    low, high = clip
    return Interval(mean=mean, low=max(low, mean - half), high=min(high, mean + half))


def balanced_outcomes(outcomes: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Return a table whose means are balanced accuracies, for the functions above.

    With C classes, n_c images of class c, and the mean A_c of class c over all retrainings::

        z_si = mean_c A_c + n / (C n_c) (y_si - A_c),    c the class of image i

    Row means are the retrainings' balanced accuracies; columns vary within their class only,
    because how many images a class has is no chance.

    Args:
        outcomes: (S, n), correct 0 or 1.
        labels: (n,), the images' classes.
    """
    table, given = np.asarray(outcomes, dtype=np.float64), np.asarray(labels)
    _, classes, sizes = np.unique(given, return_inverse=True, return_counts=True)
    by_image = table.mean(axis=0)
    by_class = np.bincount(classes, weights=by_image) / sizes
    weights = len(given) / (len(sizes) * sizes)
    balanced: Floats = by_class.mean() + weights[classes] * (table - by_class[classes])
    return balanced


def _products(effects: Floats) -> Floats:
    flat = effects.reshape(len(effects), -1)
    return flat @ flat.T


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
