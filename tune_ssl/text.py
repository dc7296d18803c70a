"""Small pieces of text: shares, durations, sizes, methods."""

from __future__ import annotations


def percent(share: float) -> str:
    """Return a share in [0, 1] as percent with one decimal."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Return a duration as its two largest units: 42 s, 3 min 05 s, 2 h 10 min, 1 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def method_text(algorithm: str, divergence: str | None) -> str:
    """Return a method and its divergence as people write them."""
    return algorithm if divergence is None else f"{algorithm} / {divergence}"


def counted(count: int, noun: str) -> str:
    """Return how many there are of something: 1 trial, 2 trials."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def times(count: int) -> str:
    """Return how often, in words: once, 2 times."""
    return "once" if count == 1 else f"{count} times"
