"""Equivalence of two modes of training, by a paired interval."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import parity


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
