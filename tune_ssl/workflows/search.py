"""``search`` and ``resume``: from settings to a finished study, on a cluster."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FixedTrial, TrialState
from rich.console import Console

from ssl_core.data.images import checksum
from ssl_core.data.prepare import SplitImages, prepare
from ssl_core.errors import StoppedError, UserError, check_integer
from tune_ssl import machine
from tune_ssl.driver import Limits, SearchDriver
from tune_ssl.journal import JournalWriteError
from tune_ssl.machine import command_path
from tune_ssl.run import AUTO, RunConfig, RunDirectory, new_run, run_lock, write_yaml
from tune_ssl.storage import RunStorage
from tune_ssl.trial import TrainingFactory
from tune_ssl.views.export import export_records
from tune_ssl.views.live import LiveView
from tune_ssl.views.messages import say
from tune_ssl.views.tables import method_text
from tune_ssl.workflows.opening import open_study
from tune_ssl.workflows.plan import (
    describe_data,
    describe_starts,
    on_cluster,
    with_data,
    with_own_places,
    with_precision,
)
from tune_ssl.workflows.process import (
    draining_signals,
    let_sigterm_interrupt,
    stdout_to_stderr,
)

if TYPE_CHECKING:
    from tune_ssl.on_ray.cluster import Cluster
    from tune_ssl.on_ray.nodes import NodeGuard

DONE, INTERNAL, LIMIT, ALL_FAILED, DRAINED = 0, 1, 3, 4, 130


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """How one search or resume is run; nothing that results depend on.

    Args:
        address: of a Ray cluster to join; None for one on this host.
        ship_code: send our packages to nodes that lack them.
        steal_lock: take a run whose driver is gone where the file system has no locks.
        began: when the command was given, by ``time.monotonic``: time limits count from there.
    """

    limits: Limits = field(default_factory=Limits)
    address: str | None = None
    dashboard: bool = True
    ship_code: bool = False
    steal_lock: bool = False
    began: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a search ended: its exit code, its run, and its best configurations."""

    exit_code: int
    directory: RunDirectory
    records: list[dict[str, Any]]
    message: str
    notes: list[str] = field(default_factory=list)


def search(
    config: RunConfig,
    invocation: Invocation,
    console: Console,
    *,
    name: str | None,
    output: str,
) -> Outcome:
    """Run a new search.

    Raises:
        UserError: something given cannot be used; nothing was written.
    """
    directory = new_run(name, output, config)
    if invocation.address is None:  # Ray would take seconds to say the same
        on_cluster(config, machine.usable_cpus(), machine.gpu_count())
    config = with_own_places(config, directory.name)
    shared = prepare(config.data())
    config = with_data(config, shared)
    return _run(config, directory, shared, invocation, console, fresh=True)


def resume(
    directory: RunDirectory,
    invocation: Invocation,
    console: Console,
    *,
    trials: int | None,
    concurrency: int | None,
    data_dir: str | None = None,
) -> Outcome:
    """Continue a run, or extend it to more trials.

    Raises:
        UserError: the run is held by another driver, its images have changed, or more trials
            are finished than it shall have.
    """
    config = directory.read_config()
    if trials is not None:
        check_integer("trials", trials, 1)
        config = dataclasses.replace(config, trials=trials)
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(Path(data_dir).expanduser().absolute()))
    if concurrency is not None:
        config = dataclasses.replace(config, concurrency=concurrency)
    shared = prepare(config.data())
    return _run(config, directory, shared, invocation, console, fresh=False)


def _run(
    config: RunConfig,
    directory: RunDirectory,
    shared: SplitImages,
    invocation: Invocation,
    console: Console,
    *,
    fresh: bool,
) -> Outcome:
    with ExitStack() as stack:
        if not fresh:
            stack.enter_context(run_lock(directory, steal=invocation.steal_lock))
        stack.enter_context(stdout_to_stderr())
        cluster = stack.enter_context(_connected(invocation, shared))
        config = with_precision(on_cluster(config, cluster.cpus, cluster.gpus), shared)
        if config.gpus_per_trial == AUTO:
            config = with_measured_share(config, cluster, shared, console)
        if fresh:
            directory.create()
            stack.enter_context(run_lock(directory))
            describe_data(config, shared, console)
        with _removed_if_unusable(directory) if fresh else nullcontext():
            if fresh:
                describe_starts(config, shared, console)
                directory.write_config(config)
            _describe_origin(directory, config, shared)
            storage = RunStorage(config.storage or str(directory.path))
            storage.check_writable()
            study = open_study(config, directory, shared, storage, console)
            if not fresh:  # a refusal is one line
                describe_data(config, shared, console)
            guard, factory = _ship(config, cluster, shared, storage, console)
        driver = SearchDriver(
            study,
            config,
            directory,
            storage,
            limits=invocation.limits,
            began=invocation.began,
        )
        driver.tidy()
        _announce(directory, cluster, console)
        if invocation.dashboard and not cluster.dashboard:
            say(console, "warning: Ray's dashboard did not start; the search goes on without it.")
        with _saying_how_to_continue(directory):
            try:
                _drive(driver, factory, storage, guard, cluster, directory, console)
            finally:
                with suppress(JournalWriteError, OSError):  # the disk is still full
                    driver.close("the driver ended")
    return _outcome(driver, config, directory, shared)


