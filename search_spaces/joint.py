"""The space of a whole study: which method, which divergence, and then that method's values.

The choice of method and of divergence is a parameter only where there is one. The published
defaults, one per method and divergence, are the study's first trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from search_spaces import SEARCH_SPACES
from search_spaces.common import FIELD_OF, GivenTrial, Parameters, SpaceContext, field_range
from ssl_core.errors import UserError
from ssl_core.names import ONE_HOT_TARGETS
from ssl_core.parameters import check_searchable
from ssl_core.published import PublishedDefault, published_default, published_divergence


class ChoosingTrial(Protocol):
    """A trial that also chooses among names; Optuna's Trial and FixedTrial do."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a value in [low, high]."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of the choices."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One trial's method, its divergence (None for supervised) and all its tuned values."""

    algorithm: str
    divergence: str | None
    parameters: Parameters


class Space(Protocol):
    """What a study draws its trials from."""

    def cells(self) -> Iterator[tuple[str, str | None]]:
        """Yield every (method, divergence) there is, None for supervised."""

    def suggest(self, trial: ChoosingTrial) -> Suggestion:
        """Draw one trial, or answer what a stored one was."""


@dataclass(frozen=True, kw_only=True)
class DefaultTrial:
    """A published default: the trial's parameters as stored, and where the values come from.

    ``converted`` says that its paper used another divergence.
    """

    params: dict[str, Any]
    source: str
    converted: bool


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A value of a configuration that a study cannot take as it is given.

    ``low`` and ``high`` are the ends of its range, equal where every trial has the same value.
    """

    name: str
    given: float
    used: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.name} {self.given:g} is not searched and was set to the search's {self.used:g}"
        return (
            f"{self.name} {self.given:g} is outside {self.low:.4g} .. {self.high:.4g} and was moved to "
            f"{self.used:.4g}"
        )


