"""The benchmark of packings: its figure, and what it says where there is no GPU."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import packing
from tune_ssl.packing import Packing


def packings(*rates: float) -> list[Packing]:
    """Return packings of 1, 2, 4, ... trainings with these rates."""
    return [
        Packing(trials=2**place, steps_per_second=rate, megabytes=100)
        for place, rate in enumerate(rates)
    ]


@pytest.mark.parametrize(
    ("rates", "best", "ratio"),
    [((100.0, 180.0, 260.0), 4, 2.6), ((100.0, 160.0, 161.0), 2, 1.6), ((100.0, 90.0), 1, 1.0)],
)
def test_the_figure_is_of_the_packing_a_search_would_take(rates, best, ratio):
    row = packing.figures(packings(*rates))
    assert (row["best"], row["times_one_alone"]) == (best, ratio)
    assert [one["trials"] for one in row["packings"]] == [1, 2, 4][: len(rates)]
    assert f"best {best} at once, {ratio:.2f} x" in packing.as_text("digits", "ict", row)


def test_where_there_is_no_gpu_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["packing"])
    packing.main()
    assert capsys.readouterr().out == "not measured: torch sees no GPU here for --device cuda\n"


@pytest.mark.slow
def test_a_short_run_trains_side_by_side(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(packing, "RECORD", tmp_path / "record.json")
    arguments = ["--device", "cpu", "--settings", "digits", "--methods", "supervised"]
    more = ["--precision", "float32", "--seconds", "0.5", "--most", "2", "--record"]
    monkeypatch.setattr(sys, "argv", ["packing", *arguments, *more])
    packing.main()
    assert "1: " in capsys.readouterr().out
    assert '"digits, supervised on cpu"' in (tmp_path / "record.json").read_text()
