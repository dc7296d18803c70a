"""A search without training: a clock, a work, workers, a study and a whole run on disk.

``FakeWork`` trains nothing, but every step changes its state, its values depend on that state,
and it is stored and continued as the real work is: a step lost, repeated or taken from another
trial shows in the values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zlib
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from rich.console import Console

from search_spaces.joint import StudySpace
from ssl_core.data.prepare import SplitImages
from ssl_core.data.recipe import Augmentation, Normalisation
from ssl_core.errors import UserError
from tune_ssl.driver import SearchDriver
from tune_ssl.drivers import Drivers
from tune_ssl.journal import MemoryJournal, open_journal
from tune_ssl.on_ray.cluster import Cluster
from tune_ssl.run import RunConfig, RunDirectory, trial_seed
from tune_ssl.storage import RunStorage
from tune_ssl.study import FOREIGN, FirstTrial, SearchStudy, Verdict, first_trials
from tune_ssl.trial import Measured, pack_correct
from tune_ssl.worker import Lengths, SliceReport, TrialRunner

NUM_CLASSES = 10
RUNGS = (3, 9, 27)
IMAGES = 200
DIFFICULTY = np.random.RandomState(0).permutation(np.linspace(0.0, 1.0, IMAGES))
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class FakeClock:
    """Seconds that pass when a test or a work says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class OutOfMemoryError(RuntimeError):
    """Named as torch's; torch is not needed to tell it."""


class LocalizedOutOfMemoryError(OutOfMemoryError):
    """A subclass is one, too."""


@dataclasses.dataclass(kw_only=True)
class Fault:
    """What goes wrong with a trial. ``error`` is raised in ``where``, at ``step`` where it runs."""

    where: str
    step: int = 0
    error: Exception = dataclasses.field(default_factory=lambda: RuntimeError("the work broke"))


class FakeWork:
    """See the module. Faults: ``factory``, ``load``, ``run``, ``measure``, ``weights``, ``verify``,
    ``nan`` (a loss that is not finite), ``nan_measure`` (a value that is not)."""

    def __init__(
        self,
        record,
        clock=None,
        seconds_per_step=1.0,
        fault=None,
        counter=None,
        seconds_to_measure=0.0,
    ):
        self.step = 0
        self.finite = True
        self.parameters = dict(record["parameters"])
        self.images = (
            NUM_CLASSES if "fold" in record else IMAGES
        )  # a fold of two of the tiny images
        self.state = int(record["seed"])
        self._clock = clock or FakeClock()
        self._seconds_per_step = seconds_per_step
        self._fault = fault
        self._counter = counter if counter is not None else []
        self._seconds_to_measure = seconds_to_measure
        self._measured_for = 0.0
        self.measured_since_step = 0

    def run(self, until_step, seconds=None):
        deadline = None if seconds is None else self._clock() + seconds
        while self.step < until_step:
            self.step += 1
            self.measured_since_step = 0
            self.state = zlib.crc32(f"{self.state}:{self.step}".encode())
            self._counter.append(self.step)
            self._clock.advance(self._seconds_per_step)
            self._break_in("run")
            if self._fault and self._fault.where == "nan" and self.step >= self._fault.step:
                self.finite = False
            if deadline is not None and self._clock() >= deadline:
                return

    def measure(self, seconds=None):
        self._break_in("measure")
        left = self._seconds_to_measure - self._measured_for
        if seconds is not None and seconds < left:
            self._clock.advance(seconds)
            self._measured_for += seconds
            return None
        self._clock.advance(left)
        self._measured_for = 0.0
        self.measured_since_step += 1
        if self._fault and self._fault.where == "nan_measure" and self.step >= self._fault.step:
            return Measured(float("nan"), False, {})
        reached = quality(self.parameters) * (1.0 - np.exp(-3.0 * self.step / RUNGS[-1]))
        noise = np.random.RandomState(self.state).normal(0.0, 0.05, IMAGES)
        correct = (DIFFICULTY + noise < reached)[-self.images :]
        accuracy = float(correct.mean())
        details = {
            "standard_error": float(np.sqrt(accuracy * (1.0 - accuracy) / self.images)),
            "accuracy": accuracy,
            "balanced_accuracy": accuracy,
            "other_network": accuracy / 2,
            "terms": {"labeled": 1.0 - accuracy},
            "correct": pack_correct(correct),
        }
        return Measured(accuracy, True, details)

    def to_bytes(self):
        # As with a real training, measuring changes what is stored though not what follows.
        kept = {"step": self.step, "state": self.state, "measured": self.measured_since_step}
        return json.dumps(kept).encode()

    def load_bytes(self, data, sha256, name):
        self._break_in("load")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"checkpoint {name} is damaged")
        kept = json.loads(data)
        self.step, self.state = kept["step"], kept["state"]

    def weights(self):
        self._break_in("weights")
        return f"weights of state {self.state}".encode()

    def verify(self):
        self._break_in("verify")

    def _break_in(self, where):
        if self._fault and self._fault.where == where and self.step >= self._fault.step:
            raise self._fault.error


