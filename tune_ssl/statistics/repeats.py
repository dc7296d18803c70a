"""What an interval is about, and how many retrainings it needs.

S retrainings judge one configuration. Another search of the same method finds another one, so a claim
about a method needs R independent searches (``--repeats R``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssl_core.errors import UserError
from tune_ssl.statistics.crossed import Floats, Interval, crossed_interval

FEWEST_RETRAININGS = 3
"""With fewer the width of an interval is mostly luck: t has one degree of freedom."""

FEWEST_TRUSTED = 10
"""With fewer a result is marked: of two configurations 5 points apart five retrainings tell half,
ten nine in ten (benchmarks/statistics.json)."""


COLLAPSE = 0.2
"""So far below the median of its configuration's a retraining has collapsed."""


def check_retrainings(count: int) -> None:
    """Refuse so few retrainings that they say nothing.

    Raises:
        UserError: there are fewer than three.
    """
    if count < FEWEST_RETRAININGS:
        raise UserError(
            f"seeds is {count}; allowed: at least {FEWEST_RETRAININGS}, and {FEWEST_TRUSTED} for more than "
            "an indication; give more with --seeds."
        )


def collapsed(accuracies: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which retrainings (S,) of a configuration lie so far below the others that intervals are too short.

    A table in which a configuration collapses on few draws claims falsely more often than it says: see
    ``benchmarks/statistics.json``, bank.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    found: npt.NDArray[np.bool_] = values < np.median(values) - COLLAPSE
    return found


def is_indicative(count: int) -> bool:
    """Return whether so few retrainings are no more than an indication."""
    return count < FEWEST_TRUSTED


def caption(*, repeats: int, retrainings: int) -> str:
    """Return what the intervals of a table are about, to be printed below it.

    Args:
        repeats: R, independent searches per cell.
        retrainings: S, of each search's winner.
    """
    about = (
        "conditional on the configuration found by one search"
        if repeats == 1
        else f"over {repeats} independent searches"
    )
    counted = repeats if repeats > 1 else retrainings
    return f"{about}; indicative" if is_indicative(counted) else about


def over_searches(winners: Sequence[npt.ArrayLike]) -> Floats:
    """Return the table whose rows are independent searches: (R, n), or (S, n) of a single one.

    A row is the mean of its winner's retrainings, image by image. Used in place of a table of
    retrainings its intervals, and comparisons of cells whose r-th searches are paired, are over
    searches; image and search are crossed as image and draw are. The draws of different searches'
    retrainings must differ: what they share would be left out.

    Args:
        winners: R tables (S, n), one per search, on the same images.

    Raises:
        ValueError: there is no search.
    """
    if not winners:
        raise ValueError("there is no search; at least 1 is needed; run one.")
    tables = [np.asarray(winner, dtype=np.float64) for winner in winners]
    if len(tables) == 1:
        return tables[0]
    return np.stack([table.mean(axis=0) for table in tables])


def interval_over_searches(winners: Sequence[npt.ArrayLike], *, level: float = 0.95) -> Interval:
    """Return a method's accuracy with its interval over searches, see ``caption`` for a single one.

    Raises:
        ValueError: there is no search, or a single one with fewer than two retrainings.
    """
    return crossed_interval(over_searches(winners), level=level)
