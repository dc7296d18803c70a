"""``search`` and ``resume``: from settings to a finished study, on a cluster."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from search_spaces.joint import DefaultTrial
from ssl_core.data.images import checksum
from ssl_core.data.prepare import SplitImages, prepare
from ssl_core.errors import UserError
from tune_ssl import machine
from tune_ssl.driver import Limits, SearchDriver
from tune_ssl.journal import JournalWriteError, open_journal
from tune_ssl.machine import command_path
from tune_ssl.run import RunConfig, RunDirectory, new_run, run_lock, write_yaml
from tune_ssl.storage import RunStorage
from tune_ssl.study import SearchStudy
from tune_ssl.trial import TrainingFactory
from tune_ssl.views.export import export_records
from tune_ssl.views.live import LiveView
from tune_ssl.views.text import size

if TYPE_CHECKING:
    from tune_ssl.on_ray.cluster import Cluster
    from tune_ssl.on_ray.nodes import NodeGuard

DONE, INTERNAL, USAGE, LIMIT, ALL_FAILED, DRAINED = 0, 1, 2, 3, 4, 130

IMBALANCED = 2.0
"""From this ratio of the largest to the smallest class on, a folder's metric is balanced."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """How one search or resume is run; nothing that results depend on.

    Args:
        address: of a Ray cluster to join; None for one on this host.
        ship_code: send our packages to nodes that lack them.
        steal_lock: take a run whose driver is gone where the file system has no locks.
    """

    limits: Limits = field(default_factory=Limits)
    address: str | None = None
    dashboard: bool = True
    ship_code: bool = False
    steal_lock: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a search ended: its exit code, its run, and its best configurations."""

    exit_code: int
    directory: RunDirectory
    records: list[dict[str, Any]]
    message: str


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
    shared = prepare(config.data())
    config = with_data(config, shared)
    describe_data(config, shared, console)
    return _run(config, directory, shared, invocation, console, fresh=True)


def resume(
    directory: RunDirectory,
    invocation: Invocation,
    console: Console,
    *,
    trials: int | None,
    concurrency: int | None,
) -> Outcome:
    """Continue a run, or extend it to more trials.

    Raises:
        UserError: the run is held by another driver, or its images have changed.
    """
    config = directory.read_config()
    changes: dict[str, Any] = {"trials": trials, "concurrency": concurrency}
    config = dataclasses.replace(
        config, **{key: value for key, value in changes.items() if value is not None}
    )
    shared = prepare(config.data())
    return _run(config, directory, shared, invocation, console, fresh=False)


def with_data(config: RunConfig, shared: SplitImages) -> RunConfig:
    """Return the settings with what the images decide: how many are drawn, and the metric."""
    metric = config.metric
    if metric == "auto":
        classes = np.bincount(shared.validation_labels, minlength=shared.num_classes)
        uneven = classes.max() >= IMBALANCED * max(1, classes.min())
        metric = "balanced_accuracy" if config.dataset == "folder" and uneven else "accuracy"
    return dataclasses.replace(
        config,
        labels=len(shared.labeled),
        validation=len(shared.validation),
        metric=metric,
        model=config.resolved_model,
        max_steps=config.steps,
        batch_size=config.resolved_batch_size,
    )


