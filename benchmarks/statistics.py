"""Whether the intervals and claims of confirm and compare hold, where the truth is known.

    python -m benchmarks.statistics --record            all parts
    python -m benchmarks.statistics bank --record       one of them; the others are kept

The parts:

- ``coverage``: how often a 95 % interval of one configuration covers its accuracy, beside intervals
  from the draws alone and from the images alone.
- ``equal``, ``unequal``, ``collapsing``: of tables of 2, 7 and 28 cells that are all equal, how many claim that any two differ; of
  tables in which one cell is 5 points better, how many say so. By each rule of ``corrections``.
- ``bank``: the same for real retrainings: those of the comparisons ``digits-20`` and ``digits-50``, 25 configurations
  on 20 draws each, are the truth, and tables are drawn from their rows (draws) and columns (images).

All but the last draw from a crossed logistic model: retraining s of cell k classifies image i correctly with
probability sigma(mu_k + a_s + b_i + c_ks + d_ki), all effects normal; c and d are what a cell makes of
a draw and of an image. Cells scatter alike (``equal``), or one in seven is erratic (``unequal``), or one in
seven fails on one draw in five (``collapsing``). mu_k is set so that the mean over all effects is exact.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from benchmarks.comparisons import classified_test, recorded
from benchmarks.corrections import CONTROL, LEVEL, RULES, Claims
from benchmarks.records import keep
from ssl_core.errors import check_choice
from tune_ssl.comparison import CONTROL as SUPERVISED
from tune_ssl.statistics.cells import half_widths, pair_squares
from tune_ssl.statistics.crossed import (
    Floats,
    Interval,
    MeanSquares,
    clipped,
    crossed_interval,
    mean_products,
    t_quantile,
    variance_of_mean,
)
from tune_ssl.statistics.repeats import collapsed

Correct = npt.NDArray[np.bool_]

RECORD = Path(__file__).with_name("statistics.json")
DRAWS = (5, 10, 20)
IMAGES = 600
CELLS = (2, 7, 28)
BANKS = ("digits-20", "digits-50")
FOUND_POINTS = ((2, 5), (5, 10), (10, 100))
"""Ranges of a true difference for which is told how often it is found."""
SEED_SDS = (0.05, 0.2, 0.5)
ACCURACIES = (0.8, 0.95)
ACCURACY = 0.8
EFFECT = 0.05
SCATTERS = ("unequal", "equal", "collapsing")  # a row's random numbers depend on the place
COLLAPSE = 3.0
"""By so many logits a retraining that collapses is worse: from .88 to .47 where the mean is .8."""
PLANTED = 1
"""The cell that is better; the control is the cell before it."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Standard deviations of the logistic model's effects, in logits.

    Args:
        cell_draw: (K,), of each cell's own reaction to a draw and seed.
        collapses: (K,), with which probability a retraining is worse by ``COLLAPSE``; None for 0.
    """

    draw: float
    image: float
    cell_draw: Floats
    cell_image: float
    collapses: Floats | None = None

    def intercepts(self, accuracies: npt.ArrayLike) -> Floats:
        """Return mu (K,) with which the cells have these accuracies, averaged over all effects."""
        common = self.draw**2 + self.image**2 + self.cell_image**2
        chances = 0.0 if self.collapses is None else self.collapses
        return np.array(
            [
                intercept(accuracy, math.sqrt(common + own**2), chance)
                for accuracy, own, chance in np.broadcast(accuracies, self.cell_draw, chances)
            ]
        )

    def tables(self, intercepts: Floats, draws: int, generator: np.random.Generator) -> Correct:
        """Return (K, S, n): what S retrainings of each cell did on the images."""
        cells = len(intercepts)

        def normal(*shape: int) -> npt.NDArray[np.float32]:
            return generator.standard_normal(shape, dtype=np.float32)

        rows = self.draw * normal(1, draws, 1)
        rows = rows + self.cell_draw.astype(np.float32)[:, None, None] * normal(cells, draws, 1)
        columns = self.image * normal(1, 1, IMAGES) + self.cell_image * normal(cells, 1, IMAGES)
        rows += intercepts.astype(np.float32)[:, None, None]
        if self.collapses is not None:
            fails = generator.random((cells, draws, 1)) < self.collapses[:, None, None]
            rows -= np.float32(COLLAPSE) * fails
        return generator.random((cells, draws, IMAGES), dtype=np.float32) < special.expit(
            rows + columns
        )


def main() -> None:
    """Print, and with ``--record`` write down, what holds."""
    options = _options()
    for part in options.parts:
        rows = PARTS[part](options.replicates)
        for row in rows:
            print(row, flush=True)
        if options.record and rows:
            keep(RECORD, part, {"replicates": options.replicates, "images": IMAGES, "rows": rows})


def coverages(replicates: int) -> list[dict[str, Any]]:
    """Return a row for each size of the draws' effect, accuracy, and number of retrainings."""
    return [
        coverage(sd, accuracy, draws, replicates)
        for sd in SEED_SDS
        for accuracy in ACCURACIES
        for draws in DRAWS
    ]


