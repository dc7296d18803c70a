"""Errors that users can cause, and the checks that raise them.

Every message is one sentence that says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Input that cannot be used; the message tells the user what to change."""


class StoppedError(RuntimeError):
    """Work that was stopped from outside, by a full disk for one; the message says how to go on."""


def nearest(given: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name most like ``given``, or None where nothing is near."""
    names = {name.lower(): name for name in allowed}
    found = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    return names[found[0]] if found else None


def unknown_name(what: str, given: object, allowed: Sequence[str]) -> UserError:
    """Return the error for a name that is none of ``allowed``."""
    near = nearest(str(given), allowed)
    hint = f"did you mean {near!r}?" if near else "choose one of these."
    return UserError(f"unknown {what} {given!r}; allowed: {', '.join(allowed)}; {hint}")


def check_choice(what: str, given: object, allowed: Sequence[str]) -> None:
    """Raise UserError unless ``given`` is one of ``allowed``."""
    if given not in allowed:
        raise unknown_name(what, given, allowed)


def check_keys(what: str, given: Iterable[str], allowed: Sequence[str]) -> None:
    """Raise UserError naming the first key of ``given`` that is not allowed."""
    for key in given:
        if key not in allowed:
            raise unknown_name(f"key in {what}", key, allowed)


def check_number(
    name: str,
    given: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raise UserError unless ``given`` is a finite number in the interval.

    ``low_open`` and ``high_open`` exclude the bound itself.
    """
    number = not isinstance(given, bool) and isinstance(given, int | float)
    if number and abs(given) <= sys.float_info.max:  # type: ignore[arg-type]
        above = given > low if low_open else given >= low  # type: ignore[operator]
        below = given < high if high_open else given <= high  # type: ignore[operator]
        if above and below:
            return
    raise UserError(
        f"{name} is {given!r}; allowed: {_interval(low, high, low_open, high_open)}; "
        "give a number in that range."
    )


def check_integer(name: str, given: object, low: int, high: int | None = None) -> None:
    """Raise UserError unless ``given`` is an integer with low <= given <= high."""
    integer = isinstance(given, int) and not isinstance(given, bool)
    if integer and given >= low and (high is None or given <= high):  # type: ignore[operator]
        return
    allowed = f"a whole number >= {low}" if high is None else f"a whole number {low} to {high}"
    raise UserError(f"{name} is {given!r}; allowed: {allowed}; give such a number.")


def check_flag(name: str, given: object) -> None:
    """Raise UserError unless ``given`` is True or False."""
    if not isinstance(given, bool):
        raise UserError(f"{name} is {given!r}; allowed: true or false; give one of them.")


def check_text(name: str, given: object) -> None:
    """Raise UserError unless ``given`` is a text that is not empty."""
    if not isinstance(given, str) or not given:
        raise UserError(f"{name} is {given!r}; allowed: a text that is not empty; give one.")


def _interval(low: float, high: float, low_open: bool, high_open: bool) -> str:
    if low == -math.inf and high == math.inf:
        return "any finite number"
    lower = "" if low == -math.inf else f"{low:g} {'<' if low_open else '<='} "
    upper = "" if high == math.inf else f" {'<' if high_open else '<='} {high:g}"
    return f"{lower}number{upper}"
