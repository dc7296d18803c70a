"""Labels without information, and what a table claims about them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from benchmarks.permuted_labels import cells_of, summary, write_permuted
from ssl_core.data.digits import load_test_images


def row(name: str, mean: float, letters: str, verdict: str = "not distinguishable"):
    return {"name": name, "letters": list(letters), "verdict": verdict, "test": {"mean": mean}}


def result(*rows):
    return {"winner": rows[0]["name"], "cells": list(rows[:-1]), "references": [rows[-1]]}


def test_classes_keep_their_sizes_and_images_lose_their_labels(tmp_path):
    source = load_test_images()
    write_permuted(source, tmp_path, np.random.default_rng(0))
    found = {
        int(path.stem): (path.parent.name, np.asarray(Image.open(path)))
        for path in tmp_path.glob("*/*.png")
    }
    assert len(found) == len(source.images)
    names = [source.class_names[label] for label in source.labels]
    assert Counter(name for name, _ in found.values()) == Counter(names)
    assert all((found[place][1] == source.images[place][0]).all() for place in found)
    kept = np.mean([found[place][0] == name for place, name in enumerate(names)])
    assert kept == pytest.approx(0.1, abs=0.05)


def test_a_table_claims_where_any_two_rows_share_no_letter_or_any_is_apart_from_supervised():
    pair = cells_of(0, result(row("a", 0.1, "a"), row("b", 0.1, "ab"), row("1-NN", 0.1, "b")))
    assert pair["apart"] == [["a", "1-NN"]]
    none = cells_of(0, result(row("a", 0.1, "a"), row("1-NN", 0.1, "a")))
    beside = cells_of(0, result(row("a", 0.1, "a", "worse"), row("1-NN", 0.1, "a")))
    assert [pair["claims"], none["claims"], beside["claims"]] == [True, False, True]
    assert beside["beside_control"] == ["a"]


def test_the_summary_counts_tables_that_claim_and_averages_over_them():
    tables = [
        cells_of(seed, result(row("a", mean, letter), row("1-NN", 0.1, "b")))
        for seed, (mean, letter) in enumerate([(0.08, "a"), (0.14, "b")])
    ]
    assert summary(tables) == {
        "claims": 1,
        "of": 2,
        "accuracy": {"a": 0.11, "1-NN": 0.1},
        "accuracy_lowest": 0.1,
        "accuracy_highest": 0.11,
    }
