"""Step times: a short run makes a record, and ratios are of paired turns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import step_time

OURS = {"float32", "bfloat16", "compiled float32", "compiled bfloat16"}


def test_a_ratio_is_the_median_over_turns():
    assert step_time._median_ratio([4.0, 9.0, 2.0], [2.0, 3.0, 2.0]) == 2.0


def test_the_images_stand_for_cifar10():
    images = step_time.random_images(200)
    assert images.images.shape == (200, 3, 32, 32)
    assert set(images.labels) == set(range(10))
    assert not set(images.validation) & set(images.unlabeled)


@pytest.mark.slow
def test_a_short_run_makes_a_record_of_the_same_shape(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(step_time, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(step_time, "SETTINGS", {"digits": ("digits", "wrn-10-1", 50, 2)})
    monkeypatch.setattr(step_time, "SECONDS_BETWEEN_TURNS", 0.0)
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: compiled.append(network) or network)
    arguments = [
        *("--settings", "digits", "--methods", "supervised,mixmatch"),
        *("--turns", "1", "--compiled", "--record"),
    ]
    monkeypatch.setattr(sys, "argv", ["step_time", *arguments])
    step_time.main()
    made = json.loads((tmp_path / "record.json").read_text())["digits on cpu, compiled"]
    assert [row["method"] for row in made["rows"]] == ["supervised", "mixmatch"]
    for row in made["rows"]:
        assert {"plain", "float32", "bfloat16"} <= row["milliseconds"].keys()
        assert row["times_faster"].keys() == OURS
        assert row["seconds_to_compile"].keys() == {"compiled float32", "compiled bfloat16"}
        assert min(row["milliseconds"].values()) > 0
    supervised, mixmatch = made["rows"]
    assert supervised["of_the_ceiling"].keys() == OURS
    assert supervised["reachable"].keys() == {"float32", "bfloat16"}
    for precision, share in supervised["reachable"].items():
        spent = supervised["milliseconds"]
        own, rest = spent[f"convolutions {precision}"], spent[f"passes {precision}"]
        assert share == pytest.approx(own / (own + rest), abs=0.01)
    flops = 2.2e8  # of WRN-10-1 on 50 digits, forward and backward
    for precision, share in supervised["of_the_peak"].items():
        spent = supervised["milliseconds"]
        peak = 2 * 1024**3 / spent[f"peak {precision}"]
        assert share == pytest.approx(flops / spent[precision] / peak, rel=0.2)
    assert "of_the_ceiling" not in mixmatch
    assert capsys.readouterr().out.count("faster than plain") == 2
    # Student and teacher of two methods in two precisions, and of no other training.
    assert len(compiled) == 8


def test_the_page_shows_the_recorded_steps_and_what_bounds_them():
    page = (Path(__file__).parents[2] / "docs/speed.md").read_text()
    recorded = json.loads(step_time.RECORD.read_text())
    for setting in ("digits on cpu", "cifar10 on cpu"):
        for row in recorded[setting]["rows"]:
            spent, faster = row["milliseconds"], row["times_faster"]
            places = 1 if setting.startswith("digits") else 0
            cells = [f"{spent['plain']:.{places}f}"]
            for precision in ("float32", "bfloat16"):
                cells += [f"{spent[precision]:.{places}f}", f"{faster[precision]:.2f}"]
            assert f"| {row['method']} | {' | '.join(cells)} |" in page
    for row in recorded["cifar10 on cpu, compiled"]["rows"]:
        spent, faster, it = row["milliseconds"], row["times_faster"], "compiled bfloat16"
        cells = [f"{spent['bfloat16']:.0f}", f"{spent[it]:.0f}"]
        cells += [f"{faster['bfloat16']:.2f}", f"{faster[it]:.2f}"]
        cells += [f"{row['seconds_to_compile'][it]:.0f}"]
        assert f"| {row['method']} | {' | '.join(cells)} |" in page
    most = recorded["digits on cpu"]["rows"][0]["times_faster_at_most"]
    assert f"would make {most['float32']:.2f} x" in page
    assert f"(bfloat16 {most['bfloat16']:.2f})" in page
    assert max(most.values()) < 2
