"""A confirmation on a real Ray: killed where it hurts, repeated, equal to an undisturbed one."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.end_to_end.command import FAULTS, outcome_of, run, trials_of

pytestmark = pytest.mark.slow

SEARCH = (
    *("--alg", "ict", "--max-steps", "18", "--scheduler", "none", "--trials", "4"),
    "--no-dashboard",
)
CONFIRM = ("confirm", "main", "--top", "2", "--seeds", "3", "--no-dashboard", "--format", "json")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``runs/main``, a finished search."""
    cwd = tmp_path_factory.mktemp("confirm")
    ended = run(*SEARCH, "--name", "main", cwd=cwd)
    assert ended.returncode == 0, ended.stderr
    return cwd


def openings(cwd: Path) -> list[dict[str, Any]]:
    path = cwd / "runs" / "test_openings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def figures(stdout: str) -> dict[str, Any]:
    """Return what was measured, without times and places."""
    result = json.loads(stdout)
    del result["test"]["opening"]
    for row in result["configurations"]:
        for one in row["retrainings"]:
            del one["device_seconds"], one["weights"]
    return result


def test_killed_and_repeated_it_ends_as_if_it_had_not_been_and_opens_the_test_once(
    searched: Path,
):
    whole = run(*CONFIRM, "--name", "whole", cwd=searched)
    assert whole.returncode == 0, whole.stderr
    assert "winner, named before the test set is opened" in whole.stderr
    assert [line["run"].rsplit("/", 1)[1] for line in openings(searched)] == ["whole"]

    folder = searched / "runs" / "main" / "confirm" / "killed"
    killed = run(
        *CONFIRM,
        "--name",
        "killed",
        cwd=searched,
        PYTHONPATH=FAULTS,
        TUNE_SSL_FAULT="weights:2",  # on a worker that has stored the weights of its second
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = [trial.state for trial in trials_of(folder)]
    assert len(left) == 9
    assert 0 < left.count(TrialState.COMPLETE) < 9
    assert len(openings(searched)) == 1

    repeated = run(*CONFIRM, "--name", "killed", cwd=searched)
    assert repeated.returncode == 0, repeated.stderr
    assert outcome_of(folder) == outcome_of(folder.with_name("whole"))
    assert figures(repeated.stdout) == figures(whole.stdout)
    assert json.loads(repeated.stdout)["test"]["opening"] == 2

    told_again = run(*CONFIRM, "--name", "killed", cwd=searched)
    assert (told_again.returncode, told_again.stdout) == (0, repeated.stdout)
    assert "ray:" not in told_again.stderr
    resumed = run("resume", str(folder), "--format", "json", cwd=searched)
    assert (resumed.returncode, resumed.stdout) == (0, repeated.stdout)
    assert len(openings(searched)) == 2


def test_status_tells_of_it(searched: Path):
    told = run("status", "main/confirm/whole", cwd=searched)
    assert "whole: 9 of 9 finished (9 complete" in told.stdout
    assert "retrainings of" in told.stdout
