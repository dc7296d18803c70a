"""What a search allows among a configuration's parameters is what a training accepts."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest

from search_spaces import SEARCH_SPACES
from search_spaces.common import SpaceContext
from ssl_core.algorithms import ALGORITHMS
from ssl_core.errors import UserError
from ssl_core.parameters import LEGAL, NOT_SEARCHED, check_searchable
from ssl_core.published import published_divergence
from ssl_core.training.config import TRAINING_PARAMETERS, TrainingConfig

OVER_METHODS = pytest.mark.parametrize("algorithm", ALGORITHMS)


class LowEnd:
    """A trial that answers with the low end of every range."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return low


def searched(algorithm: str) -> tuple[str, ...]:
    context = SpaceContext(
        algorithm=algorithm,
        divergence=published_divergence(algorithm),
        num_classes=10,
        max_steps=450,
        first_rung=1 / 9,
    )
    return tuple(SEARCH_SPACES[algorithm](LowEnd(), context))


def trains(algorithm: str, name: str, value: object) -> bool:
    try:
        TrainingConfig.from_record({"algorithm": algorithm, "parameters": {name: value}})
    except UserError:
        return False
    return True


def searches(algorithm: str, name: str, value: object) -> bool:
    try:
        check_searchable(algorithm, {name: value}, searched(algorithm))
    except UserError:
        return False
    return True


@OVER_METHODS
def test_every_field_of_a_config_is_searched_or_named_as_not_searched(algorithm):
    fields = {field.name for field in dataclasses.fields(ALGORITHMS[algorithm].Config)}
    options = NOT_SEARCHED.get(algorithm, {})
    assert fields - {"divergence"} == (set(searched(algorithm)) - set(TRAINING_PARAMETERS)) | set(
        options
    )
    assert not set(options) & set(searched(algorithm))


@pytest.mark.parametrize("algorithm", NOT_SEARCHED)
def test_what_is_not_searched_has_the_configs_default(algorithm):
    defaults = {
        field.name: field.default for field in dataclasses.fields(ALGORITHMS[algorithm].Config)
    }
    for name, value in NOT_SEARCHED[algorithm].items():
        assert defaults[name] == value
        assert type(defaults[name]) is type(value)


@OVER_METHODS
def test_a_search_accepts_the_values_a_training_accepts(algorithm):
    probes = [-1.0, -1e-9, 0.0, 1e-9, 0.5, 1.0 - 1e-9, 1.0, 1.0 + 1e-9, 2.0, 1e9]
    probes += [math.nan, math.inf, "1e-3", None, True, [1.0]]
    for name in searched(algorithm):
        assert name in LEGAL
        for value in probes:
            assert searches(algorithm, name, value) == trains(algorithm, name, value), (name, value)


@OVER_METHODS
def test_an_option_a_search_cannot_carry_is_refused_unless_it_has_the_searchs_value(algorithm):
    for name, value in NOT_SEARCHED.get(algorithm, {}).items():
        check_searchable(algorithm, {name: value}, searched(algorithm))
        other = not value if isinstance(value, bool) else value + 1
        with pytest.raises(UserError, match=rf"{name} is {other!r} with {algorithm}; allowed"):
            check_searchable(algorithm, {name: other}, searched(algorithm))


def test_an_unknown_parameter_is_refused_with_the_nearest_known_one():
    with pytest.raises(UserError, match="temperature"):
        check_searchable("mixmatch", {"temperatur": 0.5}, searched("mixmatch"))


def test_checking_a_start_does_not_load_torch():
    code = """
import sys
from tune_ssl.run import RunConfig
start = {"algorithm": "ict", "divergence": "mse", "parameters": {"mixup_alpha": 0.5}}
RunConfig(alg=("ict",), start_from=(start,))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
