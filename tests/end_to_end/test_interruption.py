"""Signals, a killed driver, a second driver; then a resume that loses nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.end_to_end.command import SMALL, ended_trials, events, outcome_of, run, trials_of

pytestmark = pytest.mark.slow

LONG = ["--alg", "ict", "--max-steps", "270", "--no-dashboard"]
"""Trials of some seconds: rungs at 30 and 90, full length 270."""


def last_event(folder: Path) -> str:
    return events(folder)[-1]["event"]


def finished_once(folder: Path, asked: int) -> None:
    trials = trials_of(folder)
    assert [trial.number for trial in trials] == list(range(asked))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_resume_continues_from_the_exact_step(start, tmp_path: Path, number):
    running = start(
        *LONG, "--trials", "4", "--scheduler", "none", "--name", "drained", cwd=tmp_path
    )
    folder = tmp_path / "runs" / "drained"
    running.wait_until(lambda: ended_trials(folder) >= 1 and last_event(folder) == "started")
    running.process.send_signal(number)
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


def test_a_killed_driver_loses_nothing_and_ends_as_the_undisturbed_search(start, tmp_path: Path):
    options = [*LONG, "--trials", "8", "--concurrency", "1", "--seed", "5"]
    assert run(*options, "--name", "calm", cwd=tmp_path).returncode == 0
    running = start(*options, "--name", "killed", cwd=tmp_path)
    folder = tmp_path / "runs" / "killed"
    running.wait_until(lambda: ended_trials(folder) >= 3)
    running.process.send_signal(signal.SIGKILL)
    running.end()
    ended = run("resume", "killed", "--no-dashboard", "--concurrency", "1", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert outcome_of(folder) == outcome_of(tmp_path / "runs" / "calm")
    for weights in sorted((tmp_path / "runs" / "calm" / "trials").glob("*/weights-*.safetensors")):
        twins = list((folder / "trials" / weights.parent.name).glob("weights-*.safetensors"))
        assert [twin.read_bytes() for twin in twins] == [weights.read_bytes()]


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
