"""How much device time each way of searching needs until it holds a good configuration.

    python -m benchmarks.time_to_target --record

Simulated searches on recorded learning curves (``replay``), one method or all in a joint study. Every
strategy spends the same budget of optimiser steps on the same curves with the same seeds. What is
followed is the worth (mean test accuracy of retrainings, which no strategy sees) of the configuration
each would hand to its user at that point. The target is the worth that 5 % of 300 random
configurations reach, drawn beforehand as the random search draws; a run that never reaches it counts
as infinite. ``--options`` compares what TPE can be told: start-up trials, candidates, joint models.

    python -m benchmarks.time_to_target --pair --seeds 200 --record

compares tune-ssl with OptunaSearch + ASHAScheduler alone, with as many seeds as a limit of half a point takes.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.record_curves import MAX_STEPS
from benchmarks.records import keep
from benchmarks.replay import Replay
from benchmarks.suggestions import OpenStudy
from search_spaces.joint import StudySpace, Suggestion
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl import machine
from tune_ssl.journal import MemoryJournal
from tune_ssl.sampler import History, tpe
from tune_ssl.simulator import Searched, simulate
from tune_ssl.study import Assignment, Verdict

RECORD = Path(__file__).with_name("time_to_target.json")
GRACE, REDUCTION_FACTOR = 100, 2
RUNGS = (100, 200, MAX_STEPS)
"""As by default, but for 113 and 225, where curves were not measured."""
ENDLESS = 1_000_000
BATCH, PROMOTED = 27, 3
"""Of top-K: so many random trials to the first rung, so many of them to the full length."""
GRID = (5, 6, 8, 10, 12, 16, 20, 25, 30, 40, 50)
"""Budgets at which strategies are compared, in full trainings. Before the first, a search of several
slots has hardly a trial of full length, and holds nothing."""
TARGET, DRAWN, DRAWN_FROM = 95, 300, 10**9
"""The percentile, of how many random configurations, and the seed of the first of them."""

Trace = list[tuple[int, float]]
"""(steps spent, worth of what is held then), in order of time."""


class PlainSearch:
    """Ray Tune's ``OptunaSearch`` and ``ASHAScheduler``, called as Tune's controller calls them."""

    rungs = RUNGS

    def __init__(self, space: StudySpace, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        logging.getLogger("ray.tune.search.optuna.optuna_search").setLevel(logging.ERROR)
        self._suggestions: list[Suggestion] = []
        self._searcher = OptunaSearch(
            space=lambda trial: self._suggestions.append(space.suggest(trial)),
            metric="accuracy",
            mode="max",
            seed=seed,
        )
        self._scheduler = ASHAScheduler(
            metric="accuracy",
            mode="max",
            max_t=MAX_STEPS,
            grace_period=GRACE,
            reduction_factor=REDUCTION_FACTOR,
        )

    def next(self) -> Assignment:
        """Return the next trial."""
        number = len(self._suggestions)
        self._searcher.suggest(str(number))
        self._scheduler.on_trial_add(None, _TuneTrial(number))
        return Assignment(
            number=number, attempt=1, suggestion=self._suggestions[number], checkpoint=None
        )

    def start(self, number: int, attempt: int) -> None:
        """Nothing: Tune's searcher is not told."""

    def report(self, number: int, attempt: int, step: int, value: float) -> Verdict:
        """Pass a result on; as in Tune, the searcher sees it only where the trial goes on."""
        from ray.tune.schedulers import TrialScheduler

        result = {"training_iteration": step, "accuracy": value}
        decision = self._scheduler.on_trial_result(None, _TuneTrial(number), result)
        if decision == TrialScheduler.STOP:
            self._searcher.on_trial_complete(str(number), result)
            return Verdict.STOP
        self._searcher.on_trial_result(str(number), result)
        return Verdict.CONTINUE

    def complete(
        self, number: int, attempt: int, value: float, result: Mapping[str, Any]
    ) -> Verdict:
        """Pass the last result on."""
        return self.report(number, attempt, MAX_STEPS, value)


