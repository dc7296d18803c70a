"""The space of a whole study: which method, which divergence, and then that method's values.

The choice of method and of divergence is a parameter only where there is one. The published
defaults, one per method and divergence, are the study's first trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from search_spaces import SEARCH_SPACES
from search_spaces.common import FIELD_OF, GivenTrial, Parameters, SpaceContext
from ssl_core.errors import UserError
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


@dataclass(frozen=True, kw_only=True)
class DefaultTrial:
    """A published default: the trial's parameters as stored, and where the values come from.

    ``converted`` says that its paper used another divergence.
    """

    params: dict[str, Any]
    source: str
    converted: bool


@dataclass(frozen=True, kw_only=True)
class StudySpace:
    """What one study searches.

    Args:
        algorithms: one or more methods.
        divergences: those to choose from; empty for each method's published one.
        num_classes, max_steps, first_rung, optimizer, entropy_weight: see ``SpaceContext``.
        setting: the column of published values, ``cifar10`` or ``svhn``.

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

    def __post_init__(self) -> None:
        if "pseudo_label" in self.algorithms and "reverse_kl" in self.divergences:
            raise UserError(
                "divergence 'reverse_kl' is not defined against pseudo_label's one-hot targets; allowed "
                "with it: mse, l1, kl, js; leave reverse_kl or pseudo_label out."
            )
        if self.algorithms == ("supervised",) and self.divergences:
            raise UserError(
                f"divergence {self.divergences[0]!r} was given with supervised; allowed: none, it compares "
                "no two predictions; leave --divergence out."
            )
        if "supervised" in self.algorithms and self.entropy_weight != 0.0:
            raise UserError(
                "entropy minimisation was asked for with supervised; allowed: semi-supervised methods, "
                "because it would use the unlabeled images; leave --entropy-min or supervised out."
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
        )

    def _divergences_of(self, algorithm: str) -> tuple[str | None, ...]:
        published = published_divergence(algorithm)
        if published is None or not self.divergences:
            return (published,)
        return self.divergences

    def params_for(
        self, algorithm: str, divergence: str | None, parameters: Mapping[str, float]
    ) -> dict[str, Any]:
        """Return a configuration as a trial of this study, values moved into their ranges.

        What the configuration does not name takes its published value.

        Raises:
            UserError: the study does not search that method with that divergence.
        """
        self._check_cell(algorithm, divergence)
        published = self._published(algorithm, divergence).parameters
        return self._trial_at(algorithm, divergence, published | dict(parameters))[0]

    def _check_cell(self, algorithm: str, divergence: str | None) -> None:
        if (algorithm, divergence) not in self.cells():
            raise UserError(
                f"{algorithm} with {divergence} is not part of the search; allowed: "
                f"{', '.join(f'{a} with {d}' for a, d in self.cells())}; leave it out or add it to --alg "
                "and --divergence."
            )

    def _trial_at(
        self, algorithm: str, divergence: str | None, parameters: Mapping[str, float]
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """Return a configuration's trial parameters, and what moved fields were moved to."""
        context = self.context(algorithm, divergence)
        trial = GivenTrial(parameters, context)
        used = SEARCH_SPACES[algorithm](trial, context)
        moved = {field: used[field] for field in (FIELD_OF.get(n, n) for n in trial.moved)}
        params: dict[str, Any] = dict(trial.params)
        if len(self.algorithms) > 1:
            params["algorithm"] = algorithm
        if len(self._divergences_of(algorithm)) > 1:
            params["divergence"] = divergence
        return params, moved

    def _default(self, algorithm: str, divergence: str | None) -> DefaultTrial:
        published = self._published(algorithm, divergence)
        params, moved = self._trial_at(algorithm, divergence, published.parameters)
        notes = [published.source, *([published.note] if published.note else [])]
        notes += [f"{name} moved into the range ({value:.4g})" for name, value in moved.items()]
        return DefaultTrial(
            params=params,
            source="; ".join(notes),
            converted=divergence != published_divergence(algorithm),
        )

    def _published(self, algorithm: str, divergence: str | None) -> PublishedDefault:
        return published_default(
            algorithm,
            divergence,
            num_classes=self.num_classes,
            setting=self.setting,
            optimizer=self.optimizer,
        )
