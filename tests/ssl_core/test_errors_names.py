"""Names as users type them, and the errors they get: given, allowed, what to do."""

from __future__ import annotations

import math

import pytest

from ssl_core.errors import (
    UserError,
    check_choice,
    check_integer,
    check_keys,
    check_number,
    nearest,
    unknown_name,
)
from ssl_core.names import (
    ALGORITHM_NAMES,
    DIVERGENCE_NAMES,
    algorithm_name,
    divergence_name,
    parse_model_name,
)


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_an_algorithm_is_found_by_its_name_in_any_case(name):
    assert algorithm_name(name) == name
    assert algorithm_name(name.upper()) == name
    assert algorithm_name(f" {name.replace('_', '-')} ") == name


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("PL", "pseudo_label"),
        ("PI", "pi_model"),
        ("VAT", "vat"),
        ("MT", "mean_teacher"),
        ("ICT", "ict"),
        ("MM", "mixmatch"),
    ],
)
def test_the_notebooks_short_names_are_accepted(short, name):
    assert algorithm_name(short) == name
    assert algorithm_name(short.lower()) == name


@pytest.mark.parametrize("name", DIVERGENCE_NAMES)
def test_a_divergence_is_found_by_its_name_in_any_case(name):
    assert divergence_name(name) == name
    assert divergence_name(name.upper().replace("_", "-")) == name


def test_a_near_typo_is_told_the_nearest_name():
    with pytest.raises(UserError, match=r"'mixmach'.*did you mean 'mixmatch'\?"):
        algorithm_name("mixmach")
    with pytest.raises(UserError, match=r"'revers_kl'.*did you mean 'reverse_kl'\?"):
        divergence_name("revers_kl")


def test_an_unlike_name_is_told_every_allowed_one():
    with pytest.raises(UserError) as caught:
        algorithm_name("zzzzzz")
    message = str(caught.value)
    assert "did you mean" not in message
    assert all(name in message for name in ALGORITHM_NAMES)


@pytest.mark.parametrize(
    ("name", "expected"), [("wrn-28-2", (28, 2)), ("wrn-10-1", (10, 1)), ("wrn-40-10", (40, 10))]
)
def test_a_model_name_is_depth_and_width(name, expected):
    assert parse_model_name(name) == expected


@pytest.mark.parametrize(
    "name", ["wrn-28", "wrn-4-2", "wrn-12-2", "wrn-28-0", "resnet-50", "wrn-28-2x", "WRN--28-2", ""]
)
def test_another_model_name_is_refused_with_what_is_allowed(name):
    with pytest.raises(UserError, match="wrn-DEPTH-WIDTH"):
        parse_model_name(name)


def test_nearest_ignores_case_and_gives_up_where_nothing_is_near():
    assert nearest("ADAMW", ("adamw", "sgd")) == "adamw"
    assert nearest("xyz", ("adamw", "sgd")) is None


def test_unknown_name_says_what_was_given_what_is_allowed_and_what_to_do():
    message = str(unknown_name("optimizer", "adan", ("adamw", "adam", "sgd")))
    assert message == "unknown optimizer 'adan'; allowed: adamw, adam, sgd; did you mean 'adam'?"


def test_check_choice_accepts_a_listed_name_only():
    check_choice("metric", "accuracy", ("accuracy",))
    with pytest.raises(UserError, match="unknown metric 'acuracy'"):
        check_choice("metric", "acuracy", ("accuracy",))


def test_check_keys_names_the_first_unknown_key():
    check_keys("the file", ["seed"], ("seed", "steps"))
    with pytest.raises(UserError, match=r"'sed'.*did you mean 'seed'\?"):
        check_keys("the file", ["steps", "sed"], ("seed", "steps"))


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, 1.0])
def test_check_number_accepts_the_interval_with_its_ends(value):
    check_number("x", value, 0.0, 1.0)


@pytest.mark.parametrize(
    "value", [-0.001, 1.001, math.nan, math.inf, -math.inf, "0.5", None, True, [0.5]]
)
def test_check_number_refuses_all_else_and_shows_it(value):
    with pytest.raises(UserError, match="x is ") as caught:
        check_number("x", value, 0.0, 1.0)
    assert "0 <= number <= 1" in str(caught.value)


def test_check_number_refuses_a_whole_number_too_large_for_a_float():
    with pytest.raises(UserError, match="any finite number"):
        check_number("x", 10**400)


def test_check_number_can_leave_out_the_ends():
    check_number("x", 0.5, 0.0, 1.0, low_open=True, high_open=True)
    with pytest.raises(UserError, match="0 < number"):
        check_number("x", 0.0, 0.0, 1.0, low_open=True)
    with pytest.raises(UserError, match="number < 1"):
        check_number("x", 1.0, 0.0, 1.0, high_open=True)


def test_check_number_without_bounds_still_wants_it_finite():
    check_number("x", -1e300)
    with pytest.raises(UserError, match="any finite number"):
        check_number("x", math.nan)


@pytest.mark.parametrize("value", [1, 5, 10])
def test_check_integer_accepts_the_interval_with_its_ends(value):
    check_integer("n", value, 1, 10)


@pytest.mark.parametrize("value", [0, 11, 2.0, "3", None, True])
def test_check_integer_refuses_all_else(value):
    with pytest.raises(UserError, match="a whole number 1 to 10"):
        check_integer("n", value, 1, 10)


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)
