"""The arithmetic of the warm-start table: places and divergences are told apart, draws are paired."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.warm_starts import (
    COLUMNS,
    NOTEBOOK,
    ORDERS,
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
