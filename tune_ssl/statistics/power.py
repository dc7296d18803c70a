"""How small a difference so many validation images can tell: the power of the test that says "tied".

Two configurations of one search classify the same images, and ``tune_ssl.best`` calls them tied
unless the exact paired test of McNemar (1947) separates them. It sees only the images on which they
disagree. With n images, of which two configurations disagree on a share d, and accuracies that
differ by x, the number of disagreements is M ~ B(n, d), and of M = m the better one wins B(m, q)::

    q = (d + x) / (2 d)
    power = sum_m P(M = m) P(min(W, m - W) <= c_m),    W ~ B(m, q)

where c_m is the largest count with 2 P(B(m, 1/2) <= c_m) < level.

**What is assumed: d = 0.10.** Two configurations worth comparing disagree on a tenth of the images; a
difference larger than that is itself the share they disagree on, so d = max(0.10, x). Where they disagree
on more, a difference must be larger to be told: it grows about as the root of d.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from tune_ssl.statistics.crossed import Floats

Counts = npt.NDArray[np.int64]

DISAGREEMENT = 0.10
"""Share of images on which two configurations of a search are taken to disagree, see docs/conditions.md."""

LEVEL, POWER = 0.05, 0.80

STEPS = 14
"""Of a bisection: to a hundredth of a point."""

DEVIATIONS = 6.0
"""Beyond so many of its mean, a count of disagreements is not worth adding up."""


def separable_difference(
    images: int, *, disagreement: float = DISAGREEMENT, level: float = LEVEL, power: float = POWER
) -> float | None:
    """Return the smallest difference in accuracy that a paired test of two configurations finds.

    Args:
        images: on which both are measured, >= 1.
        disagreement: share of them on which one is right and the other wrong, in (0, 1].
        level: of the two-sided test, in (0, 1).
        power: with which it shall be found, in (0, 1).

    Returns:
        The difference, in (0, 1]; None where not even the largest is found.
    """
    if mcnemar_power(images, 1.0, disagreement=1.0, level=level) < power:
        return None
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        share = max(disagreement, middle)
        if mcnemar_power(images, middle, disagreement=share, level=level) < power:
            low = middle
        else:
            high = middle
    return high


def mcnemar_power(
    images: int, difference: float, *, disagreement: float, level: float = LEVEL
) -> float:
    """Return the probability that the exact two-sided test of McNemar separates two classifiers.

    Args:
        images: n >= 1.
        difference: x of their accuracies, 0 <= x <= ``disagreement``.
        disagreement: share d of the images on which one is right and the other wrong, in (0, 1].
        level: the test separates where its p-value is below.
    """
    mean = images * disagreement
    reach = DEVIATIONS * np.sqrt(mean) + DEVIATIONS
    counts = np.arange(max(0, int(mean - reach)), min(images, int(mean + reach)) + 1)
    to_the_better = (disagreement + difference) / (2 * disagreement)
    critical = _critical(counts, level)
    separated = _at_most(critical, counts, to_the_better)
    separated += _at_most(critical, counts, 1.0 - to_the_better)
    return float((_probability(counts, images, disagreement) * separated).sum())


def _critical(counts: Counts, level: float) -> Floats:
    """Return for each number of disagreements the most that the loser may win; -1 where none may."""
    guess = np.nan_to_num(special.bdtrik(level / 2, counts, 0.5), nan=-1.0)
    near = np.floor(guess)[:, None] + np.array([-1.0, 0.0, 1.0])
    fits = (near >= 0) & (2 * _at_most(near, counts[:, None], 0.5) < level)
    critical: Floats = np.where(fits, near, -1.0).max(axis=1)
    return critical


def _at_most(wins: Floats, counts: Counts, chance: float) -> Floats:
    """Return P(B(counts, chance) <= wins), 0 where ``wins`` is negative."""
    inside = np.clip(wins, 0, counts)
    found: Floats = np.where(wins < 0, 0.0, special.bdtr(inside, counts, chance))
    return found


def _probability(counts: Counts, images: int, share: float) -> Floats:
    """Return P(B(images, share) = counts)."""
    below = special.bdtr(counts, images, share)
    before = np.where(counts == 0, 0.0, special.bdtr(np.maximum(counts - 1, 0), images, share))
    found: Floats = below - before
    return found
