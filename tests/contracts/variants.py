"""What the contracts over algorithms run on: every method, every flag of it, every divergence."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ssl_core.algorithms import ALGORITHMS
from ssl_core.errors import UserError
from ssl_core.names import DIVERGENCE_NAMES

AT_WEIGHT_0 = {"unlabeled_weight": 0.0, "ramp_fraction": 0.0, "threshold": 0.0}
AT_WEIGHT_3 = {"unlabeled_weight": 3.0, "ramp_fraction": 0.0, "threshold": 0.0}


def fields_of(method: str) -> dict[str, Any]:
    """Return the fields of a method's Config by name."""
    return {field.name: field for field in dataclasses.fields(ALGORITHMS[method].Config)}


def flags_of(method: str) -> list[str]:
    """Return the names of a Config's switches."""
    return [name for name, field in fields_of(method).items() if field.type in (bool, "bool")]


def accepted_divergences(method: str) -> list[str]:
    """Return the divergences that a method's Config does not refuse."""
    accepted = []
    for name in DIVERGENCE_NAMES if "divergence" in fields_of(method) else ():
        try:
            ALGORITHMS[method].Config(divergence=name)
        except UserError:
            continue
        accepted.append(name)
    return accepted


def chosen(method: str, flag: str = "", **wanted: Any) -> dict[str, Any]:
    """Return those of the wanted values that are fields of the method's Config, and the flag."""
    values = {name: value for name, value in wanted.items() if name in fields_of(method)}
    return values | ({flag: True} if flag else {})


SEMI_SUPERVISED = [method for method in ALGORITHMS if "unlabeled_weight" in fields_of(method)]
VARIANTS = [(method, flag) for method in ALGORITHMS for flag in ("", *flags_of(method))]
CELLS = [
    (method, flag, divergence)
    for method, flag in VARIANTS
    if method in SEMI_SUPERVISED
    for divergence in accepted_divergences(method)
]

OVER_METHODS = pytest.mark.parametrize("method", ALGORITHMS)
OVER_SEMI_SUPERVISED = pytest.mark.parametrize("method", SEMI_SUPERVISED)
OVER_VARIANTS = pytest.mark.parametrize(("method", "flag"), VARIANTS)
