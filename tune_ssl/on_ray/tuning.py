"""One Tune run for all drivers: set up quietly, run, leave nothing behind."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Tune reads these when it is imported or run.
TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables cannot be silenced in the new engine
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a worker stays where relative paths mean what they say
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its own kills after ten seconds; ours drains
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a slice between rungs has no value
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # one snapshot, at the end: Tune insists on it
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
os.environ.update(TUNE_SETTINGS)
# It would tell by its own names which trials did not complete; the driver tells it by ours.
logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.error import TuneError  # noqa: E402
from ray.tune.execution.tune_controller import TuneController  # noqa: E402

from tune_ssl.drivers import Drivers  # noqa: E402
from tune_ssl.on_ray.nodes import NodeGuard  # noqa: E402
from tune_ssl.on_ray.scheduler import DriverCallback, DriverScheduler  # noqa: E402
from tune_ssl.on_ray.searcher import DriverSearcher  # noqa: E402
from tune_ssl.on_ray.trainable import NODES, TrialTrainable  # noqa: E402
from tune_ssl.worker import Lengths  # noqa: E402

_INTO_SNAPSHOT = "_mark_trial_to_checkpoint"  # a version of Ray without it takes longer, no more


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What a trial is given, how many are expected to fit, and a limit on them (None: none).

    ``guard`` says which nodes may have trials; None for a cluster of this host alone.
    """

    cpus: float
    gpus: float
    concurrency: int | None
    expected: int
    guard: NodeGuard | None = None


def run_tune(
    drivers: Drivers,
    factory: Any,
    *,
    rungs: tuple[int, ...],
    slots: Slots,
    on_tick: Callable[[], None],
    lengths: Lengths | None = None,
) -> None:
    """Run the drivers' trials on the cluster that is connected, until all are finished or drained.

    Args:
        factory: reference to a ``WorkFactory`` in the object store, from which every worker maps
            it: one for the trials of all drivers.
        rungs: of all of them.
        lengths: of slices and between checkpoints; None for the usual.
    """
    # A searcher of one's own gets one pending trial at a time unless told otherwise; a limit at
    # the number of slots would keep a node that joins later without work.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, slots.expected // 16))
    trainable = tune.with_parameters(
        TrialTrainable, factory=[factory], rungs=rungs, lengths=lengths
    )
    scratch = tempfile.mkdtemp(prefix="tune-ssl-")
    try:
        with _no_snapshots():
            tune.run(
                tune.with_resources(trainable, _resources(slots)),
                name="tune",
                num_samples=-1,
                search_alg=DriverSearcher(drivers, slots.guard),
                scheduler=DriverScheduler(drivers, slots.guard),
                callbacks=[DriverCallback(drivers, on_tick)],
                max_concurrent_trials=slots.concurrency,
                reuse_actors=True,
                storage_path=scratch,
                raise_on_failed_trial=False,
                trial_dirname_creator=lambda trial: trial.trial_id,
                trial_name_creator=lambda trial: trial.trial_id,
                verbose=0,
            )
    except TuneError as error:  # Tune raises the text of what its callbacks raised
        raise _raised_by_us(error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _no_snapshots() -> Iterator[None]:
    """Keep trials out of Tune's snapshots: they are a tenth of its time, and nothing reads them."""
    original = getattr(TuneController, _INTO_SNAPSHOT, None)
    setattr(TuneController, _INTO_SNAPSHOT, lambda controller, trial: None)
    try:
        yield
    finally:
        setattr(TuneController, _INTO_SNAPSHOT, original)


def _raised_by_us(error: BaseException) -> BaseException:
    """Return the exception behind Tune's, where one of the driver's was the first."""
    first = error
    while isinstance(first, TuneError) and first.__context__ is not None:
        first = first.__context__
    return first


class _ShareOfANode(tune.PlacementGroupFactory):  # type: ignore[misc]
    """A trial's share of a node, among the nodes that were allowed when it was asked for.

    Two requests are equal whatever is allowed, or Tune would use no worker for another trial
    once a node has joined.
    """

    def __init__(self, bundle: dict[str, float], nodes: str) -> None:
        super().__init__([bundle])
        self._nodes = nodes

    def to_placement_group(self) -> Any:
        """Ask Ray for the share; Tune calls this."""
        return ray.util.placement_group(
            self.bundles,
            strategy=self.strategy,
            bundle_label_selector=[{"ray.io/node-id": f"in({self._nodes})"}],
        )


def _resources(slots: Slots) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """Return what Tune asks for each trial. Tune pickles it: a guard in it would stay as it is now."""
    bundle = {"CPU": slots.cpus} | ({"GPU": slots.gpus} if slots.gpus > 0 else {})

    def request(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        nodes = config[NODES]
        return _ShareOfANode(bundle, nodes) if nodes else tune.PlacementGroupFactory([bundle])

    return request
