"""Defects of Optuna that code of ours works around. A test that passes here says: delete that code."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

pytestmark = pytest.mark.upstream


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


@pytest.mark.xfail(
    strict=True,
    raises=(AttributeError, ValueError),
    reason="tune_ssl.journal cuts a torn tail before opening",
)
def test_a_journal_with_a_torn_last_line_can_be_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(study_name="torn", storage=journal(path))
    study.ask()
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"worker_id":')  # the writer was killed here
    optuna.load_study(study_name="torn", storage=journal(path)).ask()
    assert len(optuna.load_study(study_name="torn", storage=journal(path)).trials) == 2


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="tune_ssl.study tells PRUNED without a value, never FAIL",
)
def test_tpe_learns_from_failed_trials() -> None:
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}

    def suggested(*, failed: int) -> float:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
        for index in range(10):
            value = {"params": {"x": index / 20}, "distributions": space, "value": float(index)}
            study.add_trial(create_trial(**value))
        for index in range(failed):
            params = {"x": 0.02 * index / failed}
            trial = create_trial(params=params, distributions=space, state=TrialState.FAIL)
            study.add_trial(trial)
        return study.ask(space).params["x"]

    assert suggested(failed=20) != suggested(failed=0)


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="tune_ssl.sampler seeds a sampler per trial's number"
)
def test_a_sampler_made_again_goes_on_where_the_first_was() -> None:
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}

    def drawn(*, restart_after: int | None) -> list[float]:
        storage = optuna.storages.InMemoryStorage()
        values = []
        for number in range(4):
            if number in (0, restart_after):
                study = optuna.create_study(
                    study_name="one",
                    storage=storage,
                    load_if_exists=True,
                    sampler=optuna.samplers.TPESampler(seed=0),
                )
            trial = study.ask(space)
            values.append(trial.params["x"])
            study.tell(trial, 0.0)
        return values

    assert drawn(restart_after=2) == drawn(restart_after=None)
