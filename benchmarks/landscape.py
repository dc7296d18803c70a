"""A search problem without training, shaped like the real ones: what benchmarks of the engine run on.

The best learning rate lies on a ridge that bends with the unlabeled weight and the weight decay;
beyond a cliff above it trainings diverge, some after a rung; small rates start slowly, so early
rungs mislead; methods differ in what they can reach; a value is measured on ``IMAGES`` images.
Where the optimum lies, and how much each value matters, is drawn from the seed.
"""

from __future__ import annotations

import json
import math
import zlib
from functools import cached_property

import numpy as np

from search_spaces import SEARCH_SPACES
from search_spaces.common import GivenTrial
from search_spaces.joint import StudySpace, Suggestion

CHANCE = 0.1
IMAGES = 400
RIDGE = {"unlabeled_weight_u": 0.4, "weight_decay": 0.2}
CLIFF = 0.4
"""How far above the ridge, as a part of the learning rate's range, trainings diverge."""


class Landscape:
    """Accuracies of every configuration of a space, at every step."""

    def __init__(self, space: StudySpace, seed: int) -> None:
        self._space = space
        self._seed = seed

    @cached_property
    def best(self) -> float:
        """The most any configuration truly reaches at full length."""
        return max(top for top, _, _ in self._methods.values())

    def true(self, suggestion: Suggestion) -> float:
        """Return the accuracy at full length without noise; nan where the training diverges."""
        return self._accuracy(suggestion, self._space.max_steps)

    def measure(self, suggestion: Suggestion, step: int) -> float:
        """Return the accuracy measured at a step on ``IMAGES`` images, the same for the same question."""
        accuracy = self._accuracy(suggestion, step)
        if math.isnan(accuracy):
            return accuracy
        key = json.dumps([suggestion.algorithm, suggestion.parameters, step]).encode()
        return (
            np.random.default_rng([self._seed, zlib.crc32(key)]).binomial(IMAGES, accuracy) / IMAGES
        )

    @cached_property
    def _methods(self) -> dict[str, tuple[float, dict[str, float], dict[str, float]]]:
        """For each method what it reaches, where its optimum lies, and how much each value matters."""
        random = np.random.default_rng(self._seed)
        drawn = {}
        for (algorithm, _), default in zip(
            self._space.cells(), self._space.defaults(), strict=True
        ):
            names = [name for name in default.params if name not in ("algorithm", "divergence")]
            drawn[algorithm] = (
                float(random.uniform(0.84, 0.94)),
                {name: float(random.uniform(0.25, 0.7)) for name in names},
                {name: float(np.exp(random.normal(-2.2, 0.8))) for name in names},
            )
        return drawn

    def _accuracy(self, suggestion: Suggestion, step: int) -> float:
        top, optimum, weight = self._methods[suggestion.algorithm]
        position = self._positions(suggestion)
        off = {name: position[name] - optimum[name] for name in position}
        ridge = off["learning_rate"] + sum(
            bend * off[name] for name, bend in RIDGE.items() if name in off
        )
        done = step / self._space.max_steps
        if ridge > CLIFF + 0.05 * (1.0 - done):  # just above the cliff it takes a while
            return math.nan
        shortfall = 1.8 * ridge**2 + sum(
            weight[name] * off[name] ** 2 for name in off if name != "learning_rate"
        )
        final = (top - CHANCE) * math.exp(-shortfall)
        speed = 7.0 + 12.0 * position["learning_rate"] - 5.0 * position["ema_horizon"]
        return CHANCE + final * math.expm1(-speed * done) / math.expm1(-speed)

    def _positions(self, suggestion: Suggestion) -> dict[str, float]:
        """Return where each value lies in its range, in [0, 1], on the scale it is searched on."""
        context = self._space.context(suggestion.algorithm, suggestion.divergence)
        trial = GivenTrial(suggestion.parameters, context)
        SEARCH_SPACES[suggestion.algorithm](trial, context)
        return {name: _position(value, *trial.ranges[name]) for name, value in trial.params.items()}


def _position(value: float, low: float, high: float) -> float:
    if low > 0:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
