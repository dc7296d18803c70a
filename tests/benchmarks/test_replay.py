"""Replays of recorded curves: the nearest curve, what pruning keeps, what a strategy holds."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import record_curves, rung_fidelity, time_to_target
from benchmarks.record_curves import MEASURED_AT, RandomTrial
from benchmarks.replay import Curves, Replay, space_of
from search_spaces.joint import Suggestion
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl.run import RunConfig

METHODS = ("supervised", "ict")
CONFIGURATIONS = 60


def quality(params: dict[str, float]) -> float:
    """Return what a configuration reaches: .9 at a learning rate of 1e-3, less away from it."""
    return 0.9 - 0.2 * abs(math.log10(params["learning_rate"] / 1e-3))


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Record curves that rise to their quality; every tenth diverges after the first rung."""
    monkeypatch.setattr(record_curves, "FOLDER", tmp_path)
    for method in METHODS:
        lines = []
        for number in range(CONFIGURATIONS):
            trial = RandomTrial(seed=number)
            space_of([method]).suggest(trial)
            diverges = number % 10 == 9
            values = [quality(trial.params) * (1 - math.exp(-step / 100)) for step in MEASURED_AT]
            for replicate in (0, 1):
                lines.append(
                    {
                        "algorithm": method,
                        "configuration": number,
                        "replicate": replicate,
                        "params": trial.params,
                        "validation": values[: 6 if diverges else None],
                        "test": None if diverges else quality(trial.params) + 0.02 * replicate,
                        "finite": not diverges,
                    }
                )
        (tmp_path / f"{method}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )
    return Replay(METHODS)


def suggestion(number: int, method: str = "ict", **changed: float) -> Suggestion:
    """Return a recorded configuration, with some values changed."""
    drawn = space_of([method]).suggest(RandomTrial(seed=number))
    parameters = {**drawn.parameters, **changed}
    return Suggestion(algorithm=method, divergence=drawn.divergence, parameters=parameters)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [0, 1, 42])
def test_a_recorded_configuration_has_its_own_curve_and_worth(recorded, method, number):
    given = suggestion(number, method)
    own = quality(given.parameters)
    assert recorded(given, 50) == pytest.approx(own * (1 - math.exp(-0.5)))
    assert recorded(given, 450) == pytest.approx(own * (1 - math.exp(-4.5)))
    # What it is worth is said by the retraining alone, not by the training that is searched on.
    assert recorded.worth(given) == pytest.approx(own + 0.02)


def test_without_retrainings_it_can_be_worth_what_the_training_itself_reached(recorded):
    given = suggestion(1)
    own = Replay(METHODS, own_draw=True)
    assert own.worth(given) == pytest.approx(quality(given.parameters))
    assert len(own.curves["ict"]) == CONFIGURATIONS


def test_one_that_differs_a_little_has_the_curve_of_its_neighbour(recorded):
    given = suggestion(7)
    near = suggestion(7, learning_rate=given.parameters["learning_rate"] * 1.01)
    assert recorded(near, 150) == recorded(given, 150)


def test_one_that_diverged_is_not_a_number_from_there_on_and_worth_nothing(recorded):
    assert recorded(suggestion(9), 75) > 0
    assert math.isnan(recorded(suggestion(9), 100))
    assert recorded.worth(suggestion(9)) == 0.0


def test_a_configuration_that_was_not_retrained_has_no_worth_and_is_not_replayed(recorded):
    path = record_curves.FOLDER / "ict.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))  # the last line is the last configuration's retraining
    whole = Curves("ict")
    assert (len(whole), whole.retrained) == (CONFIGURATIONS, CONFIGURATIONS - 1)
    assert np.flatnonzero(np.isnan(whole.worth)).tolist() == [CONFIGURATIONS - 1]
    assert len(Replay(["ict"]).curves["ict"]) == CONFIGURATIONS - 1


def test_the_share_of_winners_kept_has_an_interval_over_configurations():
    options = argparse.Namespace(trials=30, slots=4, resamples=8)
    many = np.repeat(np.linspace(0.1, 0.9, 60)[:, None], len(MEASURED_AT), axis=1)
    assert rung_fidelity.bootstrap(many, (50, 150, 450), 3, options) == [1.0, 1.0]
    noisy = np.random.default_rng(0).random(many.shape)
    low, high = rung_fidelity.bootstrap(noisy, (50, 150, 450), 3, options)
    assert 0.0 <= low < high < 0.9


def test_pruning_keeps_the_winner_where_curves_never_cross_and_loses_it_where_they_turn():
    rungs, many = (50, 150, 450), np.linspace(0.1, 0.9, 60)
    options = argparse.Namespace(trials=30, slots=4, replays=50)
    alike = np.repeat(many[:, None], len(MEASURED_AT), axis=1)
    kept = rung_fidelity.fidelity("x", alike, many, rungs, 3, options)
    assert (kept["winner_kept"], kept["regret"], kept["worth_lost"]) == (1.0, 0.0, 0.0)
    assert 0.2 < kept["steps"] < 0.45
    turned = alike.copy()
    turned[:, -1] = many[::-1]
    lost = rung_fidelity.fidelity("x", turned, many[::-1], rungs, 3, options)
    assert lost["winner_kept"] < 0.5
    assert lost["worth_lost"] > 0.05