def describe_data(config: RunConfig, shared: SplitImages, console: Console) -> None:
    """Say which images the search uses, and what the labels cost."""
    labels, validation = len(shared.labeled), len(shared.validation)
    unlabeled_only = len(shared.unlabeled) - labels
    console.print(
        f"{config.dataset}: {len(shared.images)} training images in {shared.num_classes} classes; "
        f"{labels} labeled + {unlabeled_only} unlabeled to train on, {validation} to choose on.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"The bill in labels: {labels} to train + {validation} to choose = {labels + validation}.",
        highlight=False,
        soft_wrap=True,
    )
    if config.metric == "balanced_accuracy":
        console.print("The classes are uneven: trials are judged by balanced accuracy.")
    for problem in shared.skipped[:5]:
        console.print(f"warning: skipped {problem}", highlight=False, markup=False)
    if shared.skipped:
        console.print(
            f"warning: {len(shared.skipped)} files were skipped.", highlight=False, soft_wrap=True
        )


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
        stack.enter_context(_stdout_to_stderr())
        cluster = stack.enter_context(_connect(config, invocation, shared))
        config = on_cluster(config, cluster.cpus, cluster.gpus)
        if fresh:
            directory.create()
            stack.enter_context(_removed_if_unusable(directory))
            stack.enter_context(run_lock(directory))
            _write_new_run(directory, config, shared)
        storage = RunStorage(config.storage or str(directory.path))
        storage.check_writable()
        study = _open_study(config, directory, shared, console, fresh=fresh)
        guard, factory = _ship(config, cluster, shared, storage, console)
        driver = SearchDriver(
            study,
            config,
            directory,
            storage,
            limits=invocation.limits,
            shared_device=0 < (config.gpus_per_trial or 0) < 1,
        )
        _announce(directory, cluster, console)
        try:
            _drive(driver, factory, storage, guard, cluster, directory, console)
        finally:
            with suppress(JournalWriteError):
                driver.close("the driver ended")
    return _outcome(driver, config, directory, shared)


def on_cluster(config: RunConfig, cpus: float, gpus: float) -> RunConfig:
    """Return the settings with what the machine decides: device, GPUs, threads, precision.

    Raises:
        UserError: more is asked for than there is.
    """
    wanted = config.gpus_per_trial
    if (config.device == "cuda" or (wanted or 0) > 0) and gpus == 0:
        raise UserError(
            f"GPUs were asked for (device {config.device}, gpus-per-trial {wanted}) and there are none; "
            "allowed: --device cpu; leave --gpus-per-trial out."
        )
    device = config.device
    if device == "auto":
        device = "cuda" if gpus > 0 and wanted != 0 else "cpu"
    wanted = (1.0 if wanted is None else wanted) if device == "cuda" else 0.0
    if device == "cuda" and wanted == 0:
        raise UserError(
            "device is cuda and gpus-per-trial 0; allowed: a share above 0; give --gpus-per-trial 1."
        )
    for what, asked, there in (
        ("cpus-per-trial", config.cpus_per_trial, cpus),
        ("gpus-per-trial", wanted, gpus),
    ):
        if asked > there:
            raise UserError(
                f"{what} is {asked:g} and the cluster has {there:g}; allowed: at most that; lower --{what}."
            )
    return dataclasses.replace(
        config,
        device=device,
        gpus_per_trial=wanted,
        threads=config.threads or max(1, int(config.cpus_per_trial)),
        precision="float32" if config.precision == "auto" else config.precision,
    )


@contextmanager
def _connect(config: RunConfig, invocation: Invocation, shared: SplitImages) -> Iterator[Cluster]:
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


def _write_new_run(directory: RunDirectory, config: RunConfig, shared: SplitImages) -> None:
    directory.write_config(config)
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
            "unlabeled": len(shared.unlabeled),
            "skipped": list(shared.skipped),
        },
    )


def _open_study(
    config: RunConfig,
    directory: RunDirectory,
    shared: SplitImages,
    console: Console,
    *,
    fresh: bool,
) -> SearchStudy:
    journal, mended = open_journal(directory.journal_path)
    if mended:
        console.print(f"warning: {mended}", highlight=False, markup=False)
    study = SearchStudy(
        journal,
        config.space(shared.num_classes),
        name=directory.name,
        trials=config.trials,
        seed=config.seed,
        rungs=config.rungs(),
        reduction_factor=None if config.scheduler == "none" else config.reduction_factor,
        sampler=config.sampler,
    )
    facts = {
        "images_crc32": f"{checksum(shared.images):08x}",
        "split_sha256": shared.fingerprint,
        "num_classes": shared.num_classes,
        "settings": _fixed_settings(config),
    }
    if not fresh and study.attributes():
        _check_unchanged(study.attributes(), facts, directory)
        directory.write_config(config)  # trials and concurrency may have been changed
    else:
        for key, value in facts.items():
            study.set_attribute(key, value)
    if not study.get_trials():
        _enqueue_first(study, config)
    interrupted = study.recover("the driver before was lost")
    if interrupted:
        console.print(f"continuing {len(interrupted)} trials that a lost driver left running.")
    return study


