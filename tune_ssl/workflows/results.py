"""``status``, ``export`` and ``algorithms``: what can be told without training. No torch, no ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from search_spaces.common import weight_range
from search_spaces.joint import StudySpace
from ssl_core.data.catalogue import DATASET_CARDS
from ssl_core.errors import UserError
from ssl_core.names import ALGORITHM_NAMES, SEARCHED_DIVERGENCE_NAMES
from ssl_core.published import PUBLISHED, published_divergence
from tune_ssl.retraining import holds_retrainings, read_retrainings
from tune_ssl.run import COMPARISON, RunConfig, RunDirectory, read_yaml_mapping, whole_of
from tune_ssl.study import RESULT, Counts, count, device_seconds, is_running, read_trials, why_held
from tune_ssl.views.export import export_records

if TYPE_CHECKING:
    from tune_ssl.comparison import Comparison, SearchedCell


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a run stands.

    ``resumed_by`` is the run to resume for it, a comparison's for its parts; ``driver`` who drives it
    now, None if nobody does; ``memory_megabytes`` the most that the process of a complete trial took,
    images and libraries included, ``gpu_megabytes`` the most that one took of its GPU; ``retrains`` the
    search whose best it retrains, None for a search; ``device_seconds_budget`` the device time after which it ends, None
    where trials are counted; ``done`` whether nothing is left to do.
    """

    name: str
    resumed_by: str
    counts: Counts
    device_seconds: float
    running: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    best: dict[str, Any] | None
    driver: str | None
    memory_megabytes: int | None = None
    gpu_megabytes: int | None = None
    retrains: str | None = None
    device_seconds_budget: float | None = None
    done: bool = False

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values."""
        counts = vars(self.counts) | {"finished": self.counts.finished}
        return vars(self) | {"counts": counts}


def status(directory: RunDirectory) -> Status:
    """Return where a run stands, whether or not it is being driven now.

    Raises:
        UserError: the run's files are damaged.
    """
    best, retrains = [], None
    if holds_retrainings(directory):
        retrainings = read_retrainings(directory)
        config, retrains = retrainings.settings, retrainings.origin
        trials = read_trials(directory.journal_path)[0] if directory.journal_path.exists() else []
    else:
        config, trials, attributes = read_run(directory)
        best = export_records(config, trials, attributes["num_classes"], top=1)
    counts = count(trials, config.trials)
    cell = cell_of(directory)
    return Status(
        name=directory.name,
        resumed_by=str(whole_of(directory).path),
        counts=counts,
        device_seconds=device_seconds(trials),
        device_seconds_budget=None if cell is None else cell.device_seconds,
        done=is_done(cell, counts, trials),
        running=[_progress(trial) for trial in trials if is_running(trial)],
        failed=[
            {"trial": trial.number, "reason": trial.user_attrs.get("reason")}
            for trial in trials
            if trial.state == TrialState.FAIL
        ]
        + [
            {"trial": trial.number, "reason": f"{why_held(trial)}; to be trained again"}
            for trial in trials
            if why_held(trial) is not None
        ],
        best=best[0] if best else None,
        driver=directory.driver(),
        retrains=retrains,
        memory_megabytes=_most(trials, "memory_megabytes"),
        gpu_megabytes=_most(trials, "gpu_megabytes"),
    )


def read_comparison(directory: RunDirectory) -> Comparison:
    """Return what a folder compares.

    Raises:
        UserError: its settings are damaged.
    """
    from tune_ssl.comparison import Comparison

    return Comparison.from_mapping(read_yaml_mapping(directory.path / COMPARISON))


def cell_of(directory: RunDirectory) -> SearchedCell | None:
    """Return the cell of a comparison that a run searches, which says what budget it has; None for any other run.

    Raises:
        UserError: the comparison's settings are damaged.
    """
    whole = whole_of(directory)
    if whole is directory:
        return None
    return read_comparison(whole).cell_at(str(directory.path.relative_to(whole.path)))


def without_full_length(
    directory: RunDirectory, trials: Sequence[FrozenTrial], asked: int
) -> UserError:
    """Return the refusal of what needs a trial of full length, and how to come by one."""
    from tune_ssl.comparison import more_budget

    counts, whole, cell = count(trials, asked), whole_of(directory), cell_of(directory)
    remedy = f"continue it: tune-ssl resume {whole.path}"
    if directory.driver() is not None:
        remedy = "try again later"
    elif cell is not None and is_done(cell, counts, trials):
        remedy = more_budget(cell, whole.name)
    of = "" if cell is not None and cell.device_seconds is not None else f" of {counts.asked}"
    return UserError(
        f"run {directory.name!r} has no trial of full length yet ({counts.finished}{of} finished); allowed: one "
        f"at least; {remedy}"
    )


def is_done(cell: SearchedCell | None, counts: Counts, trials: Sequence[FrozenTrial]) -> bool:
    """Return whether a run has nothing left to do; a ``cell``, where it is one, says what its budget is."""
    return counts.finished >= counts.asked if cell is None else cell.used_up(trials)


def _most(trials: Sequence[FrozenTrial], name: str) -> int | None:
    """Return the largest of what complete trials measured under a name, None where none did."""
    results = [trial.system_attrs.get(RESULT, {}) for trial in trials]
    return max((result[name] for result in results if name in result), default=None)


def best_records(directory: RunDirectory, top: int | None) -> list[dict[str, Any]]:
    """Return a run's best configurations.

    Raises:
        UserError: the run's files are damaged, or no trial has reached the full length.
    """
    config, trials, attributes = read_run(directory)
    records = export_records(config, trials, attributes["num_classes"], top)
    if not records:
        raise without_full_length(directory, trials, config.trials)
    return records


def describe_algorithms() -> list[dict[str, Any]]:
    """Return every method with its published defaults and its space on the default data set."""
    card = DATASET_CARDS["digits"]
    described = []
    for name in ALGORITHM_NAMES:
        space = StudySpace(
            algorithms=(name,), num_classes=10, max_steps=card.max_steps, first_rung=1 / 4
        )
        recorder = _RangeRecorder()
        space.suggest(recorder)
        if "unlabeled_weight_u" in recorder.ranges:
            recorder.ranges["unlabeled_weight_u"]["stands_for"] = {
                divergence: weight_range(space.context(name, divergence))
                for divergence in SEARCHED_DIVERGENCE_NAMES
            }
        described.append(
            {
                "algorithm": name,
                "divergence": published_divergence(name),
                "space": recorder.ranges,
                "defaults": [
                    {
                        "setting": row.setting or "any",
                        "divergence": row.divergence,
                        "source": row.source,
                        "as_published": row.as_published,
                        "conversion": row.conversion,
                        "parameters": row.parameters,
                    }
                    for row in PUBLISHED
                    if row.algorithm == name
                ],
            }
        )
    return described


class _RangeRecorder:
    """A trial that answers with the middle of each range and remembers the range."""

    def __init__(self) -> None:
        self.ranges: dict[str, dict[str, Any]] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.ranges[name] = {"low": low, "high": high, "log": log}
        return (low + high) / 2

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.ranges[name] = {"choices": list(choices)}
        return choices[0]


def read_run(directory: RunDirectory) -> tuple[RunConfig, list[FrozenTrial], dict[str, Any]]:
    """Return a run's settings, its trials and the facts of its study.

    Raises:
        UserError: its files are damaged, its settings were edited, or it has not begun.
    """
    config = directory.read_config()
    begun = directory.journal_path.is_file()
    trials, attributes = read_trials(directory.journal_path) if begun else ([], {})
    if "num_classes" not in attributes:
        raise UserError(
            f"run {directory.name!r} has not begun; allowed: a run with trials; try again when it has."
        )
    directory.check_settings(attributes["settings"], config.fixed_settings())
    return config, trials, attributes


def _progress(trial: FrozenTrial) -> dict[str, Any]:
    last = trial.last_step
    return {
        "trial": trial.number,
        "params": dict(trial.params),
        "last_rung": last,
        "last_value": trial.intermediate_values[last] if last is not None else None,
    }
