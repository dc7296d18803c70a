"""Whether ``tune-ssl report`` says what is so, where that is known.

    python -m benchmarks.analysis --record

Importance: 150 random configurations of a method were trained in full (``record_curves``); fANOVA of
their final accuracies is the reference. Searches of 50 of them are replayed with the default's
pruning, and fANOVA of what such a search knows is compared with it: of its complete trials (as Optuna
ships it, and by places in the ranges), of all trials at the first rung (as ``report`` does), and of all with
those that were cut at the value they were heading for.

What a search's interval of an importance covers: for each hyperparameter, fANOVA of all 150 at the first rung (what
``report`` speaks of) and at full length.

Flatness: noisy trials of a surface whose flat range is known; how often both ends of the range that is
called sure lie within it, and both ends of what is called possible do not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from optuna.trial import FrozenTrial, create_trial

from benchmarks.record_curves import MEASURED_AT, read
from benchmarks.records import write_record
from benchmarks.replay import space_of
from benchmarks.rung_fidelity import CANDIDATES, MAX_STEPS, replays
from benchmarks.suggestions import DistributedTrial
from tune_ssl.analysis import TREES, fanova, fanova_as_given, places_of
from tune_ssl.statistics.crossed import Floats
from tune_ssl.statistics.flatness import flat_range, predicted_finals, slices
from tune_ssl.statistics.importance import bootstrap_importance

RECORD = Path(__file__).with_name("analysis.json")
METHODS = ("supervised", "ict", "mixmatch")
TOLERANCE = 0.02


def main() -> None:
    """Print, and with ``--record`` write down, how near importances and flat ranges come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    options.trials, options.slots = 50, 2
    importances = [row for method in METHODS for row in importance(method, options)]
    for row in importances:
        print(row)
    covered = [coverage(method, options) for method in METHODS]
    for row in covered:
        print(row)
    flat = [flatness(trials, options.searches) for trials in (15, 30, 60)]
    for found in flat:
        print(found)
    if options.record:
        settings = {"trials": options.trials, "replays": options.replays, "trees": TREES}
        found = {"importance": importances, "coverage": covered, "flatness": flat}
        write_record(RECORD, settings | found)


class Recorded(NamedTuple):
    """Full trainings of a method's random configurations: places in the ranges, and curves."""

    trials: list[FrozenTrial]
    places: Floats
    curves: Floats
    rungs: list[int]
    reduction_factor: int

    @classmethod
    def of(cls, method: str) -> Recorded:
        """Return what is recorded of a method, and the rungs of a search's default."""
        lines = [line for line in read(method) if line["replicate"] == 0]
        trials = _trials(method, lines)
        curves = np.array([line["validation"] for line in lines])
        rungs, factor = CANDIDATES[0]
        return cls(trials, places_of(trials, list(lines[0]["params"])), curves, list(rungs), factor)

    @property
    def choices(self) -> list[int]:
        """All hyperparameters are numbers."""
        return [0] * self.places.shape[1]

    @property
    def at_rungs(self) -> Floats:
        """Accuracies at the rungs below the full length."""
        return self.curves[:, [MEASURED_AT.index(step) for step in self.rungs]]

    def reference(self, values: Floats) -> Floats:
        """Return the importances by all configurations."""
        forests = [fanova(self.places, values, seed, choices=self.choices) for seed in range(8)]
        return np.mean(forests, axis=0)

    def replays(self, options: argparse.Namespace) -> Iterator[tuple[Any, Floats, Any]]:
        """Yield, for each search, which configurations it tried, their last values, and rungs reached."""
        return replays(
            self.curves,
            (*self.rungs, MAX_STEPS),
            self.reduction_factor,
            options,
            options.replays,
            np.random.default_rng(0),
        )


