"""Driving trials on a cluster: what a search has in common with retrainings."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from optuna.trial import FrozenTrial
from rich.console import Console

from search_spaces.joint import Suggestion
from ssl_core.errors import StoppedError, UserError
from tune_ssl.driver import TOO_LITTLE_MEMORY, Limits, SearchDriver
from tune_ssl.drivers import Drivers
from tune_ssl.journal import JournalWriteError
from tune_ssl.machine import command_path
from tune_ssl.run import RunConfig, RunDirectory, run_lock, whole_of
from tune_ssl.storage import RunStorage
from tune_ssl.study import SearchStudy
from tune_ssl.text import counted
from tune_ssl.trial import WorkFactory
from tune_ssl.views.live import LiveView
from tune_ssl.views.messages import say
from tune_ssl.workflows.plan import check_compiler
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


class Job(Protocol):
    """What a driver is to do: a search's trials, or retrainings. A value; its run is passed in."""

    @property
    def settings(self) -> RunConfig:
        """What every trial is trained with, and the share of a node it is given."""

    @property
    def image_bytes(self) -> int:
        """Size of the images that are shipped to the workers."""

    @property
    def weights_kept(self) -> int | None:
        """So many of the best trials keep their weights; None for all."""

    def on_cluster(self, cluster: Cluster, console: Console) -> Job:
        """Return the job with what the machine decides."""

    def begin(self, directory: RunDirectory, console: Console) -> None:
        """Write what a new run begins with, and say it."""

    def describe(self, console: Console) -> None:
        """Say what the trials are trained on."""

    def describe_origin(self, directory: RunDirectory) -> None:
        """Write what the run began with, where that is not written yet."""

    def open_study(
        self, directory: RunDirectory, storage: RunStorage, console: Console
    ) -> SearchStudy:
        """Return the run's study, new or interrupted."""

    def factory(self) -> WorkFactory:
        """Return what makes the trials' work on the workers."""

    def record(self, number: int, suggestion: Suggestion) -> dict[str, Any]:
        """Return the flat configuration of a trial."""

    def headline(self, trials: Sequence[FrozenTrial]) -> str:
        """Return what the trials show so far, in a line."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A job, and the folder it runs in, new or interrupted.

    Args:
        limits: what ends it before all its trials are finished.
    """

    job: Job
    directory: RunDirectory
    fresh: bool
    limits: Limits


def run_job(
    job: Job,
    directory: RunDirectory,
    invocation: Invocation,
    console: Console,
    *,
    fresh: bool,
    cluster: Cluster | None = None,
) -> SearchDriver:
    """Drive a job's trials until they are finished, a limit is reached or a signal comes.

    Args:
        cluster: one that is connected; None to connect for this one.

    Returns:
        The driver, closed; its study says what became of the trials.

    Raises:
        UserError: something given cannot be used; of a ``fresh`` run nothing is left.
        StoppedError: the journal or another file of the run could not be written.
    """
    run = Run(job=job, directory=directory, fresh=fresh, limits=invocation.limits)
    closed: list[SearchDriver] = []
    run_jobs(
        [run],
        directory,
        invocation,
        console,
        ended=lambda run, driver: closed.append(driver),
        cluster=cluster,
    )
    return closed[0]


def run_jobs(
    runs: Iterable[Run],
    whole: RunDirectory,
    invocation: Invocation,
    console: Console,
    *,
    ended: Callable[[Run, SearchDriver], str | None],
    count: int = 1,
    done: int = 0,
    cluster: Cluster | None = None,
) -> str | None:
    """Drive the trials of all runs on the same workers, each run's when those before have none left.

    Args:
        runs: at least one. Each is asked for when workers are free for it; all take the same share of a
            node and the same rungs, and the first job's factory makes the trials of all.
        whole: what a stopped command is continued by.
        ended: is given each run that is over with its closed driver; what it returns ends all.
        count, done: runs of the whole, and those of them that were done before.
        cluster: see ``run_job``.

    Returns:
        Why all were ended before their trials were finished; None where each came to an end of its own.

    Raises:
        UserError: something given cannot be used; of a fresh run that began with it nothing is left.
        StoppedError: the journal or another file of a run could not be written.
    """
    with ExitStack() as stack:
        coming = iter(runs)
        first = next(coming)
        locks = stack.enter_context(ExitStack())
        if not first.fresh:  # one that is held is refused before Ray has started
            locks.enter_context(run_lock(first.directory, steal=invocation.steal_lock))
        stack.enter_context(stdout_to_stderr())
        if cluster is None:
            image_bytes = first.job.image_bytes
            cluster = stack.enter_context(connected_for(invocation, image_bytes))
        under_way: dict[str, tuple[Run, ExitStack]] = {}
        refused: list[Exception] = []
        shared = _Shared(cluster, invocation, console)

        def open_one(run: Run, *, locked: bool = False) -> SearchDriver:
            held = locks.pop_all()
            driver = held.enter_context(_driver_of(run, invocation, console, shared, locked))
            under_way[driver.storage_root] = run, held
            return driver

        def opened() -> Iterator[SearchDriver]:
            yield open_one(first, locked=not first.fresh)
            while True:
                try:
                    run = next(coming, None)
                    driver = None if run is None else open_one(run)
                except (UserError, StoppedError, JournalWriteError, OSError) as error:
                    refused.append(error)  # raised when what runs is stored
                    drivers.drain(f"what comes next cannot be begun: {error}")
                    return
                if driver is None:
                    return
                yield driver

        def end(driver: SearchDriver) -> None:
            run, held = under_way.pop(driver.storage_root)
            with held:
                why = ended(run, driver)
            if why is not None:
                drivers.drain(why)

        drivers = Drivers(opened(), count=count, done=done, ended=end)
        drivers.open_next()
        with _saying_how_to_continue(whole):
            try:
                _drive(drivers, shared, whole, console)
            except BaseException as error:
                if isinstance(error, JournalWriteError | OSError):  # no trial's fault
                    with suppress(JournalWriteError, OSError):
                        drivers.drain(str(error))
                with suppress(JournalWriteError, OSError):  # the disk is still full
                    drivers.close("the driver ended")
                raise
            drivers.close("the driver ended")
            if refused:
                raise refused[0]
        return drivers.draining


