"""The sampler: Optuna's, with randomness that depends on the seed and the trial's number alone.

As shipped, a sampler made again after a crash redraws its start-up points. Here every trial gets
a sampler seeded by its number, so a resumed search suggests what the uninterrupted one would.

It is shown a part of the history that does not grow for ever (``History``), because TPE models
every trial it sees anew for each suggestion.
"""

from __future__ import annotations

import bisect
import hashlib
import zlib
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.samplers._tpe.sampler import default_gamma
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tune_ssl.parzen import Numbers, mixture

BEST_SHOWN = 25
"""As many as TPE models as good ones, at most."""
OTHERS_SHOWN = 2975


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownTrial:
    """A finished trial as TPE reads it; made once, where Optuna's own works its fields out each time."""

    number: int
    state: TrialState
    value: float | None
    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    intermediate_values: dict[int, float]
    constraints: dict[str, float]


class History:
    """What a sampler is shown of a study: the best of the finished trials, and a sample of all.

    A sample, because TPE compares where the good trials lie with where the others do: shown only
    good or only new ones, it would take what was tried often for what is bad.

    Trials are ordered as TPE orders them: complete ones by value, then pruned ones by the rung
    they reached. One that ended without a value is shown without its rungs, too: TPE would
    prefer what diverged after the last rung to everything cut before it.

    Which trials are shown is a function of which are finished, not of when that was asked.

    Args:
        foreign: finished trials of an earlier study, older than all, with negative numbers.
        best: how many of the best are shown.
        others: how many are shown of all, each as likely as any other.
    """

    def __init__(
        self,
        foreign: Iterable[FrozenTrial] = (),
        *,
        best: int = BEST_SHOWN,
        others: int = OTHERS_SHOWN,
    ) -> None:
        self._best = best
        self._others = others
        self._ordered: list[tuple[float, float, float, int]] = []
        self._lots: list[tuple[bytes, int]] = []
        self._open: set[int] = set()
        self._known = 0
        self._trials: dict[int, ShownTrial] = {}
        older = list(foreign)
        self._first = min((trial.number for trial in older), default=0)
        self._columns: dict[str, Numbers] = {}
        for trial in older:
            self._add(trial)

    def of(self, study: Study) -> list[ShownTrial]:
        """Return what is shown, by number; trials that are not finished are left out."""
        trials = study._get_trials(deepcopy=False, use_cache=True)
        self._open.update(range(self._known, len(trials)))
        self._known = len(trials)
        for number in sorted(self._open):
            trial = trials[number]
            if not trial.state.is_finished():
                continue
            self._open.discard(number)
            if trial.state != TrialState.FAIL:
                self._add(trial)
        shown = self.best(self._best)
        shown.update(number for _, number in self._lots[: self._others])
        return [self._trials[number] for number in sorted(shown)]

    def best(self, count: int) -> set[int]:
        """Return the numbers of so many trials that come first in TPE's order."""
        return {number for *_, number in self._ordered[:count]}

    def values(self, trials: Numbers, names: Iterable[str]) -> dict[str, Numbers]:
        """Return parameters of the trials that have all of them, as the numbers Optuna models.

        ``trials`` are numbers of trials that were shown.
        """
        empty = np.empty(0)
        columns = {name: self._columns.get(name, empty) for name in names}
        places = trials - self._first
        length = min(map(len, columns.values()))
        places = places[places < length]  # later trials lack a parameter
        rows = {name: column[places] for name, column in columns.items()}
        having = ~np.isnan(list(rows.values())).any(axis=0)
        return {name: row[having] for name, row in rows.items()}

    def _add(self, trial: FrozenTrial) -> None:
        self._trials[trial.number] = _as_shown(trial)
        place = trial.number - self._first
        for name, distribution in trial.distributions.items():
            column = self._columns.get(name)
            if column is None or place >= len(column):
                column = _longer(column, 2 * place + 64)
                self._columns[name] = column
            column[place] = distribution.to_internal_repr(trial.params[name])
        bisect.insort(self._ordered, (*_order(trial), trial.number))
        bisect.insort(self._lots, (_lot(trial.number), trial.number))


