"""What a live and a dead unlabeled term look like in the figures, and that the arms differ in it alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.live_gradients import (
    ARMS,
    CONFIGURATIONS,
    METHODS,
    RECORD,
    Task,
    figures,
    record_of,
)

DRAWS = 12


def accuracies(shift: float, seed: int = 0, scatter: float = 0.001):
    """Return paired accuracies: a common part of each draw, a shift, and a little of their own."""
    of_draw = 0.7 + 0.1 * np.random.default_rng(99).standard_normal(DRAWS)
    return of_draw + shift + scatter * np.random.default_rng(seed).standard_normal(DRAWS)


def test_a_live_term_is_told_from_a_dead_one():
    live = figures(accuracies(0.05, 1), accuracies(0.0, 2), accuracies(0.0, 3))
    dead = figures(accuracies(0.0, 1), accuracies(0.0, 2), accuracies(0.0, 3))
    assert (live["live"], dead["live"]) == (True, False)
    assert live["live_minus_cut"][0] == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize(("shift", "equal"), [(0.0, True), (0.015, True), (0.025, False)])
def test_without_its_term_a_method_is_supervised_within_two_points_or_that_is_not_shown(
    shift, equal
):
    row = figures(accuracies(0.1, 1), accuracies(shift, 2), accuracies(0.0, 3))
    assert row["cut_is_supervised"] is equal


@pytest.mark.parametrize("which", CONFIGURATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_the_arms_share_all_but_the_unlabeled_term(method, which):
    live, cut, supervised = (
        record_of(Task(method, which, arm, 10, 5)) for arm in ("live", "cut", "supervised")
    )
    assert cut["parameters"]["unlabeled_weight"] == 0.0 < live["parameters"]["unlabeled_weight"]
    assert live == cut | {"parameters": live["parameters"]}
    differing = {name for name in live if live[name] != supervised[name]}
    assert differing <= {"algorithm", "divergence", "parameters"}
    assert supervised["parameters"].items() <= live["parameters"].items()


def test_what_a_search_found_is_not_what_was_published():
    found, published = (record_of(Task("ict", which, "live", 10, 5)) for which in CONFIGURATIONS)
    assert found["parameters"] != published["parameters"]
    assert (found["divergence"], found["split_seed"]) == ("mse", 5)


def test_the_page_shows_the_recorded_figures_and_every_method_is_live():
    page = (Path(__file__).parents[2] / "docs/digits.md").read_text()
    kept = json.loads(RECORD.read_text())
    rows = [row for row in kept.values() if row["configuration"] == "best"]
    assert {row["draws"] for row in kept.values()} == {20}
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        means = " | ".join(f"{100 * row['means'][arm]:.1f} %" for arm in ARMS)
        differences = [
            "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * value for value in row[name]))
            for name in ("live_minus_cut", "cut_minus_supervised")
        ]
        assert f"| {row['method']} | {means} | {' | '.join(differences)} |" in page
        assert row["live"]
        assert row["cut_is_supervised"] == (row["method"] != "mixmatch")
    published = kept["pseudo_label, default"]["live_minus_cut"]
    said = "(live - cut {:+.1f}, {:+.1f} to {:+.1f};".format(*(100 * end for end in published))
    assert said in " ".join(page.split())
