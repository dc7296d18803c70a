"""The search problem the engine is measured on, and how suggestions are compared."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math

import numpy as np
import pytest

from benchmarks import suggestions
from benchmarks.landscape import IMAGES, Landscape
from benchmarks.record_curves import RandomTrial
from benchmarks.suggestions import cost, difference, make_space, regret, regret_of, regret_row

SPACE = make_space("ict")
DRAWN = [SPACE.suggest(RandomTrial(seed)) for seed in range(300)]


@pytest.fixture(scope="module", params=[0, 1, 2])
def landscape(request):
    return Landscape(SPACE, request.param)


def changed(suggestion, **parameters):
    return dataclasses.replace(suggestion, parameters=suggestion.parameters | parameters)


def test_nothing_exceeds_the_best_and_something_comes_near(landscape):
    true = [landscape.true(suggestion) for suggestion in DRAWN]
    assert landscape.best - 0.05 < np.nanmax(true) <= landscape.best
    assert np.nanmedian(true) < landscape.best - 0.05


def test_large_learning_rates_diverge_and_no_others(landscape):
    for suggestion in DRAWN[:50]:
        rates = np.geomspace(3e-5, 3e-2, 12)
        diverges = [
            math.isnan(landscape.true(changed(suggestion, learning_rate=rate))) for rate in rates
        ]
        assert diverges == sorted(diverges)
        assert not diverges[0]


def test_accuracy_grows_with_the_steps_and_fastest_at_large_rates(landscape):
    slow, fast = (changed(DRAWN[0], learning_rate=rate) for rate in (1e-4, 1e-3))
    early = {}
    for suggestion in (slow, fast):
        values = [landscape._accuracy(suggestion, step) for step in (50, 150, 450)]
        assert values == sorted(values)
        early[suggestion is fast] = values[0] / values[-1]
    assert early[True] > early[False]


def test_a_measurement_is_a_count_of_images_about_the_truth(landscape):
    measured, true = zip(
        *((landscape.measure(s, 450), landscape.true(s)) for s in DRAWN), strict=True
    )
    assert measured[0] == landscape.measure(DRAWN[0], 450)
    off = [(m - t) / math.sqrt(t * (1 - t) / IMAGES) for m, t in zip(measured, true, strict=True)]
    off = np.array(off)[~np.isnan(off)]
    assert abs(off.mean()) < 0.25
    assert 0.8 < off.std() < 1.2
    counts = np.array(measured) * IMAGES
    assert np.allclose(counts, counts.round(), equal_nan=True)


def test_a_difference_has_its_t_interval():
    zero = {3: 0.0, 1: 0.0, 2: 0.0}
    found = difference({1: 1.0, 2: 2.0, 3: 3.0, 4: 9.0}, zero)
    assert found == {"seeds": 3, "mean": 2.0, "upper": 4.484}
    assert difference(zero, zero) == {"seeds": 3, "mean": 0.0, "upper": 0.0}


def test_cost_tells_every_sampler_on_one_history():
    row = cost("any", 30, 1)
    assert set(row["milliseconds"]) == {
        *("random", "stock", "separate"),
        *suggestions.SHOWN,
    }
    assert min(row["milliseconds"].values()) > 0
    for ratios in row["times_cheaper"].values():
        assert set(ratios) == set(suggestions.SHOWN)


def test_a_history_of_finished_trials_is_one_that_asha_leaves():
    study = suggestions.make_study(SPACE, 0, seed=0)
    study.add_finished(200)
    counts = study.counts()
    assert counts.finished == 200
    assert 15 <= counts.complete < 60
    for trial in study.get_trials():
        assert (trial.state.name == "COMPLETE") == (450 in trial.intermediate_values)
        assert trial.value is None or trial.value == trial.intermediate_values[trial.last_step]


def test_regret_is_paired_by_seed_and_what_is_known_is_not_searched_again():
    options = argparse.Namespace(seconds=1e9, trials=14, after=0, seeds=2, processes=1)
    known = {"25/225": {0: 50.0}}
    *_, found = regret("ict", ["25/225", "stock"], options, known)
    assert found == {
        "25/225": {0: 50.0, 1: round(regret_of(("ict", "25/225", 14, 0, 1)), 2)},
        "stock": {seed: round(regret_of(("ict", "stock", 14, 0, seed)), 2) for seed in (0, 1)},
    }
    assert min(found["stock"].values()) >= 0
    row = regret_row(found, 14)
    assert row["regret"]["stock"] == pytest.approx(np.mean(list(found["stock"].values())), abs=0.01)
    assert row["versus"]["stock"]["25/225"]["seeds"] == 2


def test_a_common_history_is_the_same_for_every_sampler(monkeypatch):
    begun = []
    simulate = suggestions.simulate

    def watched(study, *arguments, **options):
        simulate(study, *arguments, **options)
        begun.append([(trial.params, trial.value) for trial in study.get_trials()])

    monkeypatch.setattr(suggestions, "simulate", watched)
    for arm in ("25/225", "stock"):
        regret_of(("ict", arm, 5, 20, 1))
    before, after, other_before, other_after = begun
    assert before == other_before == after[:20] == other_after[:20]
    assert (len(before), len(after)) == (20, 25)
    assert after[20:] != other_after[20:]


def test_the_record_bears_out_that_a_suggestion_is_six_times_cheaper_and_no_worse():
    record = json.loads(suggestions.RECORD.read_text())
    for name in suggestions.SPACES:
        row = record[f"cost {name}"]
        assert row["finished"] == 10_000
        assert row["times_cheaper"]["stock"][suggestions.DEFAULT] >= 6
        after = record[f"regret {name} after 10000"]["versus"]["stock"][suggestions.DEFAULT]
        assert after["seeds"] >= 20
        assert after["upper"] <= suggestions.MARGIN
    for key in (key for key in record if key.startswith("regret")):
        row = record[key]
        computed = regret_row(suggestions.recorded_regret(key, row["trials"]), row["trials"])
        assert (row["regret"], row["versus"]) == (computed["regret"], computed["versus"])
