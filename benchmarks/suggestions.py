"""What a suggestion costs when 10,000 trials are finished, and whether the capped history costs regret.

    python -m benchmarks.suggestions cost --record
    python -m benchmarks.suggestions regret --after 10000 --trials 200 --seeds 20 \
        --arms 25/2975,stock,uncapped --record

``cost`` interleaves Optuna's own sampler (stock, as ``TPESampler()`` is; separate, with a model of its own for
each parameter, as ours has) with ours showing a part of the history, on one study; times are CPU of the
driver's ``next``. ``regret`` runs whole searches on
``landscape`` with every sampler, paired by seed, with ASHA; what counts is the true accuracy of the
complete trial with the best measured value. With ``--after`` they go on from a long history that is the
same for every sampler, where a part of it shown can differ from all of it (uncapped: all of it, and
our randomness; stock draws other numbers, so that its searches differ from the first trial on). What is
recorded is not searched again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FixedTrial, TrialState
from scipy import stats

from benchmarks.landscape import IMAGES, Landscape
from benchmarks.record_curves import RandomTrial
from benchmarks.records import keep
from search_spaces.joint import StudySpace
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl import machine
from tune_ssl.asha import decide
from tune_ssl.journal import MemoryJournal
from tune_ssl.run import RunConfig
from tune_ssl.sampler import (
    BEST_SHOWN,
    OTHERS_SHOWN,
    History,
    make_sampler,
    tpe,
)
from tune_ssl.simulator import simulate
from tune_ssl.study import SearchStudy

RECORD = Path(__file__).with_name("suggestions.json")
MAX_STEPS = 450
SEARCH = RunConfig(alg=("ict",), max_steps=MAX_STEPS)  # whose pruning is measured with
SLOTS = 16
CHOICES = 200
MARGIN = 0.2
"""Accuracy points by which a capped history may be worse than stock."""

SPACES = {"ict": ("ict",), "any": ALGORITHM_NAMES}
SHOWN = {f"{BEST_SHOWN}/{others}": (BEST_SHOWN, others) for others in (OTHERS_SHOWN, 975, 225)}
STOCK, SEPARATE, UNCAPPED = "stock", "separate", "uncapped"
DEFAULT = f"{BEST_SHOWN}/{OTHERS_SHOWN}"


class OpenStudy(SearchStudy):
    """A study whose sampler can be exchanged."""

    def use(self, sampler: BaseSampler) -> None:
        """Let the next suggestions come from another sampler."""
        self._study.sampler = sampler

    def add_finished(self, count: int) -> None:
        """Add trials of random parameters that ended as ASHA has it."""
        landscape = Landscape(self.space, seed=0)
        earlier: dict[int, list[float]] = {step: [] for step in self.rungs}
        for number in range(count):
            drawn = DistributedTrial(number)
            suggestion = self.space.suggest(drawn)
            values: dict[int, float] = {}
            kept = True
            while kept and len(values) < len(self.rungs):
                step = self.rungs[len(values)]
                value = landscape.measure(suggestion, step)
                kept = decide(earlier[step], value, reduction_factor=SEARCH.reduction_factor).kept
                if math.isnan(value):
                    break
                values[step] = value
                earlier[step].append(value)
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.COMPLETE if self.rungs[-1] in values else TrialState.PRUNED,
                    value=None if not values or math.isnan(value) else value,
                    params=drawn.params,
                    distributions=drawn.distributions,
                    intermediate_values=values,
                )
            )


class DistributedTrial(RandomTrial):
    """A random trial that remembers what it was drawn from, as Optuna writes it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """See ``RandomTrial``."""
        self.distributions[name] = FloatDistribution(low, high, log=log)
        return min(high, max(low, super().suggest_float(name, low, high, log=log)))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """See ``RandomTrial``."""
        self.distributions[name] = CategoricalDistribution(choices)
        return super().suggest_categorical(name, choices)


