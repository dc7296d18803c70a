"""Which nodes may have trials: proofs that come late, hosts that are excluded; without a cluster."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace

import pytest

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import bare_report
from tune_ssl.machine import versions
from tune_ssl.on_ray import nodes
from tune_ssl.on_ray.nodes import NodeGuard, Requirements
from tune_ssl.on_ray.scheduler import DriverScheduler
from tune_ssl.on_ray.trainable import REPORT, TASK
from tune_ssl.storage import RunStorage
from tune_ssl.study import Verdict
from tune_ssl.worker import DEVICE_FAILED, END, ERROR, RUNG, UNWRITABLE


class FakeRay:
    """Nodes that answer when they are told to."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self, storage: RunStorage, hosts: dict[str, str]) -> None:
        self.storage, self.hosts = storage, hosts
        self.answering: set[str] = set()
        self.dead: set[str] = set()
        self.compiling: list[bool] = []

    def nodes(self):
        return [
            {
                "NodeID": node,
                "NodeManagerHostname": host,
                "Alive": node not in self.dead,
                "Resources": {"CPU": 1},
            }
            for node, host in self.hosts.items()
        ]

    def options(self, scheduling_strategy):
        def remote(storage, probe, factory, needs_gpu, compiles):
            self.storage.write(probe, b"tune-ssl")
            self.compiling.append(compiles)
            return scheduling_strategy.node_id

        return SimpleNamespace(remote=remote)

    def wait(self, references, num_returns, timeout):
        done = [reference for reference in references if reference in self.answering]
        return done, [reference for reference in references if reference not in done]

    def get(self, reference):
        return {"versions": versions(), "problem": None}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Make a cluster of named hosts, and its guard."""

    def make(**hosts):
        fake = FakeRay(RunStorage(str(tmp_path)), hosts)
        monkeypatch.setattr(nodes, "ray", fake)
        monkeypatch.setattr(nodes, "_prove", fake)
        strategy = lambda node_id, soft: SimpleNamespace(node_id=node_id)  # noqa: E731
        monkeypatch.setattr(nodes, "NodeAffinitySchedulingStrategy", strategy)
        monkeypatch.setattr(nodes, "PROOF_SECONDS", 0.05)
        monkeypatch.setattr(nodes, "POLL_SECONDS", 0.0)
        needed = Requirements(
            storage=str(tmp_path), factory=None, cpus=1.0, gpus=0.0, compiles=False
        )
        return fake, NodeGuard(needed)

    return make


@pytest.mark.parametrize("compiles", [False, True])
def test_a_node_is_asked_for_a_compiler_where_trials_need_one(cluster, monkeypatch, compiles):
    ray, guard = cluster(a="one")
    guard._requirements = dataclasses.replace(guard._requirements, compiles=compiles)
    ray.answering = {"a"}
    guard.prove_all()
    assert ray.compiling == [compiles]
    ray.get = lambda factory: SimpleNamespace(verify=lambda: None)
    monkeypatch.setattr(nodes, "missing_to_compile", lambda: "no C++ compiler (g++)")
    problem = nodes._own_problem(ray.storage.root, "probe", None, False, compiles)
    assert problem == ("it has no C++ compiler (g++), which --compile needs" if compiles else None)
    monkeypatch.setattr(nodes, "missing_to_compile", lambda: None)
    assert nodes._own_problem(ray.storage.root, "probe", None, False, compiles) is None


def test_a_node_that_answers_late_gets_trials_when_it_has(cluster):
    ray, guard = cluster(a="quick", b="slow")
    ray.answering = {"a"}
    guard.prove_all()
    assert guard.allowed == {"a"}
    assert "no answer" in guard.problems["slow"]
    assert guard.poll() == []
    ray.answering.add("b")
    assert guard.poll() == ["node slow passed its checks."]
    assert (guard.allowed, guard.problems) == ({"a", "b"}, {})


def test_where_none_answers_the_search_does_not_begin(cluster):
    _, guard = cluster(a="slow")
    with pytest.raises(UserError, match=r"slow: gave no answer"):
        guard.prove_all()


def test_an_excluded_node_gets_no_trials_and_the_last_that_lives_is_not_excluded(cluster):
    ray, guard = cluster(a="one", b="two", c="three")
    ray.answering = {"a", "b", "c"}
    guard.prove_all()
    ray.dead.add("c")
    assert guard.exclude("c", "its workers failed", for_good=True)
    assert guard.poll() == []  # nobody need be told of a dead one
    assert guard.exclude("a", "its disk is full", for_good=True)
    assert "a" not in guard.allowed
    assert guard.poll() == ["node one gets no more trials: its disk is full"]
    assert guard.exclude("a", "its disk is full", for_good=True)  # what it had still taken
    assert guard.poll() == []
    assert not guard.exclude("b", "its disk is full", for_good=True)
    assert "b" in guard.allowed
    ray.hosts["d"] = "one"  # mended, it joins anew
    ray.answering.add("d")
    assert guard.poll() == ["node one passed its checks."]
    assert "d" in guard.allowed


def test_one_that_lost_the_storage_may_prove_itself_again_and_one_excluded_for_good_not(
    cluster, monkeypatch
):
    ray, guard = cluster(a="one", b="two", c="three")
    ray.answering = {"a", "b", "c"}
    guard.prove_all()
    assert guard.exclude("a", "its disk is full", for_good=False)
    assert guard.exclude("b", "GPU 1 failed", for_good=True)
    assert len(guard.poll()) == 2
    assert guard.poll() == []
    now = time.monotonic()
    monkeypatch.setattr(nodes.time, "monotonic", lambda: now + 301.0)
    assert guard.poll() == ["node one passed its checks."]
    assert guard.allowed == {"a", "c"}
    assert guard.poll() == []


def scheduled(report, verdict=Verdict.STOP, guard=None, trial=None) -> str:
    drivers = SimpleNamespace(handle=lambda task, report: verdict, drains=lambda task: False)
    temporary_state = trial and trial.temporary_state
    trial = SimpleNamespace(config={TASK: [None]}, temporary_state=temporary_state)
    return DriverScheduler(drivers, guard).on_trial_result(None, trial, {REPORT: report})


def test_a_worker_that_shall_run_nothing_more_is_let_raise():
    assert scheduled(bare_report(UNWRITABLE)) == "CONTINUE"
    assert scheduled(bare_report(DEVICE_FAILED)) == "CONTINUE"
    assert scheduled(bare_report(ERROR, "ValueError: no such class")) == "STOP"
    assert scheduled(bare_report(END)) == "STOP"
    assert scheduled(bare_report(RUNG), Verdict.CONTINUE) == "CONTINUE"


@pytest.mark.parametrize(("all_drain", "killed", "stopped"), [(None, 1, 0), ("SIGTERM", 0, 1)])
def test_a_worker_that_does_not_store_is_given_to_no_trial_of_another_run(
    monkeypatch, all_drain, killed, stopped
):
    """Tune would keep a stopped trial's worker for the next trial, which would wait for it."""
    done = {"killed": 0, "stopped": 0, "lost": []}
    monkeypatch.setattr(
        "tune_ssl.on_ray.scheduler.ray",
        SimpleNamespace(kill=lambda actor: done.update(killed=done["killed"] + 1)),
    )
    drivers = SimpleNamespace(
        draining=all_drain,
        drain_seconds=lambda task: 21.0,
        lost=lambda task, reason: done["lost"].append(reason),
    )
    trial = SimpleNamespace(
        status="RUNNING",
        config={TASK: ["the task"]},
        temporary_state=SimpleNamespace(ray_actor="a worker"),
    )
    controller = SimpleNamespace(
        get_trials=lambda: [trial],
        stop_trial=lambda trial: done.update(stopped=done["stopped"] + 1),
    )
    DriverScheduler(drivers)._abandon_running(controller)
    assert (done["killed"], done["stopped"]) == (killed, stopped)
    assert done["lost"] == ["nothing was stored within 20 s"]


