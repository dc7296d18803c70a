"""Which configuration won, and how much the search promised too much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tune_ssl.statistics.crossed import Floats, Interval, clipped, t_quantile

LARGEST_OPTIMISM = 2.0  # a difference of two differences of accuracies


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A configuration by its retrainings; ``position`` is its place, from 0, in the search's order."""

    position: int
    validation: float


def order_by_validation(
    accuracies: npt.ArrayLike, draws: npt.ArrayLike, *, search_draw: int
) -> tuple[Ranked, ...]:
    """Return the configurations by the mean validation accuracy of their retrainings, best first.

    The first is the winner, named before the test set is opened. The draw on which the search
    chose its ranks is left out: there the best was promised too much. Among equal means the
    earlier rank comes first.

    Args:
        accuracies: (K, S), configurations in the search's order, best first; in [0, 1].
        draws: (S,), the split seed of each retraining.
        search_draw: the search's split seed.

    Raises:
        ValueError: an accuracy is not finite, or no retraining is on another draw.
    """
    given = np.asarray(accuracies, dtype=np.float64)
    if not np.isfinite(given).all():
        raise ValueError(
            "an accuracy is not finite; allowed: numbers in [0, 1]; count a retraining that diverged as 0."
        )
    fresh = np.asarray(draws) != search_draw
    if not fresh.any():
        raise ValueError(
            f"all retrainings are on draw {search_draw}, the search's own; at least one on another is "
            "needed; add some."
        )
    means = given[:, fresh].mean(axis=1).round(12)  # equal means shall be equal numbers
    order = np.argsort(-means, kind="stable")
    return tuple(Ranked(position=int(k), validation=float(means[k])) for k in order)


@dataclass(frozen=True, kw_only=True)
class Optimism:
    """How much more the search's best promised than its default did, in accuracy.

    Args:
        excess: the excess of this search, with the interval that its retrainings leave.
        by_chance: so far from 0 an excess lies in 95 % of cases (or another level) without any
            choosing: the search's draw is one draw, and treats the two differently.
    """

    excess: Interval
    by_chance: float


def optimism(
    *,
    search_best: float,
    search_default: float,
    retrained_best: npt.ArrayLike,
    retrained_default: npt.ArrayLike,
    paired: bool = True,
    level: float = 0.95,
) -> Optimism:
    """Return [search - mean retrained] of the best minus the same of the default.

    The default was not chosen: what the search's draw does to both cancels, and what is left came
    by choosing. With d_s the best minus the default on retraining s, d_0 the same in the search::

        excess = d_0 - mean d_s,    +- t_{S-1} sd(d) / sqrt(S)

    The search's two accuracies are facts and have no error here. Had nothing been chosen, d_0 would
    be one more d_s, and the excess within +- t_{S-1} sd(d) sqrt(1 + 1/S). Where the search measured
    the two on draws of their own, d_0 scatters with the variances of both, and sd(d)^2 / S is added.

    Args:
        search_best, search_default: their validation accuracies in the search, in [0, 1].
        retrained_best, retrained_default: (S,), on the same draws, none of them the search's.
        paired: the search measured the two on the same draw too.

    Raises:
        ValueError: there are fewer than two retrainings, or not as many of both.
    """
    best, default = (np.asarray(x, dtype=np.float64) for x in (retrained_best, retrained_default))
    count = len(best)
    if best.shape != default.shape or count < 2:
        raise ValueError(
            f"there are {count} retrainings of the best and {len(default)} of the default; at least 2, on "
            "the same draws, are needed; add some."
        )
    gains = best - default
    excess = search_best - search_default - float(gains.mean())
    quantile = float(t_quantile(level, count - 1.0))
    spread = quantile * float(gains.std(ddof=1))
    once = spread if paired else quantile * float(best.var(ddof=1) + default.var(ddof=1)) ** 0.5
    ends = (-LARGEST_OPTIMISM, LARGEST_OPTIMISM)
    return Optimism(
        excess=clipped(excess, spread / count**0.5, ends),
        by_chance=(once**2 + spread**2 / count) ** 0.5,
    )


@dataclass(frozen=True, kw_only=True)
class BootstrapOptimism:
    """What choosing on these validation images, and no others, did.

    Args:
        excess: the best's accuracy on all images minus ``out_of_bag``.
        out_of_bag: mean accuracy of the chosen on images that had no say in the choice.
        same_winner: share of resamples in which the best was chosen again.
    """

    excess: float
    out_of_bag: float
    same_winner: float


def bootstrap_optimism(
    correct: npt.ArrayLike, *, generator: np.random.Generator, resamples: int = 2000
) -> BootstrapOptimism:
    """Return the optimism of a choice by validation accuracy: choose in-bag, score out-of-bag.

    Knows the luck with validation images alone, not that with the draw of labels or the seed, and
    needs no retraining. A resample repeats images, so it chooses a little worse than the search
    did: the excess is on the high side where candidates differ.

    Args:
        correct: (T, n), which image each complete trial classified; the earlier wins ties.
        generator: draws the resamples.
        resamples: how many.

    Raises:
        ValueError: there are fewer than two images.
    """
    table = np.asarray(correct, dtype=np.float64)
    images = table.shape[1]
    if images < 2:
        raise ValueError(f"there are {images} images; at least 2 are needed; add some.")
    best = int(_hits(table, np.ones((1, images)))[0].argmax())
    times = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    out = (times == 0).astype(np.float64)
    judged = out.any(axis=1)  # a resample of all images leaves none to judge on
    times, out = times[judged], out[judged]
    chosen = _hits(table, times).argmax(axis=1)
    scores = np.take_along_axis(_hits(table, out), chosen[:, None], axis=1)[:, 0] / out.sum(axis=1)
    out_of_bag = float(scores.mean())
    return BootstrapOptimism(
        excess=float(table[best].mean()) - out_of_bag,
        out_of_bag=out_of_bag,
        same_winner=float((chosen == best).mean()),
    )


def _hits(table: Floats, times: npt.ArrayLike) -> Floats:
    """Return (B, T): how many images each trial classified, image i counted times[b, i] times."""
    return np.asarray(times, dtype=np.float64) @ table.T
