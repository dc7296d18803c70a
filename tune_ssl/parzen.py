"""Parzen estimators, which TPE models good and other trials with: pure functions of arrays.

The mathematics is Optuna's ``_ParzenEstimator`` (Bergstra et al. 2011, Algorithms for hyper-parameter
optimization, with Optuna's widths and weights), and so are the random numbers; a test compares. What
is ours is the cost, because the driver pays it for every parameter of every trial: a kernel's centre
always lies between its bounds, so its mass needs no case distinctions for far tails, and whole arrays
go through ``scipy.special`` where Optuna calls ``math.erf`` for each number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers._tpe.sampler import default_weights

Numbers: TypeAlias = "np.ndarray[Any, Any]"

PRIOR_WEIGHT = 1.0
"""Of the kernel that covers the whole range, where the newest trial has 1."""
NARROWEST = 100.0
"""A kernel is at least this part of the range wide, less among fewer trials."""
LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Normals:
    """A parameter's kernels: normal densities between two bounds, in its logarithm where ``log``.

    Args:
        mean: (K,) centres, each in [low, high].
        width: (K,) standard deviations, > 0.
        low, high: bounds, where all mass lies.
        log: values are exponentials of what is modelled.
    """

    mean: Numbers
    width: Numbers
    low: float
    high: float
    log: bool

    def draw(self, kernels: Numbers, uniform: Numbers) -> Numbers:
        """Return (S,) values, the quantiles ``uniform`` in (0, 1) of these (S,) kernels."""
        from scipy.special import (
            ndtr,
            ndtri,
        )  # loads in .1 s, which reading a study need not wait for

        mean, width = self.mean[kernels], self.width[kernels]
        least, most = ndtr((self.low - mean) / width), ndtr((self.high - mean) / width)
        drawn = mean + width * ndtri(least + uniform * (most - least))
        drawn = np.clip(drawn, self.low, self.high)
        values: Numbers = np.exp(drawn) if self.log else drawn
        return values

    def log_density(self, values: Numbers) -> Numbers:
        """Return (S, K), the logarithm of each kernel's density at these (S,) values."""
        from scipy.special import ndtr

        mass = ndtr((self.high - self.mean) / self.width) - ndtr(
            (self.low - self.mean) / self.width
        )
        points = np.log(values) if self.log else values
        distance = (points[:, None] - self.mean) / self.width
        logarithms: Numbers = -0.5 * distance**2 - np.log(self.width * mass) - LOG_ROOT_TWO_PI
        return logarithms


@dataclass(frozen=True, slots=True)
class Choices:
    """A categorical parameter's kernels: (K, choices) probabilities, each row summing to one."""

    probabilities: Numbers

    def draw(self, kernels: Numbers, uniform: Numbers) -> Numbers:
        """Return (S,) places of choices, the quantiles ``uniform`` of these (S,) kernels."""
        reached = np.cumsum(self.probabilities[kernels], axis=1)
        reached[:, -1] = 1.0  # whatever rounding left
        places: Numbers = (reached < uniform[:, None]).sum(axis=1).astype(float)
        return places

    def log_density(self, values: Numbers) -> Numbers:
        """Return (S, K), the logarithm of each kernel's probability of these (S,) places."""
        logarithms: Numbers = np.log(self.probabilities).T
        return logarithms[values.astype(np.int64)]


@dataclass(frozen=True, slots=True)
class Mixture:
    """The density of trials: a product over parameters for each of K kernels, the last the prior.

    Args:
        weights: (K,), summing to one.
        parameters: of each name, its kernels.
    """

    weights: Numbers
    parameters: dict[str, Normals | Choices]

    def draw(self, random: np.random.RandomState, count: int) -> dict[str, Numbers]:
        """Return ``count`` values of each parameter, as Optuna would draw them."""
        kernels = random.choice(len(self.weights), p=self.weights, size=count)
        categorical = [name for name, own in self.parameters.items() if isinstance(own, Choices)]
        others = [name for name in self.parameters if name not in categorical]
        uniform = {name: random.random_sample(count) for name in (*categorical, *others)}
        return {name: own.draw(kernels, uniform[name]) for name, own in self.parameters.items()}

    def log_density(self, values: Mapping[str, Numbers]) -> Numbers:
        """Return (S,), the logarithm of the density at (S,) values of every parameter.

        The prior's kernel is nowhere small, so that the sum needs no scaling.
        """
        kernels = sum(own.log_density(values[name]) for name, own in self.parameters.items())
        density: Numbers = np.log(np.exp(kernels) @ self.weights)
        return density


def mixture(seen: Mapping[str, Numbers], space: Mapping[str, BaseDistribution]) -> Mixture:
    """Return the density of trials that were seen, oldest first, in one space or a part of it.

    Args:
        seen: of each parameter, (n,) numbers as Optuna models them.
        space: of each parameter, floats without a step or categories.
    """
    count = len(next(iter(seen.values())))
    weights = np.append(default_weights(count), PRIOR_WEIGHT)
    return Mixture(
        weights=weights / weights.sum(),
        parameters={name: _kernels(seen[name], own) for name, own in space.items()},
    )


def _kernels(seen: Numbers, distribution: BaseDistribution) -> Normals | Choices:
    if isinstance(distribution, CategoricalDistribution):
        return _choices(seen, len(distribution.choices))
    assert isinstance(distribution, FloatDistribution)
    assert distribution.step is None  # no space has one
    if distribution.log:
        low, high = math.log(distribution.low), math.log(distribution.high)
        return _normals(np.log(seen), low, high, log=True)
    return _normals(seen, distribution.low, distribution.high, log=False)


def _choices(seen: Numbers, choices: int) -> Choices:
    """Return kernels that give what was seen 1, and each choice the K-th part of the prior's weight."""
    kernels = len(seen) + 1
    probabilities = np.full((kernels, choices), PRIOR_WEIGHT / kernels)
    probabilities[np.arange(len(seen)), seen.astype(np.int64)] += 1
    return Choices(probabilities / probabilities.sum(axis=1, keepdims=True))


def _normals(seen: Numbers, low: float, high: float, *, log: bool) -> Normals:
    """Return kernels as wide as the larger gap to a neighbour, and the prior's over the range.

    The outermost of several look inwards only; a bound counts as the neighbour of one alone.
    """
    order = np.argsort(seen)
    gaps = np.diff(np.concatenate(([low], seen[order], [high])))
    widths = np.maximum(gaps[:-1], gaps[1:])
    if len(seen) > 1:
        widths[0], widths[-1] = gaps[1], gaps[-2]
    narrowest = (high - low) / min(NARROWEST, len(seen) + 2.0)
    width = np.empty(len(seen) + 1)
    width[order] = np.clip(widths, narrowest, high - low)
    width[-1] = high - low
    mean = np.append(seen, 0.5 * (low + high))
    return Normals(mean=mean, width=width, low=low, high=high, log=log)