def tables_of(variances: str, replicates: int) -> list[dict[str, Any]]:
    """Return a row for each number of cells and retrainings, without and with a better cell."""
    return [
        tables(cells, draws, variances, effect, replicates)
        for cells in CELLS
        for draws in DRAWS
        for effect in (0.0, EFFECT)
        if cells > 2 or variances == "equal"
    ]


def bank_rows(replicates: int) -> list[dict[str, Any]]:
    """Return a row for each recorded comparison and number of retrainings."""
    return [
        {"bank": name, **from_bank(banked(name), draws, replicates, validation=validated(name))}
        for name in BANKS
        for draws in DRAWS
    ]


def banked(name: str) -> dict[str, Correct]:
    """Return, per cell of a recorded comparison, (retrainings, images): what was classified; the control first."""
    return {row["name"]: classified_test(row["searched"][0]) for row in _control_first(name)}


def validated(name: str) -> Floats:
    """Return, for the cells in the order of ``banked``, (cells, retrainings): validation accuracies."""
    lines = (row["searched"][0]["retrainings"] for row in _control_first(name))
    return np.array([[line["validation"] for line in own] for own in lines])


def _control_first(name: str) -> list[dict[str, Any]]:
    return sorted(recorded(name)["cells"], key=lambda row: row["name"] != SUPERVISED)


def coverage(seed_sd: float, accuracy: float, draws: int, replicates: int) -> dict[str, Any]:
    """Return how often intervals of one configuration cover its accuracy."""
    model = Model(draw=seed_sd, image=1.5, cell_draw=np.zeros(1), cell_image=0.0)
    mu = model.intercepts(accuracy)
    generator = np.random.default_rng(draws)
    covered = dict.fromkeys(("crossed", "draws_only", "images_only"), 0)
    for _ in range(replicates):
        table = model.tables(mu, draws, generator)[0].astype(np.float64)
        for name, interval in {
            "crossed": crossed_interval(table),
            "draws_only": one_source(table.mean(axis=1)),
            "images_only": one_source(table.mean(axis=0)),
        }.items():
            covered[name] += interval.low <= accuracy <= interval.high
    shares = {name: round(count / replicates, 4) for name, count in covered.items()}
    return {"seed_sd": seed_sd, "accuracy": accuracy, "draws": draws} | shares


def one_source(means: Floats) -> Interval:
    """Return the interval of one who sees the retrainings, or the images, as the only sample."""
    half = t_quantile(LEVEL, len(means) - 1.0) * means.std(ddof=1) / math.sqrt(len(means))
    return clipped(float(means.mean()), float(half), (0.0, 1.0))


# Tables of cells.


