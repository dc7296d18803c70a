"""How much of what a search saw does each hyperparameter explain, and how sure is that?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tune_ssl.statistics.crossed import Floats

Evaluator = Callable[[Floats, Floats, int], npt.ArrayLike]
"""(points (m, d), values (m,), seed) -> (d,): the share of the values' variance that each column explains."""

LARGEST_RESAMPLE = 300
"""A forest over more costs minutes; resamples of 300 of more trials give intervals that are too wide."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The share of variance a hyperparameter explains by itself, in [0, 1].

    Args:
        share: median over resamples.
        low, high: ends of the interval.
        above_dummy: whether ``share`` lies above the dummy's upper limit.
    """

    share: float
    low: float
    high: float
    above_dummy: bool


@dataclass(frozen=True, kw_only=True)
class Importances:
    """Of all columns, in their order, and what a column that explains nothing reaches.

    ``dummy`` is its median, ``dummy_limit`` what it stays below in 95 % of resamples.
    """

    columns: tuple[Importance, ...]
    dummy: float
    dummy_limit: float


def bootstrap_importance(
    points: npt.ArrayLike,
    values: npt.ArrayLike,
    evaluate: Evaluator,
    *,
    generator: np.random.Generator,
    resamples: int = 100,
    level: float = 0.9,
) -> Importances:
    """Return each column's importance over resamples of the trials, beside that of a dummy.

    Resample b draws trials with replacement and adds a column of its own that has nothing to do with
    the values: uniform, one number a trial, so that a trial drawn twice has it twice. With I_jb
    the evaluated share of column j::

        share_j = median_b I_jb,    interval: quantiles (1 -+ level) / 2 of I_jb over b
        above dummy:  share_j > quantile .95 of I_dummy,b over b

    A column without effect passes the last line in fewer than 5 % of searches at random: its share
    is a median, and compared with the extremes of single dummies.

    Args:
        points: (n, d), in [0, 1], each column on the scale it was searched on.
        values: (n,), finite.
        evaluate: see ``Evaluator``; gets d + 1 columns, the dummy last.
        generator: draws resamples, dummies, and the evaluator's seeds.

    Raises:
        ValueError: there are fewer than two trials.
    """
    table, observed = (np.asarray(given, dtype=np.float64) for given in (points, values))
    count = len(table)
    if count < 2:
        raise ValueError(f"there are {count} trials; at least 2 are needed; add some.")
    shares = np.empty((resamples, table.shape[1] + 1))
    for row in shares:
        rows = generator.integers(count, size=min(count, LARGEST_RESAMPLE))
        with_dummy = np.column_stack([table, generator.random(count)])[rows]
        row[:] = evaluate(with_dummy, observed[rows], int(generator.integers(2**31)))
    low, middle, high = np.quantile(shares, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    limit = float(np.quantile(shares[:, -1], 0.95))
    return Importances(
        columns=tuple(
            Importance(
                share=float(middle[j]),
                low=float(low[j]),
                high=float(high[j]),
                above_dummy=bool(middle[j] > limit),
            )
            for j in range(table.shape[1])
        ),
        dummy=float(middle[-1]),
        dummy_limit=limit,
    )
