"""Comparisons on a real Ray: one killed in the middle of a cell and gone on with, one under conditions."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.command import Running, ended_trials, outcome_of, run, trials_of
from tune_ssl.study import RESULT, STARTED
from tune_ssl.trial import DIVISION, unpack_correct

pytestmark = pytest.mark.slow

COMPARE = (
    *("compare", "--alg", "pi", "--trials", "3", "--seeds", "3", "--max-steps", "18"),
    *("--scheduler", "none", "--concurrency", "1", "--no-dashboard", "--format", "json"),
)
PARTS = ("cells/supervised", "cells/pi_model-mse", "retrainings")


def openings(cwd: Path) -> int:
    path = cwd / "runs" / "test_openings.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def figures(stdout: str) -> dict[str, Any]:
    """Return what was measured, without times and places."""
    result = json.loads(stdout)
    del result["test"]["opening"]
    for row in result["cells"]:
        del row["device_seconds"]
        for one in row["searched"]:
            del one["origin"]["device_seconds"], one["origin"]["training_seconds"]
            for retraining in one["retrainings"]:
                del retraining["device_seconds"], retraining["weights"]
    return result


def test_killed_in_its_second_cell_it_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path):
    whole = run(*COMPARE, "--name", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert whole.stderr.count("ray: this host") == 2  # all cells together, then the retrainings
    assert openings(tmp_path) == 1

    folder = tmp_path / "runs" / "killed"
    killed = Running(*COMPARE, "--name", "killed", cwd=tmp_path)
    killed.wait_until(lambda: ended_trials(folder / PARTS[1]) >= 1, timeout=300)
    killed.process.kill()
    assert killed.end() == -signal.SIGKILL
    assert len(trials_of(folder / PARTS[1])) < 3 or not (folder / PARTS[2]).exists()
    assert [trial.state.name for trial in trials_of(folder / PARTS[0])] == ["COMPLETE"] * 3
    assert not (folder / "result.json").exists()
    first_cell = (folder / PARTS[0] / "study.journal").read_bytes()
    assert openings(tmp_path) == 1

    resumed = run("resume", "killed", "--format", "json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (folder / PARTS[0] / "study.journal").read_bytes() == first_cell
    for part in PARTS:
        assert outcome_of(folder / part) == outcome_of(folder.with_name("whole") / part)
    assert figures(resumed.stdout) == figures(whole.stdout)
    assert openings(tmp_path) == 2

    told_again = run(*COMPARE, "--name", "killed", cwd=tmp_path)
    assert (told_again.returncode, told_again.stdout) == (0, resumed.stdout)
    assert "ray:" not in told_again.stderr
    assert openings(tmp_path) == 2


def running(cell: Path) -> bool:
    return (cell / "study.journal").exists() and any(
        trial.state.name == "RUNNING" and STARTED in trial.user_attrs for trial in trials_of(cell)
    )


def test_a_cell_begins_while_the_last_trial_of_another_runs_and_a_signal_stops_both(tmp_path: Path):
    command = (
        *("compare", "--alg", "pi", "--trials", "3", "--seeds", "3", "--max-steps", "600"),
        *("--scheduler", "none", "--concurrency", "2", "--no-dashboard", "--format", "json"),
    )
    folder = tmp_path / "runs" / "it"
    stopped = Running(*command, "--name", "it", cwd=tmp_path)
    stopped.wait_until(lambda: all(running(folder / part) for part in PARTS[:2]), timeout=300)
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.end() == 130
    states = [trial.state.name for part in PARTS[:2] for trial in trials_of(folder / part)]
    assert "RUNNING" not in states
    assert "WAITING" in states
    resumed = run("resume", "it", "--format", "json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    for part in PARTS[:2]:
        assert [trial.state.name for trial in trials_of(folder / part)] == ["COMPLETE"] * 3
    assert [cell["trials"] for cell in json.loads(resumed.stdout)["cells"]] == [3, 3]
    assert openings(tmp_path) == 1


CONDITIONS = (
    *("--labels", "30", "--validation", "60", "--labeled-classes", "0,1,2,3,4,5"),
    *("--class-mismatch", "50", "--unlabeled", "200", "--imbalance", "3"),
    *("--reshuffle-validation", "--scheduler", "none"),
)


def test_under_realistic_conditions_every_part_has_them(tmp_path: Path):
    command = ("compare", "--alg", "pi", "--trials", "2", "--seeds", "3", "--max-steps", "18")
    compared = run(
        *command, *CONDITIONS, "--no-dashboard", "--format", "json", "--name", "it", cwd=tmp_path
    )
    assert compared.returncode == 0, compared.stderr
    result = json.loads(compared.stdout)
    test, cells = result["test"], result["cells"]
    assert result["metric"] == "balanced_accuracy"
    assert test["classes"] == ["0", "1", "2", "3", "4", "5"]
    assert set(test["labels"]) == set(range(6))
    assert openings(tmp_path) == 1
    draws = [[line["split_seed"] for line in cell["searched"][0]["retrainings"]] for cell in cells]
    assert draws[0] == draws[1]
    for cell in cells:
        vectors = [
            unpack_correct(line["test_correct"]) for line in cell["searched"][0]["retrainings"]
        ]
        of_classes = [
            np.mean([correct[np.equal(test["labels"], own)] for correct in vectors])
            for own in range(6)
        ]
        assert cell["test"]["mean"] == pytest.approx(np.mean(of_classes), abs=1e-4)
        assert cell["accuracy"]["mean"] == pytest.approx(np.mean(vectors), abs=1e-4)
    for part in PARTS[:2]:
        trials = trials_of(tmp_path / "runs" / "it" / part)
        divisions = {trial.system_attrs[RESULT][DIVISION] for trial in trials}
        assert len(divisions) == 2, "each trial has validation images of its own"
