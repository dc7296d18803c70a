"""``report``: what a search's journal says beyond its winner. No torch, no ray; no test image is opened."""

from __future__ import annotations

import json
from typing import Any

from optuna.trial import TrialState
from rich.console import Console

from ssl_core.errors import UserError
from ssl_core.files import write_atomically
from tune_ssl.analysis import default_of, flatness_of, importance_of
from tune_ssl.run import RunDirectory
from tune_ssl.study import count
from tune_ssl.views.messages import say
from tune_ssl.views.report import format_report
from tune_ssl.workflows.results import read_run

SEED = 0
"""Of the resamples: a report repeated on the same journal says the same."""


def report(directory: RunDirectory, console: Console) -> dict[str, Any]:
    """Return what a run's trials say, as plain values, and write it as RUN/report.html.

    Raises:
        UserError: the run's files are damaged, or it has not begun.
    """
    config, trials, attributes = read_run(directory)
    space, first_rung = config.space(attributes["num_classes"]), config.rungs()[0]
    counts = count(trials, config.trials)
    measured = sum(first_rung in trial.intermediate_values for trial in trials)
    if measured >= 50:
        say(console, f"resampling {measured} trials; this takes a while")
    found = {
        "run": directory.name,
        "metric": config.metric,
        "sampler": config.sampler,
        "seed": SEED,
        "trials": vars(counts) | {"finished": counts.finished, "measured": measured},
        "without_value": sum(
            trial.state == TrialState.PRUNED and trial.value is None for trial in trials
        ),
        "default": default_of(trials, config.metric, SEED),
        "importance": importance_of(trials, space, first_rung, SEED),
        "flatness": flatness_of(trials, space),
        "confirmations": confirmations(directory),
    }
    path = directory.path / "report.html"
    try:
        write_atomically(path, format_report(found, "html").encode())
    except OSError as error:
        say(console, f"warning: {path} was not written ({error.strerror})")
    else:
        say(console, f"the same with pictures: {path}")
    return found


def report_of(run: str, output: str, console: Console) -> dict[str, Any]:
    """Return ``report`` of a run given by folder or name.

    Raises:
        UserError: see ``report`` and ``RunDirectory.open``.
    """
    return report(RunDirectory.open(run, output), console)


def confirmations(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return what the finished confirmations of a run say of its best and of the published default.

    Cross-validations, which lie beside them, are none: they name no winner and open no test set.

    Raises:
        UserError: a result is damaged.
    """
    paths = sorted(directory.path.glob("confirm/*/result.json"))
    found = {path.parent.name: _read(path) for path in paths}
    return [_confirmation(name, result) for name, result in found.items() if "folds" not in result]


def _confirmation(name: str, result: dict[str, Any]) -> dict[str, Any]:
    rows = result["configurations"]
    default = next((row for row in rows if row["origin"].get("published_default")), None)
    told: dict[str, Any] = {
        "name": name,
        "draws": result["draws"],
        "winner": result["winner"],
        "default": None,
        "configurations": [
            {key: row[key] for key in ("name", "validation", "test", "verdict")} for row in rows
        ],
        "opening": result["test"]["opening"],
    }
    if default is not None and len(rows) > 1:
        told["default"] = default["name"]
        told["default_first"] = sum(
            mine >= max(others)
            for mine, *others in zip(
                _validations(default),
                *(_validations(row) for row in rows if row is not default),
                strict=True,
            )
        )
    return told


def _validations(row: dict[str, Any]) -> list[float]:
    """Return the validation accuracies of a configuration by draw; one that diverged has 0."""
    drawn = sorted(row["retrainings"], key=lambda one: one["split_seed"])
    return [one["validation"] or 0.0 for one in drawn]


def _read(path: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error}); allowed: the result of a confirmation; repeat 'tune-ssl "
            "confirm', which writes it again."
        ) from error
    return found
