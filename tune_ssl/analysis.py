"""What a search says beyond its winner: importances, flatness of the optimum, what its default was worth.

From the trials of a study alone. Which trials are used for what, and why, is told in docs/analysis.md; the
mathematics is in ``statistics/{importance, flatness, search_size}``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from search_spaces.common import FIELD_OF
from search_spaces.joint import StudySpace
from tune_ssl.best import RankedTrial, rank_trials
from tune_ssl.statistics.crossed import Floats
from tune_ssl.statistics.flatness import FlatRange, flat_range, predicted_finals, slices
from tune_ssl.statistics.importance import bootstrap_importance
from tune_ssl.statistics.search_size import best_of, default_wins, resampled_accuracies
from tune_ssl.study import DEFAULT, RESULT
from tune_ssl.text import method_text
from tune_ssl.trial import unpack_correct

FEWEST = 10
"""With fewer trials nothing is said of importance, with fewer complete ones nothing of flatness."""

SIZES = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
POINTS = (0.01, 0.02, 0.05)
TREES = 8
"""Of the forest of one resample; the resamples together are a forest of 800."""

EDGE = 0.05
"""The best is at an edge within this part of the range, where its ties lie within three times that."""


def importance_of(
    trials: Sequence[FrozenTrial], space: StudySpace, first_rung: int, seed: int
) -> dict[str, Any]:
    """Return how much each hyperparameter explains of the accuracy at the first rung.

    All trials that were measured there count, those that were cut too: complete ones alone were
    chosen for being good, and tell nearly nothing (benchmarks/analysis.json). A study of several methods
    is told as a whole and method by method.
    """
    measured = [trial for trial in trials if first_rung in trial.intermediate_values]
    groups = [("all methods" if len(space.algorithms) > 1 else space.algorithms[0], measured)]
    if len(space.algorithms) > 1:
        groups += [
            (name, [trial for trial in measured if trial.params["algorithm"] == name])
            for name in space.algorithms
        ]
    return {
        "step": first_rung,
        "spearman_with_final": _spearman_with_final(measured, first_rung),
        "groups": [
            {"of": name, "trials": len(group)} | _group_importance(group, first_rung, seed)
            for name, group in groups
        ],
    }


def flatness_of(trials: Sequence[FrozenTrial], space: StudySpace) -> dict[str, Any] | None:
    """Return how far each hyperparameter may move from the best trial; None without a complete one.

    Of the best trial's own method and divergence: complete trials, and those that were cut with the
    value they were heading for (``predicted_finals``).
    """
    ranked = rank_trials(trials)
    if not ranked:
        return None
    best, by_number = ranked[0], {trial.number: trial for trial in trials}
    cell = _cell(by_number[best.number], space)
    own = [trial for trial in trials if trial.params and _cell(trial, space) == cell]
    tied = [by_number[number] for number in best.tied_with if by_number[number] in own]
    told: dict[str, Any] = {
        "trial": best.number,
        "method": method_text(*cell),
        "value": best.value,
        "standard_error": best.standard_error,
        "tied": len(best.tied_with),
        "complete": len(ranked),
        "within": [_within(ranked, points) for points in (best.standard_error, *POINTS)],
    }
    names = [name for name, one in by_number[best.number].distributions.items() if _is_free(one)]
    ranges = _flat_ranges(own, names, best) if names else None
    told["parameters"] = [
        _parameter(
            name, by_number[best.number], tied, space, None if ranges is None else ranges[place]
        )
        for place, name in enumerate(names)
    ]
    return told


def default_of(trials: Sequence[FrozenTrial], metric: str, seed: int) -> dict[str, Any] | None:
    """Return how often the published default would have won, by the number of trials tried.

    None where no default reached the full length. Balanced accuracy is not resampled: the study keeps
    which images were classified, not of which class they are.
    """
    finished = [trial for trial in trials if trial.state.is_finished()]
    is_default = np.array([DEFAULT in trial.user_attrs for trial in finished], dtype=np.bool_)
    values = np.array([_final(trial) for trial in finished])
    if not np.isfinite(values[is_default]).any():
        return None
    count = int(is_default.sum())
    sizes = [size for size in SIZES if count <= size < len(finished)] + [len(finished)]
    resampled = _resampled(finished, seed) if metric == "accuracy" else None
    wins = default_wins(values, is_default, sizes, resampled=resampled)
    floor = float(values[is_default].max())
    best = [best_of(values[~is_default], floor, size - count) for size in sizes]
    return {
        "defaults": count,
        "value": floor,
        "best": float(values.max()),
        "better": int((values > floor).sum()),
        "finished": len(finished),
        "sizes": [
            dataclasses.asdict(win) | {"best": dataclasses.asdict(expected)}
            for win, expected in zip(wins, best, strict=True)
        ],
    }


def places_of(trials: Sequence[FrozenTrial], names: Sequence[str]) -> Floats:
    """Return (trials, names): where values lie in [0, 1] of their ranges, on the scales searched.

    Of a choice, the index of what was chosen.
    """
    return np.array(
        [
            [_place(trial.distributions[name], trial.params[name]) for name in names]
            for trial in trials
        ]
    )


def fanova(
    points: Floats, values: Floats, seed: int, *, choices: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Return (d,): the share of variance each column explains by itself, by Optuna's fANOVA.

    Hutter, Hoos, Leyton-Brown 2014. Optuna's evaluator integrates over a range as it is given, and a
    log range therefore nearly over its upper tenth alone; so it gets places in [0, 1] here.

    Args:
        points: (m, d), in [0, 1]; of a choice an index.
        choices: (d,), among how many is chosen; 0 for a number.
    """
    distributions: dict[str, BaseDistribution] = {
        str(column): CategoricalDistribution(range(count)) if count else FloatDistribution(0.0, 1.0)
        for column, count in enumerate(choices)
    }
    rows = [
        {
            str(column): int(place) if choices[column] else float(place)
            for column, place in enumerate(row)
        }
        for row in points
    ]
    return fanova_as_given(rows, values, distributions, seed)


