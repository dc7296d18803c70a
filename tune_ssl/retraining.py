"""Configurations x draws: what is retrained, and which trial of a study is which retraining.

A study of retrainings samples nothing. Its K x S trials are all queued when it begins: every
configuration on the same S draws, each draw with labels and a seed that no search has seen. So
columns of the table are paired, and a draw's trials stand together: whatever was finished when a
driver died is comparable.

``confirm`` retrains the best of one search; whoever has configurations of several searches gives
them names, and the same settings, and retrains them alike.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from search_spaces.joint import ChoosingTrial, Suggestion
from ssl_core.data.config import DIVISION_FIELDS
from ssl_core.errors import UserError, check_keys
from tune_ssl.run import RunConfig, RunDirectory, read_yaml_mapping, write_yaml
from tune_ssl.study import FirstTrial

CONFIGURATION, DRAW = "configuration", "draw"
"""The parameters of a study of retrainings."""

FIRST_DRAW = 1000
"""Far from the small numbers that people give a search as --split-seed."""

PLAN_KEYS = ("id", "origin", "configurations", "draws", "settings")
OPTIONAL_KEYS = ("groups",)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A method with all its tuned values, under a name that is its own in a table.

    ``origin`` is what its search said of it, for people and for the optimism of that search; no
    training depends on it.
    """

    name: str
    algorithm: str
    divergence: str | None
    parameters: Mapping[str, float]
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def suggestion(self) -> Suggestion:
        """The configuration as a study suggests it."""
        return Suggestion(
            algorithm=self.algorithm,
            divergence=self.divergence,
            parameters=dict(self.parameters),
        )


class Draw(NamedTuple):
    """One column of the table: ``split_seed`` draws labels and validation images, ``seed`` the rest.

    The others divide the labels of that draw anew, see ``DataConfig``.
    """

    split_seed: int
    seed: int
    division_seed: int | None = None
    folds: int | None = None
    fold: int | None = None

    @property
    def division(self) -> dict[str, int]:
        """How the labels of the draw are divided; nothing where they stay as drawn."""
        return {key: value for key in DIVISION_FIELDS if (value := self._asdict()[key]) is not None}

    @property
    def label(self) -> int | str:
        """The column's name in the study."""
        if self.fold is None:
            return self.split_seed
        return f"division {self.division_seed}, fold {self.fold}"

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values; a division only where there is one."""
        return {"split_seed": self.split_seed, "seed": self.seed, **self.division}


@dataclass(frozen=True, kw_only=True)
class Retrainings:
    """K configurations on S draws. It is also the space their study draws from.

    With G ``groups`` these are G tables in one: the first K/G configurations are retrained on the first
    S/G draws, and so on. Each group holds the winners of one search per method, on draws of its own.

    Args:
        settings: of every training but for method, values and draw: the same for all, so that
            what is compared differs in nothing else.
        origin: where the configurations come from, for people.
        id: names this table in the ledger of test openings, see ``tune_ssl.ledger``.
    """

    settings: RunConfig
    configurations: tuple[Configuration, ...]
    draws: tuple[Draw, ...]
    origin: str
    id: str = field(default_factory=lambda: f"table-{uuid.uuid4().hex}")
    groups: int = 1

    def __post_init__(self) -> None:
        names = [configuration.name for configuration in self.configurations]
        assert len(set(names)) == len(names)
        assert len(set(self.draws)) == len(self.draws)
        assert self.settings.scheduler == "none"
        assert len(names) % self.groups == len(self.draws) % self.groups == 0
        assert self.settings.trials == self.rows_of_a_group * len(self.draws)

    @property
    def rows_of_a_group(self) -> int:
        """Configurations that are retrained on the same draws."""
        return len(self.configurations) // self.groups

    @property
    def draws_of_a_group(self) -> int:
        """How often a configuration is retrained."""
        return len(self.draws) // self.groups

    @property
    def folds(self) -> int | None:
        """Folds of a cross-validation; None where every draw is a fresh one."""
        return self.draws[0].folds

    def place(self, number: int) -> tuple[int, int]:
        """Return the row (configuration) of a trial, and its column among the draws of its group."""
        draw, row = divmod(number, self.rows_of_a_group)
        group, column = divmod(draw, self.draws_of_a_group)
        return group * self.rows_of_a_group + row, column

    def at(self, number: int) -> tuple[Configuration, Draw]:
        """Return what a trial retrains."""
        configuration, _ = self.place(number)
        return self.configurations[configuration], self.draws[number // self.rows_of_a_group]

    def record(self, number: int, suggestion: Suggestion) -> dict[str, Any]:
        """Return the flat configuration of a trial, all that its training depends on."""
        configuration, draw = self.at(number)
        assert suggestion == configuration.suggestion
        drawn = dataclasses.replace(self.settings, split_seed=draw.split_seed)
        return drawn.trial_record(suggestion, draw.seed, draw.division)

    def first_trials(self) -> list[FirstTrial]:
        """Return all trials of the study, a draw after the other."""
        return [
            FirstTrial(params={CONFIGURATION: configuration.name, DRAW: draw.label}, attributes={})
            for configuration, draw in map(self.at, range(self.settings.trials))
        ]

    def cells(self) -> Iterator[tuple[str, str | None]]:
        """See ``search_spaces.joint.Space``."""
        yield from dict.fromkeys((one.algorithm, one.divergence) for one in self.configurations)

    def suggest(self, trial: ChoosingTrial) -> Suggestion:
        """See ``search_spaces.joint.Space``: what was queued is what is suggested."""
        by_name = {configuration.name: configuration for configuration in self.configurations}
        name = trial.suggest_categorical(CONFIGURATION, tuple(by_name))
        trial.suggest_categorical(DRAW, tuple(draw.label for draw in self.draws))
        return by_name[name].suggestion

    def table(self) -> dict[str, Any]:
        """Return configurations and draws as plain values: what two equal tables agree in."""
        table: dict[str, Any] = {
            "configurations": [dataclasses.asdict(one) for one in self.configurations],
            "draws": [draw.to_mapping() for draw in self.draws],
        }
        return table if self.groups == 1 else {"groups": self.groups, **table}

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that ``from_mapping`` reads back."""
        settings = self.settings.to_mapping()
        return {"id": self.id, "origin": self.origin, **self.table(), "settings": settings}

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Retrainings:
        """Return what ``to_mapping`` gave.

        Raises:
            UserError: a setting is unknown or not legal.
        """
        check_keys("the retrainings", given, (*PLAN_KEYS, *OPTIONAL_KEYS))
        return cls(
            groups=given.get("groups", 1),
            id=given["id"],
            origin=given["origin"],
            configurations=tuple(Configuration(**one) for one in given["configurations"]),
            draws=tuple(Draw(**draw) for draw in given["draws"]),
            settings=RunConfig.from_mapping(given["settings"]),
        )


