"""The README's table: the script runs short, and the recorded result has the same shape."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import digits_table
from ssl_core.data.config import CONDITIONS
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl.run import ADDED_SETTINGS

REFERENCES = ["1-NN", "LabelSpreading"]


def shape(value: Any) -> Any:
    """What a record is made of: its keys and types, not its figures."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_the_verdict_follows_the_interval() -> None:
    assert digits_table.verdict({"mean": 0.1, "low": 0.01, "high": 0.2}) == "better"
    assert digits_table.verdict({"mean": -0.1, "low": -0.2, "high": -0.01}) == "worse"
    assert digits_table.verdict({"mean": 0.1, "low": -0.01, "high": 0.2}) == "not distinguishable"
    assert digits_table.verdict(None) == ""


def test_differences_are_paired_and_hold_together() -> None:
    """A method that is right on exactly the same images differs by 0 with no width."""
    generator = np.random.default_rng(0)
    outcomes = (generator.random((6, 50)) < 0.8).astype(np.float64)
    better = np.maximum(outcomes, generator.random((6, 50)) < 0.5)
    rows = digits_table.table({"supervised": outcomes, "same": outcomes.copy(), "better": better})
    assert "difference" not in rows[0]
    assert rows[1]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    one = digits_table.crossed_interval(better - outcomes, clip=(-1, 1))
    assert rows[2]["difference"]["low"] < round(one.low, 4)
    assert rows[2]["difference"]["high"] > round(one.high, 4)


def test_references_are_judged_on_the_draws_asked_for() -> None:
    first, second = (digits_table.reference(draws, 20, "1-NN") for draws in ([1000], [1000, 1001]))
    assert second.shape == (2, 600)
    assert np.array_equal(first[0], second[0])
    assert not np.array_equal(second[0], second[1])
    assert 0.6 < second.mean() < 0.9


def test_the_record_names_every_method_and_says_how_it_was_measured() -> None:
    kept = json.loads(digits_table.RECORD.read_text())
    assert [row["method"] for row in kept["rows"]] == [*ALGORITHM_NAMES, *REFERENCES]
    assert kept["trials"] == 50
    assert kept["draws"] == 20
    assert kept["labels"] == 20
    assert kept["date"] >= "2026-11"


def test_the_readme_shows_the_recorded_table() -> None:
    kept = json.loads(digits_table.RECORD.read_text())
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert digits_table.as_markdown(kept["rows"]) in readme
    assert kept["date"] in readme


def test_the_readme_s_words_about_published_values_are_what_was_recorded() -> None:
    kept = json.loads(digits_table.RECORD.read_text())["validation"]
    unlabeled = [kept[name] for name in ALGORITHM_NAMES if name != "supervised"]
    published = [100 * values["published_default"] for values in unlabeled]
    best = [100 * values["best"] for values in unlabeled]
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    assert f"reached {min(published):.0f} to {max(published):.0f} %" in readme
    assert f"reached {min(best):.0f} to {max(best):.0f} %" in readme


@pytest.mark.slow
def test_a_short_run_makes_a_record_of_the_same_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = json.loads(digits_table.RECORD.read_text())
    short = tmp_path / "record.json"
    monkeypatch.setattr(digits_table, "RECORD", short)
    options = "--trials 2 --draws 2 --max-steps 18 --methods supervised,ict --record --output"
    monkeypatch.setattr(sys, "argv", ["digits_table", *options.split(), str(tmp_path / "runs")])
    digits_table.main()
    made = json.loads(short.read_text())
    names = ["supervised", "ict", *REFERENCES]
    assert [row["method"] for row in made["rows"]] == names
    by_name = {row["method"]: row for row in kept["rows"]}
    assert shape(made["rows"]) == shape([by_name[name] for name in names])
    for key in set(kept) - {"rows", "validation", "configurations"}:
        assert shape(made[key]) == shape(kept[key]), key
    for method in ("supervised", "ict"):
        assert shape(made["validation"][method]) == shape(kept["validation"][method])
        came_later = {*ADDED_SETTINGS, *CONDITIONS}  # than the recorded table
        assert made["configurations"][method].keys() - came_later == (
            kept["configurations"][method].keys() - came_later
        )
    printed = capsys.readouterr().out
    assert printed.strip() == digits_table.as_markdown(made["rows"])