def tables(
    cells: int, draws: int, variances: str, effect: float, replicates: int
) -> dict[str, Any]:
    """Return what each rule claims of tables of which all cells but one, at most, are equal.

    ``false_tables`` is the share of tables with a claim about two equal cells, ``false_claims`` how many
    such claims a table makes; ``found`` is how often the better cell is told from the control, and
    ``found_pairs`` from another cell, on average. ``standard_error`` is that of the difference between the
    better, or in its place an equal, cell and the control, on average.
    """
    model = table_model(cells, variances)
    planted = np.arange(cells) == PLANTED
    mu = model.intercepts(ACCURACY + effect * planted)
    differ = (planted[:, None] != planted) & (effect > 0)
    generator = np.random.default_rng([cells, draws, SCATTERS.index(variances), effect > 0])
    tallies = {name: np.zeros(4) for name in RULES}
    errors = 0.0
    for _ in range(replicates):
        given = model.tables(mu, draws, generator).astype(np.float64)
        means, shape = given.mean(axis=(1, 2)), given.shape[1:]
        squares = pair_squares(mean_products(given))
        errors += math.sqrt(variance_of_mean(squares, shape)[0][PLANTED, CONTROL])
        for name, rule in RULES.items():
            tallies[name] += tally(rule(means, squares, shape), differ)
    row: dict[str, Any] = {
        "cells": cells,
        "draws": draws,
        "variances": variances,
        "effect": effect,
        "standard_error": round(errors / replicates, 5),
    }
    names = ("false_tables", "false_claims", "found", "found_pairs")[: 4 if effect else 2]
    for position, figure in enumerate(names):
        row[figure] = {
            rule: round(float(sums[position]) / replicates, 4) for rule, sums in tallies.items()
        }
    return row


def table_model(cells: int, variances: str) -> Model:
    """Return the model of a table; see above for the scatters there are."""
    seventh = np.arange(cells) % 7 == 6
    own = np.full(cells, 0.25 if variances == "equal" else 0.2)
    if variances == "unequal":
        own[seventh] = 1.2
    return Model(
        draw=0.3,
        image=1.5,
        cell_draw=own,
        cell_image=0.6,
        collapses=0.2 * seventh if variances == "collapsing" else None,
    )


def tally(claims: Claims, differ: Claims) -> Floats:
    """Return any false claim, false claims, found against the control, share of pairs found."""
    pairs = np.triu_indices(len(claims), 1)
    false = (claims & ~differ)[pairs]
    found = claims[pairs][differ[pairs]]
    return np.array(
        [false.any(), false.sum(), claims[PLANTED, CONTROL], found.mean() if found.size else 0.0]
    )


# Real retrainings.