class FakeFactory:
    """Makes ``FakeWork``; ``faults`` are given by trial number, ``None`` standing for every trial."""

    def __init__(
        self,
        *,
        clock=None,
        seconds_per_step=1.0,
        seconds_to_measure=0.0,
        faults=None,
        search_seed=0,
    ):
        self.clock = clock or FakeClock()
        self._seconds_to_measure = seconds_to_measure
        self.steps: list[int] = []
        self._seconds_per_step = seconds_per_step
        self._faults = {
            None if number is None else trial_seed(search_seed, number): fault
            for number, fault in (faults or {}).items()
        }

    def __call__(self, record):
        fault = self._faults.get(record["seed"], self._faults.get(None))
        if fault and fault.where == "factory":
            raise fault.error
        return FakeWork(
            record,
            self.clock,
            self._seconds_per_step,
            fault,
            self.steps,
            self._seconds_to_measure,
        )

    def verify(self):
        """Nothing is shared."""


def bare_report(kind: str, reason: str | None = None) -> SliceReport:
    """Return a report of the first attempt of trial 0, at step 3, without anything else."""
    return SliceReport(number=0, attempt=1, step=3, kind=kind, seconds=1.0, reason=reason)


def quality(parameters) -> float:
    """Return in (0, 1) how good parameters are: best at learning rate 3e-3, horizon 12."""
    rate = (np.log10(parameters["learning_rate"]) + 2.5) / 1.5
    horizon = np.log(parameters["ema_horizon"] / 12.0)
    return float(0.95 * np.exp(-(rate**2) - 0.3 * horizon**2))


def small_config(**changes) -> RunConfig:
    """Return settings of a search with rungs at 3, 9 and 27."""
    settings = {"alg": ("mean_teacher",), "trials": 6, "max_steps": RUNGS[-1], "seed": 0}
    return RunConfig(**settings | {"reduction_factor": 3} | changes)


def tiny_images() -> SplitImages:
    """Return what trials share, as small as it can be: three images of each class."""
    rows = np.arange(3 * NUM_CLASSES, dtype=np.int64)
    labels = np.arange(NUM_CLASSES, dtype=np.int64)
    return SplitImages(
        images=np.arange(3 * NUM_CLASSES * 64, dtype=np.uint8).reshape(-1, 1, 8, 8),
        labeled=rows[:NUM_CLASSES],
        labels=labels,
        unlabeled=rows[: 2 * NUM_CLASSES],
        validation=rows[2 * NUM_CLASSES :],
        validation_labels=labels,
        class_names=tuple(str(label) for label in labels),
        skipped=(),
        normalisation=Normalisation(mean=(0.5,), std=(0.5,)),
        augmentation=Augmentation(max_shift=1, flip=False, noise=0.0),
        fingerprint="0" * 64,
    )


def small_space(algorithms=("mean_teacher",), divergences=()) -> StudySpace:
    return StudySpace(
        algorithms=algorithms,
        divergences=divergences,
        num_classes=NUM_CLASSES,
        max_steps=RUNGS[-1],
        first_rung=RUNGS[0] / RUNGS[-1],
    )


def make_study(backend=None, **changes) -> SearchStudy:
    """Return a study on a journal, in memory unless one is given."""
    settings = {
        "space": small_space(),
        "name": "search",
        "trials": 6,
        "seed": 0,
        "rungs": RUNGS,
        "reduction_factor": 3,
    }
    backend = MemoryJournal() if backend is None else backend
    return SearchStudy(backend, **settings | changes)


def study_on(path: Path, **changes) -> SearchStudy:
    """Return a study on a journal file, opened as a driver opens it."""
    return make_study(open_journal(path)[0], **changes)


def begin(study: SearchStudy):
    """Hand out the next trial and note that it has begun to train."""
    assignment = study.next()
    assert assignment is not None
    study.start(assignment.number, assignment.attempt)
    return assignment