class _TuneTrial:
    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


class Budgeted:
    """A search that begins no trial once its budget is spent, and the trace of what it holds.

    Args:
        any_length: the best value of a trial of any length is held, as ``get_best_result`` has
            it; otherwise only trials of full length are.
    """

    def __init__(self, search: Searched, replay: Replay, budget: int, *, any_length: bool) -> None:
        self.rungs = search.rungs
        self.trace: Trace = []
        self._search = search
        self._replay = replay
        self._budget = budget
        self._any_length = any_length
        self._spent = 0
        self._best = -math.inf
        self._suggestions: dict[int, Suggestion] = {}

    def next(self) -> Assignment | None:
        """Return the next trial, None once the budget is spent."""
        assignment = self._search.next() if self._spent < self._budget else None
        if assignment is not None:
            self._suggestions[assignment.number] = assignment.suggestion
        return assignment

    def start(self, number: int, attempt: int) -> None:
        """Pass on."""
        self._search.start(number, attempt)

    def report(self, number: int, attempt: int, step: int, value: float) -> Verdict:
        """Pass a rung on; the steps since the rung before are spent."""
        self._spend(step)
        verdict = self._search.report(number, attempt, step, value)
        if verdict is Verdict.STOP and self._any_length:
            self._hold(number, value)
        return verdict

    def complete(
        self, number: int, attempt: int, value: float, result: Mapping[str, Any]
    ) -> Verdict:
        """Pass the full length on."""
        self._spend(self.rungs[-1])
        verdict = self._search.complete(number, attempt, value, result)
        self._hold(number, value)
        return verdict

    def _spend(self, step: int) -> None:
        rung = self.rungs.index(step)
        self._spent += step - (self.rungs[rung - 1] if rung else 0)

    def _hold(self, number: int, value: float) -> None:
        if value > self._best:
            self._best = value
            self.trace.append((self._spent, self._replay.worth(self._suggestions[number])))


def ours(
    replay: Replay,
    seed: int,
    budget: int,
    slots: int,
    *,
    sampler: str,
    halving: bool,
    **options: Any,
) -> Trace:
    """Search with our study; ``options`` are TPE's, where they shall differ."""
    study = OpenStudy(
        MemoryJournal(),
        replay.space,
        name="simulated",
        trials=ENDLESS,
        seed=seed,
        rungs=RUNGS if halving else RUNGS[-1:],
        reduction_factor=REDUCTION_FACTOR if halving else None,
        sampler=sampler,
    )
    if options:
        study.use(tpe(seed, history=History(), **options))
    search = Budgeted(study, replay, budget, any_length=False)
    simulate(search, replay, slots=slots)
    return search.trace


def plain(replay: Replay, seed: int, budget: int, slots: int) -> Trace:
    """Search with OptunaSearch and ASHAScheduler."""
    search = Budgeted(PlainSearch(replay.space, seed), replay, budget, any_length=True)
    simulate(search, replay, slots=slots)
    return search.trace


def top_k(replay: Replay, seed: int, budget: int, slots: int) -> Trace:
    """Train batches of random configurations to the first rung, the best of each in full."""
    trace: Trace = []
    spent, best, first = 0, -math.inf, seed * ENDLESS
    while spent < budget:
        batch = replay.drawn(BATCH, first)
        first += BATCH
        spent += BATCH * RUNGS[0]
        batch.sort(key=lambda own: -np.nan_to_num(replay(own, RUNGS[0]), nan=-1.0))
        for suggestion in batch[:PROMOTED]:
            spent += MAX_STEPS - RUNGS[0]
            value = replay(suggestion, MAX_STEPS)
            if value > best:
                best = value
                trace.append((spent, replay.worth(suggestion)))
    return trace