def how_it_ended(driver: SearchDriver, directory: RunDirectory) -> tuple[int, str]:
    """Return the exit code of a driver that is closed, and a line that says why."""
    counts = driver.counts()
    resumable = _continue_with(directory)
    if driver.hopeless and driver.study.all_needed:
        return INTERNAL, f"stopped: {driver.draining}; {resumable}"
    if driver.hopeless:
        return ALL_FAILED, f"stopped: {driver.draining}"
    if counts.finished >= counts.asked:
        if counts.failed == counts.finished:
            return ALL_FAILED, "every trial failed; see error.txt in the trials' folders"
        return DONE, f"{counted(counts.finished, 'trial')} finished"
    if driver.stopped_by:
        return INTERNAL, _stopped_by(driver.stopped_by, directory)
    if driver.limit_reached:
        return LIMIT, f"{driver.draining}; {resumable}"
    if driver.draining:
        return DRAINED, f"interrupted by {driver.draining}; {resumable}"
    if driver.study.missing:
        return INTERNAL, f"{_missing(driver.study.missing, counts.asked)}; {resumable}"
    return INTERNAL, f"the search ended early; {resumable}"


@contextmanager
def removed_if_unusable(directory: RunDirectory) -> Iterator[None]:
    """Leave nothing of a new run that ended before its first trial because of its input."""
    try:
        yield
    except UserError:
        shutil.rmtree(directory.path, ignore_errors=True)
        raise


@contextmanager
def connected_for(invocation: Invocation, image_bytes: int) -> Iterator[Cluster]:
    """Be connected to the cluster an invocation asks for; ``image_bytes`` are shipped to it.

    Raises:
        UserError: there is none at the address, or Ray's token cannot be protected.
    """
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
        image_bytes=image_bytes,
        ship=ship,
    ) as cluster:
        let_sigterm_interrupt()
        protect_token()
        yield cluster


@contextmanager
def _saying_how_to_continue(directory: RunDirectory) -> Iterator[None]:
    """Turn a failed write into the message that the run can be resumed.

    Raises:
        StoppedError: the journal or another file of the run could not be written.
    """
    try:
        yield
    except (JournalWriteError, OSError) as error:
        raise StoppedError(_stopped_by(error, directory)) from error


def _missing(missing: Mapping[int, str], asked: int) -> str:
    number, reason = next(iter(missing.items()))
    remedy = "mend what is wrong (error.txt in a trial's folder says where it raised)"
    if reason.startswith(TOO_LITTLE_MEMORY):
        remedy = "use a device with more memory, or a larger --gpus-per-trial under another --name"
    return (
        f"{len(missing)} of {asked} trials gave no result (trial {number}: {reason}), and without them the others "
        f"cannot be compared; {remedy}: only these are trained again"
    )


def _stopped_by(why: object, directory: RunDirectory) -> str:
    return f"the search stopped, {why}; all that is in the journal is kept; {_continue_with(directory)}"


def _continue_with(directory: RunDirectory) -> str:
    return f"continue with: {command_path('tune-ssl')} resume {whole_of(directory).path}"


