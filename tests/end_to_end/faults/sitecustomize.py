"""Harms a search at a chosen point; loaded by Python itself where this folder is on PYTHONPATH.

``TUNE_SSL_FAULT=point:count`` names a point and how often a process passes it before it is hit.
These kill the driver:

    journal      half of an event's records is written to the journal
    checkpoint   a worker has written half of a checkpoint
    named        a rung's checkpoint is stored, the journal does not name it
    reported     a rung's value is in the journal, the worker has no answer
    weights      the weights are stored, the trial is not complete

these harm other parts of a search, where ``TUNE_SSL_MARK=file`` once only, and the file says so:

    worker       a worker has taken a step and is killed
    hang         a worker has taken a step and does nothing any more; for it, five seconds are too long
    disk         the journal's file system is full from here on, in the middle of a record
    share        the storage is full while a worker stores one checkpoint
    full         the storage takes no checkpoints and weights any more, and still lines of the journal
    orphan       a worker stores a checkpoint only when its trial is continued by another
    forbidden    the storage takes nothing
    nan          no loss is finite from that step of a trial on

``TUNE_SSL_SLICE=seconds`` lets a worker report so often.
``TUNE_SSL_STEPS=file`` counts optimiser steps: one byte each, by whichever process.
``TUNE_SSL_MISSING=1`` is a node on which our packages are not installed, unless Ray brings them.
``TUNE_SSL_HIDDEN=folder`` is not there for the processes that see this variable.
"""

from __future__ import annotations

import errno
import functools
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import resource
import signal
import sys
import time
from contextlib import contextmanager

POINT, _, COUNT = os.environ.get("TUNE_SSL_FAULT", "").partition(":")
MARK = os.environ.get("TUNE_SSL_MARK")
SLICE = os.environ.get("TUNE_SSL_SLICE")
STEPS = os.environ.get("TUNE_SSL_STEPS")
MISSING = os.environ.get("TUNE_SSL_MISSING")
HIDDEN = os.environ.get("TUNE_SSL_HIDDEN")
os.environ.setdefault("TUNE_SSL_DRIVER", str(os.getpid()))  # the first process is the driver


def kill_the_driver() -> None:
    """Kill the driver at once, and go no further than it did."""
    os.kill(int(os.environ["TUNE_SSL_DRIVER"]), signal.SIGKILL)
    time.sleep(3600)


