"""The driver killed at the hard points and at random, round after round, until the search is done."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.end_to_end.command import (
    FAULTS,
    assert_replays,
    ended_trials,
    outcome_of,
    run,
    trial_events,
    trials_of,
    weights_of,
)
from tune_ssl.asha import decide

pytestmark = pytest.mark.slow

TRIALS = 45
RUNGS = (15, 45, 135)
SEARCH = (
    *("--alg", "supervised", "--max-steps", str(RUNGS[-1]), "--trials", str(TRIALS)),
    *("--reduction-factor", "3", "--concurrency", "1", "--seed", "7", "--no-dashboard"),
)
RESUME = ("--concurrency", "1", "--no-dashboard")
HARD_POINTS = ("journal:40", "checkpoint:3", "named:3", "reported:3", "weights:1")
"""What ``faults/sitecustomize.py`` does, and how often it lets the point pass."""


def assert_rungs_follow_from_what_was_recorded(folder: Path) -> None:
    """Decide every rung again from the journal, in the order in which trials came there."""
    trials = trials_of(folder)
    for step in RUNGS[:-1]:
        key = f"rung {step}"
        there = [trial for trial in trials if key in trial.user_attrs]
        there.sort(key=lambda trial: trial.user_attrs[key]["population"])
        earlier: list[float] = []
        for trial in there:
            decision = decide(earlier, trial.intermediate_values[step], reduction_factor=3)
            recorded = trial.user_attrs[key]
            assert recorded["population"] == len(earlier)
            assert (recorded["cutoff"], recorded["kept"]) == (decision.cutoff, decision.kept)
            earlier.append(trial.intermediate_values[step])


def test_however_often_the_driver_is_killed_the_search_ends_as_if_it_had_not_been(
    start, tmp_path: Path
):
    calm_steps, steps = tmp_path / "calm.steps", tmp_path / "killed.steps"
    ended = run(
        *(*SEARCH, "--name", "calm"),
        cwd=tmp_path,
        PYTHONPATH=FAULTS,
        TUNE_SSL_STEPS=str(calm_steps),
    )
    assert ended.returncode == 0, ended.stderr

    folder = tmp_path / "runs" / "killed"
    chance = random.Random()
    arguments: tuple[str, ...] = (*SEARCH, "--name", "killed")
    for fault in (*HARD_POINTS, "at random", "at random"):
        point = "" if fault == "at random" else fault
        there = ended_trials(folder)
        running = start(
            *arguments,
            cwd=tmp_path,
            PYTHONPATH=FAULTS,
            TUNE_SSL_FAULT=point,
            TUNE_SSL_STEPS=str(steps),
        )
        if fault == "at random":
            running.wait_until(lambda before=there: ended_trials(folder) > before)
            seconds = chance.uniform(0.0, 1.0)
            time.sleep(seconds)
            print(f"killed {seconds:.2f} s after a trial ended")
            running.process.kill()
        assert running.end(120) == -signal.SIGKILL, running.log.read_text()
        arguments = ("resume", "killed", *RESUME)
    ended = run(*arguments, cwd=tmp_path, PYTHONPATH=FAULTS, TUNE_SSL_STEPS=str(steps))
    assert ended.returncode == 0, ended.stderr

    trials = trials_of(folder)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    once = [event["trial"] for event in trial_events(folder, "ended")]
    assert len(once) == len(set(once))
    assert outcome_of(folder) == outcome_of(tmp_path / "runs" / "calm")
    assert_rungs_follow_from_what_was_recorded(folder)
    assert_replays(folder)
    assert weights_of(folder) == weights_of(tmp_path / "runs" / "calm") != {}
    needed, executed = calm_steps.stat().st_size, steps.stat().st_size
    print(json.dumps({"steps needed": needed, "executed": executed}))
    assert executed / needed <= 1.15
