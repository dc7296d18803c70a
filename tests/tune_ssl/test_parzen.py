"""The densities of TPE, against Optuna's own, against integrals, and in the limit of no trials."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights
from scipy import integrate

from tune_ssl.parzen import mixture

SPACE = {
    "threshold": FloatDistribution(0.2, 0.9),
    "learning_rate": FloatDistribution(3e-5, 3e-2, log=True),
    "divergence": CategoricalDistribution(("mse", "kl", "js")),
}
EACH_ALONE_AND_ALL = [*({name: own} for name, own in SPACE.items()), SPACE]
COUNTS = [0, 1, 2, 5, 24, 25, 60, 400]

every_space = pytest.mark.parametrize("space", EACH_ALONE_AND_ALL, ids="-".join)
every_count = pytest.mark.parametrize("count", COUNTS)


def seen_in(space, count: int, seed: int = 0):
    """Return numbers as Optuna models them; every fifth repeats the one before, some are bounds."""
    random = np.random.default_rng(seed)
    seen = {}
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            seen[name] = random.integers(2, size=count).astype(float)  # the third was never chosen
            continue
        position = random.random(count)
        position[3::7] = random.integers(2, size=len(position[3::7]))
        position[5::5] = position[4 : len(position) - 1 : 5]
        low, high = distribution.low, distribution.high
        if distribution.log:
            seen[name] = np.clip(low * (high / low) ** position, low, high)
        else:
            seen[name] = low + (high - low) * position
    return seen


def optunas(space, seen) -> _ParzenEstimator:
    """Return Optuna's estimator with the options TPE has by default."""
    parameters = _ParzenEstimatorParameters(
        prior_weight=1.0,
        consider_magic_clip=True,
        consider_endpoints=False,
        weights=default_weights,
        multivariate=len(space) > 1,
    )
    return _ParzenEstimator(seen, space, parameters)


@every_space
@every_count
def test_what_is_drawn_is_what_optuna_draws(space, count):
    seen = seen_in(space, count)
    ours = mixture(seen, space).draw(np.random.RandomState(7), 200)
    theirs = optunas(space, seen).sample(np.random.RandomState(7), 200)
    for name in space:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6, abs=0), name


@every_space
@every_count
def test_the_density_is_optunas(space, count):
    seen = seen_in(space, count)
    theirs = optunas(space, seen)
    values = theirs.sample(np.random.RandomState(3), 200)
    found = mixture(seen, space).log_density(values)
    assert found == pytest.approx(theirs.log_pdf(values), rel=0, abs=1e-9)


@every_count
def test_a_density_integrates_to_one(count):
    for name in ("threshold", "learning_rate"):
        own = SPACE[name]
        space = {name: own}
        density = mixture(seen_in(space, count), space)
        low, high = (math.log(own.low), math.log(own.high)) if own.log else (own.low, own.high)
        points = np.linspace(low, high, 20_001)
        values = np.exp(density.log_density({name: np.exp(points) if own.log else points}))
        assert integrate.trapezoid(values, points) == pytest.approx(1.0, abs=1e-3)
    places = {"divergence": np.arange(3.0)}
    space = {"divergence": SPACE["divergence"]}
    total = np.exp(mixture(seen_in(space, count), space).log_density(places)).sum()
    assert total == pytest.approx(1.0)


def test_before_any_trial_nothing_but_the_prior_is_there():
    seen = {name: np.empty(0) for name in SPACE}
    density = mixture(seen, SPACE)
    assert density.weights.tolist() == [1.0]
    assert density.parameters["divergence"].probabilities.tolist() == [[1 / 3] * 3]
    prior = density.parameters["threshold"]
    assert (prior.mean.item(), prior.width.item()) == pytest.approx((0.55, 0.7))


def test_two_trials_are_as_wide_as_the_gap_between_them_and_not_as_that_to_a_bound():
    space = {"x": FloatDistribution(0.0, 1.0)}
    kernels = mixture({"x": np.array([0.4, 0.7])}, space).parameters["x"]
    assert kernels.mean.tolist() == [0.4, 0.7, 0.5]
    assert kernels.width.tolist() == pytest.approx([0.3, 0.3, 1.0])


def test_no_kernel_is_narrower_than_a_hundredth_of_the_range():
    space = {"x": FloatDistribution(0.0, 10.0)}
    kernels = mixture({"x": np.full(500, 5.0)}, space).parameters["x"]
    assert kernels.width[:-1].tolist() == pytest.approx([0.1] * 500)


def test_what_lies_far_from_every_trial_still_has_the_priors_density():
    space = {"x": FloatDistribution(0.0, 1.0)}
    density = mixture({"x": np.zeros(1000)}, space)
    assert math.isfinite(density.log_density({"x": np.array([1.0])}).item())