def mark() -> bool:
    """Leave the file that says that a point was hit; return False where it is there."""
    try:
        with open(MARK, "x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def limit_files_to(size) -> None:
    """Let this process write no further than that into a file: Python ignores the signal."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def full_at(size):
    limit_files_to(size)
    try:
        yield
    finally:
        limit_files_to(resource.RLIM_INFINITY)


class Countdown:
    """Says when a point has been passed often enough."""

    def __init__(self) -> None:
        self.left = int(COUNT or 0)

    def is_over(self) -> bool:
        self.left -= 1
        return self.left == 0


countdown = Countdown()


def after(cls, name, then):
    """Let a method of a class be followed by something."""
    original = getattr(cls, name)

    def followed(self, *arguments, **options):
        result = original(self, *arguments, **options)
        then()
        return result

    setattr(cls, name, followed)


def kill_when_over() -> None:
    if countdown.is_over():
        kill_the_driver()


def in_journal(module) -> None:
    original = module.RunJournal._append

    def append(self, data):
        if POINT == "journal" and countdown.is_over():
            with open(self._path, "ab") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                os.fsync(file.fileno())
            kill_the_driver()
        if POINT == "disk" and countdown.is_over():
            limit_files_to(os.stat(self._path).st_size + len(data) // 2)
        original(self, data)

    module.RunJournal._append = append


def in_storage(module) -> None:
    original = module.write_atomically

    def write(path, data):
        if POINT == "checkpoint" and path.suffix == ".pt" and countdown.is_over():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(data[: len(data) // 2])
            kill_the_driver()
        if POINT == "forbidden":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        large = path.suffix in (".pt", ".safetensors")
        if POINT == "full" and large and is_full_for_every_process():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if POINT == "share" and path.suffix == ".pt" and countdown.is_over() and mark():
            with full_at(len(data) // 2):
                original(path, data)
        if POINT == "orphan" and path.suffix == ".pt" and countdown.is_over() and mark():
            wait_for_another_attempt(path)
            original(path, data)
            with open(MARK, "w") as file:
                file.write(str(path))
            return
        original(path, data)
        if POINT == "weights" and path.suffix == ".safetensors" and countdown.is_over():
            kill_the_driver()

    module.write_atomically = write


def is_full_for_every_process() -> bool:
    return os.path.exists(MARK) or (countdown.is_over() and mark())


def wait_for_another_attempt(checkpoint) -> None:
    attempts = checkpoint.parents[1]
    while list(attempts.glob("attempt-*")) == [checkpoint.parent]:
        time.sleep(0.02)


def in_study(module) -> None:
    if POINT == "named":
        after(module.SearchStudy, "name_checkpoint", kill_when_over)


def in_driver(module) -> None:
    if POINT == "reported":
        after(module.SearchDriver, "_write_metrics", kill_when_over)


def in_worker(module) -> None:
    if SLICE:
        module.Lengths = functools.partial(module.Lengths, slice_seconds=float(SLICE))


def in_loop(module) -> None:
    def count() -> None:
        if STEPS:
            with open(STEPS, "ab") as file:
                file.write(b".")
        if POINT in ("worker", "hang") and countdown.is_over() and mark():
            if POINT == "worker":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)

    if POINT == "nan":
        module.Training.finite = property(lambda training: training.step < int(COUNT))
    if STEPS or POINT in ("worker", "hang"):
        after(module.Training, "_train_step", count)


def in_scheduler(module) -> None:
    usual, original = module.SILENT_SECONDS, module.DriverScheduler._kill_silent
    found = False

    def kill_silent(self):  # a worker that starts on a slow machine is silent for long, too
        nonlocal found
        hangs = os.path.exists(MARK) and not found
        module.SILENT_SECONDS = 5.0 if hangs else usual
        running = len(self._drivers.running())
        original(self)
        found = found or (hangs and len(self._drivers.running()) < running)

    if POINT == "hang":
        module.DriverScheduler._kill_silent = kill_silent


PATCHES = {
    "tune_ssl.journal": in_journal,
    "tune_ssl.storage": in_storage,
    "tune_ssl.study": in_study,
    "tune_ssl.driver": in_driver,
    "tune_ssl.worker": in_worker,
    "ssl_core.training.loop": in_loop,
    "tune_ssl.on_ray.scheduler": in_scheduler,
}


class Patching(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets every other finder find a module, and patches it when it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name not in PATCHES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        self._loaders = {**getattr(self, "_loaders", {}), name: spec.loader}
        spec.loader = self
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self._loaders[module.__name__].exec_module(module)
        PATCHES[module.__name__](module)


def hide(event, arguments) -> None:
    """Refuse what an audit hook sees of a folder."""
    path = arguments[0] if arguments and event.startswith(("open", "os.")) else None
    if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(HIDDEN):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))


class NotInstalled(importlib.abc.MetaPathFinder):
    """Finds our packages where Ray unpacks what it brings to a node, and nowhere else."""

    OURS = ("tune_ssl", "ssl_core", "search_spaces")

    def find_spec(self, name, path=None, target=None):
        if name not in self.OURS:
            return None
        brought = [place for place in sys.path if "runtime_resources" in place]
        spec = importlib.machinery.PathFinder.find_spec(name, brought)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec

    @staticmethod
    def hide_metadata() -> None:
        original = importlib.metadata.version

        def version(name):
            if name == "tune-ssl":
                raise importlib.metadata.PackageNotFoundError(name)
            return original(name)

        importlib.metadata.version = version


if HIDDEN:
    sys.addaudithook(hide)
if MISSING:
    NotInstalled.hide_metadata()
    sys.meta_path.insert(0, NotInstalled())
else:
    sys.meta_path.insert(0, Patching())
