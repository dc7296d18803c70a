"""Recorded learning curves as the objective of simulated searches.

``record_curves`` trained random configurations of each method to the full length. Here a suggestion
is answered with the curve of the recorded configuration nearest to it, so that the real sampler and
the real pruning run on real trainings, thousands of trials in seconds. What a configuration is worth
is its test accuracy, averaged over its retrainings on other draws of labels: no search sees it, and
the training whose curve a search selects on is no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.record_curves import MAX_STEPS, MEASURED_AT, RandomTrial, read
from search_spaces.joint import StudySpace, Suggestion

Floats = npt.NDArray[np.float64]

FIRST_RUNG = 1 / 9
NUM_CLASSES = 10


def space_of(methods: Sequence[str]) -> StudySpace:
    """Return the space from which the configurations of these methods were drawn."""
    return StudySpace(
        algorithms=tuple(methods),
        num_classes=NUM_CLASSES,
        max_steps=MAX_STEPS,
        first_rung=FIRST_RUNG,
    )


class Curves:
    """The recorded trainings of one method.

    Attributes:
        values: (configurations, steps) validation accuracy at ``MEASURED_AT``; nan from the first
            evaluation that was not finite on.
        worth: (configurations,) mean test accuracy of the retrainings, one that diverged counting as
            0; nan where there was none.
        retrained: how many configurations have at least one retraining.

    Args:
        retrained_only: leave out configurations that were never retrained.
        own_draw: a configuration is worth what the recorded training itself reached on the test
            images. Less is known of it so, but it compares before there are retrainings.
    """

    def __init__(
        self, method: str, *, retrained_only: bool = False, own_draw: bool = False
    ) -> None:
        self.method = method
        self._space = space_of([method])
        lines = read(method)
        drawn = {line["configuration"]: line for line in lines if line["replicate"] == 0}
        tests: dict[int, list[float]] = {number: [] for number in drawn}
        for line in lines:
            if (line["replicate"] == 0) == own_draw and line["configuration"] in tests:
                tests[line["configuration"]].append(line["test"] if line["finite"] else 0.0)
        if retrained_only:
            drawn = {number: line for number, line in drawn.items() if tests[number]}
        self.values = np.array([_padded(line["validation"]) for line in drawn.values()])
        self.worth = np.array(
            [np.mean(tests[number]) if tests[number] else math.nan for number in drawn]
        )
        self.retrained = int(np.isfinite(self.worth).sum())
        self._names = tuple(next(iter(drawn.values()))["params"])
        params = self._params_of(line["params"] for line in drawn.values())
        self._sorted = np.sort(params, axis=0)
        self._positions = self._positions_of(params)

    def __len__(self) -> int:
        return len(self.worth)

    def nearest(self, parameters: Mapping[str, float], divergence: str | None) -> int:
        """Return the recorded configuration nearest to a suggested one.

        A parameter's place is the share of recorded values below it, so that each counts as much
        on whatever scale it was drawn.
        """
        params = self._space.params_for(self.method, divergence, parameters)
        place = self._positions_of(self._params_of([params]))[0]
        return int(np.square(self._positions - place).sum(axis=1).argmin())

    def _params_of(self, rows: Iterable[Mapping[str, float]]) -> Floats:
        return np.array([[row[name] for name in self._names] for row in rows])

    def _positions_of(self, params: Floats) -> Floats:
        places = [
            np.searchsorted(column, values)
            for column, values in zip(self._sorted.T, params.T, strict=True)
        ]
        return np.stack(places, axis=1) / len(self._sorted)


class Replay:
    """The objective of a simulated search: recorded curves of one or several methods.

    ``own_draw`` as in ``Curves``.
    """

    def __init__(self, methods: Sequence[str], *, own_draw: bool = False) -> None:
        self.space = space_of(methods)
        self.curves = {
            method: Curves(method, retrained_only=True, own_draw=own_draw) for method in methods
        }

    def __call__(self, suggestion: Suggestion, step: int) -> float:
        """Return the validation accuracy at a step; nan where the training had diverged."""
        own, index = self._found(suggestion)
        return float(own.values[index, MEASURED_AT.index(step)])

    def worth(self, suggestion: Suggestion) -> float:
        """Return what the configuration is worth, in [0, 1]."""
        own, index = self._found(suggestion)
        return float(own.worth[index])

    def drawn(self, count: int, seed: int) -> list[Suggestion]:
        """Return random configurations."""
        return [self.space.suggest(RandomTrial(seed + number)) for number in range(count)]

    def _found(self, suggestion: Suggestion) -> tuple[Curves, int]:
        own = self.curves[suggestion.algorithm]
        return own, own.nearest(suggestion.parameters, suggestion.divergence)


def _padded(values: Sequence[float]) -> list[float]:
    return [*values, *[math.nan] * (len(MEASURED_AT) - len(values))]
