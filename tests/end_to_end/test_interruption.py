"""Signals, a second driver; then a resume that loses nothing. Kills are in ``test_faults``."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.end_to_end.command import (
    FAULTS,
    SMALL,
    ended_trials,
    events,
    outcome_of,
    run,
    trials_of,
)

pytestmark = pytest.mark.slow

LONG = ["--alg", "ict", "--max-steps", "270", "--no-dashboard"]
"""Trials of some seconds, fewer than a slice may take: rungs at 68 and 135, full length 270."""


def last_event(folder: Path) -> str:
    return events(folder)[-1]["event"]


def finished_once(folder: Path, asked: int) -> None:
    trials = trials_of(folder)
    assert [trial.number for trial in trials] == list(range(asked))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)


@pytest.mark.parametrize(
    ("number", "to"),
    [(signal.SIGINT, os.kill), (signal.SIGTERM, os.killpg)],
    ids=["driver", "group"],
)
def test_a_signal_drains_and_resume_continues_from_the_exact_step(
    start, tmp_path: Path, number, to
):
    """Also one to the whole process group, as timeout and batch systems send it."""
    running = start(
        *LONG,
        *("--trials", "4", "--scheduler", "none", "--name", "drained"),
        cwd=tmp_path,
        PYTHONPATH=FAULTS,
        TUNE_SSL_SLICE="0.2",
    )
    folder = tmp_path / "runs" / "drained"
    running.wait_until(lambda: ended_trials(folder) >= 1 and last_event(folder) == "started")
    to(running.process.pid, number)
    assert running.end() == 130
    trials = trials_of(folder)
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    interrupted = [trial for trial in trials if trial.state == TrialState.WAITING]
    begun = [t for t in interrupted if "tune_ssl:checkpoint" in t.system_attrs]
    assert begun, "nothing was running when the signal came"
    steps = {t.number: t.system_attrs["tune_ssl:checkpoint"]["step"] for t in begun}

    ended = run("resume", "drained", "--no-dashboard", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    finished_once(folder, 4)
    resumed = {
        event["trial"]: event["attempt"] for event in events(folder) if event["event"] == "started"
    }
    assert all(resumed[number] >= 2 for number in steps)
    after = {trial.number: trial for trial in trials_of(folder)}
    assert {n: after[n].system_attrs["tune_ssl:began_at"] for n in steps} == steps


def test_a_second_driver_is_refused(start, tmp_path: Path):
    running = start(*LONG, "--trials", "8", "--name", "held", cwd=tmp_path)
    folder = tmp_path / "runs" / "held"
    running.wait_until(lambda: bool(events(folder)))
    second = run("resume", "held", "--no-dashboard", cwd=tmp_path)
    assert second.returncode == 2
    assert str(running.process.pid) in second.stderr
    assert os.uname().nodename in second.stderr


def test_resume_extends_a_finished_search(tmp_path: Path):
    assert run(*SMALL, "--trials", "3", "--name", "more", cwd=tmp_path).returncode == 0
    before = outcome_of(tmp_path / "runs" / "more")
    ended = run("resume", "more", "--trials", "6", "--no-dashboard", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    finished_once(tmp_path / "runs" / "more", 6)
    assert outcome_of(tmp_path / "runs" / "more")[:3] == before
