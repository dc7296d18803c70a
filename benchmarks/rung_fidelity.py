"""Whether pruning keeps the trial that would have won: replays of recorded learning curves.

    python -m benchmarks.rung_fidelity --record

A replay takes random configurations of one method (or of all: a joint study) in random order, runs
them as ASHA does, and looks whether the winner of the same trials at full length, by their final
validation accuracy, was kept. A tie at the top is kept if one of its trials is.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.record_curves import MAX_STEPS, MEASURED_AT
from benchmarks.records import write_record
from benchmarks.replay import Curves, Floats
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl.asha import decide

RECORD = Path(__file__).with_name("rung_fidelity.json")
REPLAYS_OF_A_RESAMPLE = 40
FEWEST_RETRAINED = 20
"""From so many retrained configurations on, correlations with their worth are told."""
CANDIDATES = (
    ((100, 200), 2),
    ((50, 100), 2),
    ((75, 150), 2),
    ((50, 100, 200, 400), 2),
    ((75, 150, 300), 2),
    ((150, 300), 2),
    ((50, 150), 3),
    ((100, 300), 3),
    ((150,), 3),
    ((25, 100, 400), 4),
    ((50, 200), 4),
)
"""(rungs, reduction factor). The first stands for the default, whose rungs lie at a quarter and half
of the length: 113 and 225 of 450 steps, so a little later than where curves were measured."""


def main() -> None:
    """Print, and with ``--record`` write down, what each choice keeps of each method."""
    options = _options()
    curves = {method: Curves(method) for method in ALGORITHM_NAMES}
    values = {method: own.values for method, own in curves.items()}
    worth = {method: own.worth for method, own in curves.items()}
    values["any"] = np.concatenate(list(values.values()))
    worth["any"] = np.concatenate(list(worth.values()))
    rows = [
        fidelity(
            method,
            values[method],
            worth[method],
            (*rungs, MAX_STEPS),
            factor,
            options,
        )
        for rungs, factor in CANDIDATES
        for method in values
    ]
    intervals = {
        method: bootstrap(own, (*CANDIDATES[0][0], MAX_STEPS), CANDIDATES[0][1], options)
        for method, own in values.items()
        if options.resamples
    }
    spearman = {
        method: correlations(values[method], worth[method])
        for method in values
        if np.isfinite(worth[method]).sum() >= FEWEST_RETRAINED
    }
    for row in rows:
        print(
            f"{row['method']:<13} rungs {row['rungs']} / {row['reduction_factor']}: winner kept "
            f"{row['winner_kept']:.1%}, regret {row['regret']:.2%}, steps {row['steps']:.0%}"
        )
    for method, (low, high) in intervals.items():
        print(
            f"{method:<13} default keeps the winner, 90 % over configurations: {low:.1%} to {high:.1%}"
        )
    for method, own in spearman.items():
        print(f"{method:<13} Spearman with worth: {own}")
    if options.record:
        record = {
            "trials": options.trials,
            "slots": options.slots,
            "replays": options.replays,
            "configurations": {method: len(own) for method, own in values.items()},
            "retrained": {method: own.retrained for method, own in curves.items()},
            "rows": rows,
            "bootstrap": intervals,
            "spearman": spearman,
        }
        write_record(RECORD, record)


def fidelity(
    method: str,
    values: Floats,
    worth: Floats,
    rungs: tuple[int, ...],
    factor: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return what pruning at these rungs keeps, over many replays.

    ``regret`` is what the best kept trial lacks of the winner's final validation accuracy,
    ``worth_lost`` what its worth lacks where both were retrained, ``steps`` the share of the steps of
    full trainings.
    """
    generator = np.random.default_rng(0)
    figures = np.empty((options.replays, 4))
    played = replays(values, rungs, factor, options, options.replays, generator)
    for replay, (order, final, reached) in enumerate(played):
        kept = np.flatnonzero(reached == len(rungs) - 1)
        best = kept[final[kept].argmax()]
        winner = final.argmax()
        steps = np.take(rungs, reached).sum()
        figures[replay] = (
            final[best] == final[winner],
            final[winner] - final[best],
            worth[order[winner]] - worth[order[best]],
            steps / (len(order) * rungs[-1]),
        )
    known = figures[np.isfinite(figures[:, 2]), 2]
    worth_lost = round(float(known.mean()), 5) if len(known) else None
    kept_share, regret, _, steps_share = figures.mean(axis=0).round(5).tolist()
    return {
        "method": method,
        "rungs": list(rungs[:-1]),
        "reduction_factor": factor,
        "winner_kept": kept_share,
        "regret": regret,
        "worth_lost": worth_lost,
        "steps": steps_share,
    }


def bootstrap(
    values: Floats, rungs: tuple[int, ...], factor: int, options: argparse.Namespace
) -> list[float]:
    """Return the 5th and 95th percentile of the share of winners kept, over resampled configurations.

    A thousand replays of 150 configurations hold a dozen different winners, so their mean alone
    says too much.
    """
    generator = np.random.default_rng(1)
    shares = []
    for _ in range(options.resamples):
        pool = values[generator.integers(len(values), size=len(values))]
        played = replays(pool, rungs, factor, options, REPLAYS_OF_A_RESAMPLE, generator)
        kept = [
            final[reached == len(rungs) - 1].max() == final.max() for _, final, reached in played
        ]
        shares.append(np.mean(kept))
    return np.quantile(shares, (0.05, 0.95)).round(4).tolist()


def replays(
    values: Floats,
    rungs: tuple[int, ...],
    factor: int,
    options: argparse.Namespace,
    count: int,
    generator: np.random.Generator,
) -> Iterator[tuple[npt.NDArray[np.int64], Floats, npt.NDArray[np.int64]]]:
    """Yield, replay by replay, which configurations it took, their final values, the last rung of each."""
    columns = [MEASURED_AT.index(step) for step in rungs]
    for _ in range(count):
        order = generator.permutation(len(values))[: options.trials]
        own = values[order][:, columns]
        reached = survivors(own, rungs, factor, options.slots)
        yield order, np.nan_to_num(own[:, -1], nan=-1.0), reached


def survivors(
    values: Floats, rungs: tuple[int, ...], factor: int, slots: int
) -> npt.NDArray[np.int64]:
    """Run trials in their order on a number of slots and return the last rung each reached.

    Args:
        values: (trials, rungs), the last rung being the full length.
    """
    recorded: list[list[float]] = [[] for _ in rungs]
    reached = np.zeros(len(values), dtype=np.int64)
    running = [(rungs[0], trial, 0) for trial in range(min(slots, len(values)))]
    waiting = len(running)
    while running:
        now, trial, rung = heapq.heappop(running)
        reached[trial] = rung
        value = float(values[trial, rung])
        kept = decide(recorded[rung], value, reduction_factor=factor).kept
        if math.isfinite(value):
            recorded[rung].append(value)
        if kept and rung + 1 < len(rungs):
            heapq.heappush(running, (now + rungs[rung + 1] - rungs[rung], trial, rung + 1))
        elif waiting < len(values):
            heapq.heappush(running, (now + rungs[0], waiting, 0))
            waiting += 1
    return reached


def correlations(values: Floats, worth: Floats) -> dict[str, float]:
    """Return Spearman's correlation of each measured step with what configurations are worth."""
    retrained = np.isfinite(worth)
    ranked, worth = np.nan_to_num(values, nan=-1.0)[retrained], worth[retrained]
    return {
        str(step): round(float(stats.spearmanr(ranked[:, column], worth).statistic), 3)
        for column, step in enumerate(MEASURED_AT)
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--replays", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=60)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
