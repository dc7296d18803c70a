"""Equivalence of two modes of training, by a paired interval."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import parity
from ssl_core.names import ALGORITHM_NAMES


def test_the_interval_is_that_of_students_t():
    found = parity.judged([0.01, -0.01, 0.02, -0.02, 0.0])
    # mean 0, deviation sqrt(.001 / 4) = .01581, t(.95; 4) = 2.1318, half width .01507
    assert found["difference"] == 0.0
    assert found["interval"] == [-0.0151, 0.0151]
    assert not found["equivalent"]


@pytest.mark.parametrize(
    ("shift", "equivalent"), [(0.0, True), (0.010, True), (0.016, False), (-0.016, False)]
)
def test_it_must_lie_within_the_margin_on_both_sides(shift, equivalent):
    differences = [shift + 0.001 * sign for sign in (1, -1) * 10]
    assert parity.judged(differences)["equivalent"] is equivalent


def test_compiled_trainings_are_as_accurate_as_the_page_says():
    recorded = json.loads(parity.RECORD.read_text())
    rows = [row for name, row in recorded.items() if name.endswith("bfloat16 and compiled")]
    assert {row["method"] for row in rows} == set(ALGORITHM_NAMES)
    assert all(row["equivalent"] for row in rows)
    seeds = {row["method"]: row["seeds"] for row in rows}
    assert seeds.pop("mixmatch") == 50
    assert set(seeds.values()) == {20}
    found = [100 * row["difference"] for row in rows]
    low, high = max((row["interval"] for row in rows), key=lambda ends: ends[1] - ends[0])
    page = (Path(__file__).parents[2] / "docs/speed.md").read_text()
    told = f"{min(found):+.1f} to {max(found):+.1f} points, the widest interval {100 * low:+.1f} to {100 * high:+.1f}"
    assert told in page


@pytest.mark.slow
def test_its_processes_may_use_a_gpu_that_was_asked_for_here():
    torch.cuda.is_available()
    with parity.spawned(1) as pool:
        assert not pool.submit(torch.cuda._is_in_bad_fork).result()


@pytest.mark.slow
def test_a_short_run_makes_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "RECORD", tmp_path / "record.json")
    arguments = [
        "--methods",
        "ict",
        "--seeds",
        "2",
        "--max-steps",
        "20",
        "--processes",
        "1",
        "--record",
    ]
    monkeypatch.setattr(sys, "argv", ["parity", *arguments])
    parity.main()
    [row] = json.loads((tmp_path / "record.json").read_text()).values()
    assert row["method"] == "ict"
    assert set(row["means"]) == {"float32", "bfloat16"}
    assert all(0 < mean < 1 for mean in row["means"].values())
    assert row["means"]["float32"] != row["means"]["bfloat16"]