class Run:
    """A run on disk with its driver, as ``search`` and ``resume`` set it up, without a cluster."""

    def __init__(
        self, path: Path, config: RunConfig | None = None, *, clock=None, **driver
    ) -> None:
        self.directory = RunDirectory(path)
        fresh = not path.exists()
        if fresh:
            self.directory.create()
            self.directory.write_config(config or small_config())
        self.config = config or self.directory.read_config()
        self.clock = clock or FakeClock()
        self.storage = RunStorage(str(path))
        self.journal, self.mended = open_journal(self.directory.journal_path)
        self.study = open_study(self.config, self.directory)
        self.driver = SearchDriver(
            self.study, self.config, self.directory, self.storage, clock=self.clock, **driver
        )
        self.driver.tidy()

    def workers(self, factory: FakeFactory | None = None, **options) -> Workers:
        return Workers(self.driver, factory or self.factory(), self.storage, **options)

    def factory(self, **options) -> FakeFactory:
        return FakeFactory(clock=self.clock, search_seed=self.config.seed, **options)

    def finish(self, **options) -> Run:
        """Run the search to its end and close it."""
        self.workers(**options).run()
        self.driver.close("the test is over")
        return self

    def trials(self):
        return self.study.get_trials()

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.trials()]

    def file(self, path: str) -> Path:
        return self.directory.path / path


def queue(study: SearchStudy, params, origin: str = "--config") -> None:
    """Queue one more trial behind those the study has."""
    there = [FirstTrial(params={}, attributes={})] * len(study.get_trials())
    study.enqueue_first([*there, FirstTrial(params=params, attributes={FOREIGN: origin})])


def queue_defaults(study: SearchStudy, defaults) -> None:
    """Queue published defaults as a search does."""
    study.enqueue_first(first_trials(defaults, study.trials))


def open_study(config: RunConfig, directory: RunDirectory, console=None) -> SearchStudy:
    """Open a run's study as ``search`` and ``resume`` do."""
    from tune_ssl.workflows import opening

    storage = RunStorage(str(directory.path))
    quiet = console or Console(file=io.StringIO())
    return opening.open_study(config, directory, tiny_images(), storage, quiet)


class Workers:
    """A number of slots that run what the driver hands out, a slice each in turn."""

    def __init__(self, driver, factory, storage, *, slots=1, lengths=None) -> None:
        self.driver = driver
        self.runners = [
            TrialRunner(
                factory,
                storage,
                driver.config.rungs(),
                lengths=lengths or Lengths(slice_seconds=5.0, checkpoint_seconds=60.0),
                clock=factory.clock,
            )
            for _ in range(slots)
        ]
        self.busy = {}

    def fill(self) -> None:
        """Give every free slot a trial."""
        for slot, runner in enumerate(self.runners):
            if slot in self.busy or self.driver.finished():
                continue
            task = self.driver.next()
            if task is not None:
                runner.begin(task)
                self.driver.started(task.number, task.attempt)
                self.busy[slot] = task

    def turn(self) -> list:
        """Run one slice in every busy slot; return the reports."""
        reports = []
        for slot, task in list(self.busy.items()):
            reports.append(self.runners[slot].slice())
            if self.driver.handle(reports[-1]) is not Verdict.CONTINUE:
                del self.busy[slot]
            elif self.driver.draining:
                try:
                    checkpoint = self.runners[slot].store_checkpoint()
                except Exception:  # as an actor's: all that is heard of it is that there is none
                    checkpoint = None
                self.driver.store_and_interrupt(task.number, task.attempt, checkpoint)
                del self.busy[slot]
        return reports

    def run(self) -> None:
        """Run until nothing is left or the driver drains."""
        for _ in range(500):
            self.driver.check_limits()
            self.fill()
            if not self.busy:
                return
            self.turn()
        raise AssertionError("the search does not end")


def records_of(path: Path) -> list[dict]:
    """Return every record of a journal file, as Optuna's own reader sees them."""
    return list(JournalFileBackend(str(path)).read_logs(0))


def outcome(trials) -> list[tuple]:
    """Return what a search found: everything about its trials that does not depend on how often
    it was interrupted."""
    return [
        (
            trial.number,
            trial.state.name,
            dict(trial.params),
            trial.value if trial.state != TrialState.FAIL else None,
            dict(trial.intermediate_values),
            {key: value for key, value in trial.user_attrs.items() if key.startswith("rung ")},
        )
        for trial in trials
    ]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: the content of files, None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


