"""The best configurations as files: each stands alone, and ``train`` and ``search`` read them back."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial

from search_spaces.joint import Suggestion
from ssl_core.data.config import CONDITIONS
from ssl_core.errors import UserError
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl.best import WEIGHTS_KEPT, RankedTrial, rank_trials
from tune_ssl.run import ADDED_SETTINGS, RunConfig, yaml_text
from tune_ssl.storage import without_keys

FORMATS = ("yaml", "json", "csv")
NO_VALUES = Suggestion(algorithm=ALGORITHM_NAMES[0], divergence=None, parameters={})

RESULT_KEYS = (
    "rank",
    "trial",
    "validation_accuracy",
    "validation_standard_error",
    "validation_balanced_accuracy",
    "steps",
    "recommended",
    "tied_with",
    "published_default",
    "device_seconds",
    "weights",
    "made_with",
)
"""What an exported configuration says of its trial; everything else is its configuration."""

EXPORTED_KEYS = tuple(
    key
    for key in RunConfig(alg=ALGORITHM_NAMES[:1]).trial_record(NO_VALUES, seed=0)
    if key not in (*ADDED_SETTINGS, *CONDITIONS)
)
"""What every export holds of a configuration, those of earlier versions too."""


def export_records(
    config: RunConfig, trials: Sequence[FrozenTrial], num_classes: int, top: int | None = None
) -> list[dict[str, Any]]:
    """Return the best configurations, best first, each with all that its training depends on."""
    ranked = rank_trials(trials)
    return [_record(config, trial, num_classes) for trial in ranked[:top]]


def configuration_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return an exported record without what it says of its trial."""
    return {key: value for key, value in record.items() if key not in RESULT_KEYS}


def format_records(records: list[dict[str, Any]], form: str) -> str:
    """Return records as text: ``yaml``, ``json`` (a list of objects) or ``csv`` (a row each)."""
    if form == "json":
        return json.dumps(records, indent=2) + "\n"
    if form == "yaml":
        return yaml_text(records)
    return _csv(records)


def is_exported(text: str) -> bool:
    """Return whether a file's text begins as ``format_records`` writes it, in any of its forms."""
    first, second, *_ = RESULT_KEYS
    return re.match(rf"""[\[{{\s-]*"?{first}\b[^a-z]*{second}\b""", text) is not None


def records_in(content: Any, origin: str) -> list[dict[str, Any]]:
    """Return the configurations a file holds: one mapping, or a list of them.

    Raises:
        UserError: it holds something else.
    """
    records = content if isinstance(content, list) else [content]
    if not records or not all(isinstance(record, dict) for record in records):
        raise UserError(
            f"{origin} holds no configuration; allowed: a mapping, or a list of them as 'tune-ssl export' "
            "writes; choose another file."
        )
    for record in records:
        missing = [key for key in EXPORTED_KEYS if key not in record] if "rank" in record else []
        if missing:
            raise UserError(
                f"{origin} is half written: the configuration of rank {record['rank']} has no "
                f"{', '.join(missing)}; allowed: an export as 'tune-ssl export' writes it; export it again."
            )
    return records


def _record(config: RunConfig, trial: RankedTrial, num_classes: int) -> dict[str, Any]:
    suggestion = config.space(num_classes).suggest(FixedTrial(trial.params))
    return {
        "rank": trial.rank,
        "trial": trial.number,
        "validation_accuracy": trial.result["accuracy"],
        "validation_standard_error": trial.standard_error,
        "validation_balanced_accuracy": trial.result["balanced_accuracy"],
        "recommended": trial.recommended,
        "tied_with": list(trial.tied_with),
        "published_default": trial.is_default,
        "device_seconds": trial.seconds,
        "steps": config.steps,
        "weights": _weights(config, trial),
        "made_with": dict(trial.result.get("made_with", {})),
        **config.search_record(trial.number, suggestion),
    }


def _weights(config: RunConfig, trial: RankedTrial) -> str | None:
    """Return where a trial's weights are: below the run's folder, or in its storage; None if gone."""
    path: str | None = trial.result.get("weights")
    if path is None or trial.rank > WEIGHTS_KEPT:
        return None
    return path if config.storage is None else f"{without_keys(config.storage)}/{path}"


def _csv(records: list[dict[str, Any]]) -> str:
    rows = [_flat(record) for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: value for key, value in record.items() if not isinstance(value, dict)}
    row["tied_with"] = " ".join(str(number) for number in record["tied_with"])
    nested = ((key, record[key]) for key in ("parameters", "made_with"))
    return row | {
        f"{key}.{name}": value for key, values in nested for name, value in values.items()
    }
