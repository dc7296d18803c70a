"""Tune's searcher: passes on the drivers' tasks."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from tune_ssl.drivers import Drivers
from tune_ssl.on_ray.nodes import NodeGuard
from tune_ssl.on_ray.trainable import NODES, TASK


class DriverSearcher(Searcher):  # type: ignore[misc]
    """Suggests what the drivers hand out; keeps nothing that a resume would need."""

    def __init__(self, drivers: Drivers, guard: NodeGuard | None = None) -> None:
        super().__init__(metric="value", mode="max")
        self._drivers = drivers
        self._guard = guard

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's config with the nodes it may have, None to wait, or FINISHED."""
        if self._drivers.finished():
            return Searcher.FINISHED
        task = self._drivers.next()
        if task is None:
            return None
        nodes = ",".join(sorted(self._guard.allowed)) if self._guard else ""
        return {TASK: [task], NODES: nodes}  # in a list, which Tune leaves whole

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler has told the driver already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study is the state."""

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Nothing: the study is the state."""