def fanova_as_given(
    rows: Sequence[Mapping[str, Any]],
    values: Floats,
    distributions: dict[str, BaseDistribution],
    seed: int,
) -> npt.NDArray[np.float64]:
    """Return what Optuna's fANOVA says of each parameter, over ranges as they are given.

    Args:
        rows: (m,) parameters of the trials.
        values: (m,).
    """
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            create_trial(params=dict(row), distributions=distributions, value=float(value))
            for row, value in zip(rows, values, strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
    try:
        found = evaluator.evaluate(study)
    except RuntimeError:  # no tree found any variance: all values are the same
        return np.zeros(len(distributions))
    return np.array([found[name] for name in distributions])


def _group_importance(group: Sequence[FrozenTrial], step: int, seed: int) -> dict[str, Any]:
    if len(group) < FEWEST:
        return {"parameters": None}
    names = [
        name
        for name, distribution in group[0].distributions.items()
        if not distribution.single() and all(name in trial.params for trial in group)
    ]
    distributions = [group[0].distributions[name] for name in names]
    choices = [
        len(one.choices) if isinstance(one, CategoricalDistribution) else 0 for one in distributions
    ]
    found = bootstrap_importance(
        places_of(group, names),
        np.array([trial.intermediate_values[step] for trial in group]),
        partial(fanova, choices=[*choices, 0]),
        generator=np.random.default_rng(seed),
    )
    parameters = [
        {"name": FIELD_OF.get(name, name)} | dataclasses.asdict(importance)
        for name, importance in zip(names, found.columns, strict=True)
    ]
    return {
        "parameters": sorted(parameters, key=lambda one: -one["share"]),
        "dummy": found.dummy,
        "dummy_limit": found.dummy_limit,
    }


def _spearman_with_final(measured: Sequence[FrozenTrial], step: int) -> float | None:
    """Return the rank correlation of rung and final value, of complete trials; None for fewer than ten."""
    complete = [trial for trial in measured if trial.state == TrialState.COMPLETE]
    if len(complete) < FEWEST or len({_final(trial) for trial in complete}) == 1:
        return None
    from scipy.stats import spearmanr

    at_rung = [trial.intermediate_values[step] for trial in complete]
    found = float(spearmanr(at_rung, [_final(trial) for trial in complete]).statistic)
    return None if math.isnan(found) else found


def _flat_ranges(
    own: Sequence[FrozenTrial], names: Sequence[str], best: RankedTrial
) -> list[dict[float, FlatRange]] | None:
    """Return for each name the range by tolerance; None where too few trials are complete."""
    complete = [trial for trial in own if trial.state == TrialState.COMPLETE]
    if len(complete) < FEWEST:
        return None
    used, values = list(complete), [_final(trial) for trial in complete]
    noise = [trial.system_attrs[RESULT]["standard_error"] ** 2 for trial in complete]
    cut = [trial for trial in own if trial.state == TrialState.PRUNED and trial.value is not None]
    for step in sorted({trial.last_step for trial in cut if trial.last_step is not None}):
        there = [trial for trial in cut if trial.last_step == step]
        predicted, variance = predicted_finals(
            [trial.intermediate_values[step] for trial in complete],
            values[: len(complete)],
            [trial.intermediate_values[step] for trial in there],
        )
        used += there
        values += predicted.tolist()
        noise += [variance + float(np.median(noise[: len(complete)]))] * len(there)
    row = [trial.number for trial in used].index(best.number)
    tolerances = (best.standard_error, POINTS[0])
    return [
        {tolerance: flat_range(found, tolerance) for tolerance in tolerances}
        for found in slices(places_of(used, names), values, noise, row)
    ]


def _parameter(
    name: str,
    best: FrozenTrial,
    tied: Sequence[FrozenTrial],
    space: StudySpace,
    ranges: Mapping[float, FlatRange] | None,
) -> dict[str, Any]:
    """Return one hyperparameter's ends and flat ranges, in the unit its training is given."""
    distribution, field = best.distributions[name], FIELD_OF.get(name, name)

    def in_unit(*places: float) -> list[float]:
        at = (best.params | {name: _value(distribution, place)} for place in places)
        return sorted(space.suggest(FixedTrial(params)).parameters[field] for params in at)

    place = float(places_of([best], [name])[0, 0])
    others = places_of(tied, [name])[:, 0] if tied else np.empty(0)
    falling = in_unit(0.0) > in_unit(1.0)  # a threshold is searched by its distance from 1
    told = {
        "name": field,
        "range": in_unit(0.0, 1.0),
        "best": in_unit(place)[0],
        "edge": _edge(place, others, falling),
        "tied": in_unit(float(others.min()), float(others.max())) if len(others) else None,
        "within": None,
    }
    if ranges is not None:
        told["within"] = [
            {
                "tolerance": tolerance,
                "width": found.likely[1] - found.likely[0],
                "width_surely": found.surely[1] - found.surely[0],
                "width_at_most": found.at_most[1] - found.at_most[0],
            }
            | {key: in_unit(*ends) for key, ends in dataclasses.asdict(found).items()}
            for tolerance, found in ranges.items()
        ]
    return told


def _edge(place: float, tied: Floats, falling: bool) -> str | None:
    """Return at which end of a range the best lies, with its ties' median; None if at neither."""
    median = float(np.median(tied)) if len(tied) else place
    at_low, at_high = (
        (place <= EDGE and median <= 3 * EDGE),
        (place >= 1 - EDGE and median >= 1 - 3 * EDGE),
    )
    if not at_low and not at_high:
        return None
    return "low" if at_low != falling else "high"


def _within(ranked: Sequence[RankedTrial], points: float) -> dict[str, Any]:
    near = sum(trial.value >= ranked[0].value - points - 1e-9 for trial in ranked)
    return {"points": points, "trials": near}


def _resampled(finished: Sequence[FrozenTrial], seed: int) -> Floats:
    """Return (resamples, trials): final values on resampled images, -inf of what has none."""
    complete = [place for place, trial in enumerate(finished) if trial.state == TrialState.COMPLETE]
    correct = np.stack(
        [unpack_correct(finished[place].system_attrs[RESULT]["correct"]) for place in complete]
    )
    accuracies = resampled_accuracies(correct, generator=np.random.default_rng(seed))
    values = np.full((len(accuracies), len(finished)), -math.inf)
    values[:, complete] = accuracies
    return values


def _cell(trial: FrozenTrial, space: StudySpace) -> tuple[str, str | None]:
    drawn = space.suggest(FixedTrial(trial.params))
    return drawn.algorithm, drawn.divergence


def _final(trial: FrozenTrial) -> float:
    """Return the final value of a complete trial, -inf for one that cannot win."""
    return float(trial.value) if trial.state == TrialState.COMPLETE else -math.inf  # type: ignore[arg-type]


def _is_free(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, FloatDistribution) and not distribution.single()


def _place(distribution: BaseDistribution, value: Any) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.choices.index(value))
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


def _value(distribution: BaseDistribution, place: float) -> float:
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return float(low * (high / low) ** place)
    return float(low + place * (high - low))
