"""Ways to hold the claims of a table together, for ``statistics`` to compare with the one chosen.

Each takes the means of K cells and the mean squares of their differences, and says which pairs it
calls distinguishable. All use the crossed variance; they differ in what is pooled, in the degrees of
freedom, and in the quantile:

- ``chosen``: ``tune_ssl.statistics.cells``.
- ``pooled``: one residual for the table, draw + cell block model; Tukey's studentised range among
  the cells, Dunnett's multivariate t of correlation 1/2 (Dunnett 1955, Journal of the American
  Statistical Association 50:1096) against the control.
- ``games_howell``: each pair's own variance and Satterthwaite freedom, Tukey's quantile; against the
  control Dunnett's (Games and Howell 1976, Journal of Educational Statistics 1:113).
- ``dunnett_t3``: the same with the studentised maximum modulus (Dunnett 1980, Journal of the American
  Statistical Association 75:796).
- ``moderated``: as ``chosen``, but each pair's MS_S is first drawn towards those of the table, the more
  the more alike they are (Smyth 2004, Statistical Applications in Genetics 3:3).
- ``uncorrected``: 95 % for each pair, as if it were the only one.

As in ``chosen``, half of the error is the control's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from tune_ssl.statistics.cells import half_widths, pair_levels
from tune_ssl.statistics.crossed import Floats, MeanSquares, t_quantile, variance_of_mean

Claims = npt.NDArray[np.bool_]
Rule = Callable[[Floats, MeanSquares, tuple[int, ...]], Claims]

CONTROL = 0
LEVEL = 0.95
HALF = 1 - (1 - LEVEL) / 2
"""The level of each of two families that hold together at ``LEVEL``."""

LARGEST = 14.0  # beyond it a maximum of hundreds of normal differences is as good as impossible


# Distributions of a maximum over comparisons whose standard error is known. (K >= 2, m >= 1)


def range_cdf(cells: int, width: Floats) -> Floats:
    """Return P(the range of K standard normals <= width)."""
    point, weight = _normal_nodes()
    inside = special.ndtr(point[:, None]) - special.ndtr(point[:, None] - width)
    return cells * (weight @ inside ** (cells - 1))


def dunnett_cdf(comparisons: int, width: Floats) -> Floats:
    """Return P(all |z_i| <= width) of m normals with unit variance and correlation 1/2."""
    point, weight = _normal_nodes()
    reach = math.sqrt(2) * width
    inside = special.ndtr(point[:, None] + reach) - special.ndtr(point[:, None] - reach)
    return weight @ inside**comparisons


def modulus_cdf(comparisons: int, width: Floats) -> Floats:
    """Return P(all |z_i| <= width) of m independent standard normals."""
    return (2 * special.ndtr(width) - 1) ** comparisons


# Their quantiles where the standard error is estimated.


def studentised_quantile(
    cdf: Callable[[int, Floats], Floats], count: int, level: float, freedom: npt.ArrayLike
) -> Floats:
    """Return c with P(maximum / s <= c) = level, s^2 an independent chi^2_f / f; elementwise in f.

    Interpolated in 1/f, f >= 2, from 240 quantiles; ``scipy.stats.studentized_range`` takes .1 s for one.
    """
    nodes, quantiles = _quantiles(cdf, count, level)
    inverse = 1 / np.clip(np.asarray(freedom, dtype=np.float64), 2.0, 1e6)
    return np.interp(inverse, nodes, quantiles)


@cache
def _quantiles(
    cdf: Callable[[int, Floats], Floats], count: int, level: float
) -> tuple[Floats, Floats]:
    """Return 1/f, rising, and the quantiles: bisection on the integral over s."""
    inverse = np.linspace(1e-6, 0.5, 240)
    widths = np.linspace(0, LARGEST, 4000)
    known = cdf(count, widths)
    share, weight = np.polynomial.legendre.leggauss(200)
    freedom = 1 / inverse[:, None]
    s = np.sqrt(special.chdtri(freedom, (1 - share) / 2) / freedom)
    low, high = np.zeros(len(inverse)), np.full(len(inverse), 200.0)
    for _ in range(50):
        middle = (low + high) / 2
        covered = np.interp(middle[:, None] * s, widths, known, right=1.0) @ (weight / 2)
        low, high = (
            np.where(covered < level, middle, low),
            np.where(covered < level, high, middle),
        )
    return inverse, (low + high) / 2


@cache
def _normal_nodes() -> tuple[Floats, Floats]:
    """Return nodes and weights of integrals over a standard normal density."""
    point, weight = np.polynomial.legendre.leggauss(160)
    point, weight = 8.5 * point, 8.5 * weight
    return point, weight * np.exp(-(point**2) / 2) / math.sqrt(2 * math.pi)


# The rules.


def chosen(means: Floats, squares: MeanSquares, shape: tuple[int, ...]) -> Claims:
    """Return what the package claims."""
    return _gaps(means) > half_widths(squares, shape, control=CONTROL, level=LEVEL)


def pooled(means: Floats, squares: MeanSquares, shape: tuple[int, ...]) -> Claims:
    """Return what Tukey and Dunnett claim with one residual for all.

    The interaction's mean squares have K - 1 times the freedom of one table's: the mean over pairs
    of MS(Y_k - Y_l) / 2.
    """
    cells = len(means)
    pairs = np.triu_indices(cells, 1)
    table = MeanSquares(*(np.full((1, 1), part[pairs].mean()) for part in squares))
    variance, freedom = variance_of_mean(table, shape)
    spread = _gaps(means) / np.sqrt(variance)
    return spread > _by_family(cells, range_cdf, dunnett_cdf, freedom * (cells - 1))


def own_variances(
    means: Floats,
    squares: MeanSquares,
    shape: tuple[int, ...],
    *,
    among: Callable[[int, Floats], Floats],
    against: Callable[[int, Floats], Floats],
) -> Claims:
    """Return what each pair's own variance and Satterthwaite freedom claim with these quantiles."""
    variance, freedom = variance_of_mean(squares, shape)
    critical = _by_family(len(means), among, against, freedom)
    return _gaps(means) > critical * np.sqrt(variance)


