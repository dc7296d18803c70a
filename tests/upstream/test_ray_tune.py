"""Defects of Ray Tune that code of ours works around. A pass here says: delete that code."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.trial import TrialState

pytestmark = pytest.mark.upstream


def space(trial: Any) -> None:
    trial.suggest_float("x", 0, 1)


@pytest.fixture
def searcher() -> Any:
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(space=space, metric="accuracy", mode="max")


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="tune_ssl.study records a rung once, with its own value",
)
def test_a_trial_resumed_above_a_rung_leaves_that_rung_alone() -> None:
    from ray.tune.schedulers.async_hyperband import _Bracket

    class Resumed:
        trial_id = "resumed"

    bracket = _Bracket(min_t=3, max_t=100, reduction_factor=3, s=0)
    for step, accuracy in ((40, 0.840), (41, 0.841), (42, 0.842)):
        bracket.on_result(Resumed(), step, accuracy)
    recorded_at_3 = next(recorded for milestone, recorded in bracket._rungs if milestone == 3)
    assert 0.842 not in recorded_at_3.values()


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="tune_ssl.asha stops what is not finite"
)
def test_asha_stops_a_trial_that_is_not_a_number() -> None:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.schedulers.async_hyperband import _Bracket

    bracket = _Bracket(min_t=3, max_t=9, reduction_factor=3, s=0)
    decisions = []
    for number, accuracy in enumerate((0.5, 0.6, math.nan)):
        trial = type("Trial", (), {"trial_id": str(number)})()
        decisions.append(bracket.on_result(trial, 3, accuracy))
    assert decisions[-1] == TrialScheduler.STOP


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="tune_ssl.study ends such a trial itself"
)
def test_a_trial_that_is_not_a_number_does_not_stay_running(searcher: Any) -> None:
    searcher.suggest("one")
    searcher.on_trial_complete("one", {"accuracy": math.nan, "training_iteration": 1})
    assert searcher._ot_study.trials[0].state != TrialState.RUNNING


def test_a_trial_is_put_into_snapshots_where_ours_keeps_it_out() -> None:
    """Not a defect: where this fails, ``tuning._no_snapshots`` costs time and saves none."""
    from ray.tune.execution.tune_controller import TuneController

    from tune_ssl.on_ray import tuning

    assert hasattr(TuneController, tuning._INTO_SNAPSHOT)
