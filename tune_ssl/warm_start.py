"""Warm start: the trials of an earlier run inform the sampler of a new one.

They are no trials of the new study: not counted, not ranked, not compared with at a rung, not
exported. The study keeps them beside its own, under names of the run they come from, so a resume
needs the earlier run no more. Their values count only where they were measured as the new ones
will be: the same images, the same draw, the same training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from search_spaces.joint import Space, StudySpace
from ssl_core.errors import UserError
from tune_ssl.run import added_defaults

FREE = frozenset(
    {
        *("alg", "divergence", "entropy_min"),  # the space: what agrees is looked up trial by trial
        *("seed", "sampler", "scheduler", "reduction_factor", "grace", "warm_start"),
        *("protocol", "published_from", "weight_decay", "ramp_fraction"),
        *("device", "cpus_per_trial", "gpus_per_trial", "threads"),
    }
)
"""Settings in which the earlier run may differ: values of its trials mean the same."""


@dataclass(frozen=True, kw_only=True)
class ForeignTrial:
    """A trial of an earlier run on the scales of the new study's space."""

    trial: int
    params: dict[str, Any]
    state: str
    value: float | None
    rungs: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What is taken from an earlier run; ``left_out`` counts trials the new space has no place for."""

    run: str
    trials: tuple[ForeignTrial, ...]
    left_out: int

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values, as the study keeps them."""
        return {
            "run": self.run,
            "left_out": self.left_out,
            "trials": [vars(trial) for trial in self.trials],
        }

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> WarmStart:
        """Return what ``to_mapping`` was made of."""
        trials = tuple(ForeignTrial(**trial) for trial in given["trials"])
        return cls(run=given["run"], trials=trials, left_out=given["left_out"])

    def frozen(self, space: Space) -> list[FrozenTrial]:
        """Return the trials as a sampler sees them: before all others, with negative numbers."""
        first = -len(self.trials)
        return [_frozen(first + place, one, space) for place, one in enumerate(self.trials)]


def check_comparable(
    run: str,
    earlier: Mapping[str, Any],
    now: Mapping[str, Any],
) -> None:
    """Raise UserError unless values of the earlier run mean what values of the new one will.

    ``earlier`` and ``now`` are the facts a study is begun with: its images and its settings.
    """
    then = added_defaults() | earlier["settings"]
    differing = [
        f"{key} is {now['settings'].get(key)!r} and was {value!r}"
        for key, value in then.items()
        if key not in FREE and now["settings"].get(key) != value
    ]
    facts = ("images_crc32", "split_sha256", "labels_sha256")
    differing += [key for key in facts if earlier[key] != now[key]]
    if differing:
        raise UserError(
            f"values of run {run!r} do not compare with those of this search ({'; '.join(differing)}); "
            "allowed: the same images and training; to try its best configurations instead, export them and "
            "give --config."
        )


def warm_start(
    run: str, earlier: StudySpace, trials: Iterable[FrozenTrial], space: StudySpace
) -> WarmStart:
    """Return the finished trials of an earlier run that lie in a new space.

    Args:
        earlier: the space those trials were drawn from.
    """
    taken, left_out = [], 0
    for trial in trials:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        params = _in_space(trial, earlier, space)
        if params is None:
            left_out += 1
            continue
        taken.append(
            ForeignTrial(
                trial=trial.number,
                params=params,
                state=trial.state.name,
                value=None if trial.values is None else trial.values[0],
                rungs={str(step): value for step, value in trial.intermediate_values.items()},
            )
        )
    return WarmStart(run=run, trials=tuple(taken), left_out=left_out)


def _in_space(trial: FrozenTrial, earlier: StudySpace, space: StudySpace) -> dict[str, Any] | None:
    """Return a trial's parameters on the new space's scales, None where they do not agree."""
    drawn = earlier.suggest(FixedTrial(trial.params))
    if (drawn.algorithm, drawn.divergence) not in space.cells():
        return None
    params, moved = space.params_and_moved(drawn.algorithm, drawn.divergence, drawn.parameters)
    return None if moved else params


def _frozen(number: int, foreign: ForeignTrial, space: Space) -> FrozenTrial:
    replay = _Replay(foreign.params)
    space.suggest(replay)
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState[foreign.state],
        value=foreign.value,
        datetime_start=None,
        datetime_complete=None,
        params=dict(foreign.params),
        distributions=replay.distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={int(step): value for step, value in foreign.rungs.items()},
    )


class _Replay:
    """A trial that answers with known values and remembers what each was drawn from."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.distributions: dict[str, BaseDistribution] = {}
        self._params = params

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.distributions[name] = FloatDistribution(low, high, log=log)
        return float(self._params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.distributions[name] = CategoricalDistribution(choices)
        return self._params[name]