def main() -> None:
    """Measure, print, and with ``--record`` write down."""
    options = _options()
    for name in options.spaces.split(","):
        if options.figure == "cost":
            row = cost(name, options.trials, options.repeats)
            print(cost_text(row))
            if options.record:
                keep(RECORD, f"cost {name}", row)
            continue
        key = f"regret {name}" + (f" after {options.after}" if options.after else "")
        known = recorded_regret(key, options.trials) if options.record else {}
        for found in regret(name, options.arms.split(","), options, known):
            row = regret_row(found, options.trials)
            if options.record:
                keep(RECORD, key, row)
        print(regret_text(row))


def make_study(space: StudySpace, trials: int, seed: int) -> OpenStudy:
    """Return an empty study in memory, with a search's pruning."""
    return OpenStudy(
        MemoryJournal(),
        space,
        name="benchmark",
        trials=trials,
        seed=seed,
        rungs=SEARCH.rungs(),
        reduction_factor=SEARCH.reduction_factor,
        sampler="random",
    )


def make_space(name: str) -> StudySpace:
    """Return the space of one method, or the joint one of all."""
    return StudySpace(
        algorithms=SPACES[name],
        num_classes=10,
        max_steps=MAX_STEPS,
        first_rung=SEARCH.rungs()[0] / MAX_STEPS,
    )


def sampler_of(arm: str, seed: int) -> BaseSampler:
    """Return Optuna's own sampler, ours with a part of the history, with all of it, or random."""
    if arm == STOCK:
        return TPESampler(seed=seed)
    if arm == SEPARATE:
        return TPESampler(seed=seed, multivariate=False)
    if arm == "random":
        return make_sampler("random", seed)
    best, others = SHOWN.get(arm, (10**9, 10**9))
    return tpe(seed, history=History(best=best, others=others))


def cost(name: str, trials: int, repeats: int) -> dict[str, Any]:
    """Return the CPU milliseconds of a suggestion after so many finished trials, by sampler."""
    study = make_study(make_space(name), 0, seed=0)
    study.add_finished(trials)
    arms = ["random", *SHOWN, STOCK, SEPARATE]
    samplers = {arm: sampler_of(arm, 0) for arm in arms}
    milliseconds: dict[str, list[float]] = {arm: [] for arm in arms}
    study.trials = trials + (repeats + 1) * len(arms)
    for _ in range(repeats + 1):
        for arm, sampler in samplers.items():
            study.use(sampler)
            began = time.process_time()
            assignment = study.next()
            milliseconds[arm].append(1000 * (time.process_time() - began))
            assert assignment is not None
            study.fail(assignment.number, assignment.attempt, "measured")  # samplers ignore it
    # The first of each reads the whole study, once.
    medians = {arm: statistics.median(times[1:]) for arm, times in milliseconds.items()}
    return {
        "finished": trials,
        "repeats": repeats,
        "milliseconds": {arm: round(median, 2) for arm, median in medians.items()},
        "times_cheaper": {
            other: {arm: round(medians[other] / medians[arm], 2) for arm in SHOWN}
            for other in (STOCK, SEPARATE)
        },
    }


def cost_text(row: dict[str, Any]) -> str:
    """Return the lines that tell a cost."""
    lines = [f"{row['finished']} finished, median of {row['repeats']}"]
    for arm, milliseconds in row["milliseconds"].items():
        told = "".join(
            f"   {ratios[arm]:.1f} x cheaper than {other}"
            for other, ratios in row["times_cheaper"].items()
            if arm in ratios
        )
        lines.append(f"  {arm:<10} {milliseconds:8.2f} ms{told}")
    return "\n".join(lines)


BySeed = dict[str, dict[int, float]]
"""Regret in accuracy points by sampler and seed."""


def regret(
    name: str, arms: list[str], options: argparse.Namespace, known: BySeed
) -> Iterator[BySeed]:
    """Yield what is known, with one search more each time, until every seed has every sampler.

    After ``options.seconds`` no further search is waited for.
    """
    deadline = time.monotonic() + options.seconds
    jobs = [
        (name, arm, options.trials, options.after, seed)
        for seed in range(options.seeds)
        for arm in arms
        if seed not in known.get(arm, {})
    ]
    yield known
    with ProcessPoolExecutor(options.processes) as pool:
        for job, points in zip(jobs, pool.map(regret_of, jobs), strict=True):
            arm, seed = job[1], job[-1]
            known = known | {arm: known.get(arm, {}) | {seed: round(points, 2)}}
            yield known
            if time.monotonic() > deadline:
                pool.shutdown(cancel_futures=True)
                return


