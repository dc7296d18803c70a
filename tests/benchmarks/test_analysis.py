"""The figures of docs/analysis.md are those of the record."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from benchmarks.analysis import METHODS, RECORD
from tune_ssl.views import report

PAGE = (Path(__file__).parents[2] / "docs/analysis.md").read_text()
RECORDED = json.loads(RECORD.read_text())


def short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def test_errors_of_importances():
    ways = {row["way"] for row in RECORDED["importance"]}
    for way in ways:
        errors = {
            row["method"]: row["error"] for row in RECORDED["importance"] if row["way"] == way
        }
        assert f"| {' | '.join(short(errors[method]) for method in METHODS)} |" in PAGE
    assert RECORDED["replays"] == 20
    best = [row for row in RECORDED["importance"] if row["way"] == "all at the first rung"]
    assert {row["first_is_right"] for row in best} == {1.0}


def test_what_intervals_of_importances_cover():
    for row in RECORDED["coverage"]:
        cells = [
            f"{row[what]['most']:.2f}, {row[what]['others']:.2f}"
            for what in ("first_rung", "full_length", "told_from_dummy")
        ]
        assert f"| {row['method']} | {' | '.join(cells)} |" in PAGE
        assert min(row["first_rung"].values()) >= 0.9, "wide rather than short"
        assert row["full_length"]["most"] < 0.5, "another one at the end"


def test_flat_ranges():
    for row in RECORDED["flatness"]:
        width = row["width"]
        widths = ", ".join(short(width[name]) for name in ("surely", "likely", "at_most"))
        told = (row["sure_is_flat"], row["flat_is_possible"], width["true"])
        assert f"| {row['trials']} | {' | '.join(map(short, told))} | {widths} |" in PAGE


def test_what_a_report_says_of_flat_ranges():
    said = " ".join("".join(re.findall(r'"(.*?)"', inspect.getsource(report._flatness))).split())
    sure, possible = (
        [round(100 * row[what]) for row in RECORDED["flatness"]]
        for what in ("sure_is_flat", "flat_is_possible")
    )
    assert f"was flat in {min(sure)} to {max(sure)} % of cases" in said
    assert f"than the second in {min(possible)} to {max(possible)} %" in said
