"""What a confirmation found: as a table in the terminal, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tune_ssl.text import method_text, percent
from tune_ssl.views.messages import say
from tune_ssl.views.tables import metric_name

WIDER_THAN_A_TABLE = 400
"""In characters: a narrow terminal breaks lines, where rich would cut figures."""


def print_confirmed(result: Mapping[str, Any]) -> None:
    """Print the figures of a confirmation on stdout, in the order of validation."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    first, *figures, last = headings(result)
    table.add_column(first, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(last, no_wrap=True)
    for row in rows(result):
        table.add_row(*row)
    Console(highlight=False, width=WIDER_THAN_A_TABLE).print(table)
    console = Console(highlight=False)
    for note in notes(result):
        say(console, note)


def format_confirmed(result: Mapping[str, Any], form: str) -> str:
    """Return the figures as ``json`` (everything), ``csv`` (a row each) or ``markdown``."""
    if form == "json":
        return json.dumps(result, indent=2) + "\n"
    if form == "csv":
        return _csv(result)
    titles = [heading.replace("\n", " ") for heading in headings(result)]
    lines = [
        f"| {' | '.join(titles)} |",
        f"|{'---|' * len(titles)}",
        *(f"| {' | '.join(row)} |" for row in rows(result)),
        "",
        *notes(result),
    ]
    return "\n".join(lines) + "\n"


def headings(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what stands above the columns; no test figure without the number of its opening."""
    return (
        "configuration",
        "search\nvalidation",
        "retrained\nvalidation",
        f"test {metric_name(result)}, opening {result['test']['opening']}\n(95 %)",
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
            interval_text(row["test"]),
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
        f"{result['winner']}, {_method(winner)}.",
        f"Test: {test['images']} images of {test['dataset']}, opening {test['opening']}. Intervals cover draws "
        "of labels, seeds and test images; differences are paired and hold together; "
        f"{result['caption']}.",
    ]
    optimism = result["optimism"]
    if optimism is not None:
        told.append(_optimism_text(optimism, test["opening"]))
    told += [
        f"warning: {row['diverged']} of {result['draws']} retrainings of {row['name']} became non-finite and "
        "count as all wrong."
        for row in result["configurations"]
        if row["diverged"]
    ]
    if test["opening"] > 1:
        told.append(
            f"These test images have judged {test['opening'] - 1} times before: what was chosen since may have "
            "been chosen by them."
        )
    return told


def interval_text(values: Mapping[str, float]) -> str:
    """Return a mean and its interval in percent: 90.1 % (87.0 to 93.2)."""
    mean, low, high = (f"{100 * values[key]:.1f}" for key in ("mean", "low", "high"))
    return f"{mean} % ({low} to {high})"


def points_text(values: Mapping[str, float]) -> str:
    """Return a difference and its interval in points: -3.1 (-5.0 to -1.2)."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(
        *(100 * values[key] for key in ("mean", "low", "high"))
    )


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
    told = (
        f"Optimism of the search: {points_text(optimism['excess'])} points that {optimism['of']} showed above "
        f"the {optimism['beside']} and does not keep on other draws; without choosing it would lie within "
        f"{100 * optimism['by_chance']:.1f} of 0."
    )
    bootstrap = optimism["bootstrap"]
    if bootstrap is not None:
        told += f" Choosing on these validation images alone: {100 * bootstrap['excess']:+.1f}."
    return told


def _csv(result: Mapping[str, Any]) -> str:
    text = io.StringIO()
    flat = [_flat(row, result) for row in result["configurations"]]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        f"{key}.{name}": value
        for key in ("test", "minus_winner", "parameters")
        for name, value in (row[key] or {}).items()
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
