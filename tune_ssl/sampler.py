"""The sampler: Optuna's, with randomness that depends on the seed and the trial's number alone.

As shipped, a sampler made again after a crash redraws its start-up points. Here every trial gets
a sampler seeded by its number, so a resumed search suggests what the uninterrupted one would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class NumberSeededSampler(BaseSampler):
    """Delegates every trial to a fresh sampler seeded by (seed, trial number)."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._current = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        sequence = np.random.SeedSequence(entropy=self._seed, spawn_key=(trial.number,))
        self._current = self._make(int(sequence.generate_state(1, np.uint32)[0]))
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
        return self._current.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """See ``optuna.samplers.BaseSampler``."""
        self._current.after_trial(study, trial, state, values)


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
