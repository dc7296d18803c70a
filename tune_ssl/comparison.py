"""A comparison: which cells are searched with which budget, and what their retrainings say. Pure.

A cell is what gets a search of its own: a method with one divergence, or, where the claim is about
methods, a method with all divergences that are compared. Every search is made on the same draw of
labels; its best configuration is retrained on the same fresh draws as all others'. With R ``repeats``
all of that is done R times, each time on other draws, and the rows of the tables are searches.

**Equal budget.** A claim about cells gives each cell, tuned supervised included, the same budget. A
claim about methods gives each method the same: as much as all its cells would have had, also to those
that have one divergence or none, so that no method wins by having been searched longer.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from ssl_core.errors import UserError, check_choice, check_integer, check_keys, check_number
from ssl_core.published import published_divergence
from tune_ssl.best import rank_trials
from tune_ssl.confirmation import (
    Named,
    OpenedTest,
    accuracy_beside,
    check_whole,
    diverged_of,
    interval_values,
    outcomes,
    retrainings_of,
    validation_table,
)
from tune_ssl.retraining import Configuration, Retrainings, fresh_draws, retrain_settings
from tune_ssl.run import CELLS, RETRAININGS, RunConfig
from tune_ssl.statistics.cells import Cell, compare_cells
from tune_ssl.statistics.crossed import Floats, balanced_outcomes
from tune_ssl.statistics.repeats import (
    FEWEST_RETRAININGS,
    caption,
    check_retrainings,
    is_indicative,
    over_searches,
)
from tune_ssl.study import SECONDS, device_seconds
from tune_ssl.text import duration, method_text
from tune_ssl.trial import unpack_correct

CONTROL = "supervised"
"""What every other cell is compared with; always part of a comparison."""

CLAIMS = ("cells", "methods")

BOUNDLESS = 10_000
"""Trials of a search that ends by its device time."""

KEYS = ("claim", "budget_per_cell", "seeds", "repeats", "settings")


REMEDY = (
    f"remove the comparison's folder {RETRAININGS} and resume it: its searches are kept, and no test image "
    "was looked at"
)


@dataclass(frozen=True, kw_only=True)
class SearchedCell:
    """What one search is about.

    Args:
        divergences: those it chooses from; empty for supervised.
        trials: that shall finish.
        device_seconds: after which it ends; None where trials are counted.
    """

    name: str
    algorithm: str
    divergences: tuple[str, ...]
    trials: int
    device_seconds: float | None

    @property
    def folder(self) -> str:
        """The cell's name as part of a path."""
        return self.name.replace(" / ", "-")

    def used_up(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether a search with these trials has had its budget."""
        if sum(trial.state.is_finished() for trial in trials) >= self.trials:
            return True
        return self.device_seconds is not None and device_seconds(trials) >= self.device_seconds


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and with which budget.

    Args:
        settings: of every search; its ``alg`` and ``divergence`` are the cells, its ``trials`` the
            budget of a cell where that is counted in trials.
        claim: ``cells`` or ``methods``, see the module.
        budget_per_cell: device-seconds; None to count trials.
        seeds: S, retrainings of each search's best.
        repeats: R, independent searches of each cell.
    """

    settings: RunConfig
    claim: str = "cells"
    budget_per_cell: float | None = None
    seeds: int
    repeats: int = 1

    def __post_init__(self) -> None:
        check_choice("claim", self.claim, CLAIMS)
        check_retrainings(self.seeds)
        check_integer("repeats", self.repeats, 1)
        if 1 < self.repeats < FEWEST_RETRAININGS:
            raise UserError(
                f"repeats is {self.repeats}; allowed: 1, or {FEWEST_RETRAININGS} and more, because an "
                "interval over two searches says nothing; give another --repeats."
            )
        if self.budget_per_cell is not None:
            check_number("budget-per-cell", self.budget_per_cell, 0.0, low_open=True)
        if self.settings.start_from or self.settings.warm_start:
            raise UserError(
                "configurations to start from, or a run to start warm from, were given with a comparison; "
                "allowed: neither, because a method that knows more has had more budget; leave them out."
            )
        if CONTROL not in self.settings.alg or len(self.cells()) < 2:
            raise UserError(
                f"the methods are {', '.join(self.settings.alg)}; allowed: {CONTROL} and one more at least; "
                "name one more with --alg."
            )

    def cells(self) -> list[SearchedCell]:
        """Return the cells, in the order in which methods and divergences were named."""
        cells = []
        whole = len(self.settings.divergence) or 1
        for algorithm in self.settings.alg:
            own = self._divergences_of(algorithm)
            if self.claim == "methods":
                cells.append(self._cell(algorithm, algorithm, own, whole))
                continue
            for divergence in own or (None,):
                name = method_text(algorithm, divergence)
                part = () if divergence is None else (divergence,)
                cells.append(self._cell(name, algorithm, part, 1))
        return cells

    def searches(self) -> Iterator[tuple[int, SearchedCell]]:
        """Yield repeat, from 0, and cell of every search, in the order in which they are made."""
        for repeat in range(self.repeats):
            for cell in self.cells():
                yield repeat, cell

    def search_settings(self, cell: SearchedCell, repeat: int) -> RunConfig:
        """Return the settings of one search; repeats differ in draw and seed.

        Args:
            repeat: from 0.
        """
        return dataclasses.replace(
            self.settings,
            alg=(cell.algorithm,),
            divergence=cell.divergences,
            entropy_min=0.0 if cell.algorithm == CONTROL else self.settings.entropy_min,
            trials=cell.trials,
            split_seed=self.settings.split_seed + repeat,
            seed=self.settings.seed + repeat,
        )

    def folder(self, cell: SearchedCell, repeat: int) -> str:
        """Return the path of one search below the comparison's folder."""
        return f"{CELLS}/{cell.folder}" + (f"-search-{repeat + 1}" if self.repeats > 1 else "")

    def cell_at(self, folder: str) -> SearchedCell | None:
        """Return the cell of a search by its path below the comparison's folder; None where there is no such."""
        paths = {self.folder(cell, repeat): cell for repeat, cell in self.searches()}
        return paths.get(folder)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that ``from_mapping`` reads back."""
        return {
            "claim": self.claim,
            "budget_per_cell": self.budget_per_cell,
            "seeds": self.seeds,
            "repeats": self.repeats,
            "cells": [
                dataclasses.asdict(cell) | {"divergences": [*cell.divergences]}
                for cell in self.cells()
            ],
            "settings": self.settings.to_mapping(),
        }

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Comparison:
        """Return what ``to_mapping`` gave; ``cells`` are there for people.

        Raises:
            UserError: a setting is unknown or not legal.
        """
        check_keys("the comparison", given, (*KEYS, "cells"))
        values = {key: given[key] for key in KEYS if key in given and key != "settings"}
        return cls(**values, settings=RunConfig.from_mapping(given["settings"]))

    def _divergences_of(self, algorithm: str) -> tuple[str, ...]:
        published = published_divergence(algorithm, self.settings.published_from)
        if published is None:
            return ()
        return self.settings.divergence or (published,)

    def _cell(
        self, name: str, algorithm: str, divergences: tuple[str, ...], share: int
    ) -> SearchedCell:
        budget = self.budget_per_cell
        return SearchedCell(
            name=name,
            algorithm=algorithm,
            divergences=divergences,
            trials=BOUNDLESS if budget is not None else self.settings.trials * share,
            device_seconds=None if budget is None else budget * share,
        )


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One search that is done.

    Args:
        repeat: from 0.
        run: its folder, for people.
        settings: as it was run.
    """

    cell: SearchedCell
    repeat: int
    run: str
    settings: RunConfig
    trials: Sequence[FrozenTrial]
    num_classes: int


def winners(comparison: Comparison, searches: Sequence[Searched], name: str) -> list[Configuration]:
    """Return the best configuration of every search, repeat by repeat.

    A cell of which a search has no trial of full length has none: it is left out, see ``left_out``.

    Args:
        name: of the comparison's folder, for people.

    Raises:
        UserError: that cell is the control, or none is left beside it.
    """
    out = left_out(searches)
    kept = [one for one in searches if one.cell.name not in out]
    names = {one.cell.name for one in kept}
    if CONTROL not in names or len(names) < 2:
        steps = comparison.settings.steps
        lengths = {
            one.cell.name: f"{one.cell.name} ({length_text(one.trials, steps)})" for one in searches
        }
        raise UserError(
            f"no trial of full length has come of {', '.join(lengths[cell] for cell in out)}; allowed: one at least of {CONTROL} and "
            f"of another method; {more_budget(searches[0].cell, name)}."
        )
    ordered = sorted(kept, key=lambda one: one.repeat)
    return [_winner(one, several=comparison.repeats > 1) for one in ordered]


def more_budget(cell: SearchedCell, name: str) -> str:
    """Return what to do where a cell's search had too little to find anything; ``name`` is the comparison's."""
    if cell.device_seconds is None:
        return "give more --trials, or other methods, under another --name"
    return (
        f"repeat the command with --name {name} and a larger --budget-per-cell, which goes on with all that was "
        "searched"
    )


def length_text(trials: Sequence[FrozenTrial], steps: int) -> str:
    """Return how long a training of full length is, and about what it takes by the trials that got furthest."""
    paces = [
        trial.user_attrs[SECONDS] / trial.last_step
        for trial in trials
        if trial.last_step and SECONDS in trial.user_attrs
    ]
    told = f"{steps} steps"
    if paces:
        told += f", about {duration(steps * statistics.median(paces))}"
    return f"{told}; {duration(device_seconds(trials))} are used"


def left_out(searches: Sequence[Searched]) -> list[str]:
    """Return the cells of which a search has no trial of full length."""
    names = [one.cell.name for one in searches if not rank_trials(one.trials)]
    return list(dict.fromkeys(names))


def table(
    comparison: Comparison,
    configurations: Sequence[Configuration],
    settings: RunConfig,
    *,
    storage: str | None,
    origin: str,
) -> Retrainings:
    """Return the table that retrains the winners, a group for every repeat.

    Args:
        settings: a search's, as it was run.
        storage: a place of the retrainings' own; None for their folder.
        origin: where the configurations come from, for people.
    """
    repeats, first = comparison.repeats, comparison.settings
    draws = comparison.seeds * repeats
    rows = len(configurations) // repeats
    seen = range(first.split_seed, first.split_seed + repeats)
    return Retrainings(
        settings=dataclasses.replace(
            retrain_settings(settings, configurations=rows, draws=draws, storage=storage),
            alg=first.alg,
            divergence=first.divergence,
            entropy_min=first.entropy_min,
            split_seed=first.split_seed,
            seed=first.seed,
            concurrency=first.concurrency,
            gpus_per_trial=first.gpus_per_trial,  # not what one method's search was given
        ),
        configurations=tuple(configurations),
        draws=fresh_draws(draws, seen=seen),
        origin=origin,
        groups=repeats,
    )


def order(retrainings: Retrainings, trials: Sequence[FrozenTrial]) -> list[Named]:
    """Return the cells by the mean validation of all their retrainings; the first is the winner.

    Raises:
        UserError: a retraining failed, so that the table has a hole.
    """
    check_whole(trials, REMEDY)
    values, diverged = validation_table(retrainings, trials), diverged_of(retrainings, trials)
    rows = _rows(retrainings)
    named = [
        Named(
            name=cell,
            validation=round(float(values[own].mean()), 12),  # equal means shall be equal numbers
            diverged=sum(diverged[row] for row in own),
        )
        for cell, own in rows.items()
    ]
    return sorted(named, key=lambda one: -one.validation)


def compared(
    comparison: Comparison,
    retrainings: Retrainings,
    trials: Sequence[FrozenTrial],
    test: OpenedTest,
) -> dict[str, Any]:
    """Return every figure of a comparison and all it is made of, as plain values.

    The rows stand in the order of validation; reference lines follow. Letters, differences from
    tuned supervised and verdicts hold together over all of them.
    """
    ordered = order(retrainings, trials)
    metric = retrainings.settings.metric
    rows = _rows(retrainings)
    plain = _tables(retrainings, test, balanced=False)
    balanced = metric == "balanced_accuracy"
    tables = _tables(retrainings, test, balanced=True) if balanced else plain
    beside = {name: accuracy_beside(metric, table) for name, table in plain.items()}
    cells = {cell.name: cell for cell in compare_cells(tables, control=CONTROL)}
    repeats, draws = comparison.repeats, retrainings.draws_of_a_group
    return {
        "winner": ordered[0].name,
        "control": CONTROL,
        "claim": comparison.claim,
        "metric": metric,
        "searches": repeats,
        "draws": draws,
        "indicative": is_indicative(repeats if repeats > 1 else draws),
        "caption": caption(repeats=repeats, retrainings=draws),
        "conditions": retrainings.settings.conditions(),
        "labels": retrainings.settings.labels,
        "validation_images": retrainings.settings.validation,
        "steps": retrainings.settings.steps,
        "settings": comparison.settings.fixed_settings(),
        "test": test.facts(retrainings.settings.dataset),
        "cells": [
            _cell_row(retrainings, named, rows[named.name], cells[named.name])
            | beside[named.name]
            | {"searched": _searched_rows(retrainings, rows[named.name], trials, test)}
            for named in ordered
        ],
        "references": [
            {"name": name, **_figures(cells[name]), **beside[name], "correct": packed}
            for name, packed in test.references.items()
        ],
        "left_out": [cell.name for cell in comparison.cells() if cell.name not in rows],
    }


def _winner(searched: Searched, *, several: bool) -> Configuration:
    best = rank_trials(searched.trials)[0]
    space = searched.settings.space(searched.num_classes)
    suggestion = space.suggest(FixedTrial(best.params))
    states = [trial.state for trial in searched.trials]
    name = searched.cell.name
    return Configuration(
        name=f"{name}, search {searched.repeat + 1}" if several else name,
        algorithm=suggestion.algorithm,
        divergence=suggestion.divergence,
        parameters=dict(suggestion.parameters),
        origin={
            "cell": name,
            "run": searched.run,
            "trial": best.number,
            "validation": best.value,
            "validation_standard_error": best.standard_error,
            "published_default": best.is_default,
            "training_seconds": best.seconds,
            "trials": sum(state.is_finished() for state in states),
            "complete": states.count(TrialState.COMPLETE),
            "device_seconds": device_seconds(searched.trials),
        },
    )


def _rows(retrainings: Retrainings) -> dict[str, list[int]]:
    """Return for each cell the rows of its searches' winners, in the order of the searches."""
    rows: dict[str, list[int]] = {}
    for row, configuration in enumerate(retrainings.configurations):
        rows.setdefault(configuration.origin["cell"], []).append(row)
    return rows


def _tables(retrainings: Retrainings, test: OpenedTest, *, balanced: bool) -> dict[str, Floats]:
    """Return the table of every cell and reference line, whose mean is what it is judged by."""
    cells = {
        cell: over_searches(
            [
                outcomes(retrainings, retrainings.configurations[row].name, test, balanced)
                for row in own
            ]
        )
        for cell, own in _rows(retrainings).items()
    }
    references = {
        name: over_searches(_reference_tables(retrainings, packed, test, balanced))
        for name, packed in test.references.items()
    }
    return cells | references


def _reference_tables(
    retrainings: Retrainings, packed: Sequence[str], test: OpenedTest, balanced: bool
) -> list[Floats]:
    """Return a reference line's draws x images table of every group."""
    correct = np.stack([unpack_correct(one) for one in packed]).astype(np.float64)
    groups = correct.reshape(retrainings.groups, retrainings.draws_of_a_group, -1)
    return [balanced_outcomes(own, test.labels) if balanced else own for own in groups]


def _cell_row(
    retrainings: Retrainings, named: Named, rows: Sequence[int], cell: Cell
) -> dict[str, Any]:
    own = [retrainings.configurations[row] for row in rows]
    divergences = list(dict.fromkeys(one.divergence for one in own))
    return {
        "name": named.name,
        "algorithm": own[0].algorithm,
        "divergences": divergences,
        "trials": sum(one.origin["trials"] for one in own),
        "complete": sum(one.origin["complete"] for one in own),
        "device_seconds": sum(one.origin["device_seconds"] for one in own),
        "search_validation": float(np.mean([one.origin["validation"] for one in own])),
        "validation": named.validation,
        "diverged": named.diverged,
        **_figures(cell),
    }


def _figures(cell: Cell) -> dict[str, Any]:
    difference = cell.against_control
    return {
        "test": interval_values(cell.accuracy),
        "letters": list(cell.letters),
        "minus_control": None if difference is None else interval_values(difference),
        "verdict": cell.verdict,
    }


def _searched_rows(
    retrainings: Retrainings,
    rows: Sequence[int],
    trials: Sequence[FrozenTrial],
    test: OpenedTest,
) -> list[dict[str, Any]]:
    configurations = [retrainings.configurations[row] for row in rows]
    return [
        {
            **dataclasses.asdict(one),
            "retrainings": retrainings_of(retrainings, one.name, trials, test),
        }
        for one in configurations
    ]