def test_the_worker_of_an_excluded_node_is_retired_when_its_trial_ends():
    retired = []
    actor = SimpleNamespace(retire=SimpleNamespace(remote=lambda: retired.append(1)))
    trial = SimpleNamespace(temporary_state=SimpleNamespace(ray_actor=actor))
    guard = SimpleNamespace(allowed={"b"})
    at = lambda node: dataclasses.replace(bare_report(END), node=node)  # noqa: E731
    assert scheduled(at("b"), guard=guard, trial=trial) == "STOP"
    assert not retired
    assert scheduled(at("a"), Verdict.CONTINUE, guard=guard, trial=trial) == "CONTINUE"
    assert not retired
    assert scheduled(at("a"), guard=guard, trial=trial) == "CONTINUE"
    assert retired == [1]


def test_what_waits_is_asked_for_anew_some_time_after_nodes_joined_or_were_excluded(
    cluster, monkeypatch
):
    ray, guard = cluster(a="one", b="two")
    ray.answering = {"a", "b"}
    guard.prove_all()
    now = [100.0]
    monkeypatch.setattr("tune_ssl.on_ray.scheduler.time", SimpleNamespace(monotonic=lambda: now[0]))
    scheduler = DriverScheduler(SimpleNamespace(), guard)
    assert not scheduler._waits_for_old_nodes()
    guard.exclude("a", "its disk is full", for_good=True)
    assert not scheduler._waits_for_old_nodes()
    now[0] += 11.0
    assert scheduler._waits_for_old_nodes()
    scheduler._ask_anew(SimpleNamespace(get_trials=lambda: []))
    now[0] += 11.0
    assert not scheduler._waits_for_old_nodes()