@contextmanager
def _connected(invocation: Invocation, shared: SplitImages) -> Iterator[Cluster]:
    from tune_ssl.on_ray.cluster import connected, protect_token

    ship: tuple[Any, ...] = ()
    if invocation.ship_code:
        import search_spaces
        import ssl_core
        import tune_ssl

        ship = (ssl_core, search_spaces, tune_ssl)
    with connected(
        address=invocation.address,
        dashboard=invocation.dashboard,
        image_bytes=shared.images.nbytes,
        ship=ship,
    ) as cluster:
        let_sigterm_interrupt()
        protect_token()
        yield cluster


@contextmanager
def _removed_if_unusable(directory: RunDirectory) -> Iterator[None]:
    """Leave nothing of a new run that ended before its first trial because of its input."""
    try:
        yield
    except UserError:
        shutil.rmtree(directory.path, ignore_errors=True)
        raise


@contextmanager
def _saying_how_to_continue(directory: RunDirectory) -> Iterator[None]:
    """Turn a failed write into the message that the run can be resumed.

    Raises:
        StoppedError: the journal or another file of the run could not be written.
    """
    try:
        yield
    except (JournalWriteError, OSError) as error:
        raise StoppedError(
            f"the search stopped, {error}; all that is in the journal is kept; {_continue_with(directory)}"
        ) from error


def _continue_with(directory: RunDirectory) -> str:
    return f"continue with: {command_path('tune-ssl')} resume {directory.path}"


def _describe_origin(directory: RunDirectory, config: RunConfig, shared: SplitImages) -> None:
    """Write what a run began with; a resume does where the first driver was killed before."""
    if (directory.path / "split.json").exists():
        return
    directory.write_json("environment.json", machine.describe())
    directory.write_json(
        "split.json",
        {
            "split_seed": config.split_seed,
            "sha256": shared.fingerprint,
            "images_crc32": f"{checksum(shared.images):08x}",
            "classes": list(shared.class_names),
            "labeled": shared.labeled.tolist(),
            "validation": shared.validation.tolist(),
            "unlabeled": len(shared.unlabeled) - len(shared.labeled),
            "skipped": list(shared.skipped),
        },
    )


def _ship(
    config: RunConfig,
    cluster: Cluster,
    shared: SplitImages,
    storage: RunStorage,
    console: Console,
) -> tuple[NodeGuard | None, Any]:
    """Put what the trials share into the object store, and let the nodes prove themselves."""
    from tune_ssl.on_ray.cluster import shared_by_all
    from tune_ssl.on_ray.nodes import NodeGuard, Requirements

    factory = shared_by_all(TrainingFactory(shared, gpu_share=config.gpu_share))
    if cluster.local:
        return None, factory
    guard = NodeGuard(
        Requirements(
            storage=storage.root,
            factory=factory,
            cpus=config.cpus_per_trial,
            gpus=config.gpu_share,
        )
    )
    guard.prove_all()
    for host, problem in sorted(guard.problems.items()):
        say(console, f"warning: node {host} gets no trials: {problem}")
    return guard, factory


def _announce(directory: RunDirectory, cluster: Cluster, console: Console) -> None:
    say(console, f"run: {directory.path}")
    where = "this host" if cluster.local else f"the cluster at {cluster.address}"
    say(console, f"ray: {where}, {cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs")
    if cluster.dashboard:
        address = cluster.dashboard
        url = address if address.startswith("http") else f"http://{address}"
        token = f"{command_path('ray')} get-auth-token"
        say(console, f"dashboard: {url}  (it asks for a token: run {token})")
    say(console, f"trials: {command_path('optuna-dashboard')} {directory.journal_path}")


def _drive(
    driver: SearchDriver,
    factory: Any,
    storage: RunStorage,
    guard: NodeGuard | None,
    cluster: Cluster,
    directory: RunDirectory,
    console: Console,
) -> None:
    from tune_ssl.on_ray.cluster import head_watched
    from tune_ssl.on_ray.tuning import Slots, run_tune

    config = driver.config
    slots = Slots(
        cpus=config.cpus_per_trial,
        gpus=config.gpu_share,
        concurrency=config.concurrency,
        expected=_expected_slots(config, cluster),
        guard=guard,
    )
    view = LiveView(driver, console, name=directory.name, slots=slots.concurrency or slots.expected)

    def on_tick() -> None:
        for message in guard.poll() if guard is not None else ():
            say(console, message)
        view.tick()

    def on_head_lost() -> None:
        say(
            console,
            f"the head of the Ray cluster at {cluster.address} does not answer; unless it comes back, Ray "
            f"ends this driver within a minute; all that is in the journal is kept; {_continue_with(directory)}",
        )

    with draining_signals(driver), view, head_watched(cluster, on_head_lost):
        run_tune(
            driver,
            factory,
            storage=storage.root,
            rungs=config.rungs(),
            slots=slots,
            on_tick=on_tick,
        )


