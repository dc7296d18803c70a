"""The tables of docs/digits.md: a matrix of methods and divergences, and what is apart in it."""

from __future__ import annotations

import pytest

from benchmarks.comparisons import apart, apart_text, matrix


def row(name: str, mean: float, letters: str, verdict: str = "") -> dict:
    method, _, divergence = name.partition(" / ")
    return {
        "name": name,
        "algorithm": method,
        "divergences": [divergence or None],
        "test": {"mean": mean, "low": mean - 0.02, "high": mean + 0.02},
        "letters": list(letters),
        "minus_control": {"mean": mean - 0.75, "low": 0.01, "high": 0.2},
        "verdict": verdict,
    }


@pytest.fixture
def result():
    return {
        "control": "supervised",
        "cells": [
            row("ict / kl", 0.80, "ab", "not distinguishable"),
            row("ict / mse", 0.90, "a", "better"),
            row("ict / js", 0.70, "b", "not distinguishable"),
            row("vat / kl", 0.92, "a", "better"),
            row("supervised", 0.75, "ab"),
        ],
    }


def test_the_matrix_has_a_row_for_each_method_and_a_column_for_each_divergence(result):
    head, _, supervised, vat, ict = matrix(result).splitlines()
    assert head == "| method | mse | kl | js |"
    assert supervised == "| supervised | 75.0 % (73.0 to 77.0) |  |  |"
    assert vat == "| vat |  | 92.0 % (90.0 to 94.0) |  |"
    assert [cell[:4] for cell in ict.split("| ")[2:]] == ["90.0", "80.0", "70.0"]


def test_what_shares_no_letter_within_a_method_is_apart(result):
    assert apart(result) == [("ict / mse", "ict / js")]
    text = apart_text(result)
    assert "ict / mse above ict / js.\n" in text
    assert "2 of 4: ict / mse +15.0 (+1.0 to +20.0), vat / kl" in text
    result["cells"][2]["letters"] = ["a"]
    assert "distinguishable: none.\n" in apart_text(result)
