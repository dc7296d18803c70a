"""What a search survives or is stopped by on one host: a killed worker, full disks, a torn journal.

With one trial at a time it must end as the undisturbed search does, to the last bit.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.end_to_end.command import (
    FAULTS,
    SMALL,
    assert_replays,
    environment,
    outcome_of,
    run,
    trial_events,
    trials_of,
    weights_of,
)
from tune_ssl.run import RunDirectory
from tune_ssl.storage import RunStorage
from tune_ssl.study import BEGAN_AT

pytestmark = pytest.mark.slow

SEARCH = (*SMALL, "--trials", "9", "--concurrency", "1", "--seed", "7")


def steps_of(cwd: Path) -> int:
    return (cwd / "steps").stat().st_size


def harmed(cwd: Path, fault: str, *arguments: str):
    """Run a search, or what ``arguments`` say, with a fault in it."""
    return run(
        *(arguments or (*SEARCH, "--name", "run")),
        cwd=cwd,
        PYTHONPATH=FAULTS,
        TUNE_SSL_FAULT=fault,
        TUNE_SSL_MARK=str(cwd / "mark"),
        TUNE_SSL_STEPS=str(cwd / "steps"),
    )


def assert_same(cwd: Path, calm: Path, *, ends_lost: int = 0) -> None:
    """Compare a search with the undisturbed one; every trial must have ended once.

    ``ends_lost`` of them may have ended again, because the journal lost what it said of their end.
    """
    one, other = cwd / "runs" / "run", calm / "runs" / "run"
    assert outcome_of(one) == outcome_of(other)
    if not ends_lost:
        assert_replays(one)
    assert weights_of(one) == weights_of(other) != {}
    ended = [event["trial"] for event in trial_events(one, "ended")]
    assert set(ended) == set(range(9))
    assert len(ended) <= 9 + ends_lost


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the undisturbed search was run."""
    cwd = tmp_path_factory.mktemp("calm")
    ended = harmed(cwd, "")
    assert ended.returncode == 0, ended.stderr
    return cwd


@pytest.mark.parametrize(
    ("fault", "checkpoint", "repeated", "reason"),
    [
        ("worker:10", 6, 4, "worker process has died"),
        ("hang:10", 6, 4, "no sign of life for 5 s or more"),
        ("share:2", 2, 4, "step-000006.pt cannot be written"),
    ],
)
def test_a_trial_continues_from_its_last_checkpoint(
    calm: Path, tmp_path: Path, fault, checkpoint, repeated, reason
):
    """The worker dies or hangs at step 10 of the first trial, or cannot store its second checkpoint."""
    ended = harmed(tmp_path, fault)
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / "runs" / "run"
    [waited] = trial_events(folder, "waiting")
    assert (waited["trial"], waited["attempt"]) == (0, 1)
    assert reason in waited["reason"]
    assert trials_of(folder)[0].system_attrs[BEGAN_AT] == checkpoint
    assert steps_of(tmp_path) == steps_of(calm) + repeated
    assert_same(tmp_path, calm)


def test_an_object_store_keeps_what_a_folder_keeps(calm: Path, bucket: str, tmp_path: Path):
    """A worker dies at step 10 of the first trial; then the search is extended."""
    search = (*SMALL, "--concurrency", "1", "--seed", "7", "--storage", bucket, "--name", "run")
    for arguments in (
        (*search, "--trials", "5"),
        ("resume", "run", "--trials", "9", "--no-dashboard"),
    ):
        ended = harmed(tmp_path, "worker:10", *arguments)
        assert ended.returncode == 0, ended.stderr
    folder = tmp_path / "runs" / "run"
    assert len(trial_events(folder, "waiting")) == 1
    assert trials_of(folder)[0].system_attrs[BEGAN_AT] == 6
    assert outcome_of(folder) == outcome_of(calm / "runs" / "run")
    assert not list(folder.rglob("*.safetensors"))
    storage = RunStorage(str(RunDirectory(folder).read_config().storage))
    kept = {path.split("/")[0]: storage.read(f"trials/{path}") for path in storage.files("trials")}
    assert kept == weights_of(calm / "runs" / "run")


def test_a_loss_that_is_not_finite_ends_its_trial_without_a_value(tmp_path: Path):
    ended = harmed(tmp_path, "nan:10")
    assert ended.returncode == 4, ended.stderr
    assert "no trial ended well" in ended.stderr
    trials = trials_of(tmp_path / "runs" / "run")
    assert {trial.state for trial in trials} == {TrialState.PRUNED}
    diverged = [trial for trial in trials if 6 in trial.intermediate_values and trial.value is None]
    assert diverged[0].number == 0  # the published default, which no rung cuts
    assert {trial.user_attrs["reason"] for trial in diverged} == {
        "the loss was not finite by step 18"
    }
    assert steps_of(tmp_path) <= sum(18 if t in diverged else 6 for t in trials)


def test_a_disk_that_still_takes_the_journal_stops_the_search_and_fails_no_trial(
    calm: Path, tmp_path: Path
):
    ended = harmed(tmp_path, "full:5")
    assert ended.returncode == 1, ended.stderr
    assert "No space left on device" in ended.stderr
    assert "tune-ssl resume" in ended.stderr
    assert "ERROR" not in ended.stderr  # Tune has its own words for it
    states = [trial.state for trial in trials_of(tmp_path / "runs" / "run")]
    assert not {TrialState.FAIL, TrialState.RUNNING} & set(states)
    assert TrialState.WAITING in states
    ended = harmed(tmp_path, "", "resume", "run", "--no-dashboard")
    assert ended.returncode == 0, ended.stderr
    assert_same(tmp_path, calm)


UNASKED = """
import time
import ray
from tune_ssl.on_ray.cluster import connected

@ray.remote
class Worker:
    def step(self, raises):
        if raises:
            raise RuntimeError("cannot be written")

with connected(address=None, dashboard=False, image_bytes=0):
    worker = Worker.remote()
    last = worker.step.remote(True)
    ray.get(worker.step.remote(False))  # answered after the first, which is not asked for
    del last
    time.sleep(1)
"""


def test_ray_tells_nobody_what_a_worker_raised_when_the_search_was_over():
    ended = subprocess.run(
        [sys.executable, "-c", UNASKED], env=environment(), capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_full_disk_stops_the_driver_and_a_torn_journal_is_mended(calm: Path, tmp_path: Path):
    ended = harmed(tmp_path, "disk:25")
    folder = tmp_path / "runs" / "run"
    journal = folder / "study.journal"
    assert ended.returncode == 1, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert str(journal) in last
    assert f"resume {folder}" in last
    assert journal.read_bytes().endswith(b"\n")
    assert trial_events(folder, "ended")

    # The host stops as well: the file's last block comes back as it was on the disk.
    before = journal.read_bytes()
    torn = before[: before.rstrip(b"\n").rfind(b"\n") + 20] + b"\0" * 4096
    journal.write_bytes(torn)
    ended = harmed(tmp_path, "", "resume", "run", "--concurrency", "1", "--no-dashboard")
    assert ended.returncode == 0, ended.stderr
    [kept] = folder.glob("study.journal.torn-*")
    assert f"study.journal ended in {kept.stat().st_size} bytes of a torn record" in ended.stderr
    assert kept.name in ended.stderr
    assert_same(tmp_path, calm, ends_lost=1)  # the record that was torn may be of a trial's end
