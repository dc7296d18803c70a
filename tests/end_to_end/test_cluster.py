"""Searches on a real cluster whose nodes come, go, and lack what the driver has."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from PIL import Image

from ssl_core.data.digits import load_training_images
from tests.end_to_end.cluster import RunningCluster
from tests.end_to_end.command import (
    FAULTS,
    SMALL,
    Running,
    environment,
    events,
    run,
    trial_events,
    trials_of,
)
from tests.marks import needs_a_compiler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Return a cluster whose head runs no trials, in a folder that no test uses."""
    started = RunningCluster(head_cpus=0, cwd=tmp_path_factory.mktemp("elsewhere"))
    yield started
    started.close()


@pytest.fixture
def cluster(head: RunningCluster) -> Iterator[RunningCluster]:
    """Return the cluster with nothing but its head."""
    yield head
    head.remove_all()


def running_and_most(folder: Path, since: int = 0) -> tuple[int, int]:
    """Return how many trials run now, and how many began to run together since that event."""
    running: set[tuple[int, int]] = set()
    most = 0
    for number, event in enumerate(events(folder)):
        attempt = event.get("trial", -1), event.get("attempt", -1)
        if event["event"] == "started":
            running.add(attempt)
            if number >= since:
                most = max(most, len(running))
        elif event["event"] in ("ended", "waiting"):
            running.discard(attempt)
    return len(running), most


def ended_alone(folder: Path) -> int:
    """Return how many trials have ended since one was last lost; 0 where two ran together since."""
    found = events(folder)
    lost = [number for number, event in enumerate(found) if event["event"] == "waiting"]
    since = lost[-1] + 1
    ended = sum(event["event"] == "ended" for event in found[since:])
    return ended if running_and_most(folder, since)[1] <= 1 else 0


def old_optuna(folder: Path) -> Path:
    """Return a folder in which Python finds the record of an Optuna of another version."""
    record = folder / "optuna-4.9.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: optuna\nVersion: 4.9.0\n")
    return folder


def test_nodes_that_join_prove_themselves_and_get_trials_until_they_go(
    cluster: RunningCluster, start, tmp_path: Path
):
    # A node has one CPU: the number of trials at a time is that of the nodes that get any.
    cluster.add()
    running: Running = start(
        *("--alg", "ict", "--max-steps", "360", "--scheduler", "none", "--trials", "500"),
        *("--address", cluster.address, "--name", "joined"),
        cwd=tmp_path,
    )
    folder = tmp_path / "runs" / "joined"
    running.wait_until(lambda: running_and_most(folder)[0] == 1)
    cluster.add(PYTHONPATH=str(old_optuna(tmp_path / "old")))
    cluster.add(PYTHONPATH=FAULTS, TUNE_SSL_FAULT="forbidden")
    for problem in ("other versions: optuna 4.9.0 (here ", f"it cannot write {folder}"):
        running.wait_until(
            lambda text=problem: f"gets no trials: {text}" in running.log.read_text()
        )
    good = cluster.add()
    running.wait_until(lambda: running_and_most(folder)[0] == 2)
    cluster.remove(good)
    running.wait_until(lambda: bool(trial_events(folder, "waiting")))
    [lost] = trial_events(folder, "waiting")
    assert "node" in lost["reason"]
    running.wait_until(lambda: attempts(folder, lost["trial"])[-1] > 1)
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 130
    assert running_and_most(folder) == (0, 2)


def attempts(folder: Path, number: int) -> list[int]:
    """Return the attempts at a trial that a worker took up."""
    begun = trial_events(folder, "started")
    return [event["attempt"] for event in begun if event["trial"] == number]


def folder_of_digits(folder: Path) -> Path:
    images = load_training_images()
    for number in range(400):
        place = folder / "train" / str(images.labels[number]) / f"{number:04}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(images.images[number][0])).save(place)
    return folder


