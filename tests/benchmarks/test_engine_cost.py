"""The engine's cost: both scripts run short, and what is recorded has the same shape."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import driver_cost, scale, suggestions, throughput
from benchmarks.throughput import Timing

COST = [
    ("tune-ssl", 100, 20.0),
    ("tune-ssl", 1000, 30.0),
    ("plain", 100, 40.0),
    ("plain", 1000, 60.0),
    ("plain without loggers", 100, 10.0),
    ("plain without loggers", 1000, 15.0),
]


def test_a_cost_is_compared_with_the_smallest_search_and_with_plain_ones_of_the_same_size():
    rows = [
        {"engine": engine, "trials": trials, "milliseconds_per_trial": cost}
        for engine, trials, cost in COST
    ]
    assert driver_cost.ratios(rows) == {
        "growth": 1.5,
        "plain": 0.5,
        "plain without loggers": 2.0,
    }


def test_a_search_that_takes_twice_as_long_has_half_the_throughput():
    searches = [Timing(whole=20.0, training=4.0), Timing(whole=30.0, training=4.0)]
    scripts = [Timing(whole=10.0, training=3.0), Timing(whole=15.0, training=3.0)]
    found = throughput.result(searches, scripts, steps=300)
    assert found["ratio"] == 0.5
    assert found["steady_ratio"] == 0.75
    assert found["search_steps_per_second"] == 12.5
    assert found["bare_steps_per_second"] == 25.0


def shape(value: Any) -> Any:
    """What a record is made of: its keys and types, not its figures."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    return "number" if isinstance(value, int | float) else type(value).__name__


def outline(value: Any) -> Any:
    """Return the shape of a record, a list's by its first entry: longer runs have longer lists."""
    if isinstance(value, dict):
        return {key: outline(entry) for key, entry in value.items()}
    return [outline(entry) for entry in value[:1]] if isinstance(value, list) else shape(value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "options"),
    [
        (driver_cost, "--trials 4 --repeats 1"),
        (throughput, "--trials 4 --max-steps 4 --repeats 1"),
    ],
)
def test_a_short_run_makes_a_record_of_the_same_shape(
    benchmark, options, tmp_path, monkeypatch, capsys
):
    kept = json.loads(benchmark.RECORD.read_text())
    short = tmp_path / "record.json"
    monkeypatch.setattr(benchmark, "RECORD", short)
    monkeypatch.setattr(sys, "argv", ["benchmark", *options.split(), "--record"])
    benchmark.main()
    made = json.loads(short.read_text())
    assert options in made["command"]
    assert outline(made) == outline(kept)
    assert capsys.readouterr().out.strip() == benchmark.as_text(made)


def short(number: float) -> str:
    """Return a number as the page writes it: of two digits behind the point, none before it if it is 0."""
    return f"{number:.2f}".removeprefix("0")


def test_the_page_s_table_of_costs_is_what_was_recorded_and_keeps_the_limits_it_names():
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
    table = page.split("## What the search itself costs")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    told = {label: figure for label, figure, *_ in rows}

    def figure(begins: str) -> str:
        [found] = [figure for label, figure in told.items() if label.startswith(begins)]
        return found

    ratios = json.loads(driver_cost.RECORD.read_text())["ratios"]
    assert figure("driver CPU for a trial") == f"{short(ratios['growth'])} x"
    assert figure("beside plain") == f"{short(ratios['plain'])} x"
    assert figure("the same with Tune's loggers") == f"{short(ratios['plain without loggers'])} x"
    assert ratios["growth"] <= 1.2
    assert ratios["plain"] <= 0.8

    speed = json.loads(throughput.RECORD.read_text())
    assert figure("optimiser steps") == ", ".join(map(short, sorted(speed["ratios"])))
    assert speed["ratio"] >= 0.9

    kept = json.loads(suggestions.RECORD.read_text())
    for begins, other in (("a suggestion", "stock"), ("the same beside TPE", "separate")):
        times = [
            kept[f"cost {space}"]["times_cheaper"][other][suggestions.DEFAULT]
            for space in suggestions.SPACES
        ]
        assert figure(begins) == " and ".join(f"{ratio:.0f} x" for ratio in times) + " cheaper"
    found = [
        kept[f"regret {space} after 10000"]["versus"]["stock"][suggestions.DEFAULT]
        for space in suggestions.SPACES
    ]
    limits = ", ".join(
        f"{row['mean']:+.2f} (at most {row['upper']:+.2f}, {row['seeds']} seeds)" for row in found
    )
    assert figure("regret beside stock") == f"{limits} points"

    large = json.loads(scale.RECORD.read_text())["10000 trials on 1000 slots"]
    assert figure("10,000 trials of an hour") == f"{100 * large['utilisation']:.1f} %"
    assert figure("the same until") == f"{100 * large['tail_utilisation']:.1f} % in the last hour"
    first, *_, last = large["resident_megabytes"]
    assert figure("memory of the driver") == f"{first:.0f} MB, {last:.0f} MB"
    opened, shown = (large["reopened"][name]["wall"] for name in ("open_seconds", "status_seconds"))
    assert figure("its journal") == f"{opened:.0f} s; {shown:.0f} s"
    decisions = f"{large['replay']['decisions']:,} decisions"
    assert f"all 10,000 suggestions and {decisions}" in page
