"""Tune's scheduler: passes reports to the drivers and their verdicts back; carries out the drain."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import TrialScheduler

from tune_ssl.drivers import Drivers, TrialKey
from tune_ssl.on_ray.nodes import NodeGuard
from tune_ssl.on_ray.trainable import REPORT, TASK
from tune_ssl.study import Verdict
from tune_ssl.worker import Task, ends_the_worker

SILENT_SECONDS = 300.0
DRAIN_SECONDS = 20.0
PATIENCE_SECONDS = 10.0
"""How long after a node has joined or was excluded trials may still wait for those there were before."""


class DriverScheduler(TrialScheduler):  # type: ignore[misc]
    """Asks the drivers about every result.

    While its search drains, a trial whose slice has just ended is asked to store a checkpoint
    and is stopped when it has; what has not started is withdrawn.

    A trial waits for the nodes that were allowed when it was asked for, which may all be gone.
    So when a node has joined or was excluded, what waits is handed back and asked for anew.
    """

    def __init__(self, drivers: Drivers, guard: NodeGuard | None = None) -> None:
        super().__init__()
        self._drivers = drivers
        self._guard = guard
        self._nodes_known = set(guard.allowed) if guard else set()
        self._nodes_changed_at: float | None = None
        self._trials: dict[TrialKey, Any] = {}
        self._storing: dict[Any, tuple[Any, Task]] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Remember which of Tune's trials runs which of ours."""
        self._trials[key_of(trial)] = trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass the report on; stop the trial, let it continue, or have it stored."""
        report, task = result[REPORT], task_of(trial)
        verdict = self._drivers.handle(task, report)
        if ends_the_worker(report):  # its next step raises: stopped, it would get another trial
            return str(TrialScheduler.CONTINUE)
        if verdict is not Verdict.CONTINUE:
            if self._guard is None or report.node in self._guard.allowed:
                return str(TrialScheduler.STOP)
            trial.temporary_state.ray_actor.retire.remote()
            return str(TrialScheduler.CONTINUE)
        if self._drivers.drains(task):
            stored = trial.temporary_state.ray_actor.store_checkpoint.remote()
            self._storing[stored] = (trial, task)
            return str(TrialScheduler.NOOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tell the driver that a worker is gone: exceptions of a trial arrive as reports."""
        self._drivers.lost(task_of(trial), _why_lost(trial))
        self._forget(trial)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The verdict was carried out."""
        self._forget(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """The driver closes what is left."""
        self._forget(trial)

    def _forget(self, trial: Any) -> None:
        key = key_of(trial)
        if self._trials.get(key) is trial:  # it may have been handed out again
            del self._trials[key]

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Use Tune's regular call, made several times a second, to look after the search.

        Returns None: Tune starts pending trials in the order they came.
        """
        self._drivers.tend()
        self._kill_silent()
        if self._waits_for_old_nodes():
            self._ask_anew(tune_controller)
        if self._storing:
            self._finish_stored(tune_controller)
        if self._drivers.draining or any(driver.draining for driver in self._drivers.open):
            self._withdraw_pending(tune_controller)
            self._abandon_running(tune_controller)

    def debug_string(self) -> str:
        """Return nothing to show: the live view shows the search."""
        return ""

    def _finish_stored(self, tune_controller: Any) -> None:
        done, _ = ray.wait(list(self._storing), num_returns=len(self._storing), timeout=0)
        for reference in done:
            trial, task = self._storing.pop(reference)
            try:
                checkpoint = ray.get(reference)
            except ray.exceptions.RayError:
                checkpoint = None  # it is continued from the one before
            self._drivers.store_and_interrupt(task, checkpoint)
            tune_controller.stop_trial(trial)

    def _withdraw_pending(self, tune_controller: Any) -> None:
        for trial in tune_controller.get_trials():
            if trial.status == Trial.PENDING and self._drivers.drains(task_of(trial)):
                self._drivers.take_back(task_of(trial))
                tune_controller.stop_trial(trial)

    def _waits_for_old_nodes(self) -> bool:
        """Return whether nodes joined, or were excluded, since what waits was asked for."""
        if self._guard is None:
            return False
        now = time.monotonic()
        if self._guard.allowed != self._nodes_known and self._nodes_changed_at is None:
            self._nodes_changed_at = now
        changed_at = self._nodes_changed_at
        return changed_at is not None and now - changed_at > PATIENCE_SECONDS

    def _ask_anew(self, tune_controller: Any) -> None:
        assert self._guard is not None
        self._nodes_known, self._nodes_changed_at = set(self._guard.allowed), None
        for trial in tune_controller.get_trials():
            if trial.status == Trial.PENDING:
                self._drivers.take_back(task_of(trial))
                tune_controller.stop_trial(trial)

    def _abandon_running(self, tune_controller: Any) -> None:
        """Wait no longer for workers that did not store what they run."""
        for trial in tune_controller.get_trials():
            task = task_of(trial)
            if trial.status != Trial.RUNNING or self._drivers.drain_seconds(task) <= DRAIN_SECONDS:
                continue
            self._storing = {
                stored: pair for stored, pair in self._storing.items() if pair[0] is not trial
            }
            self._drivers.lost(task, f"nothing was stored within {DRAIN_SECONDS:.0f} s")
            if self._drivers.draining:
                tune_controller.stop_trial(trial)
            else:  # stopped, its worker would get a trial of another run, which would wait for it
                _kill_worker(trial)

    def _kill_silent(self) -> None:
        for key in self._drivers.silent(SILENT_SECONDS):
            trial = self._trials[key]
            reason = f"no sign of life for {SILENT_SECONDS:.0f} s or more"
            self._drivers.lost(task_of(trial), reason)
            _kill_worker(trial)


class DriverCallback(TrialProgressCallback):  # type: ignore[misc]
    """Tells the drivers when a worker takes a trial up, and gives the live view its turn.

    It is a progress callback that prints nothing, because Tune adds one that does where it
    finds none.
    """

    def __init__(self, drivers: Drivers, on_tick: Any) -> None:
        super().__init__()
        self._drivers = drivers
        self._on_tick = on_tick

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A worker has taken a trial up."""
        self._drivers.started(task_of(trial))

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        """Print nothing."""

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Print nothing."""

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Print nothing."""

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """Tune has handled one event."""
        self._on_tick()


def _kill_worker(trial: Any) -> None:
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        ray.kill(actor)


def _why_lost(trial: Any) -> str:
    """Return the last line of Ray's error, which says what became of the worker or its node.

    Tune's own accessors look where it would copy its files to, and it copies nothing here.
    """
    path = trial.error_file
    lines = Path(path).read_text().strip().splitlines() if path else []
    return lines[-1].strip() if lines else "the worker is gone"


def task_of(trial: Any) -> Task:
    """Return what one of Tune's trials was told to do."""
    task: Task = trial.config[TASK][0]
    return task


def key_of(trial: Any) -> TrialKey:
    """Return which trial of which run one of Tune's trials runs."""
    task = task_of(trial)
    return task.storage, task.number
