"""What people see of a confirmation, in every form."""

from __future__ import annotations

import csv
import io
import json

import pytest
from optuna.trial import TrialState

from tests.tune_ssl.test_confirmation import opened_at, trial_of, trials_of, yardsticks
from tune_ssl.confirmation import confirmation
from tune_ssl.views import confirmed
from tune_ssl.views.judged import interval_text, points_text

VALUES = ((0.85, 0.80, 0.83, 0.84), (0.79, 0.78, 0.80, 0.79))


def result(opening=1, accuracies=(0.9, 0.6), values=VALUES):
    table = yardsticks()
    return confirmation(table, trials_of(values), opened_at(table, accuracies, opening))


@pytest.fixture
def printed(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")

    def show(found) -> str:
        confirmed.print_confirmed(found)
        return capsys.readouterr().out

    return show


def test_a_row_has_name_search_validation_test_difference_and_verdict():
    first, second = confirmed.rows(result())
    assert first[:3] == ("rank 1", "95.0 %", "83.0 %")
    assert first[4:] == ("", "winner")
    assert second[0] == "published default"
    assert second[5] == "worse"
    assert second[4].startswith("-")


def test_of_several_methods_each_row_names_its_own(printed):
    found = result()
    assert "rank 1, mean_teacher / mse." in printed(found)
    found["configurations"][1] |= {"algorithm": "supervised", "divergence": None}
    assert [row[0] for row in confirmed.rows(found)] == [
        "rank 1, mean_teacher / mse",
        "published default, supervised",
    ]


def test_a_configuration_that_collapses_on_few_draws_is_named(printed):
    found = result()
    assert "below the median" not in printed(found)
    for row in found["configurations"]:
        for line in row["retrainings"]:
            line["test_accuracy"] = 0.8
    found["configurations"][1]["retrainings"][0]["test_accuracy"] = 0.3
    assert "published default 1 of 4 (worst 30.0 %)" in printed(found)
    assert "because these retrainings named it" in printed(found)


def test_a_narrow_terminal_cuts_no_figure(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    confirmed.print_confirmed(result())
    shown = capsys.readouterr().out
    for row in confirmed.rows(result()):
        assert all(cell in shown for cell in row)


def test_intervals_and_differences_are_in_percent_and_points():
    assert interval_text({"mean": 0.9012, "low": 0.87, "high": 1.0}) == ("90.1 % (87.0 to 100.0)")
    assert points_text({"mean": -0.031, "low": -0.05, "high": 0.012}) == ("-3.1 (-5.0 to +1.2)")


def test_what_cannot_be_told_apart_is_called_so():
    alike = result(accuracies=(0.8, 0.8))
    assert confirmed.rows(alike)[1][5] == "not distinguishable"


@pytest.mark.parametrize("opening", [1, 3])
def test_every_test_figure_stands_below_the_number_of_its_opening(printed, opening):
    shown = printed(result(opening))
    assert f"test accuracy, opening {opening}" in shown
    assert ("judged 2 times before" in shown) == (opening == 3)
    markdown = confirmed.format_confirmed(result(opening), "markdown")
    assert f"test accuracy, opening {opening} (95 %)" in markdown
    rows = list(csv.DictReader(io.StringIO(confirmed.format_confirmed(result(opening), "csv"))))
    assert [row["opening"] for row in rows] == [str(opening)] * 2


def test_it_says_what_the_intervals_are_about_and_how_optimistic_the_search_was(printed):
    shown = printed(result())
    assert "Winner by the validation of 4 retrainings, named before" in shown
    assert "conditional on the configuration found by one search; indicative" in shown
    excess = (0.95 - 0.83) - (0.80 - 0.79)
    assert f"rank 1 stood {100 * excess:+.1f} (" in shown
    assert "That is beyond what one draw's luck makes without any choosing (6.5 points" in shown


def test_optimism_that_luck_explains_is_told_as_such(printed):
    found = result()
    found["optimism"]["by_chance"] = 0.2
    assert "That is within what one draw's luck makes" in printed(found)


def test_retrainings_that_diverged_are_told(printed):
    table = yardsticks()
    trials = trials_of(VALUES)
    trials[1] = trial_of(1, None, state=TrialState.PRUNED, reason="the loss was not finite")
    found = confirmation(table, trials, opened_at(table, (0.9, 0.6)))
    assert "1 of 4 retrainings of published default became non-finite" in printed(found)


def test_json_holds_everything():
    assert json.loads(confirmed.format_confirmed(result(), "json")) == json.loads(
        json.dumps(result())
    )


def test_markdown_is_a_table():
    lines = confirmed.format_confirmed(result(), "markdown").splitlines()
    assert {line.count("|") for line in lines[:4]} == {7}
    assert lines[1] == "|---|---|---|---|---|---|"


def test_csv_has_a_row_for_each_with_its_values():
    rows = list(csv.DictReader(io.StringIO(confirmed.format_confirmed(result(), "csv"))))
    assert [row["configuration"] for row in rows] == ["rank 1", "published default"]
    assert [row["winner"] for row in rows] == ["True", "False"]
    assert float(rows[0]["test.mean"]) == result()["configurations"][0]["test"]["mean"]
    assert float(rows[0]["parameters.learning_rate"]) == 3e-3


def test_of_a_balanced_metric_each_row_has_accuracy_too_below_its_opening(printed):
    found = result(opening=3)
    shown = {"mean": 0.912, "low": 0.9, "high": 0.92}
    found |= {"metric": "balanced_accuracy", "conditions": {"imbalance": 10.0, "unlabeled": 100}}
    for row in found["configurations"]:
        row["accuracy"] = shown
    headings = confirmed.headings(found)
    assert headings[3:5] == (
        "test balanced accuracy, opening 3\n(95 %)",
        "test accuracy, opening 3\n(95 %)",
    )
    assert all(len(row) == len(headings) for row in confirmed.rows(found))
    assert all(row[4] == "91.2 % (90.0 to 92.0)" for row in confirmed.rows(found))
    assert "described" not in printed(result())
    assert "Conditions, as docs/conditions.md describes them: imbalance 10.0; unlabeled 100." in (
        printed(found)
    )
    rows = list(csv.DictReader(io.StringIO(confirmed.format_confirmed(found, "csv"))))
    assert [float(row["accuracy.mean"]) for row in rows] == [0.912, 0.912]


def test_a_result_of_an_older_version_is_printed():
    found = result()
    del found["conditions"]
    assert len(confirmed.rows(found)) == 2
    assert len(confirmed.notes(found)) == len(confirmed.notes(result()))
