"""What would a search of fewer trials have found, and would it have beaten the published default?

A search of n trials begins with its defaults and tries n - d others. Here these others are any n - d
of those that were tried, each set as likely as any other (without replacement): exact where trials were
drawn at random. Where each was suggested by what the earlier ones gave, small searches look better
than they were; ``first`` of ``DefaultWins`` keeps the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from tune_ssl.statistics.crossed import Floats


@dataclass(frozen=True, kw_only=True)
class BestOf:
    """The best validation accuracy of a search of so many trials: its mean, and 5 and 95 % quantiles."""

    mean: float
    low: float
    high: float


def none_drawn(marked: npt.ArrayLike, others: int, drawn: int) -> Floats:
    """Return C(others - marked, drawn) / C(others, drawn): that none of the marked is among the drawn.

    Args:
        marked: any shape, in [0, others].
        drawn: in [0, others].
    """
    unmarked = others - np.asarray(marked, dtype=np.float64)
    possible = unmarked >= drawn
    chance = np.exp(
        _log_choose(np.where(possible, unmarked, drawn), drawn) - _log_choose(others, drawn)
    )
    return np.where(possible, chance, 0.0)


def best_of(others: npt.ArrayLike, floor: float, drawn: int) -> BestOf:
    """Return what max(floor, best of ``drawn`` of the others) is over all sets of so many.

    With M others, v_(1) <= ... <= v_(M) after raising each to the floor, and k drawn::

        P(best <= v_(i)) = C(i, k) / C(M, k),    mean = sum_i v_(i) C(i - 1, k - 1) / C(M, k)

    The unbiased estimator of the expected best of k (Tang et al. 2020, "Showing Your Work Doesn't
    Always Work", equation 6); Dodge et al. 2019, "Show Your Work", draw with replacement, which
    gives too little. What was not tried is not known: at k = M nothing scatters any more.

    Args:
        others: (M,), final accuracies; -inf for a trial that cannot win.
        floor: that of the best default; -inf where there is none.
        drawn: k in [0, M].
    """
    raised = np.sort(np.maximum(np.asarray(others, dtype=np.float64), floor))
    if drawn == 0:
        return BestOf(mean=floor, low=floor, high=floor)
    places = np.arange(1, len(raised) + 1)
    at_most = none_drawn(len(raised) - places, len(raised), drawn)
    weights = np.diff(at_most, prepend=0.0)
    low, high = (float(raised[np.searchsorted(at_most, q - 1e-12)]) for q in (0.05, 0.95))
    reached = weights > 0
    return BestOf(mean=float(weights[reached] @ raised[reached]), low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class DefaultWins:
    """How likely a published default is named best by a search of ``trials`` trials.

    Args:
        on_these_images: the others any of those tried, judged on the validation images there are.
        on_such_images: the same, averaged over resamples of the images; None without them.
        first: share of resamples in which a default is the best of the first so many trials, in the
            order they were tried; without resamples 1 or 0.
    """

    trials: int
    on_these_images: float
    on_such_images: float | None
    first: float


def default_wins(
    values: npt.ArrayLike,
    is_default: npt.ArrayLike,
    sizes: Sequence[int],
    *,
    resampled: npt.ArrayLike | None = None,
) -> list[DefaultWins]:
    """Return for each size how likely the published default would have won.

    With d defaults, M others of which m are better than the best default, a search of n names a
    default with probability C(M - m, n - d) / C(M, n - d). Among equals the earlier trial wins, and
    defaults come first.

    Args:
        values: (N,), final accuracies in order of the trials' numbers; -inf for one that cannot win.
        is_default: (N,), whether a trial is a published default.
        sizes: each in [d, N].
        resampled: (R, N), the same values on R resamples of the validation images.

    Raises:
        ValueError: no default has a value, or a size is out of its range.
    """
    observed = np.asarray(values, dtype=np.float64)[None]
    default = np.asarray(is_default, dtype=np.bool_)
    if not np.isfinite(observed[0, default]).any():
        raise ValueError("no published default has a final value; one at least is needed.")
    count = int(default.sum())
    if any(not count <= size <= len(default) for size in sizes):
        raise ValueError(f"sizes are {list(sizes)}; allowed: {count} to {len(default)}.")
    drawn_anew = None if resampled is None else np.asarray(resampled, dtype=np.float64)
    judged = observed if drawn_anew is None else drawn_anew
    return [
        DefaultWins(
            trials=size,
            on_these_images=_chance(observed, default, size),
            on_such_images=None if drawn_anew is None else _chance(drawn_anew, default, size),
            first=float((_better(judged[:, :size], default[:size]) == 0).mean()),
        )
        for size in sizes
    ]


def resampled_accuracies(
    correct: npt.ArrayLike, *, generator: np.random.Generator, resamples: int = 2000
) -> Floats:
    """Return (R, T): the accuracy of T trials on R resamples, with replacement, of the n images.

    Args:
        correct: (T, n), 1 where a trial classified an image correctly, else 0.
    """
    table = np.asarray(correct, dtype=np.float64)
    images = table.shape[1]
    times = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    accuracies: Floats = (times @ table.T) / images
    return accuracies


def _chance(values: Floats, default: npt.NDArray[np.bool_], size: int) -> float:
    others = int((~default).sum())
    drawn = size - int(default.sum())
    return float(none_drawn(_better(values, default), others, drawn).mean())


def _better(values: Floats, default: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return (R,): how many others are better than the best default."""
    best = values[:, default].max(axis=1, keepdims=True)
    better: npt.NDArray[np.int64] = (values[:, ~default] > best).sum(axis=1)
    return better


def _log_choose(total: npt.ArrayLike, chosen: int) -> Floats:
    of = np.asarray(total, dtype=np.float64)
    logarithm: Floats = gammaln(of + 1) - gammaln(chosen + 1) - gammaln(of - chosen + 1)
    return logarithm
