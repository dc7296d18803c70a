"""What cross-validation found: as a table in the terminal, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_ssl.text import method_text, percent, times
from tune_ssl.views.judged import (
    diverged_warnings,
    format_figures,
    interval_text,
    points_text,
    print_figures,
)
from tune_ssl.views.tables import metric_name

SIDES = "lrrrl"


def print_cross_validated(result: Mapping[str, Any]) -> None:
    """Print the figures of a cross-validation on stdout, in the search's order."""
    print_figures(headings(result), SIDES, rows(result), notes(result))


def format_cross_validated(result: Mapping[str, Any], form: str) -> str:
    """Return the figures as ``json`` (everything), ``csv`` (a row each) or ``markdown``."""
    flat = [_flat(row, result) for row in result["configurations"]]
    return format_figures(result, form, flat, headings(result), rows(result), notes(result))


def headings(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what stands above the columns."""
    first = result["configurations"][0]["name"]
    return (
        "configuration",
        "search\nvalidation",
        f"{metric_name(result)} on labels held out\n(95 %)",
        f"points from {first}\n(95 %)",
        "",
    )


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each configuration, in the search's order."""
    return [
        (
            f"{row['name']}, {method_text(row['algorithm'], row['divergence'])}",
            percent(row["origin"]["validation"]),
            interval_text(row["accuracy"]),
            "" if row["minus_first"] is None else points_text(row["minus_first"]),
            row["verdict"],
        )
        for row in result["configurations"]
    ]


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return what was done, what the intervals are about, and why the figures are not sealed."""
    labels, folds, repeats = len(result["images"]), result["folds"], result["repeats"]
    first = result["configurations"][0]["name"]
    told = [
        f"Cross-validation: the {labels} labels of {result['dataset']} in {folds} folds, {times(repeats)}; each of "
        f"{result['trainings']} trainings of a configuration had at most {result['searched_to_train']} labels of other folds and is "
        "judged on its fold. No test image was opened.",
        f"Not sealed, hence optimistic: {_seen(result)}, and put {first} first by them, whose figure and "
        "lead keep part of the search's luck. Only images that no search has seen are free of it.",
        "Intervals: corrected resampled t (Nadeau & Bengio 2003); differences are paired by folds and hold "
        "together. They do not cover the choice of the search"
        + ("; indicative." if result["indicative"] else "."),
    ]
    return told + diverged_warnings(result["configurations"], result["trainings"])


def _seen(result: Mapping[str, Any]) -> str:
    trained, chosen = result["searched_to_train"], result["searched_to_choose"]
    if result["searched_reshuffled"]:
        return f"every trial of the search trained on {trained} of these labels and was measured on the others"
    return f"the search trained on {trained} of these labels, measured its trials on the other {chosen}"


def _flat(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        f"{key}.{name}": value
        for key in ("accuracy", "minus_first", "parameters")
        for name, value in (row[key] or {}).items()
    }
    return {
        "configuration": row["name"],
        "algorithm": row["algorithm"],
        "divergence": row["divergence"],
        "search_validation": row["origin"]["validation"],
        "folds": result["folds"],
        "repeats": result["repeats"],
        "verdict": row["verdict"],
        **nested,
    }