class _Shown:
    """A study that has the trials of its history only, looked up when a sampler asks for them."""

    def __init__(self, study: Study, history: History) -> None:
        self._study = study
        self._history = history

    @cached_property
    def _trials(self) -> list[ShownTrial]:
        return self._history.of(self._study)

    @cached_property
    def split(self) -> tuple[Numbers, Numbers]:
        """Numbers of the best trials, as many as TPE models as good, and of all others, in order."""
        numbers = np.array([trial.number for trial in self._trials], dtype=np.int64)
        good = self._history.best(default_gamma(len(numbers)))
        is_good = np.array([number in good for number in numbers.tolist()], dtype=bool)
        return numbers[is_good], numbers[~is_good]

    def values(self, trials: Numbers, names: Iterable[str]) -> dict[str, Numbers]:
        """See ``History``."""
        return self._history.values(trials, names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[ShownTrial]:
        if states is None or (TrialState.COMPLETE in states and TrialState.PRUNED in states):
            return self._trials
        return [trial for trial in self._trials if trial.state in states]


class NumberSeededSampler(BaseSampler):
    """A sampler that is seeded anew for every trial, by (seed, trial number).

    Before a parameter that is sampled alone it is seeded by the parameter's name, too: a search
    killed between two parameters of a trial then draws the second as it would have.

    Args:
        sampler: of Optuna's; ``reseed`` makes it one that was just made with a seed.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        reseed: Callable[[int], None],
        seed: int,
        history: History | None = None,
    ) -> None:
        self._sampler = sampler
        self._reseed = reseed
        self._seed = seed
        self._history = history or History()
        self._shown: _Shown | None = None

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        self._reseed(self._seed_of(trial.number))
        self._shown = _Shown(study, self._history)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See ``optuna.samplers.BaseSampler``."""
        return self._sampler.infer_relative_search_space(self._shown_of(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See ``optuna.samplers.BaseSampler``."""
        return self._sampler.sample_relative(self._shown_of(study), trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See ``optuna.samplers.BaseSampler``."""
        self._reseed(self._seed_of(trial.number, zlib.crc32(param_name.encode())))
        return self._sampler.sample_independent(
            self._shown_of(study), trial, param_name, param_distribution
        )

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """See ``optuna.samplers.BaseSampler``."""
        self._sampler.after_trial(study, trial, state, values)

    def _shown_of(self, study: Study) -> Study:
        """Return what the trial's parameters are drawn from, the same for all of them."""
        self._shown = self._shown or _Shown(study, self._history)
        return cast("Study", self._shown)

    def _seed_of(self, *key: int) -> int:
        sequence = np.random.SeedSequence(entropy=self._seed, spawn_key=key)
        return int(sequence.generate_state(1, np.uint32)[0])


def make_sampler(name: str, seed: int, *, foreign: Iterable[FrozenTrial] = ()) -> BaseSampler:
    """Return the sampler of that name, ``tpe`` or ``random``; ``foreign`` as in ``History``."""
    if name == "random":
        sampler = RandomSampler()
        return NumberSeededSampler(sampler, sampler._rng.rng.seed, seed)
    return tpe(seed, history=History(foreign))


def tpe(seed: int, *, history: History, **options: Any) -> BaseSampler:
    """Return TPE that is shown a history.

    Each parameter has a model of its own: on recorded trainings that held more than Optuna's
    default, one model of all (benchmarks/time_to_target.json).

    ``options`` are Optuna's ``TPESampler``'s, for benchmarks; a search uses those here.
    """
    options = {"multivariate": False} | options

    # The constant liar would only look at running trials, which no history shows.
    sampler = _ShownTPESampler(constant_liar=False, **options)
    return NumberSeededSampler(sampler, sampler.seed, seed, history)


class _ShownTPESampler(TPESampler):
    """Optuna's TPE, but for what it works out for each parameter and is the same for a whole trial.

    The same suggestions: a test compares them.
    """

    def seed(self, seed: int) -> None:
        """Become as a sampler that was just made with that seed; making one takes a third of a
        suggestion among few trials.
        """
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        shown = cast("_Shown", study)
        good, others = (
            mixture(shown.values(numbers, search_space), search_space) for numbers in shown.split
        )
        candidates = good.draw(self._rng.rng, self._n_ei_candidates)
        best = np.argmax(good.log_density(candidates) - others.log_density(candidates))
        return {
            name: distribution.to_external_repr(candidates[name][best].item())
            for name, distribution in search_space.items()
        }


def _longer(column: Numbers | None, length: int) -> Numbers:
    """Return the column with room for so many, nan where there is nothing."""
    longer = np.full(length, np.nan)
    if column is not None:
        longer[: len(column)] = column
    return longer


def _lot(number: int) -> bytes:
    """Return a trial's lot, a function of its number alone: the sample is of those with the least."""
    return hashlib.blake2b(str(number).encode(), digest_size=8).digest()


def _order(trial: FrozenTrial) -> tuple[float, float, float]:
    """Return the place of a finished trial in TPE's order, the best having the least."""
    if trial.state == TrialState.COMPLETE:
        return 0.0, 0.0, -float(trial.values[0])
    if trial.values is None or not trial.intermediate_values:
        return 2.0, 0.0, 0.0
    step, value = max(trial.intermediate_values.items())
    return 1.0, -float(step), -value


def _as_shown(trial: FrozenTrial) -> ShownTrial:
    lost = trial.state == TrialState.PRUNED and trial.values is None
    return ShownTrial(
        number=trial.number,
        state=trial.state,
        value=trial.value,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={} if lost else trial.intermediate_values,
        constraints=trial.constraints,
    )