def moderated(means: Floats, squares: MeanSquares, shape: tuple[int, ...]) -> Claims:
    """Return what ``chosen`` would claim if MS_S of a pair borrowed freedom from those of others.

    MS_S becomes (f0 s0^2 + f MS_S) / (f0 + f) with f0 + f degrees of freedom, at most those of pooling.
    """
    cells, (draws, images) = len(means), shape
    pairs = np.triu_indices(cells, 1)
    own = draws - 1
    prior, typical = prior_of_variances(squares.draws[pairs], own) if cells > 2 else (0.0, 0.0)
    prior = min(prior, (cells - 2) * own)
    shrunk = (prior * typical + own * squares.draws) / (prior + own)
    beyond = np.maximum(squares.images - squares.residual, 0.0)
    counted = np.maximum(shrunk, shrunk[pairs].mean())
    freedom = (counted + beyond) ** 2 / (
        counted**2 / (prior + own) + (beyond > 0) * squares.images**2 / (images - 1)
    )
    critical = t_quantile(pair_levels(cells, CONTROL, LEVEL), freedom)
    return _gaps(means) > critical * np.sqrt((shrunk + beyond) / (draws * images))


def prior_of_variances(variances: Floats, freedom: int) -> tuple[float, float]:
    """Return f0 and s0^2 of the scaled inverse chi^2 distribution from which variances seem to come.

    From mean and variance of their logarithms; f0 is large where they differ no more than estimates
    with ``freedom`` degrees of freedom do of one variance.
    """
    half = freedom / 2
    logs = np.log(np.maximum(variances, 1e-12)) - special.digamma(half) + math.log(half)
    excess = float(logs.var(ddof=1) - special.polygamma(1, half))
    if excess <= special.polygamma(1, 1e4):
        return 2e4, float(np.exp(logs.mean()))
    prior = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-3, 1e4)
    return 2 * prior, float(np.exp(logs.mean() + special.digamma(prior) - math.log(prior)))


def uncorrected(means: Floats, squares: MeanSquares, shape: tuple[int, ...]) -> Claims:
    """Return what 95 % intervals claim, each as if it were alone."""
    variance, freedom = variance_of_mean(squares, shape)
    return _gaps(means) > t_quantile(LEVEL, freedom) * np.sqrt(variance)


RULES: dict[str, Rule] = {
    "chosen": chosen,
    "pooled": pooled,
    "games_howell": partial(own_variances, among=range_cdf, against=dunnett_cdf),
    "dunnett_t3": partial(own_variances, among=modulus_cdf, against=modulus_cdf),
    "moderated": moderated,
    "uncorrected": uncorrected,
}


def _by_family(
    cells: int,
    among: Callable[[int, Floats], Floats],
    against: Callable[[int, Floats], Floats],
    freedom: Floats,
) -> Floats:
    """Return (K, K) critical values of t: one family against the control, one among the others."""
    others = cells - 1
    spread = np.broadcast_to(freedom, (cells, cells))
    if cells == 2:
        return studentised_quantile(against, 1, LEVEL, spread)
    if among is range_cdf:
        critical = studentised_quantile(among, others, HALF, spread) / math.sqrt(2)
    else:
        critical = studentised_quantile(among, others * (others - 1) // 2, HALF, spread)
    controls = studentised_quantile(against, others, HALF, spread)
    critical[CONTROL, :], critical[:, CONTROL] = controls[CONTROL, :], controls[:, CONTROL]
    return critical


def _gaps(means: Floats) -> Floats:
    return np.abs(means[:, None] - means)
