"""Searches made of tables of trainings: what they take, and on which draws that is judged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import reshuffled
from benchmarks.reshuffled import Table, divided, searches, short_table


def table(gap_of_draws: float, *, configurations: int = 30, noise: float = 0.0) -> Table:
    """Return trainings whose accuracy is that of configuration and draw together, exactly as seen."""
    generator = np.random.default_rng(0)
    own = np.linspace(0.5, 0.8, configurations)[:, None] + gap_of_draws * np.array([0, 0, 1, 1])
    seen = own + noise * generator.standard_normal(own.shape)
    return Table(seen[..., None], own, np.array([0, 0, 1, 1]))


def test_where_draws_are_alike_both_take_the_best():
    fixed, other = searches(table(0.0), 400, np.arange(30), seed=0)
    assert fixed == pytest.approx(other)


def test_the_luck_of_a_draw_misleads_those_alone_that_mix_draws():
    fixed, other = searches(table(0.15), 400, np.arange(30), seed=0)
    assert fixed.worth > other.worth + 0.01
    assert other.network > fixed.network


def test_worth_is_measured_on_other_groups_without_the_luck_of_their_draws():
    own = table(0.15)
    worth = reshuffled._worth(own)
    assert worth == pytest.approx(np.broadcast_to(own.test.mean(axis=1, keepdims=True), (30, 4)))


def test_divisions_of_a_group_share_the_forty_labels():
    one, two = divided(0, 0), divided(0, 1)
    assert len(np.union1d(one.labeled, two.labeled)) <= 40
    assert np.bincount(one.labels).tolist() == [2] * 10
    assert not np.isin(one.labeled, one.validation).any()
    assert len(np.intersect1d(divided(1, 0).labeled, one.labeled)) < 5


def test_the_record_is_of_the_trainings_there_are():
    record = json.loads(reshuffled.RECORD.read_text())
    assert record["short_trainings"] == list(short_table().test.shape)
    assert {row["labels_to_choose"] for row in record["rows"]} == set(reshuffled.CHOSEN_ON)
