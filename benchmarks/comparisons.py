"""The tables of docs/digits.md: ``tune-ssl compare`` itself, and what it said kept whole.

    python -m benchmarks.comparisons digits-20 --record

A comparison is a run below ``--output``: stopped, the same command goes on with it, and finished, it is
only read. The record holds every figure with the configurations behind it, and which image each
retraining classified correctly.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.records import keep
from ssl_core.names import ALGORITHM_NAMES, DIVERGENCE_NAMES
from tune_ssl.text import percent
from tune_ssl.views.compared import format_compared
from tune_ssl.views.judged import points_text

RECORD = Path(__file__).with_name("comparisons.json")

FULL = ("--alg", "all", "--divergence", "all", "--trials", "20", "--seeds", "20")
COMPARISONS: dict[str, tuple[str, ...]] = {
    "digits-20": (*FULL, "--labels", "20"),
    "digits-50": (*FULL, "--labels", "50"),
    "digits-20-repeats": (
        *("--alg", "supervised,pi_model,mean_teacher,ict", "--divergence", "mse,kl"),
        *("--trials", "20", "--repeats", "5", "--seeds", "10", "--labels", "20"),
    ),
}
"""What is compared, as ``tune-ssl compare`` is told it."""


def main() -> None:
    """Compare or read, print, and with ``--record`` write down."""
    options = _options()
    result = compared(options.name, options.output)
    print(as_text(result))
    if options.record:
        keep(RECORD, options.name, {"compare": list(COMPARISONS[options.name])} | result)


def compared(name: str, output: str) -> dict[str, Any]:
    """Return what a comparison found; it is begun, gone on with, or read."""
    command = [Path(sys.executable).with_name("tune-ssl"), "compare", *COMPARISONS[name]]
    command += ["--name", name, "--output", output, "--no-dashboard", "--format", "json"]
    ended = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def as_text(result: Mapping[str, Any]) -> str:
    """Return the matrix, which divergences of a method are apart, and the whole table, as Markdown."""
    return "\n\n".join([matrix(result), apart_text(result), format_compared(result, "markdown")])


def matrix(result: Mapping[str, Any]) -> str:
    """Return test accuracies with their intervals, a row for each method, a column for each divergence."""
    columns = [name for name in DIVERGENCE_NAMES if name in _by_divergence(result)]
    lines = [["method", *columns], ["---"] * (1 + len(columns))]
    for method in ALGORITHM_NAMES:
        cells = {_divergence(row): row for row in result["cells"] if row["algorithm"] == method}
        if cells:
            named = [_accuracy(cells.get(column)) for column in columns]
            alone = cells.get(None)
            lines.append([method, *(named if alone is None else _once(alone, len(columns)))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def apart(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of one method's cells that are distinguishable, the better one first."""
    found = []
    for method in ALGORITHM_NAMES:
        rows = [row for row in result["cells"] if row["algorithm"] == method]
        rows.sort(key=lambda row: -row["test"]["mean"])
        found += [
            (one["name"], other["name"])
            for place, one in enumerate(rows)
            for other in rows[place + 1 :]
            if not set(one["letters"]) & set(other["letters"])
        ]
    return found


def apart_text(result: Mapping[str, Any]) -> str:
    """Return in words which divergences of one method are distinguishable, and what beats supervised."""
    pairs = apart(result)
    told = ", ".join(f"{one} above {other}" for one, other in pairs) or "none"
    above = [
        f"{row['name']} {points_text(row['minus_control'])}"
        for row in result["cells"]
        if row["verdict"] == "better"
    ]
    of = sum(row["name"] != result["control"] for row in result["cells"])
    return (
        f"Divergences of one method that are distinguishable: {told}.\n"
        f"Better than tuned supervised: {len(above)} of {of}: {', '.join(above)}."
    )


def _by_divergence(result: Mapping[str, Any]) -> set[str | None]:
    return {_divergence(row) for row in result["cells"]}


def _divergence(row: Mapping[str, Any]) -> str | None:
    (name,) = row["divergences"]
    return None if name is None else str(name)


def _accuracy(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    test = row["test"]
    return f"{percent(test['mean'])} ({100 * test['low']:.1f} to {100 * test['high']:.1f})"


def _once(row: Mapping[str, Any], columns: int) -> list[str]:
    """Return a method's only accuracy in the first column: it has no divergence."""
    return [_accuracy(row), *[""] * (columns - 1)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=COMPARISONS)
    parser.add_argument("--output", default="runs", help="folder that holds the runs")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
