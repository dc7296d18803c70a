"""What tables that judge configurations have in common: their forms, figures and warnings."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from tune_ssl.statistics.repeats import COLLAPSE, collapsed
from tune_ssl.text import percent, times
from tune_ssl.views.messages import say
from tune_ssl.views.tables import metric_name

WIDER_THAN_A_TABLE = 400
"""In characters: a narrow terminal breaks lines, where rich would cut figures."""


def print_figures(
    headings: Sequence[str], sides: str, rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> None:
    """Print a table and the notes below it on stdout; ``sides`` has an l or r for each column."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading, side in zip(headings, sides, strict=True):
        table.add_column(heading, justify="left" if side == "l" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, width=WIDER_THAN_A_TABLE).print(table)
    console = Console(highlight=False)
    for note in notes:
        say(console, note)


def format_figures(
    result: Mapping[str, Any],
    form: str,
    flat: Sequence[Mapping[str, Any]],
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
) -> str:
    """Return figures as ``json`` (everything), ``csv`` (the flat rows) or ``markdown`` (the table)."""
    if form == "json":
        return json.dumps(result, indent=2) + "\n"
    return as_csv(flat) if form == "csv" else as_markdown(headings, rows, notes)


def as_markdown(
    headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """Return a table and the notes below it as Markdown."""
    lines = [
        f"| {' | '.join(in_a_line(headings))} |",
        f"|{'---|' * len(headings)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *notes,
    ]
    return "\n".join(lines) + "\n"


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return flat rows as CSV, with the columns of all of them."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def in_a_line(headings: Sequence[str]) -> list[str]:
    """Return headings without the line breaks they have in a terminal."""
    return [heading.replace("\n", " ") for heading in headings]


def interval_text(values: Mapping[str, float]) -> str:
    """Return a mean and its interval in percent: 90.1 % (87.0 to 93.2)."""
    mean, low, high = (f"{100 * values[key]:.1f}" for key in ("mean", "low", "high"))
    return f"{mean} % ({low} to {high})"


def test_headings(result: Mapping[str, Any]) -> list[str]:
    """Return what stands above test figures: the metric, then accuracy where that is another."""
    names = [metric_name(result)]
    if result["metric"] != "accuracy":
        names.append("accuracy")
    return [f"test {name}, opening {result['test']['opening']}\n(95 %)" for name in names]


def test_texts(row: Mapping[str, Any]) -> list[str]:
    """Return a row's figures below ``test_headings``."""
    return [interval_text(row[key]) for key in ("test", "accuracy") if key in row]


def conditions_text(result: Mapping[str, Any]) -> list[str]:
    """Return a note that names the conditions a result holds under, where there are any."""
    given = result.get("conditions", {})
    if not given:
        return []
    told = "; ".join(f"{name} {value}" for name, value in given.items())
    return [f"Conditions, as docs/conditions.md describes them: {told}."]


def points_text(values: Mapping[str, float]) -> str:
    """Return a difference and its interval in points: -3.1 (-5.0 to -1.2)."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(
        *(100 * values[key] for key in ("mean", "low", "high"))
    )


def diverged_warnings(rows: Sequence[Mapping[str, Any]], retrainings: int) -> list[str]:
    """Return a warning for each row of which some of so many retrainings became non-finite."""
    return [
        f"warning: {row['diverged']} of {retrainings} retrainings of {row['name']} became non-finite and "
        "count as all wrong."
        for row in rows
        if row["diverged"]
    ]


def collapse_warnings(named: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a warning where a configuration's retrainings collapse on few draws.

    Args:
        named: configurations by name, each with its ``retrainings``; those of several searches one after the other.
    """
    told = []
    for name, searches in named.items():
        worst, count, of = 1.0, 0, 0
        for search in searches:
            accuracies = np.array([line["test_accuracy"] for line in search["retrainings"]])
            of += len(accuracies)
            if collapsed(accuracies).any():
                count += int(collapsed(accuracies).sum())
                worst = min(worst, float(accuracies.min()))
        if count:
            told.append(f"{name} {count} of {of} (worst {percent(worst)})")
    if not told:
        return []
    return [
        f"warning: retrainings that lie more than {100 * COLLAPSE:.0f} points below the median of their "
        f"configuration's: {', '.join(told)}. Where one collapses on few draws, what is claimed of it is false more "
        "often than intervals say (docs/statistics.md, on real retrainings)."
    ]


NAMED_BY_THESE = (
    "Its own figure is a little high and its interval short, because these retrainings named it; differences allow "
    "for it."
)


def opening_warnings(opening: int) -> list[str]:
    """Return what a reader should know of test images that were opened before."""
    if opening == 1:
        return []
    return [
        f"These test images have judged {times(opening - 1)} before: what was chosen since may have "
        "been chosen by them."
    ]
