"""What a number of validation labels does to a choice, on trials whose quality is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import validation_labels
from benchmarks.validation_labels import choice
from tune_ssl.text import percent


@pytest.fixture(scope="module")
def correct():
    """Return 40 trials of .70 to .90 on 800 images that are independent of one another."""
    generator = np.random.default_rng(0)
    return generator.random((40, 800)) < np.linspace(0.7, 0.9, 40)[:, None]


def test_more_labels_choose_better_and_promise_less_too_much(correct):
    few, some, many = (choice(correct, labels) for labels in (20, 100, 400))
    assert few["is"] < some["is"] < many["is"] <= many["best"]
    promised = [row["promised"] - row["is"] for row in (few, some, many)]
    assert promised[0] > promised[1] > promised[2] > 0
    assert few["standard_error"] == pytest.approx(
        np.sqrt(few["is"] * (1 - few["is"]) / 20), abs=1e-3
    )


def test_trials_that_are_alike_promise_what_they_are(correct):
    alike = np.repeat(correct[:1], 40, axis=0)
    row = choice(alike, 400)
    assert row["promised"] == pytest.approx(row["is"], abs=2e-3)
    assert row["is"] == row["best"]


def test_the_record_is_of_the_choices_documented():
    record = json.loads(validation_labels.RECORD.read_text())
    assert [row["labels"] for row in record["rows"]] == list(validation_labels.CHOSEN_ON)


def test_the_readme_shows_the_record():
    page = (Path(__file__).parents[2] / "README.md").read_text()
    for row in json.loads(validation_labels.RECORD.read_text())["rows"]:
        shown = " | ".join(percent(row[name]) for name in ("promised", "is", "best"))
        assert f"| {row['labels']} labels | {shown} |" in page
