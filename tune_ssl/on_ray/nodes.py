"""Each node of a cluster proves itself before it gets a trial: at the start, and when it joins."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ssl_core.errors import UserError
from tune_ssl.machine import disk_free_bytes, missing_to_compile, versions
from tune_ssl.storage import RunStorage
from tune_ssl.text import size

MUST_AGREE = ("tune-ssl", "torch", "ray", "optuna", "numpy")
SMALLEST_DISK = 2**30
POLL_SECONDS = 5.0
PROOF_SECONDS = 120.0
AGAIN_SECONDS = 300.0
"""After which a node that lost the storage may show that it has it again."""


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a node has to show.

    Args:
        storage: root that it must be able to write and the driver to read.
        factory: reference to what the trials share; its images must arrive unchanged.
        cpus, gpus: share of a node that a trial takes; a node that is smaller is not asked.
        compiles: trials compile their networks.
    """

    storage: str
    factory: Any
    cpus: float
    gpus: float
    compiles: bool


class NodeGuard:
    """Knows which nodes have proved themselves; ``poll`` looks for new ones.

    ``problems`` names each node that failed, with the reason.
    """

    def __init__(self, requirements: Requirements) -> None:
        self.allowed: set[str] = set()
        self.problems: dict[str, str] = {}
        self._requirements = requirements
        self._storage = RunStorage(requirements.storage)
        self._own_versions = versions()
        self._pending: dict[Any, tuple[str, str, str]] = {}
        self._messages: list[str] = []
        self._seen: set[str] = set()
        self._asked_again_at: dict[str, float] = {}
        self._polled_at = 0.0

    def prove_all(self) -> None:
        """Check every node there is and wait for the answers.

        Raises:
            UserError: no node passed; the message says why.
        """
        self._ask_new_nodes()
        deadline = time.monotonic() + PROOF_SECONDS
        while self._pending and time.monotonic() < deadline:
            self._collect(timeout=1.0)
        for _, host, _ in self._pending.values():  # ``poll`` still takes what they say later
            self.problems[host] = f"gave no answer within {PROOF_SECONDS:.0f} s"
        if not self.allowed:
            needed = self._requirements
            listed = "; ".join(f"{host}: {why}" for host, why in sorted(self.problems.items()))
            listed = listed or f"none has {needed.cpus:g} CPUs and {needed.gpus:g} GPUs for one"
            raise UserError(
                f"no node of the cluster can run trials ({listed}); allowed: the same versions and a "
                "storage all can write; see docs/clusters.md, or try --ship-code."
            )

    def poll(self) -> list[str]:
        """Check nodes that have joined; return messages about those that were decided just now."""
        now = time.monotonic()
        if now - self._polled_at < POLL_SECONDS:
            return []
        self._polled_at = now
        for node_id, at in list(self._asked_again_at.items()):
            if now >= at:
                del self._asked_again_at[node_id]
                self._seen.discard(node_id)
        self._ask_new_nodes()
        told, self._messages = self._messages, []
        return told + self._collect(timeout=0.0)

    def exclude(self, node_id: str, problem: str, for_good: bool) -> bool:
        """Give a node no more trials; False, and nothing done, where no other is alive.

        Unless ``for_good`` it may prove itself again some minutes later. Of one that is not alive
        itself nothing need be said.
        """
        nodes = {node["NodeID"]: node for node in ray.nodes()}
        alive = {other for other, node in nodes.items() if node["Alive"]}
        if not self.allowed & alive - {node_id}:
            return False
        if node_id in self.allowed & alive:
            self.allowed.remove(node_id)
            if not for_good:
                self._asked_again_at[node_id] = time.monotonic() + AGAIN_SECONDS
            host = nodes[node_id]["NodeManagerHostname"]
            self.problems[host] = problem
            self._messages.append(f"node {host} gets no more trials: {problem}")
        return True

    def _ask_new_nodes(self) -> None:
        for node in ray.nodes():
            node_id, host = node["NodeID"], node["NodeManagerHostname"]
            if not node["Alive"] or node_id in self._seen or not self._is_large_enough(node):
                continue
            self._seen.add(node_id)
            probe = f"probe-{uuid.uuid4().hex}"
            strategy = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
            reference = _prove.options(scheduling_strategy=strategy).remote(
                self._requirements.storage,
                probe,
                [self._requirements.factory],
                self._requirements.gpus > 0,
                self._requirements.compiles,
            )
            self._pending[reference] = (node_id, host, probe)

    def _is_large_enough(self, node: dict[str, Any]) -> bool:
        """Return whether a trial fits; a head often has no CPUs, and passing would help nobody."""
        there, needed = node["Resources"], self._requirements
        return bool(there.get("CPU", 0) >= needed.cpus and there.get("GPU", 0) >= needed.gpus)

    def _collect(self, timeout: float) -> list[str]:
        if not self._pending:
            return []
        done, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=timeout)
        messages = []
        for reference in done:
            node_id, host, probe = self._pending.pop(reference)
            problem = self._problem(reference, probe)
            if problem is None:
                self.allowed.add(node_id)
                self.problems.pop(host, None)
                messages.append(f"node {host} passed its checks.")
            else:
                self.problems[host] = problem
                messages.append(f"node {host} gets no trials: {problem}")
        return messages

    def _problem(self, reference: Any, probe: str) -> str | None:
        try:
            proof: dict[str, Any] = ray.get(reference)
        except ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[-1]
        if proof["problem"] is not None:
            return str(proof["problem"])
        differing = [
            f"{name} {proof['versions'][name]} (here {self._own_versions[name]})"
            for name in MUST_AGREE
            if proof["versions"][name] != self._own_versions[name]
        ]
        if differing:
            return f"other versions: {', '.join(differing)}"
        try:
            self._storage.read(probe)
            self._storage.delete(probe)
        except OSError:
            return f"what it writes to {self._storage.shown} is not seen here; share it or use --storage"
        return None


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _prove(
    storage: str, probe: str, factory: list[Any], needs_gpu: bool, compiles: bool
) -> dict[str, Any]:
    """Run on a node: return its versions, and its problem or None."""
    problem = _own_problem(storage, probe, factory[0], needs_gpu, compiles)
    return {"versions": versions(), "problem": problem}


def _own_problem(
    storage: str, probe: str, factory: Any, needs_gpu: bool, compiles: bool
) -> str | None:
    place = RunStorage(storage)
    try:
        place.write(probe, b"tune-ssl")
    except OSError as error:
        return f"it cannot write {place.shown} ({error})"
    free = disk_free_bytes(Path(os.environ.get("TMPDIR", "/tmp")))
    if free is not None and free < SMALLEST_DISK:
        return f"its disk has {size(free)} free, fewer than {size(SMALLEST_DISK)}"
    missing = missing_to_compile() if compiles else None
    if missing is not None:
        return f"it has {missing}, which --compile needs"
    try:
        ray.get(factory).verify()
    except RuntimeError as error:
        return str(error)
    if needs_gpu:
        import torch

        if not torch.cuda.is_available():
            return "torch sees no CUDA device there"
    return None