def _fixed_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings a resume may not change: all but the goal and the pace."""
    free = ("trials", "concurrency", "start_from", "storage", "data_dir")
    return {key: value for key, value in config.to_mapping().items() if key not in free}


def _check_unchanged(
    before: Mapping[str, Any], now: Mapping[str, Any], directory: RunDirectory
) -> None:
    differing = [key for key in ("images_crc32", "split_sha256") if before[key] != now[key]]
    if differing:
        raise UserError(
            f"the images of run {directory.name!r} have changed ({', '.join(differing)}); allowed: the same "
            "images, because accuracies would not compare; restore them or begin a new run."
        )
    settings = [
        f"{key} was {before['settings'].get(key)!r} and is {value!r}"
        for key, value in now["settings"].items()
        if before["settings"].get(key) != value
    ]
    if settings:
        raise UserError(
            f"the settings of run {directory.name!r} have changed: {'; '.join(settings)}; allowed: other "
            "--trials and --concurrency; restore its config.yaml or begin a new run."
        )


def _enqueue_first(study: SearchStudy, config: RunConfig) -> None:
    for start in config.start_from:
        params = study.space.params_for(
            start["algorithm"], start.get("divergence"), start["parameters"]
        )
        study.enqueue(params, "--config")
    study.enqueue_defaults(_published_first(study))


def _published_first(study: SearchStudy) -> list[DefaultTrial]:
    """Return the defaults, those with the divergence of their paper before converted ones."""
    return sorted(study.space.defaults(), key=lambda default: default.converted)


def _ship(
    config: RunConfig,
    cluster: Cluster,
    shared: SplitImages,
    storage: RunStorage,
    console: Console,
) -> tuple[NodeGuard | None, Any]:
    """Put what the trials share into the object store, and let the nodes prove themselves."""
    import ray

    from tune_ssl.on_ray.nodes import NodeGuard, Requirements

    factory = ray.put(TrainingFactory(shared))
    if cluster.local:
        return None, factory
    guard = NodeGuard(
        Requirements(storage=storage.root, factory=factory, gpus=(config.gpus_per_trial or 0) > 0)
    )
    guard.prove_all()
    for host, problem in sorted(guard.problems.items()):
        console.print(f"warning: node {host} gets no trials: {problem}", markup=False)
    return guard, factory


def _announce(directory: RunDirectory, cluster: Cluster, console: Console) -> None:
    console.print(f"run: {directory.path}", highlight=False, soft_wrap=True)
    where = "this host" if cluster.local else f"the cluster at {cluster.address}"
    console.print(
        f"ray: {where}, {cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs",
        highlight=False,
        soft_wrap=True,
    )
    if cluster.dashboard:
        address = cluster.dashboard
        url = address if address.startswith("http") else f"http://{address}"
        console.print(
            f"dashboard: {url}  (it asks for a token: run {command_path('ray')} get-auth-token)",
            highlight=False,
        )
    console.print(
        f"trials: {command_path('optuna-dashboard')} {directory.journal_path}",
        highlight=False,
        soft_wrap=True,
    )


def _drive(
    driver: SearchDriver,
    factory: Any,
    storage: RunStorage,
    guard: NodeGuard | None,
    cluster: Cluster,
    directory: RunDirectory,
    console: Console,
) -> None:
    from tune_ssl.on_ray.tuning import Slots, run_tune

    config = driver.config
    slots = Slots(
        cpus=config.cpus_per_trial,
        gpus=config.gpus_per_trial or 0.0,
        concurrency=config.concurrency,
        expected=_expected_slots(config, cluster),
        guard=guard,
    )
    view = LiveView(driver, console, name=directory.name, slots=slots.concurrency or slots.expected)

    def on_tick() -> None:
        for message in guard.poll() if guard is not None else ():
            console.print(message, highlight=False, markup=False)
        view.tick()

    with _draining_signals(driver), view:
        run_tune(
            driver,
            factory,
            storage=storage.root,
            rungs=config.rungs(),
            slots=slots,
            on_tick=on_tick,
        )


def _expected_slots(config: RunConfig, cluster: Cluster) -> int:
    slots = cluster.cpus / config.cpus_per_trial
    if config.gpus_per_trial:
        slots = min(slots, cluster.gpus / config.gpus_per_trial)
    return max(1, int(slots))


@contextmanager
def _draining_signals(driver: SearchDriver) -> Iterator[None]:
    """Drain at the first SIGINT or SIGTERM, stop at the second; as before when the body ends."""

    def handle(number: int, frame: FrameType | None) -> None:
        if driver.draining is not None:
            raise KeyboardInterrupt
        driver.drain(signal.Signals(number).name)

    # After ray.init, whose own SIGTERM handler would replace ours.
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass  # the second signal: the caller closes the study
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(
    driver: SearchDriver, config: RunConfig, directory: RunDirectory, shared: SplitImages
) -> Outcome:
    trials, counts = driver.study.get_trials(), driver.counts()
    records = export_records(config, trials, shared.num_classes)
    if records:
        write_yaml(directory.best_path, records)
    resumable = f"continue with: {command_path('tune-ssl')} resume {directory.path}"
    if driver.hopeless:
        code, message = ALL_FAILED, f"stopped: {driver.draining}"
    elif driver.draining and driver.limit_reached:
        code, message = LIMIT, f"{driver.draining}; {resumable}"
    elif driver.draining:
        code, message = DRAINED, f"interrupted by {driver.draining}; {resumable}"
    elif counts.failed == counts.asked:
        code, message = ALL_FAILED, "every trial failed; see error.txt in the trials' folders"
    elif counts.finished < counts.asked:
        code, message = INTERNAL, f"the search ended early; {resumable}"
    else:
        code, message = DONE, f"{counts.finished} trials finished"
    directory.log_event("ended", exit_code=code, message=message)
    return Outcome(exit_code=code, directory=directory, records=records, message=message)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send everything written to file descriptor 1 to stderr: Ray prints there uninvited."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def describe_plan(config: RunConfig, shared: SplitImages) -> list[str]:
    """Return what a search would do, line by line, for ``--dry-run``."""
    space = config.space(shared.num_classes)
    cells = list(space.cells())
    rungs = config.rungs()
    defaults = min(len(cells), max(1, config.trials // 2))
    factor = config.reduction_factor
    full = config.trials * rungs[-1]
    least = sum(
        max(1, config.trials // factor**place) * (step - before)
        for place, (before, step) in enumerate(zip((0, *rungs), rungs, strict=False))
    )
    return [
        "methods: " + ", ".join(f"{a} / {d}" if d else a for a, d in cells),
        f"network: {config.resolved_model}, {rungs[-1]} steps of {config.resolved_batch_size} labeled and "
        f"{config.resolved_batch_size * config.unlabeled_ratio} unlabeled images",
        f"rungs: {', '.join(str(step) for step in rungs[:-1]) or 'none'}, full length {rungs[-1]}",
        f"trials: {config.trials}, the first {defaults} with published defaults",
        f"steps in all: about {least} if trials are cut as planned, at most {full}",
        f"images: {size(shared.images.nbytes)}",
    ]