class _Shared:
    """What all runs share, made with the first job: the cluster, what its workers are given, the guard of its nodes."""

    def __init__(self, cluster: Cluster, invocation: Invocation, console: Console) -> None:
        self.cluster = cluster
        self.factory: Any = None
        self.guard: NodeGuard | None = None
        self.job: Job | None = None
        self._invocation = invocation
        self._console = console

    def ship(self, job: Job, storage: RunStorage) -> None:
        """Put what the trials share into the object store, and let the nodes prove themselves."""
        from tune_ssl.on_ray.cluster import shared_by_all
        from tune_ssl.on_ray.nodes import NodeGuard, Requirements

        if self.job is not None:
            return
        factory = shared_by_all(job.factory())
        if self.cluster.local:
            check_compiler(job.settings.compile)
        else:
            requirements = Requirements(
                storage=storage.root,
                factory=factory,
                cpus=job.settings.cpus_per_trial,
                gpus=job.settings.gpu_share,
                compiles=job.settings.compile,
            )
            self.guard = NodeGuard(requirements)
            self.guard.prove_all()
            for host, problem in sorted(self.guard.problems.items()):
                say(self._console, f"warning: node {host} gets no trials: {problem}")
        self.job, self.factory = job, factory

    def exclude(self, node: str, why: str, for_good: bool) -> bool:
        """See ``SearchDriver``."""
        return self.guard is not None and self.guard.exclude(node, why, for_good)

    def introduce(self) -> None:
        """Say once where the trials run."""
        cluster, console = self.cluster, self._console
        where = "this host" if cluster.local else f"the cluster at {cluster.address}"
        say(console, f"ray: {where}, {cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs")
        if cluster.dashboard:
            address = cluster.dashboard
            url = address if address.startswith("http") else f"http://{address}"
            token = f"{command_path('ray')} get-auth-token"
            say(console, f"dashboard: {url}  (it asks for a token: run {token})")
        elif self._invocation.dashboard and cluster.local:
            say(console, "warning: Ray's dashboard did not start; the search goes on without it.")


@contextmanager
def _driver_of(
    run: Run,
    invocation: Invocation,
    console: Console,
    shared: _Shared,
    locked: bool,
) -> Iterator[SearchDriver]:
    """Hold a run, and drive it: the driver of a study that is open.

    Args:
        locked: the run is held already.

    Raises:
        UserError: something given cannot be used; of a fresh run nothing is left.
    """
    job, directory = run.job.on_cluster(shared.cluster, console), run.directory
    first = shared.job is None
    with ExitStack() as stack:
        if run.fresh:
            directory.create()
        if not locked:
            stack.enter_context(run_lock(directory, steal=invocation.steal_lock))
        if run.fresh:
            job.describe(console)
        with removed_if_unusable(directory) if run.fresh else nullcontext():
            if run.fresh:
                job.begin(directory, console)
            job.describe_origin(directory)
            storage = RunStorage(job.settings.storage or str(directory.path))
            storage.check_writable()
            study = job.open_study(directory, storage, console)
            if not run.fresh:  # a refusal is one line
                job.describe(console)
            shared.ship(job, storage)
        driver = SearchDriver(
            study,
            job.settings,
            directory,
            storage,
            record=job.record,
            headline=job.headline,
            weights_kept=job.weights_kept,
            limits=run.limits,
            began=invocation.began,
            exclude=shared.exclude,
        )
        driver.tidy()
        say(console, f"run: {directory.path}")
        if first:
            shared.introduce()
        say(console, f"trials: {command_path('optuna-dashboard')} {directory.journal_path}")
        yield driver


def _drive(drivers: Drivers, shared: _Shared, whole: RunDirectory, console: Console) -> None:
    from tune_ssl.on_ray.cluster import head_watched
    from tune_ssl.on_ray.tuning import Slots, run_tune

    assert shared.job is not None
    config, cluster, guard = shared.job.settings, shared.cluster, shared.guard
    slots = Slots(
        cpus=config.cpus_per_trial,
        gpus=config.gpu_share,
        concurrency=config.concurrency,
        expected=_expected_slots(config, cluster),
        guard=guard,
    )
    view = LiveView(drivers, console, name=whole.name, slots=slots.concurrency or slots.expected)

    def on_tick() -> None:
        for message in guard.poll() if guard is not None else ():
            say(console, message)
        view.tick()

    def on_head_lost() -> None:
        say(
            console,
            f"the head of the Ray cluster at {cluster.address} does not answer; unless it comes back, Ray "
            f"ends this driver within a minute; all that is in the journal is kept; {_continue_with(whole)}",
        )

    with draining_signals(drivers), view, head_watched(cluster, on_head_lost):
        run_tune(drivers, shared.factory, rungs=config.rungs(), slots=slots, on_tick=on_tick)


def _expected_slots(config: RunConfig, cluster: Cluster) -> int:
    slots = cluster.cpus / config.cpus_per_trial
    if config.gpu_share:
        slots = min(slots, cluster.gpus / config.gpu_share)
    return max(1, int(slots))