STRATEGIES: dict[str, Callable[[Replay, int, int, int], Trace]] = {
    "random, full length": partial(ours, sampler="random", halving=False),
    "random + ASHA": partial(ours, sampler="random", halving=True),
    "TPE, full length": partial(ours, sampler="tpe", halving=False),
    "top-K after the first rung": top_k,
    "OptunaSearch + ASHAScheduler": plain,
    "tune-ssl": partial(ours, sampler="tpe", halving=True),
}
BASELINE, PLAIN, OURS = "random, full length", "OptunaSearch + ASHAScheduler", "tune-ssl"

OPTIONS: dict[str, Callable[[Replay, int, int, int], Trace]] = {
    name: partial(ours, sampler="tpe", halving=True, **changed)
    for name, changed in {
        "5 start-up trials": {"n_startup_trials": 5},
        "20 start-up trials": {"n_startup_trials": 20},
        "40 start-up trials": {"n_startup_trials": 40},
        "64 candidates": {"n_ei_candidates": 64},
        "one model of all parameters": {"multivariate": True, "group": True},
    }.items()
}
"""What TPE can be told otherwise than in ``tune_ssl.sampler``: 10 start-up trials, 24 candidates."""


def main() -> None:
    """Simulate one study after the other, print, and with ``--record`` write down what is there."""
    options = _options()
    studies = {"any": ALGORITHM_NAMES} | {method: (method,) for method in ALGORITHM_NAMES}
    rows: list[dict[str, Any]] = []
    for study in options.studies.split(","):
        found = measure(study, studies, options)
        for row in found:
            print(as_text(row), flush=True)
        rows += found
        if options.record:
            name = "pair" if options.pair else "options" if options.options else "strategies"
            record = {
                "seeds": options.seeds,
                "slots": options.slots,
                "worth": "test accuracy of the training searched on, its own draw of labels"
                if options.own_draw
                else "test accuracy of retrainings on other draws",
                "target": f"percentile {TARGET} of {DRAWN} random configurations",
                "rows": rows,
            }
            if options.pair:
                record["lacks_on_average"] = lacks_on_average(rows, options.seeds)
            keep(RECORD, name, record)


def as_text(row: Mapping[str, Any]) -> str:
    """Return a row as people read it."""
    return (
        f"{row['study']:<13} {row['strategy']:<29} to target {_trainings(row['to_target'])} "
        f"(reached {row['reached']:.0%}, ratio {_ratio(row['ratio_to_random'])}), regret at the end "
        f"{row['regret']:.2%} ({row['regret_spread'][0]:.2%} to {row['regret_spread'][1]:.2%}), "
        f"lacks of plain at most {row['lacks_of_plain']:+.2%}"
    )