def from_bank(
    cells: dict[str, Correct], draws: int, replicates: int, *, validation: Floats
) -> dict[str, Any]:
    """Return what intervals and claims say of a bank whose rows and columns are drawn again.

    Coverage: ``accuracies`` of each cell's accuracy; ``pairs`` of a difference by its interval alone, on average over
    pairs; ``whole_tables`` of all differences at once, by the simultaneous intervals, the first cell
    being the control, ``steady`` of those between cells of which no retraining collapses; ``winner`` of the accuracy of
    the cell whose validation (cells, retrainings) is the best on the draws, by its own interval, and how much too high it is
    shown. ``wrong_tables`` call a cell better that is worse. Size: ``false_tables`` call any two
    distinguishable where each draw's retrainings were dealt to the cells by chance, so that nothing differs. Power:
    ``found``, of pairs whose true difference is so many points, those that are told apart.
    """
    names = list(cells)
    population = np.stack(list(cells.values())).astype(np.float64)
    count, rows, columns = population.shape
    truth = population.mean(axis=(1, 2))
    pairs = np.triu_indices(count, 1)
    gap = (truth[:, None] - truth)[pairs]
    falls = np.array([collapsed(table.mean(axis=1)).any() for table in population])
    steady = ~(falls[pairs[0]] | falls[pairs[1]])
    whole_steady, winner, bias = 0, 0, 0.0
    generator = np.random.default_rng(draws)
    accuracies, alone, whole, wrong, false = np.zeros(count), 0.0, 0, 0, 0
    told = np.zeros(len(gap))
    for _ in range(replicates):
        again = generator.integers(rows, size=draws)
        images = generator.integers(columns, size=columns)
        drawn = population[:, again[:, None], images]
        found, own, single, together = widths(drawn)
        means = drawn.mean(axis=(1, 2))
        accuracies += np.abs(means - truth) <= own
        first = int(validation[:, again].mean(axis=1).argmax())
        winner += bool(abs(means[first] - truth[first]) <= own[first])
        bias += means[first] - truth[first]
        alone += (np.abs(found - gap) <= single).mean()
        covered = np.abs(found - gap) <= together
        whole += bool(covered.all())
        whole_steady += bool(covered[steady].all())
        claimed = np.abs(found) > together
        told += claimed & (found * gap > 0)
        wrong += bool((claimed & (found * gap < 0)).any())
        dealt = np.argsort(generator.random((count, draws)), axis=0)[:, :, None]
        found, _, _, together = widths(np.take_along_axis(drawn, dealt, axis=0))
        false += bool((np.abs(found) > together).any())
    sizes = {f"{low} to {high}": _between(gap, low, high) for low, high in FOUND_POINTS}
    return {
        "cells": count,
        "retrainings": rows,
        "draws": draws,
        "accuracies": {
            name: round(float(covered) / replicates, 4)
            for name, covered in zip(names, accuracies, strict=True)
        },
        "pairs": round(float(alone) / replicates, 4),
        "whole_tables": round(whole / replicates, 4),
        "collapsing": [name for name, one in zip(names, falls, strict=True) if one],
        "steady": round(whole_steady / replicates, 4),
        "winner": {
            "covered": round(winner / replicates, 4),
            "too_high": round(float(bias) / replicates, 4),
        },
        "wrong_tables": round(wrong / replicates, 4),
        "false_tables": round(false / replicates, 4),
        "found": {
            points: {
                "pairs": int(those.sum()),
                "share": round(float(told[those].mean()) / replicates, 4),
            }
            for points, those in sizes.items()
            if those.any()
        },
    }


def widths(drawn: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return what a table says: each pair's difference, and half the widths of intervals.

    They are of each cell's accuracy, of each pair's difference as if it were the only one, and of all together.
    """
    pairs = np.triu_indices(len(drawn), 1)
    means, products = drawn.mean(axis=(1, 2)), mean_products(drawn)
    shape = drawn.shape[1:]
    own = single_half_widths(MeanSquares(*(np.diag(part) for part in products)), shape)
    squares = pair_squares(products)
    single = single_half_widths(squares, shape)[pairs]
    together = half_widths(squares, shape, control=CONTROL, level=LEVEL)[pairs]
    return (means[:, None] - means)[pairs], own, single, together


def _between(gap: Floats, low: float, high: float) -> npt.NDArray[np.bool_]:
    return (100 * np.abs(gap) >= low) & (100 * np.abs(gap) < high)


def single_half_widths(squares: MeanSquares, shape: tuple[int, ...]) -> Floats:
    """Return half the width of each 95 % interval, as if it were the only one."""
    variance, freedom = variance_of_mean(squares, shape)
    return t_quantile(LEVEL, freedom) * np.sqrt(variance)


# The truth of the model.


def intercept(accuracy: float, sd: float, chance: float = 0.0) -> float:
    """Return mu with E sigma(mu + sd z - COLLAPSE c) = accuracy, z standard normal, P(c = 1) = chance."""
    point, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()

    def mean(mu: float) -> float:
        whole = weight @ special.expit(mu + sd * point)
        return float(
            (1 - chance) * whole + chance * (weight @ special.expit(mu - COLLAPSE + sd * point))
        )

    return float(optimize.brentq(lambda mu: mean(mu) - accuracy, -30, 30))


PARTS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "coverage": coverages,
    **{variances: partial(tables_of, variances) for variances in SCATTERS},
    "bank": bank_rows,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    for part in options.parts:
        check_choice("part", part, tuple(PARTS))
    return options


if __name__ == "__main__":
    main()
