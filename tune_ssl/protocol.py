"""Protocols: how trainings are done and judged, as files of settings that people can read.

``default`` and ``oliver`` lie in ``protocols/``; a file of one's own has the same form: settings by the
names of a run's config.yaml, and under ``datasets`` those that are different for one data set. What it
leaves out is as in ``default``. A run's config.yaml and an export hold every value a protocol set, so
that neither a resume nor a training needs the file again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_core.errors import UserError, check_choice, check_keys, nearest
from ssl_core.names import DATASET_NAMES
from tune_ssl.run import DEFAULT_PROTOCOL, RunConfig, read_yaml_mapping

FOLDER = Path(__file__).parent / "protocols"

PROTOCOL_SETTINGS = (
    *("labels", "validation", "flip", "normalisation"),
    *("model", "max_steps", "batch_size", "unlabeled_ratio", "optimizer", "lr_schedule"),
    *("weight_decay", "ramp_fraction", "entropy_min", "published_from"),
    *("batch_norm_momentum", "evaluate", "metric", "precision"),
    *("scheduler", "reduction_factor", "grace"),
)
"""What a protocol may say: nothing of methods, images, seeds or machines."""

BY_DATASET = "datasets"


def protocol_names() -> tuple[str, ...]:
    """Return the names of the protocols that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def with_protocol(given: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file and of flags, with those of the protocol that either names.

    A protocol given as a flag stands over the file, one that the file names below it: an export of
    another protocol's run says what it was trained with, and not how it was searched. Single flags
    stand over both.

    Raises:
        UserError: there is no such protocol, or it holds something it may not.
    """
    dataset = flags.get("dataset") or given.get("dataset") or RunConfig.dataset
    if flags.get("protocol") is not None:
        return {**given, **protocol_settings(flags["protocol"], dataset), **_but_protocol(flags)}
    named = given.get("protocol")
    if named is None or all(name in given for name in PROTOCOL_SETTINGS):
        return {**given, **flags}
    return {**protocol_settings(named, dataset), **_but_protocol(given), **flags}


def protocol_settings(protocol: object, dataset: str) -> dict[str, Any]:
    """Return what a protocol, given by name or as a file, says for a data set, and its name.

    The name of a file is its absolute path.

    Raises:
        UserError: there is no such protocol, or it holds something it may not.
    """
    path = _find(protocol)
    name = path.stem if path.parent == FOLDER else str(path)
    common = {} if name == DEFAULT_PROTOCOL else protocol_settings(DEFAULT_PROTOCOL, dataset)
    content = read_yaml_mapping(path)
    by_dataset = content.pop(BY_DATASET, None) or {}
    where = f"protocol {name}"
    check_keys(where, content, (*PROTOCOL_SETTINGS, BY_DATASET))
    if not isinstance(by_dataset, dict):
        raise UserError(
            f"{BY_DATASET} is {by_dataset!r} in {where}; allowed: a mapping of data sets to their settings; "
            "write one."
        )
    for key, settings in by_dataset.items():
        check_choice(f"data set in {where}", key, DATASET_NAMES)
        check_keys(f"{where}, {key}", settings or {}, PROTOCOL_SETTINGS)
    return {**common, **content, **(by_dataset.get(dataset) or {}), "protocol": name}


def _find(protocol: object) -> Path:
    names = protocol_names()
    if protocol in names:
        return FOLDER / f"{protocol}.yaml"
    path = Path(str(protocol)).expanduser()
    if path.is_file():
        return path.absolute()
    near = nearest(str(protocol), names)
    hint = f"did you mean {near!r}?" if near else "give one of them."
    raise UserError(
        f"unknown protocol {protocol!r}; allowed: {', '.join(names)}, or the path of a YAML file of one's own; "
        f"{hint}"
    )


def _but_protocol(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "protocol"}