def importance(method: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return for each way how far its shares are from the reference, summed, and how often its top is."""
    recorded = Recorded.of(method)
    trials, choices, rungs = recorded.trials, recorded.choices, recorded.rungs
    reference = recorded.reference(recorded.curves[:, -1])
    errors: dict[str, list[tuple[float, bool]]] = {}
    for order, final, reached in recorded.replays(options):
        at, own = recorded.at_rungs[order], recorded.places[order]
        full = reached == len(rungs)
        heading = final.copy()
        for rung in range(len(rungs)):
            cut = reached == rung
            heading[cut] = predicted_finals(at[full, rung], final[full], at[cut, rung])[0]
        ways = {
            "complete, as shipped": fanova_as_given(
                [trials[number].params for number in order[full]],
                final[full],
                trials[0].distributions,
                seed=0,
            ),
            "complete": fanova(own[full], final[full], 0, choices=choices),
            "all at the first rung": fanova(own, at[:, 0], 0, choices=choices),
            "all, cut ones predicted": fanova(own, heading, 0, choices=choices),
            "all in full (not known)": fanova(own, final, 0, choices=choices),
        }
        for way, found in ways.items():
            right = bool(found.argmax() == reference.argmax())
            errors.setdefault(way, []).append((float(np.abs(found - reference).sum()), right))
    return [
        {
            "method": method,
            "way": way,
            "error": round(float(np.mean([error for error, _ in told])), 3),
            "first_is_right": round(float(np.mean([right for _, right in told])), 3),
        }
        for way, told in errors.items()
    ]


def coverage(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return how often 90 % intervals of importances, as ``report`` has them, cover those by all configurations.

    ``most``: of the most important hyperparameter; ``others``: of all others, on average. ``told_from_dummy``: how
    often each is, on average over those.
    """
    recorded = Recorded.of(method)
    truths = {
        "first_rung": recorded.reference(recorded.at_rungs[:, 0]),
        "full_length": recorded.reference(recorded.curves[:, -1]),
    }
    most = int(truths["first_rung"].argmax())
    covered: dict[str, list[Any]] = {name: [] for name in truths}
    above = []
    for number, (order, _, _) in enumerate(recorded.replays(options)):
        found = bootstrap_importance(
            recorded.places[order],
            recorded.at_rungs[order][:, 0],
            partial(fanova, choices=[*recorded.choices, 0]),
            generator=np.random.default_rng(number),
        )
        for name, truth in truths.items():
            pairs = zip(found.columns, truth, strict=True)
            covered[name].append([one.low <= share <= one.high for one, share in pairs])
        above.append([one.above_dummy for one in found.columns])
    shares = {name: np.mean(told, axis=0) for name, told in covered.items()}
    shares["told_from_dummy"] = np.mean(above, axis=0)
    return {
        "method": method,
        "hyperparameters": len(truths["first_rung"]),
        "share_of_most": round(float(truths["first_rung"][most]), 3),
        **{
            name: {
                "most": round(float(own[most]), 3),
                "others": round(float(np.delete(own, most).mean()), 3),
            }
            for name, own in shares.items()
        },
    }


def flatness(trials: int, searches: int) -> dict[str, Any]:
    """Return how often ends are on the right side, on .9 - .4 (x0 - .5)^2 with noise of .015."""
    generator = np.random.default_rng(0)
    sure, possible, widths = [], [], []
    for _ in range(searches):
        points = generator.random((trials, 4))
        values = 0.9 - 0.4 * (points[:, 0] - 0.5) ** 2 + generator.normal(0, 0.015, trials)
        best = int(values.argmax())
        half = np.sqrt((TOLERANCE + 0.4 * (points[best, 0] - 0.5) ** 2) / 0.4)
        low, high = max(0.0, 0.5 - half), min(1.0, 0.5 + half)
        found = flat_range(slices(points, values, np.full(trials, 0.01**2), best)[0], TOLERANCE)
        sure.append(found.surely[0] >= low - 0.01 and found.surely[1] <= high + 0.01)
        possible.append(found.at_most[0] <= low + 0.01 and found.at_most[1] >= high - 0.01)
        widths.append(
            [high - low, *(end[1] - end[0] for end in (found.surely, found.likely, found.at_most))]
        )
    true, surely, likely, at_most = np.mean(widths, axis=0).round(3).tolist()
    return {
        "trials": trials,
        "sure_is_flat": float(np.mean(sure)),
        "flat_is_possible": float(np.mean(possible)),
        "width": {"true": true, "surely": surely, "likely": likely, "at_most": at_most},
    }


def _trials(method: str, lines: list[dict[str, Any]]) -> list[FrozenTrial]:
    """Return recorded configurations as trials of their method's space."""
    drawn = DistributedTrial(0)
    space_of([method]).suggest(drawn)
    distributions = {name: drawn.distributions[name] for name in lines[0]["params"]}
    return [
        create_trial(
            params=line["params"], distributions=distributions, value=line["validation"][-1]
        )
        for line in lines
    ]


if __name__ == "__main__":
    main()