def test_what_is_not_a_number_is_cut_and_never_the_winner():
    values = np.array([[0.5, 0.5, 0.5], [0.4, math.nan, math.nan], [math.nan] * 3, [0.6, 0.6, 0.6]])
    reached = rung_fidelity.survivors(values, (1, 3, 9), 3, slots=4)
    assert reached.tolist() == [2, 0, 0, 2]


def test_correlations_are_one_where_the_order_is_that_of_the_worth():
    worth = np.linspace(0.0, 1.0, 20)
    values = np.repeat(worth[:, None], len(MEASURED_AT), axis=1)
    values[:, 0] = worth[::-1]
    found = rung_fidelity.correlations(values, worth)
    assert found["10"] == -1.0
    assert found["450"] == 1.0


@pytest.mark.parametrize("name", sorted(time_to_target.STRATEGIES))
def test_every_strategy_holds_better_and_better_within_its_budget(recorded, name):
    budget = 12 * 450
    trace = time_to_target.STRATEGIES[name](recorded, 0, budget, 2)
    spent = [steps for steps, _ in trace]
    assert spent == sorted(spent)
    assert spent[0] > 0
    assert spent[-1] <= budget + 2 * 450 + 27 * 50
    assert trace[-1][1] > 0.7
    assert trace == time_to_target.STRATEGIES[name](recorded, 0, budget, 2)
    others = [time_to_target.STRATEGIES[name](recorded, seed, budget, 2) for seed in range(1, 9)]
    assert any(other != trace for other in others)


def test_the_trace_is_read_at_budgets_and_at_the_target(monkeypatch):
    monkeypatch.setattr(time_to_target, "GRID", (5, 8, 12, 20, 30, 50))
    trace = [(450, 0.5), (450 * 6, 0.8), (450 * 40, 0.9)]
    assert time_to_target.reached_at(trace, 0.8) == 6.0
    assert time_to_target.reached_at(trace, 0.95) == math.inf
    assert time_to_target.reached_at([*trace, (450 * 51, 0.95)], 0.95) == math.inf  # too late
    assert time_to_target.at_budgets(trace) == [0.5, 0.8, 0.8, 0.8, 0.8, 0.9]
    assert time_to_target.at_budgets([(450 * 9, 0.7)])[:2] == [0.0, 0.0]


def test_lacking_is_the_upper_limit_of_the_mean_difference():
    of = np.random.default_rng(0).normal(0.9, 0.01, (20, 3))
    assert time_to_target.lacks(of, of) == [0.0] * of.shape[1]
    assert max(time_to_target.lacks(of - 0.01, of)) == pytest.approx(0.01)
    assert max(time_to_target.lacks(of + 0.01, of)) == pytest.approx(-0.01)


def test_the_mean_over_studies_is_surer_than_each():
    random = np.random.default_rng(0)
    seeds, budgets = 50, len(time_to_target.GRID)
    rows, differences = [], []
    for study in ("a", "b", "c", "d"):
        plain, ours = (random.normal(0.9, 0.02, (seeds, budgets)) for _ in range(2))
        differences.append(plain - ours)
        for strategy, held in ((time_to_target.PLAIN, plain), (time_to_target.OURS, ours)):
            limits = time_to_target.lacks(held, plain)
            rows.append({"study": study, "strategy": strategy})
            rows[-1]["held"] = dict(
                zip(map(str, time_to_target.GRID), held.mean(axis=0), strict=True)
            )
            rows[-1]["lacks_at_budgets"] = dict(
                zip(map(str, time_to_target.GRID), limits, strict=True)
            )
    found = time_to_target.lacks_on_average(rows, seeds)
    together = np.mean(differences, axis=0)
    error = np.sqrt(np.var(differences, axis=1, ddof=1).mean(axis=0) / seeds / 4)
    expected = together.mean(axis=0) + 1.677 * error
    assert list(found.values()) == pytest.approx(expected, abs=1e-4)


def test_plain_ray_tune_leaves_a_trial_running_that_is_not_a_number(recorded):
    """Why it is compared with: the searcher never hears that such a trial ended."""
    search = time_to_target.PlainSearch(recorded.space, seed=0)
    assignment = search.next()
    assert search.report(0, 1, 50, math.nan) is time_to_target.Verdict.CONTINUE
    search.complete(assignment.number, 1, math.nan, {})
    assert [trial.state.name for trial in search._searcher._ot_study.trials] == ["RUNNING"]


def test_the_record_bears_out_that_the_default_keeps_the_winner():
    record = json.loads(rung_fidelity.RECORD.read_text())
    assert min(record["configurations"].values()) >= 150
    assert RunConfig(alg=("ict",)).reduction_factor == record["rows"][0]["reduction_factor"]
    default = [row for row in record["rows"] if row["rungs"] == record["rows"][0]["rungs"]]
    for method in ALGORITHM_NAMES:
        (row,) = (row for row in default if row["method"] == method)
        assert row["winner_kept"] >= 0.95, method


def test_the_page_s_words_about_plain_tune_are_what_was_recorded():
    kept = json.loads(time_to_target.RECORD.read_text())["pair"]
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
    limits = [100 * limit for limit in kept["lacks_on_average"].values()]
    told = " | ".join(f"{limit:.2f}".replace("0.", ".") for limit in limits)
    assert f"| it lacks at most | {told} |" in page
    assert f"upper 95 % limit of at most {max(limits):.2f}".replace(" 0.", " .") in page