def measure(
    study: str, studies: Mapping[str, tuple[str, ...]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row for each strategy on one study."""
    replay = Replay(studies[study], own_draw=options.own_draw)
    worth = np.concatenate([own.worth for own in replay.curves.values()])
    drawn = [replay.worth(suggestion) for suggestion in replay.drawn(DRAWN, DRAWN_FROM)]
    target = float(np.percentile(drawn, TARGET))
    names = [*STRATEGIES, *(OPTIONS if options.options else ())]
    if options.pair:
        names = [PLAIN, OURS]
    jobs = [
        (studies[study], name, seed, options) for name in names for seed in range(options.seeds)
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        traces = list(pool.map(_run, jobs, chunksize=5))
    runs = {
        name: traces[index * options.seeds : (index + 1) * options.seeds]
        for index, name in enumerate(names)
    }
    held = {name: np.array([at_budgets(trace) for trace in own]) for name, own in runs.items()}
    times = {
        name: np.array([reached_at(trace, target) for trace in own]) for name, own in runs.items()
    }
    random = float(np.median(times[BASELINE])) if BASELINE in times else math.nan
    rows = []
    for name in runs:
        needed = float(np.median(times[name]))
        regret = worth.max() - held[name][:, -1]
        behind = lacks(held[name], held[PLAIN])
        rows.append(
            {
                "study": study,
                "strategy": name,
                "configurations": len(worth),
                "target": round(target, 4),
                "to_target": _finite(needed),
                "to_target_spread": [
                    _finite(t) for t in np.quantile(times[name], (0.25, 0.75), method="nearest")
                ],
                "reached": float(np.mean(np.isfinite(times[name]))),
                "ratio_to_random": _finite(random / needed) if math.isfinite(needed) else None,
                "regret": round(float(np.median(regret)), 5),
                "regret_spread": np.quantile(regret, (0.25, 0.75)).round(5).tolist(),
                "held": dict(
                    zip(map(str, GRID), held[name].mean(axis=0).round(4).tolist(), strict=True)
                ),
                "lacks_of_plain": max(behind),
                "lacks_at_budgets": dict(zip(map(str, GRID), behind, strict=True)),
            }
        )
    return rows


def reached_at(trace: Trace, target: float) -> float:
    """Return full trainings spent until the target was held; inf where it never was."""
    budget = GRID[-1] * MAX_STEPS
    hits = (spent / MAX_STEPS for spent, worth in trace if worth >= target and spent <= budget)
    return next(hits, math.inf)


def at_budgets(trace: Trace) -> list[float]:
    """Return the worth held at each budget of ``GRID``; 0 before anything is held."""
    return [
        next((worth for spent, worth in reversed(trace) if spent <= budget * MAX_STEPS), 0.0)
        for budget in GRID
    ]


def lacks(held: np.ndarray[Any, Any], of: np.ndarray[Any, Any]) -> list[float]:
    """Return, for each budget, the upper 95 % limit of how much less is held.

    Args:
        held, of: (seeds, budgets), of two strategies with paired seeds.
    """
    differences = of - held
    count = len(differences)
    error = differences.std(axis=0, ddof=1) / math.sqrt(count)
    limits = differences.mean(axis=0) + stats.t.ppf(0.95, count - 1) * error
    return [round(float(limit), 5) for limit in limits]


def lacks_on_average(rows: Sequence[Mapping[str, Any]], seeds: int) -> dict[str, float]:
    """Return, for each budget, the upper 95 % limit of how much less tune-ssl holds, mean over studies.

    Args:
        rows: as ``measure`` returns them, of all studies; their seeds' luck is independent.
    """
    ours = {row["study"]: row for row in rows if row["strategy"] == OURS}
    others = {row["study"]: row for row in rows if row["strategy"] == PLAIN}
    quantile = float(stats.t.ppf(0.95, seeds - 1))
    limits = {}
    for budget in map(str, GRID):
        means = [others[study]["held"][budget] - ours[study]["held"][budget] for study in ours]
        errors = [
            (ours[study]["lacks_at_budgets"][budget] - mean) / quantile
            for study, mean in zip(ours, means, strict=True)
        ]
        error = math.hypot(*errors) / len(ours)
        limits[budget] = round(sum(means) / len(ours) + quantile * error, 5)
    return limits


def _run(job: tuple[tuple[str, ...], str, int, argparse.Namespace]) -> Trace:
    methods, name, seed, options = job
    if methods not in _replays:
        _replays[methods] = Replay(methods, own_draw=options.own_draw)
    replay = _replays[methods]
    return (STRATEGIES | OPTIONS)[name](replay, seed, GRID[-1] * MAX_STEPS, options.slots)


_replays: dict[tuple[str, ...], Replay] = {}


def _finite(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def _trainings(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} full trainings"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", default=",".join(("any", *ALGORITHM_NAMES)))
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--own-draw", action="store_true", help="see benchmarks.replay.Curves")
    parser.add_argument("--options", action="store_true", help="also compare TPE's options")
    parser.add_argument("--pair", action="store_true", help="tune-ssl and plain Tune alone")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--processes", type=int, default=machine.usable_cpus())
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
