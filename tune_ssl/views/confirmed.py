"""What a confirmation found: as a table in the terminal, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_ssl.text import method_text, percent
from tune_ssl.views.judged import (
    NAMED_BY_THESE,
    collapse_warnings,
    conditions_text,
    diverged_warnings,
    format_figures,
    opening_warnings,
    points_text,
    print_figures,
    test_headings,
    test_texts,
)


def print_confirmed(result: Mapping[str, Any]) -> None:
    """Print the figures of a confirmation on stdout, in the order of validation."""
    sides = "l" + "r" * (len(headings(result)) - 2) + "l"
    print_figures(headings(result), sides, rows(result), notes(result))


def format_confirmed(result: Mapping[str, Any], form: str) -> str:
    """Return the figures as ``json`` (everything), ``csv`` (a row each) or ``markdown``."""
    flat = [_flat(row, result) for row in result["configurations"]]
    return format_figures(result, form, flat, headings(result), rows(result), notes(result))


def headings(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what stands above the columns; no test figure without the number of its opening."""
    return (
        "configuration",
        "search\nvalidation",
        "retrained\nvalidation",
        *test_headings(result),
        "points from the winner\n(95 %)",
        "",
    )


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each configuration, the winner first."""
    return [
        (
            _name(row, result),
            percent(row["origin"]["validation"]) if "validation" in row["origin"] else "",
            percent(row["validation"]),
            *test_texts(row),
            "" if row["minus_winner"] is None else points_text(row["minus_winner"]),
            _verdict(row, result),
        )
        for row in result["configurations"]
    ]


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return what the table's figures are about, and what the search promised too much."""
    test = result["test"]
    winner = next(row for row in result["configurations"] if row["name"] == result["winner"])
    told = [
        f"Winner by the validation of {result['draws']} retrainings, named before the test set was opened: "
        f"{result['winner']}, {_method(winner)}. {NAMED_BY_THESE}",
        f"Test: {test['images']} images of {test['dataset']}, opening {test['opening']}. Intervals cover draws "
        "of labels, seeds and test images; differences are paired and hold together; "
        f"{result['caption']}.",
    ]
    optimism = result["optimism"]
    if optimism is not None:
        told.append(_optimism_text(optimism, test["opening"]))
    told += conditions_text(result)
    told += diverged_warnings(result["configurations"], result["draws"])
    told += collapse_warnings({row["name"]: [row] for row in result["configurations"]})
    return told + opening_warnings(test["opening"])


def _method(row: Mapping[str, Any]) -> str:
    return method_text(row["algorithm"], row["divergence"])


def _name(row: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return the configuration's name, with its method where there are several."""
    methods = {_method(other) for other in result["configurations"]}
    return str(row["name"]) if len(methods) == 1 else f"{row['name']}, {_method(row)}"


def _verdict(row: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    if row["name"] == result["winner"]:
        return "winner"
    return str(row["verdict"])


def _optimism_text(optimism: Mapping[str, Any], opening: int) -> str:
    luck = optimism["by_chance"]
    verdict = "within" if abs(optimism["excess"]["mean"]) <= luck else "beyond"
    told = (
        f"Optimism of the search: on its own draw of labels {optimism['of']} stood {points_text(optimism['excess'])} "
        f"points further above the {optimism['beside']} than on other draws. That is {verdict} what one draw's "
        f"luck makes without any choosing ({100 * luck:.1f} points either way)."
    )
    bootstrap = optimism["bootstrap"]
    if bootstrap is not None:
        told += f" Choosing on these validation images alone: {100 * bootstrap['excess']:+.1f}."
    return told


def _flat(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        f"{key}.{name}": value
        for key in ("test", "accuracy", "minus_winner", "parameters")
        for name, value in (row.get(key) or {}).items()
    }
    return {
        "configuration": row["name"],
        "winner": row["name"] == result["winner"],
        "algorithm": row["algorithm"],
        "divergence": row["divergence"],
        "search_validation": row["origin"].get("validation"),
        "validation": row["validation"],
        "draws": result["draws"],
        "opening": result["test"]["opening"],
        "verdict": row["verdict"],
        **nested,
    }
