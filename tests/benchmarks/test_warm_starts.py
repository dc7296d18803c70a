"""The arithmetic of the warm-start table: places and divergences are told apart, draws are paired."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.warm_starts import (
    COLUMNS,
    NOTEBOOK,
    ORDERS,
    RECORD,
    Task,
    figures,
    parameters,
    spread,
    tasks_of,
)

PER_PLACE = 0.05
PER_DIVERGENCE = dict(zip(COLUMNS, (0.0, 0.01, 0.02, -0.03), strict=True))
DRAWS = (1, 2, 3)


def made_up(place_matters: bool):
    """Return accuracies that depend on the draw, on the divergence, and on the place if asked."""

    def value(divergence: str, place: int, draw: int) -> float:
        of_place = PER_PLACE * place if place_matters else 0.0
        return 0.5 + 0.1 * draw + PER_DIVERGENCE[divergence.removeprefix("notebook_")] + of_place

    return {
        task: [value(name, place, task.draw) for place, name in enumerate(task.divergences)]
        for draw in DRAWS
        for task in tasks_of("ict", 10, draw)
    }


def test_every_divergence_stands_once_in_every_place():
    for place in range(len(COLUMNS)):
        assert sorted(order[place] for order in ORDERS) == sorted(COLUMNS)


def test_a_rise_along_the_columns_is_the_places_and_not_the_divergences():
    row = figures("ict", 10, DRAWS, made_up(place_matters=True))
    assert row["last_minus_first_place"] == pytest.approx([0.15] * 3)
    assert row["last_place_minus_fresh_all_steps"] == pytest.approx([0.15] * 3)
    spread = [row["by_divergence"][name] - row["by_divergence"]["mse"] for name in COLUMNS]
    assert spread == pytest.approx(list(PER_DIVERGENCE.values()))
    assert row["minus_mse_in_notebook_order"]["js"][0] == pytest.approx(0.12)
    assert row["minus_mse_fresh"]["js"][0] == pytest.approx(-0.03)


def test_without_warm_starts_nothing_is_left_of_it():
    row = figures("ict", 10, DRAWS, made_up(place_matters=False))
    assert row["last_minus_first_place"] == pytest.approx([0.0] * 3)


def test_a_task_names_the_steps_of_its_training():
    lengths = {task.steps for task in tasks_of("ict", 10, 1) if len(task.divergences) == 1}
    assert lengths == {10, 40}
    assert {task.column for task in tasks_of("ict", 10, 1)} == {10}
    assert Task("ict", ("kl",), 40, 10, 1) in tasks_of("ict", 10, 1)


def test_one_number_stands_before_every_divergence_where_that_is_asked():
    def weight(divergence: str, kind: str, method: str = "pi_model") -> float:
        task = Task(method, (divergence,), 40, 10, 1, kind)
        return parameters(task, divergence)["unlabeled_weight"]

    number = weight("mse", "converted")
    assert {weight(name, "same") for name in COLUMNS} == {number}
    assert {weight(name, "notebook") for name in NOTEBOOK} == {number}
    assert weight("l1", "converted") == pytest.approx(0.3 * number)
    of_ict = {weight(name, "notebook", "ict") for name in NOTEBOOK}
    assert of_ict == {10 * weight("mse", "same", "ict")}  # summed over ten classes


def test_the_spread_is_of_the_columns_and_not_of_the_noise():
    random = np.random.default_rng(0)
    of_draw, noise = random.standard_normal((400, 1)), random.standard_normal((400, 4))
    columns = np.array([0.0, 1.0, 2.0, 3.0])
    assert spread(of_draw + noise + columns) == pytest.approx(columns.std(ddof=1), rel=0.1)
    assert spread(of_draw + noise) < 0.1
    assert noise[:4].mean(axis=0).std(ddof=1) > 0.2


PAGE = " ".join((Path(__file__).parents[2] / "docs/digits.md").read_text().split())
TITLES = {
    "notebook_order": "one after the other, in its order",
    "by_place": "by place: first to fourth, over all orders",
    "by_divergence": "by divergence, over all places",
    "fresh": "fresh weights, one column's steps",
    "fresh_all_steps": "fresh weights, all columns' steps",
    "same_weight": "the same, one number before all",
    "notebook_formulas": "the same, as the notebook computed them",
}


@pytest.fixture
def recorded():
    return json.loads(RECORD.read_text())


def test_the_page_shows_what_is_recorded(recorded):
    for method, name in (
        ("pi_model", "Pi-Model"),
        ("mean_teacher", "Mean Teacher"),
        ("ict", "ICT"),
    ):
        for key, title in TITLES.items():
            shown = " | ".join(f"{100 * value:.1f}" for value in recorded[method][key].values())
            spread = 100 * recorded[method]["spread"][key]
            assert f"| {name} | {title} | {shown} | {spread:.1f} |" in PAGE


def test_what_the_page_says_of_warm_starts(recorded):
    pi, teacher, ict = (recorded[name] for name in ("pi_model", "mean_teacher", "ict"))
    later = [own[0] for row in (pi, teacher) for own in row["minus_mse_in_notebook_order"].values()]
    assert f"{100 * min(later):.1f} to {100 * max(later):.1f} points above MSE" in PAGE
    for row in (pi, teacher):
        assert max(row["fresh"].values()) - min(row["fresh"].values()) < 0.004
    rise = [[100 * end for end in row["last_minus_first_place"]] for row in (pi, teacher, ict)]
    said = "{:.1f} ({:.1f} to {:.1f}) and {:.1f} points ({:.1f} to {:.1f}) above the first"
    assert said.format(*rise[0], *rise[1]) in PAGE
    assert "by place there is little ({:.1f}, {:.1f} to +{:.1f})".format(*rise[2]) in PAGE
    lost = [
        [-100 * end for end in row["last_place_minus_fresh_all_steps"]] for row in (pi, teacher)
    ]
    assert f"{lost[0][0]:.1f} and {lost[1][0]:.1f} points *worse* than fresh weights" in PAGE
    mean, high, low = (-100 * end for end in ict["last_place_minus_fresh_all_steps"])
    assert f"{mean:.1f} points ({low:.1f} to {high:.1f}) below fresh weights" in PAGE


def test_what_the_page_says_of_scale(recorded):
    pi, teacher, ict = (recorded[name] for name in ("pi_model", "mean_teacher", "ict"))
    for key, said in (
        ("fresh_all_steps", "leave a spread of {:.1f} and {:.1f} points for Mean Teacher and"),
        ("same_weight", "one number before all {:.1f} and {:.1f},"),
        ("notebook_formulas", "the notebook's formulas {:.1f} and {:.1f}."),
    ):
        assert said.format(*(100 * row["spread"][key] for row in (teacher, pi))) in PAGE
    above = {
        name: [
            100 * (row["notebook_formulas"][name] - row["notebook_formulas"]["mse"])
            for row in (teacher, pi)
        ]
        for name in ("notebook_kl", "notebook_js")
    }
    assert "({:+.1f} and {:+.1f} points above MSE)".format(*above["notebook_kl"]) in PAGE
    below = [-gap for gap in above["notebook_js"]]
    assert "ends {:.1f} and {:.1f} points below MSE".format(*below) in PAGE
    gaps = [row["minus_mse_fresh_all_steps"] for row in (pi, teacher)]
    said = (
        "L1 is {:.1f} and {:.1f} points above MSE for Pi-Model and Mean Teacher, KL {:.1f} points"
    )
    assert said.format(*(100 * gap["l1"][0] for gap in gaps), -100 * gaps[0]["kl"][0]) in PAGE
    assert all(gap["l1"][1] > 0 > gap["kl"][2] for gap in gaps)
    assert f"collapses to {100 * ict['notebook_formulas']['l1']:.0f} %" in PAGE
