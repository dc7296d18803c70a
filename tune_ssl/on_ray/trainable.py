"""Tune's trainable: hands each call to a ``TrialRunner`` and its answer back."""

from __future__ import annotations

import dataclasses
from typing import Any

import ray
from ray import tune

from tune_ssl.storage import RunStorage
from tune_ssl.study import Checkpoint
from tune_ssl.worker import Lengths, Task, TrialRunner, ends_the_worker

TASK = "task"
NODES = "nodes"
REPORT = "report"


class TrialTrainable(tune.Trainable):  # type: ignore[misc]
    """One actor; runs one trial after another.

    A trial is taken up in its first slice, not while the actor starts: Tune gives a trial whose
    actor is still starting to any other that becomes free, and drops the starting one. With
    torch to import meanwhile, a second node would never get a short trial.
    """

    def setup(
        self,
        config: dict[str, Any],
        factory: list[Any] | None = None,
        rungs: tuple[int, ...] = (),
        lengths: Lengths | None = None,
    ) -> None:
        """Keep what the runner is made of. Tune calls this once per actor."""
        assert factory is not None
        self._reference = factory[0]
        self._rungs, self._lengths = rungs, lengths
        self._factory: Any = None
        self._run_storage: str | None = None
        self._runner: TrialRunner | None = None
        self._ended: str | None = None
        self._waiting: Task | None = _task(config)

    def step(self) -> dict[str, Any]:
        """Run one slice. The report travels as one object: Tune would flatten a mapping.

        Raises:
            RuntimeError: what was reported before ends this worker. Tune drops an actor that raises,
                and no other.
        """
        if self._ended is not None:
            raise RuntimeError(self._ended)
        if self._waiting is not None:
            self._runner = self._runner_for(self._waiting)
            self._runner.begin(self._waiting)
            self._waiting = None
        assert self._runner is not None
        here = ray.get_runtime_context()
        gpus = ",".join(here.get_accelerator_ids().get("GPU", ()))
        report = dataclasses.replace(self._runner.slice(), node=here.get_node_id(), gpus=gpus)
        if ends_the_worker(report):
            self._ended = report.reason or report.kind
        return {REPORT: report}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next trial on the same actor, in its first slice."""
        self._waiting = _task(new_config)
        return True

    def retire(self) -> None:
        """Let the next step raise: this worker shall run no other trial."""
        self._ended = "its node gets no more trials"

    def store_checkpoint(self) -> Checkpoint | None:
        """Store the state now; called by the scheduler between two slices of a drain."""
        assert self._runner is not None
        return self._runner.store_checkpoint()

    def _runner_for(self, task: Task) -> TrialRunner:
        """Return the runner of a task's run, which keeps what all trials share from run to run."""
        if self._runner is not None and self._run_storage == task.storage:
            return self._runner
        self._factory = self._factory or ray.get(self._reference)
        self._run_storage = task.storage
        return TrialRunner(
            self._factory, RunStorage(task.storage), self._rungs, lengths=self._lengths
        )


def _task(config: dict[str, Any]) -> Task:
    task: Task = config[TASK][0]
    return task