def with_measured_share(
    config: RunConfig, cluster: Cluster, shared: SplitImages, console: Console
) -> RunConfig:
    """Return the settings with the share of a GPU at which all trials together go fastest.

    Of several methods the one that fits least often decides: trials of a search have equal shares.

    Raises:
        UserError: a training could not be run on a GPU.
    """
    from tune_ssl.on_ray.packing import measured_on_a_node
    from tune_ssl.packing import PackingError, Shapes

    say(console, "measuring how many trials share a GPU; a later search will remember it.")
    most = max(1, int(cluster.cpus / max(1.0, cluster.gpus) / config.cpus_per_trial))
    records = [_shape_record(config, algorithm) for algorithm in config.alg]
    try:
        found = measured_on_a_node(
            records, Shapes.of(shared), cpus=config.cpus_per_trial, gpus=1.0, most=most
        )
    except PackingError as error:
        raise UserError(
            f"gpus-per-trial is auto, and {error}; allowed: a number above 0; give --gpus-per-trial 1 to see "
            "what a trial says."
        ) from error
    for algorithm, packing in found.items():
        say(
            console,
            f"{algorithm}: {packing.trials} at once on a GPU, {packing.steps_per_second:g} steps/s together, "
            f"{packing.megabytes} MB each",
        )
    trials = min(packing.trials for packing in found.values())
    return dataclasses.replace(config, gpus_per_trial=1.0 / trials)


def _shape_record(config: RunConfig, algorithm: str) -> dict[str, Any]:
    """Return a training that takes as long as a method's trials do."""
    return {
        "algorithm": algorithm,
        "dataset": config.dataset,
        "model": config.resolved_model,
        "max_steps": 10**9,
        "batch_size": config.resolved_batch_size,
        "unlabeled_ratio": config.unlabeled_ratio,
        "optimizer": config.optimizer,
        "precision": config.precision,
        "threads": config.threads,
        "device": config.device,
    }


def _expected_slots(config: RunConfig, cluster: Cluster) -> int:
    slots = cluster.cpus / config.cpus_per_trial
    if config.gpu_share:
        slots = min(slots, cluster.gpus / config.gpu_share)
    return max(1, int(slots))


def _outcome(
    driver: SearchDriver, config: RunConfig, directory: RunDirectory, shared: SplitImages
) -> Outcome:
    records = export_records(config, driver.study.get_trials(), shared.num_classes)
    if records:
        write_yaml(directory.best_path, records)
    code, message = _how_it_ended(driver, directory)
    directory.log_event("finished", exit_code=code, message=message)
    return Outcome(
        exit_code=code,
        directory=directory,
        records=records,
        message=message,
        notes=_notes(driver, records, len(shared.validation)),
    )


def _notes(driver: SearchDriver, records: list[dict[str, Any]], validation: int) -> list[str]:
    """Return what the ranking does not show: where trials went, and whether it means anything."""
    notes = []
    space, trials = driver.study.space, driver.study.get_trials()
    if len(list(space.cells())) > 1:
        methods = [
            (space.suggest(FixedTrial(trial.params)), trial)
            for trial in trials
            if trial.state.is_finished()
        ]
        told = []
        for algorithm, divergence in space.cells():
            own = [t for s, t in methods if (s.algorithm, s.divergence) == (algorithm, divergence)]
            complete = sum(trial.state == TrialState.COMPLETE for trial in own)
            told.append(f"{method_text(algorithm, divergence)} {len(own)} ({complete})")
        notes.append("trials (of full length): " + ", ".join(told))
    if len(records) > 2 and len(records[0]["tied_with"]) == len(records) - 1:
        notes.append(
            f"The {validation} validation images tell none of the {len(records)} configurations of full "
            "length from the first: label more to choose on, or take the recommended one."
        )
    return notes


def _how_it_ended(driver: SearchDriver, directory: RunDirectory) -> tuple[int, str]:
    counts = driver.counts()
    resumable = _continue_with(directory)
    if driver.hopeless:
        return ALL_FAILED, f"stopped: {driver.draining}"
    if counts.finished >= counts.asked:
        if counts.failed == counts.finished:
            return ALL_FAILED, "every trial failed; see error.txt in the trials' folders"
        return DONE, f"{counts.finished} trials finished"
    if driver.limit_reached:
        return LIMIT, f"{driver.draining}; {resumable}"
    if driver.draining:
        return DRAINED, f"interrupted by {driver.draining}; {resumable}"
    return INTERNAL, f"the search ended early; {resumable}"
