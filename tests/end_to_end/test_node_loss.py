"""A node's raylet killed while a trial runs there, and the head killed while a search runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.end_to_end.cluster import RunningCluster
from tests.end_to_end.command import (
    FAULTS,
    Running,
    assert_replays,
    ended_trials,
    outcome_of,
    run,
    trial_events,
    trials_of,
)
from tune_ssl.study import BEGAN_AT, CHECKPOINT

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path):
    """Return a function that starts a cluster, which is stopped after the test."""
    started: list[RunningCluster] = []

    def begin(*, head_cpus: int) -> RunningCluster:
        started.append(RunningCluster(head_cpus=head_cpus, cwd=tmp_path))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def assert_finished_once(folder: Path, asked: int) -> None:
    trials = trials_of(folder)
    assert [trial.number for trial in trials] == list(range(asked))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert sorted(event["trial"] for event in trial_events(folder, "ended")) == list(range(asked))
    assert_replays(folder)


def test_a_lost_node_s_trial_goes_on_elsewhere_and_its_orphan_changes_nothing(
    cluster, start, tmp_path: Path
):
    """The first trial's worker outlives its raylet and stores its second checkpoint only when the
    trial has stored one on a node that joined meanwhile: the only one left that runs trials."""
    nodes = cluster(head_cpus=0)
    mark = tmp_path / "mark"
    counted = {"PYTHONPATH": FAULTS, "TUNE_SSL_STEPS": str(tmp_path / "steps")}
    lost = nodes.add(**counted, TUNE_SSL_FAULT="orphan:2", TUNE_SSL_MARK=str(mark))
    running: Running = start(
        *("--alg", "supervised", "--max-steps", "54", "--trials", "4", "--name", "run"),
        *("--reduction-factor", "3"),  # rungs at 6 and 18
        *("--address", nodes.address),
        cwd=tmp_path,
    )
    running.wait_until(mark.exists)
    nodes.add(**counted)
    running.wait_until(lambda: "passed its checks" in running.log.read_text())
    nodes.kill(lost, "raylet")
    folder = tmp_path / "runs" / "run"
    assert running.end(240) == 0, running.log.read_text()

    assert_finished_once(folder, 4)
    [waited] = trial_events(folder, "waiting")
    assert (waited["trial"], waited["attempt"]) == (0, 1)
    assert "unavailable" in waited["reason"] or "node" in waited["reason"]
    needed = sum(max({0, *t.intermediate_values}) for t in trials_of(folder))
    assert (tmp_path / "steps").stat().st_size == needed + 18 - 6  # since the checkpoint
    trial = trials_of(folder)[0]
    assert trial.system_attrs[BEGAN_AT] == 6
    assert trial.system_attrs[CHECKPOINT]["attempt"] == 2
    deadline = time.monotonic() + 60
    while not (late := Path(mark.read_text())).is_absolute():
        assert time.monotonic() < deadline, "the orphan has not written"
        time.sleep(0.05)
    assert late.parts[-3:] == ("0000", "attempt-1", "step-000018.pt")
    journal = (folder / "study.journal").read_text()
    assert "attempt-1/step-000006.pt" in journal
    assert "attempt-1/step-000018.pt" not in journal
    assert "attempt-2/step-000018.pt" in journal


def test_when_the_head_is_killed_a_resume_on_another_cluster_completes_the_search(
    cluster, start, tmp_path: Path
):
    nodes = cluster(head_cpus=1)
    running: Running = start(
        *("--alg", "ict", "--max-steps", "54", "--trials", "8", "--name", "run"),
        *("--address", nodes.address),
        cwd=tmp_path,
        RAY_gcs_rpc_server_reconnect_timeout_s="30",  # instead of a minute
    )
    folder = tmp_path / "runs" / "run"
    running.wait_until(lambda: ended_trials(folder) >= 2)
    nodes.kill(0, "gcs_server")
    assert running.end(240) == 1  # Ray's doing
    told = running.log.read_text()
    assert f"the head of the Ray cluster at {nodes.address} does not answer" in told
    assert f"resume {folder}" in told
    before = [outcome for outcome in outcome_of(folder) if outcome[1] in ("COMPLETE", "PRUNED")]

    ended = run("resume", "run", "--no-dashboard", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert_finished_once(folder, 8)
    assert [each for each in outcome_of(folder) if each in before] == before
