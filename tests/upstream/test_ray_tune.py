"""Defects of Ray Tune that code of ours works around. A pass here says: delete that code."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

pytestmark = pytest.mark.upstream


def space(trial: Any) -> None:
    trial.suggest_float("x", 0, 1)


def climb(config: dict[str, Any]) -> None:
    """Train for nine steps, and for ever where told so."""
    from ray import tune

    step = 0
    while step < 9 or config.get("endless"):
        step += 1
        tune.report({"accuracy": config["x"] + 0.01 * step})
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ray_started() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


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


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="tune_ssl.study fills the rungs from the journal at every start",
)
def test_a_restored_search_has_the_rungs_it_had(ray_started: None, tmp_path: Path) -> None:
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler

    def rungs(scheduler: Any) -> list[dict[str, float]]:
        return [recorded for bracket in scheduler._brackets for _, recorded in bracket._rungs]

    scheduler = AsyncHyperBandScheduler(
        metric="accuracy", mode="max", max_t=9, grace_period=3, reduction_factor=3
    )
    tuner = tune.Tuner(
        climb,
        param_space={"x": tune.grid_search([0.5, 0.6])},
        tune_config=tune.TuneConfig(scheduler=scheduler),
        run_config=tune.RunConfig(name="one", storage_path=str(tmp_path), verbose=0),
    )
    tuner.fit()
    if not any(rungs(scheduler)):
        pytest.fail("nothing was recorded in the first place")
    restored = tune.Tuner.restore(str(tmp_path / "one"), climb)
    assert any(rungs(restored._local_tuner._tune_config.scheduler))


@pytest.mark.xfail(
    strict=True,
    raises=optuna.exceptions.UpdateFinishedTrialError,
    reason="a resume of ours is a new Tune run: no trial that is finished is reported again",
)
def test_a_restored_search_bears_a_trial_that_ended_after_its_snapshot(tmp_path: Path) -> None:
    """Tune runs such a trial again; Optuna's storage, written at once, has it finished."""
    from ray.tune.search.optuna import OptunaSearch

    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )

    def make() -> Any:
        return OptunaSearch(
            space=space, metric="accuracy", mode="max", storage=storage, study_name="one"
        )

    before = make()
    before.suggest("one")
    before.save(str(tmp_path / "snapshot"))
    before.on_trial_complete("one", {"accuracy": 0.5, "training_iteration": 1})
    after = make()
    after.restore(str(tmp_path / "snapshot"))
    after.on_trial_result("one", {"accuracy": 0.5, "training_iteration": 1})


def stopped_at_its_first_report(searcher: Any, storage_path: Path) -> Any:
    """Run one trial that the scheduler stops at once; return it as Optuna has it."""
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    class StopAtOnce(FIFOScheduler):
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            return TrialScheduler.STOP

    tune.run(
        climb,
        search_alg=searcher,
        scheduler=StopAtOnce(),
        num_samples=1,
        storage_path=str(storage_path),
        verbose=0,
    )
    return searcher._ot_study.trials[0]


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="tune_ssl.study tells PRUNED where a rung stopped"
)
def test_a_trial_stopped_early_is_not_complete(
    ray_started: None, searcher: Any, tmp_path: Path
) -> None:
    assert stopped_at_its_first_report(searcher, tmp_path).state != TrialState.COMPLETE


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="tune_ssl.study writes a report before its verdict"
)
def test_the_report_a_trial_was_stopped_for_is_kept(
    ray_started: None, searcher: Any, tmp_path: Path
) -> None:
    assert stopped_at_its_first_report(searcher, tmp_path).intermediate_values


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="tune_ssl.driver drains and closes: nothing stays running",
)
def test_a_time_limit_leaves_no_trial_running(
    ray_started: None, searcher: Any, tmp_path: Path
) -> None:
    from ray import tune

    tune.run(
        climb,
        config={"endless": True},
        search_alg=searcher,
        num_samples=2,
        time_budget_s=5,
        storage_path=str(tmp_path),
        verbose=0,
    )
    states = [trial.state for trial in searcher._ot_study.trials]
    if len(states) != 2:
        pytest.fail("not both trials began")
    assert TrialState.RUNNING not in states


def test_a_trial_is_put_into_snapshots_where_ours_keeps_it_out() -> None:
    """Not a defect: where this fails, ``tuning._no_snapshots`` costs time and saves none."""
    from ray.tune.execution.tune_controller import TuneController

    from tune_ssl.on_ray import tuning

    assert hasattr(TuneController, tuning._INTO_SNAPSHOT)