def regret_row(found: BySeed, trials: int) -> dict[str, Any]:
    """Return mean regrets, and what each cap loses against samplers without one, paired by seed."""
    return {
        "trials": trials,
        "slots": SLOTS,
        "margin": MARGIN,
        "regret": {
            arm: round(statistics.mean(points.values()), 2) for arm, points in found.items()
        },
        "versus": {
            reference: {
                arm: difference(found[arm], found[reference])
                for arm in SHOWN
                if len(found.get(arm, {}).keys() & found[reference].keys()) > 1
            }
            for reference in (STOCK, UNCAPPED)
            if reference in found
        },
        "by_seed": found,
    }


def regret_of(job: tuple[str, str, int, int, int]) -> float:
    """Return one search's regret: what the chosen trial truly lacks of the best, in points.

    Its first trials, if some come ``after`` random ones, are the same for every sampler, cut as ASHA
    cuts them.

    It is the mean over ``CHOICES`` choices, before each of which the complete trials are measured
    anew: the luck of one choice would hide what samplers differ in.
    """
    name, arm, trials, after, seed = job
    space = make_space(name)
    landscape = Landscape(space, seed)
    study = make_study(space, after, seed)
    if after:
        study.use(sampler_of("random", seed))
        simulate(study, landscape.measure, slots=SLOTS)
    study.trials = after + trials
    study.use(sampler_of(arm, seed))
    simulate(study, landscape.measure, slots=SLOTS)
    complete = [trial for trial in study.get_trials() if trial.state == TrialState.COMPLETE]
    true = np.array([landscape.true(space.suggest(FixedTrial(trial.params))) for trial in complete])
    measured = np.random.default_rng(seed).binomial(IMAGES, true, size=(CHOICES, len(true)))
    return 100 * (landscape.best - float(true[measured.argmax(axis=1)].mean()))


def difference(points: dict[int, float], reference: dict[int, float]) -> dict[str, float]:
    """Return the mean difference over the seeds both have, and the upper end of its 95 % interval (t)."""
    seeds = sorted(points.keys() & reference.keys())
    paired = np.array([points[seed] - reference[seed] for seed in seeds])
    mean, error = float(paired.mean()), float(stats.sem(paired))
    upper = mean + float(stats.t.ppf(0.975, len(seeds) - 1)) * error
    return {"seeds": len(seeds), "mean": round(mean, 3), "upper": round(upper, 3)}


def regret_text(row: dict[str, Any]) -> str:
    """Return the lines that tell regrets."""
    lines = [f"{row['trials']} trials; regret in accuracy points"]
    for arm, points in row["regret"].items():
        told = "".join(
            f"   against {reference} {against[arm]['mean']:+.2f} (at most {against[arm]['upper']:+.2f},"
            f" {against[arm]['seeds']} seeds)"
            for reference, against in row["versus"].items()
            if arm in against
        )
        lines.append(f"  {arm:<10} {points:6.2f}{told}")
    return "\n".join(lines)


def recorded_regret(key: str, trials: int) -> BySeed:
    """Return what is recorded under a key of searches of that length."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    row = record.get(key, {"trials": trials, "by_seed": {}})
    if row["trials"] != trials:
        return {}
    return {
        arm: {int(seed): points for seed, points in by_seed.items()}
        for arm, by_seed in row["by_seed"].items()
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figure", choices=("cost", "regret"))
    parser.add_argument("--spaces", default=",".join(SPACES))
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--arms", default=",".join([*SHOWN, STOCK, UNCAPPED]))
    parser.add_argument(
        "--after", type=int, default=0, help="random trials, of each search's first"
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=machine.usable_cpus())
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--record", action="store_true", help="keep the result beside the script")
    return parser.parse_args()


if __name__ == "__main__":
    main()
