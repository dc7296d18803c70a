"""Networks in one program: the same steps as one after the other, and a record of the same shape."""

from __future__ import annotations

import json
import sys

import torch

from benchmarks import vmapped
from ssl_core.models.wide_resnet import build_model


def test_both_ways_take_the_same_steps(monkeypatch):
    monkeypatch.setattr(vmapped, "RATE", 0.1)
    networks = [
        build_model(
            "wrn-10-1", in_channels=1, num_classes=10, generator=torch.Generator().manual_seed(seed)
        )
        for seed in range(3)
    ]
    images, labels = torch.randn(3, 8, 1, 8, 8), torch.randint(10, (3, 8))
    before = networks[0].classifier.weight.clone()
    together, weights = vmapped.in_one_program(networks, images, labels)
    alone = vmapped.one_after_the_other(networks, images, labels)
    for run in (together, alone):
        run()
        run()
    assert not torch.allclose(networks[0].classifier.weight, before)
    for number, network in enumerate(networks):
        for name, weight in network.named_parameters():
            theirs = weights[name][number]
            torch.testing.assert_close(theirs, weight.detach(), rtol=1e-3, atol=1e-4)


def test_a_short_run_makes_a_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vmapped, "RECORD", tmp_path / "record.json")
    arguments = ["--counts", "1,2", "--steps", "1", "--turns", "1", "--record"]
    monkeypatch.setattr(sys, "argv", ["vmapped", *arguments])
    vmapped.main()
    rows = json.loads((tmp_path / "record.json").read_text())["digits on cpu"]["rows"]
    assert [row["networks"] for row in rows] == [1, 2]
    for row in rows:
        alone, together = (row["milliseconds"][name] for name in ("alone", "together"))
        assert abs(row["together_over_alone"] - together / alone) < 0.05
    assert capsys.readouterr().out.count("together over alone") == 2