def retrain_settings(
    settings: RunConfig, *, configurations: int, draws: int, storage: str | None
) -> RunConfig:
    """Return a search's settings as those of retrainings: full length for all, nothing sampled.

    Args:
        configurations: on each draw.
        draws: all of them.
    """
    return dataclasses.replace(
        settings,
        trials=configurations * draws,
        scheduler="none",
        sampler="random",
        start_from=(),
        warm_start=None,
        reshuffle_validation=False,  # every draw is another one already
        concurrency=None,
        storage=storage,
    )


def fresh_draws(count: int, *, seen: Collection[int]) -> tuple[Draw, ...]:
    """Return draws of which no search has seen the labels: its split seeds are in ``seen``."""
    candidates = range(FIRST_DRAW, FIRST_DRAW + count + len(set(seen)))
    fresh = [number for number in candidates if number not in seen][:count]
    return tuple(Draw(split_seed=number, seed=number) for number in fresh)


def fold_draws(split_seed: int, *, folds: int, repeats: int) -> tuple[Draw, ...]:
    """Return the columns of a cross-validation of one draw's labels, a repeat after the other."""
    return tuple(
        Draw(
            split_seed=split_seed,
            seed=FIRST_DRAW + folds * repeat + fold - 1,
            division_seed=FIRST_DRAW + repeat,
            folds=folds,
            fold=fold,
        )
        for repeat in range(repeats)
        for fold in range(1, folds + 1)
    )


def write_retrainings(directory: RunDirectory, retrainings: Retrainings) -> None:
    """Write what a folder retrains."""
    write_yaml(directory.config_path, retrainings.to_mapping())


def holds_retrainings(directory: RunDirectory) -> bool:
    """Return whether a run's folder holds retrainings, and no search."""
    return "configurations" in read_yaml_mapping(directory.config_path)


def read_retrainings(directory: RunDirectory) -> Retrainings:
    """Return what a folder retrains.

    Raises:
        UserError: its settings are damaged.
    """
    given = read_yaml_mapping(directory.config_path)
    missing = [key for key in PLAN_KEYS if key not in given]
    if missing:
        raise UserError(
            f"{directory.config_path} has no {', '.join(missing)}; allowed: the settings of retrainings as "
            "'tune-ssl confirm' writes them; restore the file, or confirm under another --name."
        )
    return Retrainings.from_mapping(given)
