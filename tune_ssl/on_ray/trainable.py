"""Tune's trainable: hands each call to a ``TrialRunner`` and its answer back."""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from tune_ssl.storage import RunStorage
from tune_ssl.study import Checkpoint
from tune_ssl.trial import WorkFactory
from tune_ssl.worker import Lengths, Task, TrialRunner

TASK = "task"
REPORT = "report"


class TrialTrainable(tune.Trainable):  # type: ignore[misc]
    """One actor; runs one trial after another."""

    def setup(
        self,
        config: dict[str, Any],
        factory: list[Any] | None = None,
        storage: str = "",
        rungs: tuple[int, ...] = (),
        lengths: Lengths | None = None,
    ) -> None:
        """Make the runner and take up the first trial. Tune calls this once per actor."""
        assert factory is not None
        made: WorkFactory = ray.get(factory[0])
        self._runner = TrialRunner(made, RunStorage(storage), rungs, lengths=lengths)
        self._runner.begin(_task(config))

    def step(self) -> dict[str, Any]:
        """Run one slice. The report travels as one object: Tune would flatten a mapping."""
        return {REPORT: self._runner.slice()}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next trial on the same actor."""
        self._runner.begin(_task(new_config))
        return True

    def store_checkpoint(self) -> Checkpoint | None:
        """Store the state now; called by the scheduler between two slices of a drain."""
        return self._runner.store_checkpoint()


def _task(config: dict[str, Any]) -> Task:
    task: Task = config[TASK][0]
    return task
