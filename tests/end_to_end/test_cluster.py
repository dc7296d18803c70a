"""A search on a real cluster of two nodes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.end_to_end import cluster
from tests.end_to_end.command import SMALL, environment, events, run, trials_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """Return the address of a cluster of two nodes with one CPU each."""
    process = subprocess.Popen(
        [sys.executable, cluster.__file__, "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    address = next(line.strip() for line in process.stdout if line[:1].isdigit())
    yield address
    process.stdin.close()
    process.wait(timeout=60)


def most_at_once(folder: Path) -> int:
    """Return how many trials ran at the same time at most."""
    running = most = 0
    for event in events(folder):
        if event["event"] == "started":
            running += 1
            most = max(most, running)
        elif event["event"] in ("ended", "waiting") and "trial" in event:
            running -= 1
    return most


def test_both_nodes_prove_themselves_and_get_trials(two_nodes: str, tmp_path: Path):
    # A node has one CPU: only both together run two trials at a time.
    options = ["--alg", "ict", "--max-steps", "180", "--scheduler", "none", "--trials", "6"]
    ended = run(*options, "--name", "two", "--address", two_nodes, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "the cluster at" in ended.stderr
    assert "gets no trials" not in ended.stderr
    trials = trials_of(tmp_path / "runs" / "two")
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert len(trials) == 6
    assert most_at_once(tmp_path / "runs" / "two") == 2
    assert not list((tmp_path / "runs" / "two").glob("probe-*"))


def test_more_cpus_than_the_cluster_has_are_refused(two_nodes: str, tmp_path: Path):
    ended = run(*SMALL, "--cpus-per-trial", "5", "--address", two_nodes, cwd=tmp_path)
    assert ended.returncode == 2
    assert "cpus-per-trial is 5" in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_an_address_where_nothing_answers_is_refused(tmp_path: Path):
    ended = run(*SMALL, "--address", "127.0.0.1:1", cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert "no Ray cluster answers" in ended.stderr
    assert not (tmp_path / "runs").exists()
