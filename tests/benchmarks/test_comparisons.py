"""The tables of docs/digits.md: a matrix of methods and divergences, and what is apart in it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import FixedTrial

from benchmarks.comparisons import (
    COMPARISONS,
    apart,
    apart_text,
    between,
    classified_test,
    default_of,
    gains,
    matrix,
    recorded,
    records_of_default,
)
from ssl_core.names import ALGORITHM_NAMES
from ssl_core.published import published_divergence
from ssl_core.training.config import TrainingConfig
from tune_ssl.run import RunConfig
from tune_ssl.text import percent
from tune_ssl.views.judged import interval_text, points_text
from tune_ssl.workflows import opening


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


def test_the_published_default_is_trained_on_the_draws_of_the_winner():
    lines = [{"split_seed": 7, "seed": 8, "trial": 3}, {"split_seed": 9, "seed": 10, "trial": 4}]
    result = {"labels": 50, "validation_images": 300, "steps": 60}
    first, second = records_of_default(row("ict / mse", 0.8, "a"), {"retrainings": lines}, result)
    config = TrainingConfig.from_record(first)
    assert (config.algorithm, config.divergence, config.max_steps) == ("ict", "mse", 60)
    assert (config.data.num_labels, config.data.num_validation) == (50, 300)
    assert (config.data.split_seed, config.seed, second["seed"]) == (7, 8, 10)


@pytest.mark.parametrize("method", ALGORITHM_NAMES)
def test_the_published_default_is_what_the_search_tries_first(method):
    divergence = published_divergence(method)
    command = COMPARISONS["digits-20-searches"]
    options = dict(zip(command[::2], command[1::2], strict=True))
    search = RunConfig(
        alg=(method,),
        divergence=() if divergence is None else (divergence,),
        trials=int(options["--trials"]),
        labels=int(options["--labels"]),
        **{"metric": "accuracy", "threads": 1, "device": "cpu", "precision": "float32"},
    )
    space = search.space(10)
    tried = opening._first_trials(search, space)[0]
    suggestion = space.suggest(FixedTrial(tried.params))
    trained = TrainingConfig.from_record(search.trial_record(suggestion, seed=8))
    cell = {"algorithm": method, "divergences": [divergence]}
    result = {"labels": 20, "validation_images": 400, "steps": search.steps}
    default = TrainingConfig.from_record(default_of(cell, result) | {"seed": 8, "split_seed": 0})
    assert default == trained


def test_gains_are_paired_draw_by_draw_and_their_interval_is_over_searches():
    random = np.random.default_rng(0)
    defaults = (random.random((4, 5, 200)) < 0.5).astype(float)
    winners = np.maximum(defaults, random.random((4, 5, 200)) < 0.2)
    found = gains(winners, defaults)
    assert found["published"] == pytest.approx(0.5, abs=0.03)
    assert found["gain"]["mean"] == pytest.approx(0.1, abs=0.02)
    assert found["gain"]["mean"] == pytest.approx(np.mean(found["searches"]), abs=1e-3)
    assert found["gain"]["low"] > 0.05
    winners[0] = 0.0  # a search whose winner classifies nothing
    assert gains(winners, defaults)["gain"]["low"] < 0
    assert gains(defaults, defaults)["gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize("page", ["README.md", "docs/digits.md"])
def test_the_pages_show_the_recorded_table(page):
    kept = recorded("digits-20")
    text = (Path(__file__).parents[2] / page).read_text()
    assert matrix(kept) in text
    references = {row["name"]: row["test"]["mean"] for row in kept["references"]}
    assert f"{100 * references['LabelSpreading']:.1f} % (" in text
    better = sum(row["verdict"] == "better" for row in kept["cells"])
    assert f"{better} of {len(kept['cells']) - 1} cells beat tuned supervised training" in text


def test_what_the_page_says_of_the_recorded_table_is_in_it():
    kept = recorded("digits-20")
    pairs = apart(kept)
    assert {other for _, other in pairs} == {"pi_model / kl", "mean_teacher / kl"}
    assert len(pairs) == 6
    promised = [100 * (row["search_validation"] - row["validation"]) for row in kept["cells"]]
    assert [round(min(promised)), round(max(promised))] == [3, 12]
    assert kept["winner"].startswith("mixmatch")


def test_the_page_s_figures_in_words_are_those_of_the_recorded_table():
    kept = recorded("digits-20")
    page = " ".join((Path(__file__).parents[2] / "docs/digits.md").read_text().split())
    rows = {row["name"]: row for row in kept["cells"]}
    gains = [100 * r["minus_control"]["mean"] for r in rows.values() if r["verdict"] == "better"]
    assert f"by {min(gains):.0f} to {max(gains):.0f} points" in page
    shown = [100 * row["search_validation"] for row in rows.values()]
    assert f"showed {min(shown):.0f} to {max(shown):.0f} %" in page
    behind = [
        100 * (rows[f"{method} / {name}"]["test"]["mean"] - rows[f"{method} / kl"]["test"]["mean"])
        for method in ("pi_model", "mean_teacher")
        for name in ("mse", "l1", "js")
    ]
    assert f"by {min(behind):.1f} to {max(behind):.1f} points" in page
    of_mixmatch = [100 * row["test"]["mean"] for row in rows.values() if "mixmatch" in row["name"]]
    assert f"({min(of_mixmatch):.0f} to {max(of_mixmatch):.0f} %)" in page
    retrainings = rows["ict / l1"]["searched"][0]["retrainings"]
    worst = min(line["test_accuracy"] for line in retrainings)
    assert f"down to {100 * worst:.0f} %" in page


def page_of_digits() -> str:
    return " ".join((Path(__file__).parents[2] / "docs/digits.md").read_text().split())


@pytest.mark.parametrize("name", ["digits-20", "digits-50"])
def test_the_page_says_how_much_a_recorded_table_could_tell(name):
    kept, page = recorded(name), page_of_digits()
    rows = [row["minus_control"] for row in kept["cells"] if row["minus_control"]]
    beside = [50 * (row["high"] - row["low"]) for row in rows]
    of_methods = [50 * (found.high - found.low) for _, _, found in within_methods(kept)]
    assert (
        f"had to be {min(beside):.1f} to {max(beside):.1f} points, by cell (median "
        f"{np.median(beside):.1f}), to be told from none, one between two divergences of a method "
        f"{min(of_methods):.1f} to {max(of_methods):.1f} (median {np.median(of_methods):.1f})"
    ) in page


def within_methods(kept):
    """Yield each two cells of one method, and the interval of what the first is better."""
    differences = between(kept)
    for method in ALGORITHM_NAMES[1:]:
        names = [row["name"] for row in kept["cells"] if row["algorithm"] == method]
        for one, other in itertools.combinations(names, 2):
            yield one, other, differences(one, other)


def test_the_page_s_figures_of_50_labels_are_those_of_the_record():
    kept, page = recorded("digits-50"), page_of_digits()
    rows = {row["name"]: row for row in kept["cells"]}
    assert " ".join(matrix(kept).split()) in page
    assert kept["test"]["opening"] == 2
    better = [row["minus_control"]["mean"] for row in rows.values() if row["verdict"] == "better"]
    assert (
        f"{len(better)} of {len(rows) - 1} cells beat tuned supervised training**, by "
        f"{100 * min(better):.1f} to {100 * max(better):.1f} points"
    ) in page
    gain = [
        [row["minus_control"]["mean"] for row in recorded(name)["cells"] if row["minus_control"]]
        for name in ("digits-20", "digits-50")
    ]
    assert [len(own) for own in gain] == [24, 24]
    assert (
        f"all 24 together add {100 * np.mean(gain[1]):.1f} points on average, where they added "
        f"{100 * np.mean(gain[0]):.1f} at 20 labels"
    ) in page
    beside = [name for name, row in rows.items() if row["verdict"] == "not distinguishable"]
    assert set(beside) == {"pi_model / kl", "mean_teacher / kl", "mixmatch / mse"}
    for name, said in [("pi_model / kl", "by {:+.1f} and"), ("mean_teacher / kl", "and {:+.1f} p")]:
        assert said.format(100 * rows[name]["minus_control"]["mean"]) in page
    found = rows["mixmatch / mse"]["minus_control"]
    ends = (100 * found[end] for end in ("mean", "low", "high"))
    assert "({:+.1f}, {:+.1f} to {:+.1f})".format(*ends) in page
    told = {
        (one, other): 100 * abs(found.mean)
        for one, other, found in within_methods(kept)
        if found.low > 0 or found.high < 0
    }
    assert len(told) == 4
    (of_teacher,) = [gap for pair, gap in told.items() if "mean_teacher / js" in pair]
    assert f"KL is {of_teacher:.1f} points worse than JS for Mean Teacher" in page
    of_ict = [gap for pair, gap in told.items() if "ict / kl" in pair]
    assert f"MSE, L1 and JS, by {min(of_ict):.1f} to {max(of_ict):.1f} points" in page
    assert rows["ict / kl"]["test"]["mean"] > rows["ict / mse"]["test"]["mean"]
    falls = sorted(
        100 * line["test_accuracy"] for line in rows["pi_model / kl"]["searched"][0]["retrainings"]
    )
    assert f"falls to {falls[0]:.1f} % and {falls[1]:.1f} % on two draws" in page
    assert falls[2] > 80
    spread = next(row for row in kept["references"] if row["name"] == "LabelSpreading")["test"]
    below = sum(row["test"]["mean"] < spread["mean"] for row in rows.values())
    assert f"shows more than {below} of the {len(rows)} cells" in page
    shown = [100 * row["search_validation"] for row in rows.values()]
    kept_less = [100 * (row["search_validation"] - row["validation"]) for row in rows.values()]
    assert f"showed {min(shown):.1f} to {max(shown):.1f} % on" in page
    assert (
        f"keeps {min(kept_less):.1f} to {max(kept_less):.1f} points less of it on other draws of "
        f"labels ({np.mean(kept_less):.1f} on average)"
    ) in page
    defaults = {
        name for name, row in rows.items() if row["searched"][0]["origin"]["published_default"]
    }
    assert defaults == {"vat / l1", "vat / kl", "mixmatch / mse"}


def test_the_page_s_figures_of_five_searches_are_those_of_the_record():
    kept, page = recorded("digits-20-repeats"), page_of_digits()
    assert " ".join(matrix(kept).split()) in page
    assert [row["name"] for row in kept["cells"] if row["verdict"] == "better"] == [
        "mean_teacher / mse"
    ]
    assert apart(kept) == [("mean_teacher / mse", "mean_teacher / kl")]
    differences = between(kept)
    for one, other, said in [
        ("mean_teacher / mse", "mean_teacher / kl", "by {:.1f} points ({:.1f} to {:.1f})"),
        ("mean_teacher / mse", "supervised", "by {:.1f} points, {:.1f} to {:.1f}"),
        ("pi_model / mse", "pi_model / kl", "by {:.1f} points, {:.1f} to {:.1f}"),
        ("ict / kl", "ict / mse", "by {:.1f} points, {:.1f} to {:.1f}"),
    ]:
        found = differences(one, other)
        assert said.format(*(100 * end for end in (found.mean, found.low, found.high))) in page
    draws = [
        line["split_seed"]
        for search in kept["cells"][0]["searched"]
        for line in search["retrainings"]
    ]
    assert len(set(draws)) == 25, "five of each repeat's own"


def test_the_page_s_figures_of_ten_searches_are_those_of_the_record():
    kept, page = recorded("digits-20-searches"), page_of_digits()
    rows, above = {row["algorithm"]: row for row in kept["cells"]}, kept["above_published"]
    assert kept["compare"] == list(COMPARISONS["digits-20-searches"])
    assert (kept["searches"], kept["draws"], kept["test"]["opening"]) == (10, 5, 5)
    for method, row in rows.items():
        found = above[row["name"]]
        beside = "" if row["minus_control"] is None else points_text(row["minus_control"])
        line = (
            f"| {method} | {percent(found['published'])} | {interval_text(row['test'])} | "
            f"{points_text(found['gain'])} | {beside} |"
        )
        assert " ".join(line.split()) in page
    gains = [
        100 * gain
        for name in ("mean_teacher / mse", "mixmatch / mse")
        for gain in above[name]["searches"]
    ]
    assert len(gains) == 20
    assert f"({min(gains):.1f} to {max(gains):.1f} points)" in page
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    for method, said in (
        ("mixmatch", "MixMatch is {:.1f} points ({:.1f} to {:.1f})"),
        ("mean_teacher", "Mean Teacher {:.1f} ({:.1f} to {:.1f}) above supervised"),
    ):
        difference = rows[method]["minus_control"]
        told = said.format(*(100 * difference[end] for end in ("mean", "low", "high")))
        assert told in readme
    gain = above["supervised"]["gain"]
    assert gain["low"] < 0 < gain["high"]
    assert above["mean_teacher / mse"]["published"] < above["supervised"]["published"]
    default = above["mixmatch / mse"]["published"] - above["supervised"]["published"]
    assert default / rows["mixmatch"]["minus_control"]["mean"] == pytest.approx(1 / 3, abs=0.02)
    letters = {row["name"]: set(row["letters"]) for row in [*kept["cells"], *kept["references"]]}
    cells = [letters[row["name"]] for row in kept["cells"]]
    assert not any(one & other for one, other in itertools.combinations(cells, 2))
    assert letters["LabelSpreading"] & letters["mean_teacher / mse"]
    assert not letters["LabelSpreading"] & letters["supervised"]
    spread = {
        method: np.std([classified_test(one).mean() for one in row["searched"]], ddof=1)
        for method, row in rows.items()
    }
    said = "{:.1f} points (standard deviation) for MixMatch, {:.1f} for Mean Teacher and {:.1f} for"
    told = (100 * spread[method] for method in ("mixmatch", "mean_teacher", "supervised"))
    assert said.format(*told) in page
    less = {m: 100 * (row["search_validation"] - row["validation"]) for m, row in rows.items()}
    assert min(less, key=less.get) == "mixmatch"
    assert f"is {less['mixmatch']:.1f} (MixMatch) to {max(less.values()):.1f} points more" in page
    origins = [one["origin"] for row in kept["cells"] for one in row["searched"]]
    assert len(origins) == 30
    assert not any(origin["published_default"] for origin in origins)
    assert {origin["trials"] for origin in origins} == {50}


def test_what_is_between_two_rows_is_what_the_table_says_of_the_control():
    kept = recorded("digits-20")
    differences = between(kept)
    for row in kept["cells"][:3]:
        found = differences(row["name"], kept["control"])
        assert [found.mean, found.low, found.high] == pytest.approx(
            [row["minus_control"][name] for name in ("mean", "low", "high")], abs=1e-6
        )
