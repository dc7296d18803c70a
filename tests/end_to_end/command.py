"""Running the real command in a process of its own, with a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from tests.tune_ssl.fakes import records_of
from tune_ssl.journal import MemoryJournal
from tune_ssl.run import RunDirectory
from tune_ssl.simulator import replay
from tune_ssl.study import ATTEMPT, RESULT, SearchStudy, read_trials
from tune_ssl.workflows.opening import study_of

COMMAND = [sys.executable, "-m", "tune_ssl.cli"]
FAULTS = os.pathsep.join(
    filter(None, [str(Path(__file__).with_name("faults")), os.environ.get("PYTHONPATH")])
)
"""As PYTHONPATH, it lets the environment say where a search is harmed."""
SMALL = [
    *("--alg", "supervised", "--max-steps", "18", "--reduction-factor", "3"),
    "--no-dashboard",
]
"""A search whose trials take a second: rungs at 2 and 6, full length 18."""


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without what would change a search."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"COLUMNS": "160"} | more


def run(
    *arguments: str, cwd: Path, timeout: float = 600, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; ``more`` are environment variables."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Running:
    """The command in progress."""

    def __init__(self, *arguments: str, cwd: Path, **more: str) -> None:
        self.log = cwd / "stderr.txt"
        with open(self.log, "w") as stderr:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=cwd,
                env=environment(**more),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                process_group=0,
            )

    def wait_until(self, condition: Callable[[], bool], timeout: float = 120) -> None:
        """Wait for a condition; fail where the command ends or the time is over first."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, f"it ended early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"timed out:\n{self.log.read_text()}"
            time.sleep(0.05)

    def end(self, timeout: float = 60) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(timeout=timeout)


def events(run_folder: Path) -> list[dict[str, Any]]:
    """Return a run's events so far."""
    path = run_folder / "events.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def ended_trials(run_folder: Path) -> int:
    """Return how many trials have ended so far."""
    return sum(event["event"] == "ended" and "trial" in event for event in events(run_folder))


def trials_of(run_folder: Path) -> list[FrozenTrial]:
    """Return a run's trials."""
    return read_trials(run_folder / "study.journal")[0]


def outcome_of(run_folder: Path) -> list[tuple[Any, ...]]:
    """Return what happened to every trial, the weights it ended with too, to be compared."""
    return [
        (
            trial.number,
            trial.state.name,
            trial.params,
            trial.value,
            tuple(sorted(trial.intermediate_values.items())),
            trial.system_attrs.get(RESULT, {}).get("weights_sha256"),
        )
        for trial in trials_of(run_folder)
    ]


def assert_replays(run_folder: Path) -> None:
    """Suggest and decide everything again from the journal alone: the first difference raises."""
    directory = RunDirectory(run_folder)
    config = directory.read_config()

    def make(journal: MemoryJournal) -> SearchStudy:
        return study_of(config, config.space(num_classes=10), journal, directory.name)

    trials = trials_of(run_folder)
    same = replay(records_of(directory.journal_path), make)
    assert same.suggestions == sum(trial.system_attrs.get(ATTEMPT, 0) for trial in trials)
    rungs = config.rungs()[:-1]
    assert same.decisions == sum(step in rungs for t in trials for step in t.intermediate_values)


def weights_of(run_folder: Path) -> dict[str, bytes]:
    """Return the weights a run has kept, by the number of their trial."""
    kept = run_folder.glob("trials/*/*.safetensors")
    return {path.parent.name: path.read_bytes() for path in kept}


def trial_events(run_folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind that are about a trial, in their order."""
    return [event for event in events(run_folder) if event["event"] == kind and "trial" in event]
