"""From a settings file and flags to a search's settings. Loads no torch, no ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_core.data.config import DIVISION_FIELDS
from ssl_core.errors import UserError, check_keys
from ssl_core.names import algorithm_name, algorithm_names, divergence_names
from ssl_core.published import published_divergence
from tune_ssl.protocol import with_protocol
from tune_ssl.run import SEARCHED, RunConfig, read_yaml
from tune_ssl.views.export import configuration_of, records_in

RENAMED = {
    "num_labels": "labels",
    "num_validation": "validation",
    "num_unlabeled": "unlabeled",
}
"""A training's configuration names what it is; the command line's flags are shorter."""

OF_ONE_TRIAL = ("algorithm", "divergence", "parameters", "seed", "threads", *DIVISION_FIELDS)

OF_ITS_IMAGES = (
    *("data_dir", "image_size", "flip", "labels", "validation"),
    *("unlabeled", "labeled_classes", "class_mismatch", "imbalance", "metric", "precision"),
)
"""What a file says of its own data set and of no other: its images, and what follows from them."""


def settings_from(
    file: Path | None, flags: Mapping[str, Any], tell: Callable[[str], None] = lambda text: None
) -> RunConfig:
    """Return settings from a file, if there is one, with flags standing over it.

    A protocol that either names gives the rest, see ``tune_ssl.protocol.with_protocol``.

    The file is a mapping of settings, as a run's config.yaml, or an export: then the search has
    the settings of the exported trainings and tries their configurations after the published
    defaults. Those of methods or divergences that a flag leaves out are left out, and so is what it
    says of its images where a flag names another data set; ``tell`` is told.

    Raises:
        UserError: a key, a name or a value is not legal.
    """
    given = {} if file is None else _read(file)
    starts = given.get("start_from")
    if isinstance(starts, list):
        given["start_from"] = [start for start in starts if _is_searched(start, flags)]
        left_out = len(starts) - len(given["start_from"])
        if left_out:
            tell(
                f"{left_out} of {len(starts)} configurations of {file} are not part of this search."
            )
    if flags.get("dataset") not in (None, given.get("dataset", RunConfig.dataset)):
        told = [
            key for key in OF_ITS_IMAGES if given.pop(key, None) is not None and key not in flags
        ]
        if told:
            tell(f"left out of {file}, which says so of another data set: {', '.join(told)}.")
    config = RunConfig.from_mapping(with_protocol(given, flags))
    _check_threads(config)
    return config


def _check_threads(config: RunConfig) -> None:
    """Raise UserError where trials would use cores that they are not given."""
    cores = max(1, int(config.cpus_per_trial))
    if config.threads is not None and config.threads > cores:
        raise UserError(
            f"threads is {config.threads} with cpus-per-trial {config.cpus_per_trial:g}; allowed: 1 to {cores}, "
            "because a trial uses the cores it is given and no others; raise --cpus-per-trial, too."
        )


def _is_searched(start: Mapping[str, Any], flags: Mapping[str, Any]) -> bool:
    """Return whether the flags leave a configuration's method and divergence in the search."""
    if not isinstance(start, Mapping):
        return True  # refused where its form is checked
    algorithms = algorithm_names(flags.get("alg"))
    divergences = divergence_names(flags.get("divergence"))
    divergence = start.get("divergence")
    named = not algorithms or start.get("algorithm") in algorithms
    return named and (not divergences or divergence is None or divergence in divergences)


def _read(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    records = records_in(content, repr(str(file)))
    if "algorithm" in records[0]:
        return _from_export(records)
    if len(records) > 1:
        raise UserError(
            f"{str(file)!r} holds {len(records)} settings; allowed: one mapping, or an export; keep one."
        )
    return records[0]


def _from_export(records: list[dict[str, Any]]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(RunConfig)}
    first = configuration_of(records[0])
    settings = {
        RENAMED.get(key, key): value for key, value in first.items() if key not in OF_ONE_TRIAL
    }
    check_keys("the configuration", settings, sorted(known))
    starts = [_start(record) for record in records]
    divergences = [start["divergence"] for start in starts if start["divergence"] is not None]
    if "division_seed" in first and "folds" not in first:
        settings["reshuffle_validation"] = True
    return settings | {
        "alg": [start["algorithm"] for start in starts],
        "divergence": divergences,
        "start_from": starts,
        "entropy_min": _entropy_min(starts),
    }


def _start(record: dict[str, Any]) -> dict[str, Any]:
    algorithm = algorithm_name(str(record.get("algorithm")))
    return {
        "algorithm": algorithm,
        "divergence": record.get("divergence") or published_divergence(algorithm),
        "parameters": record.get("parameters"),
    }


def _entropy_min(starts: list[dict[str, Any]]) -> float | str:
    """Return the one weight of entropy minimisation of all, or that it shall be searched."""
    weights = {
        (start["parameters"] or {}).get("entropy_weight", 0.0)
        for start in starts
        if start["algorithm"] != "supervised"
    }
    if len(weights) > 1:
        return SEARCHED
    return float(weights.pop()) if weights else 0.0
