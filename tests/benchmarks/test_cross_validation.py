"""The model of cross-validations: as many scores as trainings, and more truth than without correction."""

from __future__ import annotations

import json

import numpy as np

from benchmarks import cross_validation


def test_every_fold_of_every_repeat_has_a_score():
    scores = cross_validation.cross_validated(100, 50, 3, 0.2, 0.2, np.random.default_rng(0))
    assert scores.shape == (3, cross_validation.FOLDS)
    assert 0.5 < scores.mean() < 0.95


def test_the_record_says_where_it_covers():
    rows = json.loads(cross_validation.RECORD.read_text())["rows"]
    assert all(row["corrected"] >= 0.93 for row in rows if row["trained_on"] <= row["labels"] / 2)
    assert all(row["corrected"] > row["uncorrected"] for row in rows)
