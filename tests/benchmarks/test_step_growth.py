"""How step times grow, and what a trial's start costs."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import step_growth, trial_start


def rows(exponent: float) -> list[dict]:
    return [
        {"swept": "batch", "gigaflop": work, "milliseconds": {"float32": 7.0 * work**exponent}}
        for work in (1.0, 4.0, 16.0)
    ]


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_the_slope_is_the_exponent_of_time_over_operations(exponent):
    others = [{"swept": "width", "gigaflop": 1.0, "milliseconds": {"float32": 1e6}}]
    assert step_growth.slope(rows(exponent) + others, "batch", "float32") == exponent


def test_a_start_is_the_first_step_without_a_later_one(monkeypatch):
    clock = iter([0.0, 0.5, 1.0, 1.1, 2.0, 2.3, 3.0, 3.1])
    monkeypatch.setattr(trial_start.time, "perf_counter", lambda: next(clock))

    class Work:
        finite = True

        def run(self, until):
            self.step = until

    assert trial_start.started(lambda record: Work(), {}, 3) == pytest.approx(0.5 - 0.1)


@pytest.mark.slow
def test_short_runs_make_records_and_a_plot(tmp_path, monkeypatch):
    monkeypatch.setattr(step_growth, "RECORD", tmp_path / "growth.json")
    monkeypatch.setattr(step_growth, "BASE", {"depth": 10, "width": 1, "batch": 4, "size": 8})
    monkeypatch.setattr(step_growth, "SWEEPS", {"batch": (4, 8), "size": (8, 16)})
    plot = tmp_path / "plot.svg"
    arguments = ["--turns", "1", "--record", "--plot", str(plot)]
    monkeypatch.setattr(sys, "argv", ["step_growth", *arguments])
    step_growth.main()
    growth = json.loads((tmp_path / "growth.json").read_text())
    assert len(growth["rows"]) == 4
    assert growth["rows"][1]["gigaflop"] == pytest.approx(
        2 * growth["rows"][0]["gigaflop"], rel=0.5
    )
    assert plot.read_text().count("<svg") == 1

    monkeypatch.setattr(trial_start, "RECORD", tmp_path / "start.json")
    arguments = [
        "--settings",
        "digits",
        "--methods",
        "ict",
        "--trials",
        "1",
        "--steps",
        "1",
        "--record",
    ]
    monkeypatch.setattr(sys, "argv", ["trial_start", *arguments])
    trial_start.main()
    [row] = json.loads((tmp_path / "start.json").read_text())["digits on cpu"]["rows"]
    assert row["resident_megabytes"] > 100

    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    monkeypatch.setattr(sys, "argv", ["trial_start", *arguments, "--compile"])
    trial_start.main()
    recorded = json.loads((tmp_path / "start.json").read_text())
    [compiled] = recorded["digits on cpu, compiled"]["rows"]
    assert compiled.keys() == row.keys() | {"first_start_seconds"}
