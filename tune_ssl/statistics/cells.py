"""Which of many cells differ: claims that hold together over the whole printed table.

A cell is a configuration, or a method with its divergence; each has a table (S, n) on the same draws,
seeds and images. A table of 28 cells makes 378 comparisons, so that at 95 % each some nineteen would
be false where nothing differs. Here at most 5 % of such tables show any.

**Variance.** The difference of cells k and l has the crossed variance of the table Y_k - Y_l: cells
react to draws and to images in ways of their own (draw x cell, image x cell), and both are samples.
Each pair has a variance of its own. A residual pooled over the table, as in Tukey's and Dunnett's
procedures, is exact where all cells scatter alike; beside one erratic cell it is too small for that
cell's differences and too large for all others.

**Degrees of freedom.** Satterthwaite's are estimated from the same mean squares as the variance: a pair
whose MS_S came out small by chance gets a small variance and many degrees of freedom at once, and the
luckiest of 378 pairs decides. So MS_S counts in them as no less than its mean over the table's pairs.
With two cells they are Satterthwaite's own.

**Quantile.** Student's t at 1 - a/m for m comparisons (Bonferroni; Dunn 1961, Journal of the American
Statistical Association 56:52), which holds whatever the comparisons' correlations and variances. With
a control, half of the error is spent on the comparisons with it and half on those among the others:
it is what a reader looks at first, and a few comparisons with it shall not pay for many others.

**Limit.** A cell that fails on one draw in five may show none of it in ten retrainings, and is then claimed
to be better than it is, by this rule as by all others: docs/statistics.md.

How often each choice claims falsely, and what it finds, is measured in benchmarks/statistics.json,
beside pooled Tukey and Dunnett, Games-Howell, Dunnett's T3, and no correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tune_ssl.statistics.crossed import (
    DIFFERENCES,
    Floats,
    Interval,
    MeanSquares,
    clipped,
    crossed_interval,
    mean_products,
    t_quantile,
    variance_of_mean,
)
from tune_ssl.statistics.letters import compact_letters


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of a table.

    Args:
        accuracy: the cell's own interval, which holds for it alone.
        letters: cells without a common letter are distinguishable.
        against_control: accuracy minus that of the control, its interval holding together with
            all others of the table; None for the control, and where there is none.
    """

    name: str
    accuracy: Interval
    letters: tuple[str, ...]
    against_control: Interval | None

    @property
    def verdict(self) -> str:
        """What the table says of the cell beside the control; empty for the control."""
        return "" if self.against_control is None else self.against_control.verdict


@dataclass(frozen=True, kw_only=True)
class Differences:
    """All differences between cells, each with its part of the error.

    Args:
        means: (K, K), row minus column.
        half_widths: (K, K), of the simultaneous intervals; 0 on the diagonal.
        distinguishable: (K, K).
    """

    means: Floats
    half_widths: Floats
    distinguishable: npt.NDArray[np.bool_]

    def interval(self, first: int, second: int) -> Interval:
        """Return the simultaneous interval of one cell's accuracy minus another's."""
        mean, half = self.means[first, second], self.half_widths[first, second]
        return clipped(float(mean), float(half), DIFFERENCES)


def compare_cells(
    tables: Mapping[str, npt.ArrayLike], *, control: str | None = None, level: float = 0.95
) -> tuple[Cell, ...]:
    """Return the rows of a table of cells, best first; equal means in the order of their names.

    Args:
        tables: name -> (S, n), all of the same draws, seeds and images in the same order.
        control: the cell all others are compared with: tuned supervised.
        level: with which all claims of the table hold together.

    Raises:
        ValueError: there are fewer than two cells, they differ in shape, are smaller than 2 x 2,
            or none is the control.
    """
    if control is not None and control not in tables:
        raise ValueError(
            f"the control is {control!r}; allowed: {', '.join(tables)}; name one of the cells."
        )
    given = {name: np.asarray(table, dtype=np.float64) for name, table in tables.items()}
    _check_shapes({name: table.shape for name, table in given.items()})
    names = sorted(given, key=lambda name: (-round(float(given[name].mean()), 12), name))
    place = None if control is None else names.index(control)
    differences = simultaneous_differences(
        np.stack([given[name] for name in names]), control=place, level=level
    )
    letters = compact_letters(differences.distinguishable)
    return tuple(
        Cell(
            name=name,
            accuracy=crossed_interval(given[name], level=level),
            letters=letters[row],
            against_control=(
                None if place is None or row == place else differences.interval(row, place)
            ),
        )
        for row, name in enumerate(names)
    )


def simultaneous_differences(
    tables: Floats, *, control: int | None = None, level: float = 0.95
) -> Differences:
    """Return the differences of all pairs of cells, with intervals that hold together.

    Args:
        tables: (K, S, n).
        control: the position of the cell all others are compared with.
    """
    means = tables.mean(axis=(1, 2))
    squares = pair_squares(mean_products(tables))
    widths = half_widths(squares, tables.shape[1:], control=control, level=level)
    gaps = means[:, None] - means
    return Differences(means=gaps, half_widths=widths, distinguishable=np.abs(gaps) > widths)


def half_widths(
    squares: MeanSquares, shape: tuple[int, ...], *, control: int | None, level: float
) -> Floats:
    """Return half the width of each pair's simultaneous interval, (K, K).

    Args:
        squares: of ``pair_squares``.
        shape: (S, n).
    """
    cells = len(squares.draws)
    pairs = np.triu_indices(cells, 1)
    variance, freedom = variance_of_mean(
        squares, shape, least_draws=float(squares.draws[pairs].mean())
    )
    widths = t_quantile(pair_levels(cells, control, level), freedom) * np.sqrt(variance)
    np.fill_diagonal(widths, 0.0)
    return widths


def pair_squares(products: MeanSquares) -> MeanSquares:
    """Return the mean squares of the table Y_k - Y_l for all k and l: (K, K) each."""

    def of_differences(matrix: Floats) -> Floats:
        own = np.diag(matrix)
        return np.maximum(own[:, None] + own - 2 * matrix, 0.0)  # rounding can go below

    return MeanSquares(*map(of_differences, products))


def pair_levels(cells: int, control: int | None, level: float) -> Floats:
    """Return the level of each pair's interval, (K, K), so that all hold together at ``level``.

    1 - a / m for m pairs; with a control, 1 - (a/2) / (K - 1) for pairs with it and
    1 - (a/2) / ((K - 1)(K - 2) / 2) for others.
    """
    error = 1.0 - level
    if control is None or cells == 2:
        return np.full((cells, cells), 1.0 - error / (cells * (cells - 1) / 2))
    others = cells - 1
    levels = np.full((cells, cells), 1.0 - error / 2 / (others * (others - 1) / 2))
    levels[control, :] = levels[:, control] = 1.0 - error / 2 / others
    return levels


def _check_shapes(shapes: Mapping[str, Sequence[int]]) -> None:
    if len(shapes) < 2:
        raise ValueError(f"there are {len(shapes)} cells; at least 2 can be compared; add some.")
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {' x '.join(map(str, size))}" for name, size in shapes.items())
        raise ValueError(
            f"the tables are {listed}; paired ones have the same retrainings and images; leave out what "
            "only some of them have."
        )