class SharedWorkers:
    """A number of slots that run what ``Drivers`` hand out, a slice each in turn."""

    def __init__(self, drivers: Drivers, factory, *, slots: int) -> None:
        self.drivers = drivers
        self.factory = factory
        self.slots = slots
        self.busy: dict[int, tuple] = {}

    def fill(self) -> None:
        """Give every free slot a trial."""
        for slot in range(self.slots):
            if slot in self.busy or self.drivers.finished():
                continue
            task = self.drivers.next()
            if task is None:
                continue
            rungs = self.drivers.open[0].config.rungs()
            lengths = Lengths(slice_seconds=5.0, checkpoint_seconds=60.0)
            storage = RunStorage(task.storage)
            runner = TrialRunner(
                self.factory, storage, rungs, lengths=lengths, clock=self.factory.clock
            )
            runner.begin(task)
            self.drivers.started(task)
            self.busy[slot] = task, runner

    def turn(self) -> int:
        """Run one slice in every busy slot; return how many reported."""
        busy = list(self.busy.items())
        for slot, (task, runner) in busy:
            if self.drivers.handle(task, runner.slice()) is not Verdict.CONTINUE:
                del self.busy[slot]
            elif self.drivers.drains(task):
                self.drivers.store_and_interrupt(task, runner.store_checkpoint())
                del self.busy[slot]
        return len(busy)


HERE = Cluster(local=True, address="here", dashboard=None, cpus=4.0, gpus=0.0)


@contextmanager
def no_cluster(*, interrupted_after=None, lost=False, slots=2, driven=None, **options):
    """Let ``driving`` drive workers of ``FakeWork`` in the place of a cluster, and all else as it does.

    ``interrupted_after`` (n, reports) of when the n-th run has begun a signal comes, or with ``lost`` the driver
    is gone without a word. The names of the runs that begin are appended to ``driven``.
    """
    from tune_ssl.on_ray import cluster, tuning
    from tune_ssl.workflows import driving

    clock, begun = FakeClock(), [] if driven is None else driven
    nth, after = interrupted_after or (0, None)

    def driver(study, config, directory, *arguments, **settings):
        begun.append(directory.name)
        settings |= {"clock": clock, "began": clock()}
        made = SearchDriver(study, config, directory, *arguments, **settings)
        if lost:
            made.close = lambda reason: None
        return made

    def run_tune(drivers, factory, *, rungs, slots, on_tick):
        workers = SharedWorkers(
            drivers, FakeFactory(clock=clock, **options), slots=slots.concurrency
        )
        reports, turns = 0, 0
        while not drivers.finished() or workers.busy:
            turns += 1
            assert turns < 5000, "the runs do not end"
            drivers.tend()
            workers.fill()
            reported = workers.turn()
            on_tick()
            reports += reported if len(begun) >= nth else 0
            if after is not None and len(begun) >= nth and reports >= after:
                if lost:
                    raise KeyboardInterrupt
                drivers.drain("SIGTERM")

    with pytest.MonkeyPatch.context() as patched:
        usual = tuning.Slots
        patched.setattr(tuning, "Slots", lambda **given: usual(**given | {"concurrency": slots}))
        patched.setattr(tuning, "run_tune", run_tune)
        patched.setattr(cluster, "shared_by_all", lambda value: value)
        patched.setattr(cluster, "head_watched", lambda cluster, lost: nullcontext())
        patched.setattr(driving, "SearchDriver", driver)
        patched.setattr(driving, "stdout_to_stderr", nullcontext)
        if lost:
            patched.setattr(driving, "draining_signals", lambda drivers: nullcontext())
        yield


def drive_all_without_cluster(
    runs, whole, invocation, console, *, ended, count=1, done=0, cluster=None, **options
):
    """Do what ``driving.run_jobs`` does, see ``no_cluster``."""
    from tune_ssl.workflows import driving

    if options.get("lost"):
        ended = lambda run, driver: None  # noqa: E731
    with no_cluster(**options):
        return driving.run_jobs(
            runs, whole, invocation, console, ended=ended, count=count, done=done, cluster=HERE
        )


def drive_without_cluster(
    job, directory, invocation, console, *, fresh, cluster=None, interrupted_after=None, **options
):
    """Do what ``driving.run_job`` does, see ``no_cluster``; interrupted after so many reports."""
    from tune_ssl.workflows import driving

    after = None if interrupted_after is None else (1, interrupted_after)
    with no_cluster(interrupted_after=after, **options):
        return driving.run_job(job, directory, invocation, console, fresh=fresh, cluster=HERE)


def draws_of(retrainings) -> dict[int, SplitImages]:
    """Return what ``retrain.draw_images`` does, of the tiny images: every draw another split."""
    images = tiny_images()
    return {
        draw.split_seed: dataclasses.replace(images, fingerprint=f"{draw.split_seed:064x}")
        for draw in retrainings.draws
    }
