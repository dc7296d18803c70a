"""What a comparison found: as a table in the terminal, Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tune_ssl.references import LARGEST_POOL
from tune_ssl.run import SEARCHED
from tune_ssl.text import duration, method_text, percent
from tune_ssl.views.judged import (
    NAMED_BY_THESE,
    collapse_warnings,
    conditions_text,
    diverged_warnings,
    format_figures,
    in_a_line,
    opening_warnings,
    points_text,
    print_figures,
    test_headings,
    test_texts,
)

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def print_compared(result: Mapping[str, Any]) -> None:
    """Print the figures of a comparison on stdout, in the order of validation."""
    print_figures(headings(result), _sides(result), rows(result), notes(result))


def format_compared(result: Mapping[str, Any], form: str) -> str:
    """Return the figures as ``json`` (everything), ``csv`` (a row each), ``markdown`` or ``latex``."""
    if form == "latex":
        return _latex(result)
    flat = [_flat(row, result) for row in [*result["cells"], *result["references"]]]
    return format_figures(result, form, flat, headings(result), rows(result), notes(result))


def headings(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what stands above the columns; no test figure without the number of its opening."""
    return (
        "cell",
        "trials\n(full length)",
        "search\nvalidation",
        "retrained\nvalidation",
        *test_headings(result),
        "group",
        f"points above {result['control']}\n(95 %)",
        "",
        "search took\n(device time)",
    )


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each cell, the winner first, then the reference lines."""
    return [
        *(
            (
                row["name"],
                f"{row['trials']} ({row['complete']})",
                percent(row["search_validation"]),
                percent(row["validation"]),
                *_test_columns(row),
                duration(row["device_seconds"]),
            )
            for row in result["cells"]
        ),
        *((row["name"], "", "", "", *_test_columns(row), "") for row in result["references"]),
    ]


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return what the table's figures are about."""
    test, searches, draws = result["test"], result["searches"], result["draws"]
    winner = result["cells"][0]
    times = f"{searches} x {draws}" if searches > 1 else f"{draws}"
    told = [
        f"Winner by the validation of {times} retrainings, named before the test set was opened: "
        f"{result['winner']}{_found(winner)}. {NAMED_BY_THESE}",
        f"Test: {test['images']} images of {test['dataset']}, opening {test['opening']}; {result['labels']} labels to "
        f"train + {result['validation_images']} to choose. Intervals cover draws of labels, seeds and test images; "
        "groups, differences and verdicts are paired and hold together over the table; cells that share a "
        f"letter are not distinguishable. {result['caption'].capitalize()}.",
    ]
    if result["references"]:
        names = " and ".join(row["name"] for row in result["references"])
        told.append(f"{names}: without a network and not tuned, on the same draws of labels.")
    if "LabelSpreading" not in {row["name"] for row in result["references"]}:
        told.append(
            f"LabelSpreading is left out: its graph is of all pairs, and more than {LARGEST_POOL:,} images take hours."
        )
    told += [*_entropy_text(result), *_could_tell(result), *conditions_text(result)]
    told += diverged_warnings(result["cells"], searches * draws)
    told += collapse_warnings({row["name"]: row["searched"] for row in result["cells"]})
    told += [
        f"warning: {name} is left out: a search of it has no trial of full length."
        for name in result["left_out"]
    ]
    return told + opening_warnings(test["opening"])


def _entropy_text(result: Mapping[str, Any]) -> list[str]:
    """Return a note where cells minimise entropy, too, which their names do not say."""
    weight = result.get("settings", {}).get("entropy_min", 0.0)
    if weight == 0:
        return []
    how = "its weight searched" if weight == SEARCHED else f"with weight {weight:g}"
    return [f"All cells but {result['control']} minimise entropy, too, {how}."]


def _could_tell(result: Mapping[str, Any]) -> list[str]:
    """Return how large a difference from the control the table could tell from none."""
    differences = [row["minus_control"] for row in result["cells"] if row["minus_control"]]
    if not differences:
        return []
    half = [50 * (one["high"] - one["low"]) for one in differences]
    needed = f"{half[0]:.1f} points"
    if len(half) > 1:
        middle = statistics.median(half)
        needed = f"{min(half):.1f} to {max(half):.1f} points, by cell (median {middle:.1f}),"
    return [
        f"A difference from {result['control']} had to be {needed} to be told from none: not distinguishable "
        "is not equal."
    ]


def _sides(result: Mapping[str, Any]) -> str:
    """Return an l or r for each column."""
    return f"lrrr{'r' * len(test_headings(result))}lrlr"


def _test_columns(row: Mapping[str, Any]) -> tuple[str, ...]:
    difference = row["minus_control"]
    return (
        *test_texts(row),
        " ".join(row["letters"]),
        "" if difference is None else points_text(difference),
        str(row["verdict"]),
    )


def _found(row: Mapping[str, Any]) -> str:
    """Return which method and divergence a joint search chose, where the cell's name does not say."""
    found = [method_text(one["algorithm"], one["divergence"]) for one in row["searched"]]
    names = list(dict.fromkeys(found))
    return "" if names == [row["name"]] else f" (found: {', '.join(names)})"


def _latex(result: Mapping[str, Any]) -> str:
    """Return a table that needs no package; the caption says what the intervals are about."""
    lines = [in_a_line(headings(result)), *rows(result)]
    first, *rest = (" & ".join(map(_escaped, line)) + r" \\" for line in lines)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{_sides(result)}}}",
            r"\hline",
            first,
            r"\hline",
            *rest,
            r"\hline",
            r"\end{tabular}",
            rf"\caption{{{_escaped(' '.join(notes(result)))}}}",
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def _flat(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    difference = row["minus_control"] or {}
    plain = ("trials", "complete", "device_seconds", "search_validation", "validation", "diverged")
    return {
        "cell": row["name"],
        "winner": row["name"] == result["winner"],
        "algorithm": row.get("algorithm", ""),
        "divergences": " ".join(name for name in row.get("divergences", ()) if name),
        **{key: row.get(key, "") for key in plain},
        "searches": result["searches"],
        "draws": result["draws"],
        "opening": result["test"]["opening"],
        **{f"test.{key}": value for key, value in row["test"].items()},
        **{f"accuracy.{key}": value for key, value in row.get("accuracy", {}).items()},
        "letters": " ".join(row["letters"]),
        **{f"minus_control.{key}": difference.get(key, "") for key in ("mean", "low", "high")},
        "verdict": row["verdict"],
    }