@dataclass(frozen=True, kw_only=True)
class StudySpace:
    """What one study searches.

    Args:
        algorithms: one or more methods.
        divergences: those to choose from; empty for each method's published one.
        num_classes, max_steps, first_rung, optimizer, entropy_weight, weight_decay, ramp_fraction: see
            ``SpaceContext``.
            Supervised training, beside others, has neither a divergence nor entropy minimisation.
        setting: the column of published values, ``cifar10`` or ``svhn``.
        published_from: a source whose published values are preferred, see ``ssl_core.published``.

    Raises:
        UserError: a method cannot be used with a divergence or with entropy minimisation.
    """

    algorithms: tuple[str, ...]
    divergences: tuple[str, ...] = ()
    num_classes: int
    max_steps: int
    first_rung: float
    optimizer: str = "adamw"
    entropy_weight: float | None = 0.0
    setting: str = "cifar10"
    weight_decay: float | None = None
    ramp_fraction: float | None = None
    published_from: str | None = None

    def __post_init__(self) -> None:
        one_hot = next((name for name in self.algorithms if name in ONE_HOT_TARGETS), None)
        if one_hot and "reverse_kl" in self.divergences:
            raise UserError(
                f"divergence 'reverse_kl' is not defined against {one_hot}'s one-hot targets; allowed "
                f"with it: mse, l1, kl, js; leave reverse_kl or {one_hot} out."
            )
        if self.algorithms == ("supervised",) and self.divergences:
            raise UserError(
                f"divergence {self.divergences[0]!r} was given with supervised; allowed: none, it compares "
                "no two predictions; leave --divergence out."
            )
        if self.algorithms == ("supervised",) and self.entropy_weight != 0.0:
            raise UserError(
                "entropy minimisation was asked for with supervised; allowed: semi-supervised methods, "
                "because it would use the unlabeled images; leave --entropy-min out."
            )

    def cells(self) -> Iterator[tuple[str, str | None]]:
        """Yield every (method, divergence) of the study, None for supervised."""
        for algorithm in self.algorithms:
            for divergence in self._divergences_of(algorithm):
                yield algorithm, divergence

    def suggest(self, trial: ChoosingTrial) -> Suggestion:
        """Draw one trial: its method, its divergence, its values."""
        algorithm = self.algorithms[0]
        if len(self.algorithms) > 1:
            algorithm = trial.suggest_categorical("algorithm", self.algorithms)
        options = self._divergences_of(algorithm)
        divergence = options[0]
        if len(options) > 1:
            divergence = trial.suggest_categorical("divergence", options)
        space = SEARCH_SPACES[algorithm]
        parameters = space(trial, self.context(algorithm, divergence))
        return Suggestion(algorithm=algorithm, divergence=divergence, parameters=parameters)

    def defaults(self) -> list[DefaultTrial]:
        """Return the published default of every cell, in the order of ``cells``."""
        return [self._default(algorithm, divergence) for algorithm, divergence in self.cells()]

    def outline(self) -> dict[str, dict[str, list[float]]]:
        """Return what tells this space from another: for each cell and value its low, middle and high.

        Values as a training is given them, so that a change of a scale shows, too; to nine digits.
        """
        outline: dict[str, dict[str, list[float]]] = {}
        for algorithm, divergence in self.cells():
            context = self.context(algorithm, divergence)
            draws = [SEARCH_SPACES[algorithm](_At(part), context) for part in (0.0, 0.5, 1.0)]
            outline[f"{algorithm} / {divergence}"] = {
                name: [float(f"{draw[name]:.9g}") for draw in draws] for name in draws[0]
            }
        return outline

    def context(self, algorithm: str, divergence: str | None) -> SpaceContext:
        """Return the context in which one cell's space is drawn."""
        return SpaceContext(
            algorithm=algorithm,
            divergence=divergence,
            num_classes=self.num_classes,
            max_steps=self.max_steps,
            first_rung=self.first_rung,
            optimizer=self.optimizer,
            entropy_weight=self.entropy_weight,
            weight_decay=self.weight_decay,
            ramp_fraction=self.ramp_fraction,
        )

    def _divergences_of(self, algorithm: str) -> tuple[str | None, ...]:
        published = published_divergence(algorithm, self.published_from)
        if published is None or not self.divergences:
            return (published,)
        return self.divergences

    def params_for(
        self, algorithm: str, divergence: str | None, parameters: Mapping[str, float]
    ) -> dict[str, Any]:
        """Return a configuration as a trial of this study, values moved into their ranges.

        What the configuration does not name takes its published value.

        Raises:
            UserError: see ``params_and_moved``.
        """
        return self.params_and_moved(algorithm, divergence, parameters)[0]

    def params_and_moved(
        self, algorithm: str, divergence: str | None, parameters: Mapping[str, float]
    ) -> tuple[dict[str, Any], list[Moved]]:
        """Return what ``params_for`` does, and those of the given values that were moved.

        Raises:
            UserError: the study does not search that method with that divergence, or a parameter
                is unknown, has a value that is not legal, or is an option no search can carry.
        """
        self._check_cell(algorithm, divergence)
        own = self.context(algorithm, divergence)
        check_searchable(algorithm, parameters, _searched_names(own))
        published = self._published(algorithm, divergence).parameters
        params, moved = self._trial_at(algorithm, divergence, published | dict(parameters))
        return params, [move for move in moved if move.name in parameters]

    def _check_cell(self, algorithm: str, divergence: str | None) -> None:
        if (algorithm, divergence) not in self.cells():
            raise UserError(
                f"{algorithm} with {divergence} is not part of the search; allowed: "
                f"{', '.join(f'{a} with {d}' for a, d in self.cells())}; leave it out or add it to --alg "
                "and --divergence."
            )

    def _trial_at(
        self, algorithm: str, divergence: str | None, parameters: Mapping[str, float]
    ) -> tuple[dict[str, Any], list[Moved]]:
        """Return a configuration's trial parameters, and the values that were moved."""
        context = self.context(algorithm, divergence)
        trial = GivenTrial(parameters, context)
        used = SEARCH_SPACES[algorithm](trial, context)
        params: dict[str, Any] = dict(trial.params)
        if len(self.algorithms) > 1:
            params["algorithm"] = algorithm
        if len(self._divergences_of(algorithm)) > 1:
            params["divergence"] = divergence
        return params, _moved(parameters, used, trial, context)

    def _default(self, algorithm: str, divergence: str | None) -> DefaultTrial:
        published = self._published(algorithm, divergence)
        params, moved = self._trial_at(algorithm, divergence, published.parameters)
        notes = [published.source, *([published.note] if published.note else [])]
        notes += [
            f"{move.name} {'fixed' if move.low == move.high else 'moved into the range'} ({move.used:.4g})"
            for move in moved
        ]
        return DefaultTrial(
            params=params,
            source="; ".join(notes),
            converted=divergence != published_divergence(algorithm, self.published_from),
        )

    def _published(self, algorithm: str, divergence: str | None) -> PublishedDefault:
        return published_default(
            algorithm,
            divergence,
            num_classes=self.num_classes,
            setting=self.setting,
            optimizer=self.optimizer,
            prefer=self.published_from,
        )


class _At:
    """A trial that answers with one place of every range, from 0 at its low end to 1 at its high."""

    def __init__(self, place: float) -> None:
        self._place = place

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if log:
            return float(low * (high / low) ** self._place)
        return low + self._place * (high - low)


def _searched_names(context: SpaceContext) -> tuple[str, ...]:
    return tuple(SEARCH_SPACES[context.algorithm](_At(0.0), context))


def _moved(
    given: Mapping[str, float], used: Parameters, trial: GivenTrial, context: SpaceContext
) -> list[Moved]:
    """Return the values that are used otherwise than given, beyond the rounding of the scales."""
    names = {FIELD_OF.get(name, name): name for name in trial.ranges}
    moved = []
    for field, value in used.items():
        before = given.get(field, 0.0 if field in names else value)
        if math.isclose(before, value, rel_tol=1e-5):
            continue
        low = high = value
        if field in names:
            name = names[field]
            low, high = field_range(name, *trial.ranges[name], context)
        moved.append(Moved(name=field, given=before, used=value, low=low, high=high))
    return moved
