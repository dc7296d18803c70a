"""The sampler: Optuna's, with randomness that depends on the seed and the trial's number alone.

As shipped, a sampler made again after a crash redraws its start-up points. Here every trial gets
a sampler seeded by its number, so a resumed search suggests what the uninterrupted one would.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class NumberSeededSampler(BaseSampler):
    """Delegates every trial to a fresh sampler seeded by (seed, trial number).

    A parameter that is sampled alone gets a sampler seeded by its name, too: a search killed
    between two parameters of a trial then draws the second as it would have.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._current = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        self._current = self._make(self._seed_of(trial.number))
        self._current.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See ``optuna.samplers.BaseSampler``."""
        return self._current.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See ``optuna.samplers.BaseSampler``."""
        return self._current.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See ``optuna.samplers.BaseSampler``."""
        own = self._make(self._seed_of(trial.number, zlib.crc32(param_name.encode())))
        return own.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """See ``optuna.samplers.BaseSampler``."""
        self._current.after_trial(study, trial, state, values)

    def _seed_of(self, *key: int) -> int:
        sequence = np.random.SeedSequence(entropy=self._seed, spawn_key=key)
        return int(sequence.generate_state(1, np.uint32)[0])


def make_sampler(name: str, seed: int, *, conditional: bool) -> BaseSampler:
    """Return the sampler of that name.

    Args:
        name: ``tpe`` or ``random``.
        conditional: the study chooses among methods or divergences, so parameters differ from
            trial to trial and are modelled in groups.
    """
    if name == "random":
        return NumberSeededSampler(lambda own: RandomSampler(seed=own), seed)
    return NumberSeededSampler(lambda own: _tpe(own, conditional), seed)


def _tpe(seed: int, conditional: bool) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # group=True is marked experimental
        return TPESampler(seed=seed, multivariate=True, group=conditional)