def test_nodes_need_neither_the_images_nor_the_run_s_folder(
    cluster: RunningCluster, tmp_path: Path
):
    """The driver's folder does not exist for the node; the storage, below another, does."""
    here = tmp_path / "here"
    here.mkdir()
    cluster.add(PYTHONPATH=FAULTS, TUNE_SSL_HIDDEN=str(here))
    ended = run(
        *("--alg", "supervised", "--dataset", "folder", "--image-size", "8"),
        *("--data-dir", str(folder_of_digits(here / "images")), "--labels", "20"),
        *("--validation", "100", "--model", "wrn-10-1", "--max-steps", "18", "--trials", "6"),
        *("--address", cluster.address, "--storage", str(tmp_path / "shared"), "--name", "apart"),
        cwd=here,
    )
    assert ended.returncode == 0, ended.stderr
    assert "gets no trials" not in ended.stderr
    folder = here / "runs" / "apart"
    assert all(
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials_of(folder)
    )
    assert not list(here.rglob("*.safetensors"))
    assert list((tmp_path / "shared").rglob("*.safetensors"))


def test_a_node_without_our_packages_gets_trials_where_they_are_shipped(
    cluster: RunningCluster, tmp_path: Path
):
    cluster.add(PYTHONPATH=FAULTS, TUNE_SSL_MISSING="1")
    search = (*SMALL, "--trials", "3", "--address", cluster.address)
    refused = run(*search, "--name", "without", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "No module named" in refused.stderr
    assert "--ship-code" in refused.stderr
    ended = run(*search, "--ship-code", "--name", "shipped", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    states = [trial.state for trial in trials_of(tmp_path / "runs" / "shipped")]
    assert len(states) == 3
    assert TrialState.FAIL not in states


def test_a_node_that_loses_the_storage_gets_no_more_trials_and_fails_none(
    cluster: RunningCluster, start, tmp_path: Path
):
    """What it had taken ends on the other, however often it was tried here."""
    mark = str(tmp_path / "mark")
    cluster.add(PYTHONPATH=FAULTS, TUNE_SSL_FAULT="full:1", TUNE_SSL_MARK=mark)
    cluster.add()
    running: Running = start(
        *("--alg", "supervised", "--max-steps", "360", "--scheduler", "none", "--trials", "500"),
        *("--address", cluster.address, "--name", "full"),
        cwd=tmp_path,
    )
    folder = tmp_path / "runs" / "full"
    running.wait_until(lambda: "gets no more trials: " in running.log.read_text(), 300)
    lost = trial_events(folder, "waiting")
    assert 3 <= len(lost) <= 4  # it is said some seconds later
    assert all("No space left on device" in event["reason"] for event in lost)
    # One that was asked for before may still begin there, and is the last.
    running.wait_until(lambda: ended_alone(folder) >= 4, 300)
    lost = trial_events(folder, "waiting")
    assert len(lost) <= 4
    ended = {event["trial"] for event in trial_events(folder, "ended")}
    assert {event["trial"] for event in lost} <= ended
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 130
    full = [e for e in trial_events(folder, "waiting") if "No space left" in e["reason"]]
    assert len(full) <= 4
    assert not any(trial.state == TrialState.FAIL for trial in trials_of(folder))


def test_of_nodes_of_different_sizes_each_gets_what_fits(cluster: RunningCluster, tmp_path: Path):
    """One too small for a trial is not asked to prove itself; one for two trials gets two."""
    cluster.add(PYTHONPATH=FAULTS, TUNE_SSL_FAULT="forbidden")
    cluster.add(cpus=2)
    cluster.add(cpus=5)
    ended = run(
        *("--alg", "supervised", "--max-steps", "60", "--scheduler", "none", "--trials", "9"),
        *("--cpus-per-trial", "2", "--address", cluster.address, "--name", "sizes"),
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    assert "gets no trials" not in ended.stderr
    folder = tmp_path / "runs" / "sizes"
    assert running_and_most(folder) == (0, 3)
    assert {trial.state for trial in trials_of(folder)} == {TrialState.COMPLETE}


@needs_a_compiler
def test_compiled_trials_run_where_there_is_a_compiler(cluster: RunningCluster, tmp_path: Path):
    cluster.add(CXX="no-such-compiler")
    search = (
        *("--alg", "mean_teacher", "--max-steps", "18", "--trials", "3", "--compile"),
        *("--address", cluster.address, "--name", "compiled"),
    )
    here = {"CXX": "nor-here"}  # where nothing is trained
    refused = run(*search, cwd=tmp_path, **here)
    assert refused.returncode == 2
    missing = "no C++ compiler (no-such-compiler), which --compile needs"
    assert f"it has {missing}" in refused.stderr
    cluster.add()
    ended = run(*search, cwd=tmp_path, **here)
    assert ended.returncode == 0, ended.stderr
    states = [trial.state for trial in trials_of(tmp_path / "runs" / "compiled")]
    assert len(states) == 3
    assert TrialState.FAIL not in states


def test_a_cluster_whose_only_node_for_trials_fails_its_checks_is_refused(
    cluster: RunningCluster, tmp_path: Path
):
    """The head would pass, and has no CPU for a trial."""
    cluster.add(PYTHONPATH=FAULTS, TUNE_SSL_FAULT="forbidden")
    ended = run(*SMALL, "--address", cluster.address, cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert "no node of the cluster can run trials" in ended.stderr
    assert "it cannot write" in ended.stderr


def test_more_cpus_than_the_cluster_has_are_refused(cluster: RunningCluster, tmp_path: Path):
    ended = run(*SMALL, "--cpus-per-trial", "5", "--address", cluster.address, cwd=tmp_path)
    assert ended.returncode == 2
    assert "cpus-per-trial is 5" in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_an_address_where_nothing_answers_is_refused(tmp_path: Path):
    ended = run(*SMALL, "--address", "127.0.0.1:1", cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert "no Ray cluster answers" in ended.stderr
    assert not (tmp_path / "runs").exists()


@contextmanager
def started_by_hand(home: Path) -> Iterator[str]:
    """Yield the address of a head and a worker that ``ray start`` made, with what that home folder holds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
    port = address.rpartition(":")[2]
    nodes = []
    try:
        for more in (
            ("--head", "--port", port, "--num-cpus", "0", "--include-dashboard=false"),
            ("--address", address, "--num-cpus", "1"),
        ):
            node = subprocess.Popen(
                [*ray, *more],
                env=environment(HOME=str(home), RAY_AUTH_MODE="token"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            nodes.append(node)
            assert node.stdout is not None
            assert any("Ray runtime started" in line for line in node.stdout)
        yield address
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.communicate(timeout=60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home folder with a token, as any search leaves it."""
    folder = tmp_path / "home"
    (folder / ".ray").mkdir(parents=True)
    (folder / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    return folder


def test_a_cluster_that_asks_for_a_token_is_shown_that_of_this_host(home: Path, tmp_path: Path):
    strange = tmp_path / "strange"
    (strange / ".ray").mkdir(parents=True)
    search = (*SMALL, "--trials", "2")
    with started_by_hand(home) as address:
        there = ("--address", address)
        ended = run(*search, *there, "--name", "shown", cwd=tmp_path, HOME=str(home))
        assert ended.returncode == 0, ended.stderr
        assert "Token authentication" not in ended.stderr
        refused = run(*search, *there, "--name", "none", cwd=tmp_path, HOME=str(strange))
        assert refused.returncode == 2, refused.stderr
        assert f"the Ray cluster at '{address}' asks for a token" in refused.stderr
        assert f"there is no {strange / '.ray' / 'auth_token'}" in refused.stderr
        (strange / ".ray" / "auth_token").write_text("another" * 5)
        refused = run(*search, *there, "--name", "wrong", cwd=tmp_path, HOME=str(strange))
        assert refused.returncode == 2, refused.stderr
        assert f"no Ray cluster answers at '{address}'" in refused.stderr


def test_one_that_asks_for_none_is_shown_none(cluster: RunningCluster, home: Path, tmp_path: Path):
    """Its workers could not answer a driver that asks them for a token."""
    cluster.add()
    search = (*SMALL, "--trials", "2", "--address", cluster.address)
    ended = run(*search, cwd=tmp_path, HOME=str(home))
    assert ended.returncode == 0, ended.stderr
