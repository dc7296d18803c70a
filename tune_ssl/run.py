"""A run: its settings, its folder, and the lock that gives it one driver at a time.

::

    RUN/config.yaml       the settings, all of them, as resolved
        environment.json  versions and hardware
        split.json        which images were drawn
        study.journal     the truth: what happened to every trial
        events.jsonl      a log, never read back
        trials/0007/      config.yaml, metrics.jsonl, error.txt; checkpoints unless --storage
        best.yaml         the best configurations, written when the search ends
        confirm/NAME/     retrainings of them: a run of its own, see ``workflows/retrain.py``
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import yaml

from search_spaces.joint import StudySpace, Suggestion
from ssl_core.data.catalogue import DATASET_CARDS
from ssl_core.data.config import DataConfig
from ssl_core.errors import (
    UserError,
    check_choice,
    check_flag,
    check_integer,
    check_keys,
    check_number,
    check_text,
)
from ssl_core.files import write_atomically
from ssl_core.names import (
    EVALUATED_NETWORKS,
    LR_SCHEDULE_NAMES,
    METRIC_NAMES,
    OPTIMIZER_NAMES,
    PRECISIONS,
    algorithm_names,
    divergence_names,
    parse_model_name,
)
from ssl_core.parameters import LEGAL, check_batch_norm_momentum, fewest_steps
from ssl_core.published import PREFERRED
from tune_ssl.asha import rung_steps

# libyaml's is 10 x cheaper, and a config.yaml is written for every trial.
SAFE_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

SAMPLERS = ("tpe", "random")
SCHEDULERS = ("asha", "none")
DEVICES = ("auto", "cpu", "cuda", "mps")
SEARCHED = "search"
DEFAULT_PROTOCOL = "default"
AUTO = "auto"

NOTHING: Mapping[str, int] = {}

COMPARISON = "compare.yaml"
"""In a folder whose cells are runs, see ``workflows/compare.py``."""
CELLS, RETRAININGS = "cells", "retrainings"
"""The folders of a comparison's parts: a run for each search below the first, the other a run itself."""

RUN_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything a search depends on; the command line's flags have the same names.

    None means: as the data set's card says, or as the data and the machine decide.

    Args:
        divergence: those to choose from; empty for each method's published one.
        entropy_min: weight of entropy minimisation, or ``search``.
        reshuffle_validation: every trial divides the labels, to train and to choose on, anew.
        compile: networks by torch's compiler, see ``ssl_core.training.compiled``.
        grace: the first rung, in steps.
        gpus_per_trial: GPUs of each, a fraction where several share one, or ``auto`` to measure it.
        start_from: configurations tried first, as ``export`` writes them.
        unlabeled: size of the unlabeled pool; this, ``labeled_classes``, ``class_mismatch`` and
            ``imbalance`` as in ``DataConfig``.
        warm_start: folder of an earlier run whose trials inform the sampler.
        protocol: whose settings these are: a name, or the path of a file; see ``tune_ssl.protocol``.
        normalisation: of the network's input, see ``DataConfig``.
        batch_norm_momentum: of running statistics; None to recompute them before each evaluation.
        weight_decay, ramp_fraction: of every trial; None to search them.
        published_from: a source whose published values are preferred, see ``ssl_core.published``.
    """

    alg: tuple[str, ...]
    divergence: tuple[str, ...] = ()
    trials: int = 50
    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    labels: int | None = None
    validation: int | None = None
    split_seed: int = 0
    reshuffle_validation: bool = False
    flip: bool | None = None
    model: str | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    unlabeled_ratio: int = 1
    optimizer: str = "adamw"
    lr_schedule: str = "cosine"
    entropy_min: float | str = 0.0
    evaluate: str = "ema"
    metric: str = "auto"
    precision: str = "auto"
    compile: bool = False
    seed: int = 0
    sampler: str = "tpe"
    scheduler: str = "asha"
    # 3 cuts the trial that would have won in up to a third of the searches: benchmarks/rung_fidelity.json
    reduction_factor: int = 2
    grace: int | None = None
    device: str = "auto"
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | str | None = None
    threads: int | None = None
    concurrency: int | None = None
    storage: str | None = None
    start_from: tuple[dict[str, Any], ...] = ()
    warm_start: str | None = None
    unlabeled: int | None = None
    labeled_classes: str | None = None
    class_mismatch: float | None = None
    imbalance: float | None = None
    protocol: str = DEFAULT_PROTOCOL
    normalisation: str = "channels"
    batch_norm_momentum: float | None = None
    weight_decay: float | None = None
    ramp_fraction: float | None = None
    published_from: str | None = None

    def __post_init__(self) -> None:
        check_integer("trials", self.trials, 1)
        self.data()
        parse_model_name(self.resolved_model)
        check_integer("max-steps", self.steps, 1)
        check_integer("batch-size", self.resolved_batch_size, 2)
        check_integer("unlabeled-ratio", self.unlabeled_ratio, 1)
        check_choice("optimizer", self.optimizer, OPTIMIZER_NAMES)
        check_choice("lr-schedule", self.lr_schedule, LR_SCHEDULE_NAMES)
        if self.entropy_min != SEARCHED:
            check_number("entropy-min", self.entropy_min, 0.0)
        check_choice("evaluate", self.evaluate, EVALUATED_NETWORKS)
        check_choice("metric", self.metric, ("auto", *METRIC_NAMES))
        check_choice("precision", self.precision, ("auto", *PRECISIONS))
        check_flag("compile", self.compile)
        check_integer("seed", self.seed, 0, 2**32 - 1)
        check_flag("reshuffle-validation", self.reshuffle_validation)
        check_choice("sampler", self.sampler, SAMPLERS)
        check_choice("scheduler", self.scheduler, SCHEDULERS)
        check_choice("device", self.device, DEVICES)
        check_number("cpus-per-trial", self.cpus_per_trial, 0.0, low_open=True)
        if self.gpus_per_trial not in (None, AUTO):
            check_number("gpus-per-trial", self.gpus_per_trial, 0.0)
        for name in ("threads", "concurrency"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), 1)
        if self.storage is not None:
            check_text("storage", self.storage)
        if self.warm_start is not None:
            check_text("warm-start", self.warm_start)
            if self.sampler == "random":
                raise UserError(
                    "warm-start was given with sampler random; allowed: tpe, because random draws learn from "
                    "no trial; leave one of the two out."
                )
        for start in self.start_from:
            _check_start(start)
        self._check_protocol()
        space = self.space(num_classes=10)
        for start in self.start_from:
            space.params_for(start["algorithm"], start.get("divergence"), start["parameters"])

    def _check_protocol(self) -> None:
        """Check what protocols set, and that the first rung measures what it is to rank."""
        check_text("protocol", self.protocol)
        check_batch_norm_momentum(self.batch_norm_momentum, self.steps)
        if self.weight_decay is not None:
            check_number("weight_decay", self.weight_decay, **LEGAL["weight_decay"]._asdict())
        if self.ramp_fraction is not None:
            check_number("ramp_fraction", self.ramp_fraction, **LEGAL["ramp_fraction"]._asdict())
        if self.published_from is not None:
            check_choice("published_from", self.published_from, tuple(PREFERRED))
        ramp, momentum = self.ramp_fraction or 0.0, self.batch_norm_momentum
        earliest = {
            "the ramp of the unlabeled weight ends": math.ceil(round(ramp * self.steps, 6)),
            "running BatchNorm statistics hold": 0 if momentum is None else fewest_steps(momentum),
        }
        first, what = self.rungs()[0], max(earliest, key=lambda name: earliest[name])
        if first < earliest[what]:
            raise UserError(
                f"the first rung is at step {first} and {what} at step {earliest[what]}; allowed: a first rung at "
                "that step or later, because before it trials would not be ranked by what they are trained for; "
                f"give --grace {earliest[what]} or --scheduler none."
            )

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> RunConfig:
        """Return the settings a file or a command line gives; names are made canonical.

        Raises:
            UserError: a key or name is unknown, or a value is not legal.
        """
        check_keys(
            "the search's settings", given, [field.name for field in dataclasses.fields(cls)]
        )
        values = dict(given)
        values["alg"] = algorithm_names(values.get("alg"))
        values["divergence"] = divergence_names(values.get("divergence"))
        if not values["alg"]:
            raise UserError("no --alg was given; allowed: a method, a comma list or any; name one.")
        values["start_from"] = _starts(values.get("start_from"))
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that ``from_mapping`` reads back to equal settings."""
        mapping = dataclasses.asdict(self)
        for name in ("alg", "divergence", "start_from"):
            mapping[name] = list(mapping[name])
        return mapping

    def fixed_settings(self) -> dict[str, Any]:
        """Return the settings a run keeps from its first trial to its last."""
        return {k: value for k, value in self.to_mapping().items() if k not in FREE_SETTINGS}

    @property
    def steps(self) -> int:
        """Length of a full training."""
        return DATASET_CARDS[self.dataset].max_steps if self.max_steps is None else self.max_steps

    @property
    def resolved_model(self) -> str:
        """The network's name: as given, else the data set's."""
        return DATASET_CARDS[self.dataset].model if self.model is None else self.model

    @property
    def resolved_batch_size(self) -> int:
        """Labeled images a step: as given, else the data set's."""
        return (
            DATASET_CARDS[self.dataset].batch_size if self.batch_size is None else self.batch_size
        )

    @property
    def gpu_share(self) -> float:
        """GPUs a trial is given, once that is decided."""
        return 0.0 if self.gpus_per_trial is None else float(self.gpus_per_trial)

    def data(self) -> DataConfig:
        """Return which images are used and how they are drawn."""
        check_choice("dataset", self.dataset, tuple(DATASET_CARDS))
        card = DATASET_CARDS[self.dataset]
        return DataConfig(
            dataset=self.dataset,
            data_dir=self.data_dir,
            image_size=self.image_size,
            num_labels=card.num_labels if self.labels is None else self.labels,
            num_validation=card.num_validation if self.validation is None else self.validation,
            split_seed=self.split_seed,
            flip=self.flip,
            num_unlabeled=self.unlabeled,
            labeled_classes=self.labeled_classes,
            class_mismatch=self.class_mismatch,
            imbalance=self.imbalance,
            normalisation=self.normalisation,
        )

    def conditions(self) -> dict[str, int | float | str]:
        """Return those settings of docs/conditions.md that were given, by the names of their flags."""
        names = ("unlabeled", "labeled-classes", "class-mismatch", "imbalance")
        given = {name: getattr(self, name.replace("-", "_")) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def rungs(self) -> tuple[int, ...]:
        """Return the steps at which trials are measured; the last is the full length."""
        if self.scheduler == "none":
            return (self.steps,)
        return rung_steps(self.steps, grace=self.grace, reduction_factor=self.reduction_factor)

    def space(self, num_classes: int) -> StudySpace:
        """Return what the study searches."""
        return StudySpace(
            algorithms=self.alg,
            divergences=self.divergence,
            num_classes=num_classes,
            max_steps=self.steps,
            first_rung=self.rungs()[0] / self.steps,
            optimizer=self.optimizer,
            entropy_weight=None if self.entropy_min == SEARCHED else float(self.entropy_min),
            setting=DATASET_CARDS[self.dataset].published_setting,
            weight_decay=self.weight_decay,
            ramp_fraction=self.ramp_fraction,
            published_from=self.published_from,
        )

    def moved_starts(self, num_classes: int = 10) -> list[str]:
        """Return a sentence for each value of ``start_from`` outside what is searched.

        ``num_classes``, of the data, sets the range of the unlabeled weight.
        """
        space = self.space(num_classes)
        return [
            f"configuration {number}: {move}"
            for number, start in enumerate(self.start_from, 1)
            for move in space.params_and_moved(
                start["algorithm"], start.get("divergence"), start["parameters"]
            )[1]
        ]

    def search_record(self, number: int, suggestion: Suggestion) -> dict[str, Any]:
        """Return the flat configuration of a search's trial, see ``trial_record``."""
        division = (
            {"division_seed": division_seed(self.seed, number)} if self.reshuffle_validation else {}
        )
        return self.trial_record(suggestion, trial_seed(self.seed, number), division)

    def trial_record(
        self, suggestion: Suggestion, seed: int, division: Mapping[str, int] = NOTHING
    ) -> dict[str, Any]:
        """Return the flat configuration of one training, all that it depends on.

        Args:
            division: of the labels, see ``DataConfig``; none for the draw as it is.
        """
        data = self.data().to_record() | dict(division)
        return {
            "algorithm": suggestion.algorithm,
            "divergence": suggestion.divergence,
            "parameters": dict(suggestion.parameters),
            **data,
            "model": self.resolved_model,
            "max_steps": self.steps,
            "batch_size": self.resolved_batch_size,
            "unlabeled_ratio": self.unlabeled_ratio,
            "optimizer": self.optimizer,
            "lr_schedule": self.lr_schedule,
            "evaluate": self.evaluate,
            "metric": self.metric,
            "precision": self.precision,
            "compile": self.compile,
            "threads": self.threads,
            "device": self.device,
            "seed": seed,
            "batch_norm_momentum": self.batch_norm_momentum,
            "protocol": self.protocol,
        }


def trial_seed(search_seed: int, number: int) -> int:
    """Return the training seed of a search's trial: different for each, a function of both."""
    return _spawned(search_seed, number)


def division_seed(search_seed: int, number: int) -> int:
    """Return how a trial divides the labels where each does so anew; its training seed is another."""
    return _spawned(search_seed, number, 1)


def _spawned(*seeds: int) -> int:
    sequence = np.random.SeedSequence(entropy=seeds[0], spawn_key=seeds[1:])
    return int(sequence.generate_state(1, np.uint32)[0])


ADDED_SETTINGS = (
    *("unlabeled", "labeled_classes", "class_mismatch", "imbalance", "reshuffle_validation"),
    *("protocol", "normalisation", "batch_norm_momentum"),
    *("weight_decay", "ramp_fraction", "published_from", "compile"),
)
"""What files of earlier versions do not have: there, each has its default."""


def added_defaults() -> dict[str, Any]:
    """Return what a file of an earlier version means by not having the added settings."""
    fields = dataclasses.fields(RunConfig)
    return {field.name: field.default for field in fields if field.name in ADDED_SETTINGS}


FREE_SETTINGS = ("trials", "concurrency", "start_from", "storage", "data_dir")
"""What a resume may change: the goal, the pace, and where things are."""


class RunDirectory:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, run: str, output: str) -> RunDirectory:
        """Return the run given as a folder, or as a name below the output folder.

        Raises:
            UserError: there is no run; or it is a comparison, which has one for each cell.
        """
        for path in (Path(run).expanduser(), Path(output).expanduser() / run):
            with suppress(OSError):  # a name too long to be one
                if (path / "config.yaml").is_file():
                    return cls(path.resolve())
        comparison = find_comparison(run, output)
        if comparison is not None:
            cells = sorted(path.parent for path in comparison.path.glob(f"{CELLS}/*/config.yaml"))
            raise UserError(
                f"{run!r} is a comparison; allowed: a search's run, such as each of its cells "
                f"({', '.join(str(cell) for cell in cells[:3]) or 'none has begun'}); give one."
            )
        raise UserError(
            f"{run!r} is no run; allowed: a run's folder or its name below {output!r}"
            f"{_runs_there(output)}; check the name, or --output."
        )

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.path.name

    @property
    def config_path(self) -> Path:
        """The settings, as YAML."""
        return self.path / "config.yaml"

    @property
    def journal_path(self) -> Path:
        """The study's journal: what happened to every trial."""
        return self.path / "study.journal"

    @property
    def best_path(self) -> Path:
        """The best configurations, written when the search ends."""
        return self.path / "best.yaml"

    def trial_path(self, number: int) -> Path:
        """Return the folder of one trial."""
        return self.path / "trials" / f"{number:04d}"

    def create(self) -> None:
        """Make the folder, which must not exist or be empty.

        Raises:
            UserError: a run of that name exists, or the folder cannot be made.
        """
        self.check_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(self.path.parent, error.strerror) from error

    def has_trials(self) -> bool:
        """Return whether the journal holds anything: a driver killed when it had just made it leaves it empty."""
        return self.journal_path.is_file() and self.journal_path.stat().st_size > 0

    def check_new(self) -> None:
        """Raise UserError where a run of that name exists."""
        if self.path.is_dir() and all(
            entry.name == "lock" or entry.name.endswith(".tmp") for entry in self.path.iterdir()
        ):
            return  # left by a driver that was killed before its first file was there
        if self.path.exists() or self.path.is_symlink():
            raise UserError(
                f"run {self.name!r} exists in {str(self.path.parent)!r}; allowed: a new name; give another "
                f"--name, or continue it: tune-ssl resume {self.path}"
            )

    def read_config(self) -> RunConfig:
        """Return the run's settings.

        Raises:
            UserError: the file is damaged or holds something unknown.
        """
        given = read_yaml_mapping(self.config_path)
        if "configurations" in given:
            raise UserError(
                f"{self.name!r} holds retrainings; allowed: a search's run; give the run they are of, "
                f"{given.get('origin')!r}."
            )
        return RunConfig.from_mapping(given)

    def check_settings(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raise UserError where settings differ from those the run's trials were made with."""
        before = added_defaults() | dict(before)
        changed = [
            f"{key} was {before.get(key)!r} and is {value!r}"
            for key, value in now.items()
            if before.get(key) != value
        ]
        if changed:
            raise UserError(
                f"the settings of run {self.name!r} have changed: {'; '.join(changed)}; allowed: other "
                "--trials and --concurrency; restore its config.yaml or begin a new run."
            )

    def driver(self) -> str | None:
        """Return who drives the run now, as its lock says; None if nobody does."""
        import fcntl

        try:
            with open(self.path / "lock") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return (self.path / "lock").read_text() or "unknown"
        except OSError:  # no lock yet, or a file system without them
            return None
        return None

    def write_config(self, config: RunConfig) -> None:
        """Write the run's settings."""
        write_yaml(self.config_path, config.to_mapping())

    def write_json(self, name: str, value: Any) -> None:
        """Write a value beside the settings."""
        write_atomically(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def log_event(self, kind: str, **values: Any) -> None:
        """Append to the log of events, which people and tools may follow and nothing reads back."""
        event = {"time": round(time.time(), 3), "event": kind, **values}
        with open(self.path / "events.jsonl", "a") as file:
            file.write(json.dumps(event) + "\n")


def find_comparison(run: str, output: str) -> RunDirectory | None:
    """Return the folder of a comparison given as ``RunDirectory.open`` takes it; None if it is none."""
    for path in (Path(run).expanduser(), Path(output).expanduser() / run):
        with suppress(OSError):  # a name too long to be one
            if (path / COMPARISON).is_file():
                return RunDirectory(path.resolve())
    return None


def whole_of(directory: RunDirectory) -> RunDirectory:
    """Return the comparison that a run is a part of; the run itself where it is none.

    Its parts are a cell's search and the retrainings: they go on by the whole alone, which keeps
    their budgets equal and judges them together.
    """
    *_, above, name = directory.path.parts
    folder = directory.path.parent if name == RETRAININGS else directory.path.parent.parent
    is_part = name == RETRAININGS or above == CELLS
    return RunDirectory(folder) if is_part and (folder / COMPARISON).is_file() else directory


def check_run_name(name: str) -> None:
    """Raise UserError unless a folder can have that name anywhere."""
    if not RUN_NAME.fullmatch(name):
        raise UserError(
            f"name is {name!r}; allowed: letters, digits, '_', '.', '-', the first a letter or digit, "
            "at most 100 of them; give such a name."
        )


def new_run(name: str | None, output: str, config: RunConfig) -> RunDirectory:
    """Return the folder of a run that is about to be made; nothing is written yet.

    Raises:
        UserError: the name is not legal or taken, or the output folder cannot be written.
    """
    if name is None:
        methods = "-".join(config.alg) if len(config.alg) <= 2 else f"{len(config.alg)}-methods"
        name = f"{methods}-{config.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_run_name(name)
    directory = RunDirectory((Path(output).expanduser() / name).absolute())
    directory.check_new()
    nearest = next(parent for parent in directory.path.parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise _cannot_write(directory.path.parent, f"{nearest} cannot be written")
    try:
        os.rmdir(tempfile.mkdtemp(dir=nearest, prefix=".tune-ssl-"))
    except OSError as error:  # some folders say they can be written and cannot
        raise _cannot_write(directory.path.parent, error.strerror) from error
    return directory


def _cannot_write(folder: Path, why: str | None) -> UserError:
    return UserError(
        f"output folder {str(folder)!r} cannot be written ({why}); allowed: a folder you may write; give "
        "it as --output."
    )


LOCK_SECONDS = 1.0
"""How long a lock is waited for: ``RunDirectory.driver`` takes it for a moment to ask who has it."""


@contextmanager
def run_lock(directory: RunDirectory, *, steal: bool = False) -> Iterator[None]:
    """Hold a run for this process; the lock goes with the process, however it ends.

    ``steal`` takes the run where the file system has no locks.

    Raises:
        UserError: another driver holds it; the message names host, process and start.
    """
    path = directory.path / "lock"
    try:
        opened = open(path, "a+")  # noqa: SIM115  # closed below; only opening may fail this way
    except OSError as error:
        raise UserError(
            f"run {directory.name!r} cannot be written ({path}: {error.strerror}); allowed: a run of your "
            "own; make its folder writable, or copy it."
        ) from error
    with opened as file:
        _take_lock(file, directory, steal)
        file.seek(0)
        file.truncate()
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "start": time.strftime("%FT%T")}
        file.write(json.dumps(holder))
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def _take_lock(file: TextIO, directory: RunDirectory, steal: bool) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while (holder := _taken_by(file, steal)) is not None:
        if time.monotonic() > deadline:
            raise UserError(
                f"run {directory.name!r} is held by another driver ({holder}); allowed: one at a "
                "time; wait for it or stop it, and where that driver is gone and the file system has no "
                "locks, add --steal-lock."
            )
        time.sleep(0.05)


def _taken_by(file: TextIO, steal: bool) -> str | None:
    """Take a lock and return None, or return who has it."""
    import fcntl

    file.seek(0)
    holder = file.read()
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder or "unknown"
    except OSError:  # a file system without locks: only the content tells
        return None if steal or not holder else holder
    return None


class _Loader(yaml.SafeLoader):
    """Safe YAML that takes 3e-4 for a number; YAML 1.1 wants 3.0e-4 and gives a text otherwise."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        UserError: it is not there, cannot be read, or is no YAML.
    """
    try:
        return yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error.strerror}); allowed: a YAML file; check the path."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{str(path)!r} is damaged or no YAML ({first}); allowed: a file as tune-ssl writes it; "
            "mend or rewrite it."
        ) from error


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping a YAML file holds.

    Raises:
        UserError: it cannot be read or holds something else.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{str(path)!r} holds {type(content).__name__}; allowed: a mapping of names to values; "
            "mend or rewrite it."
        )
    return content


def write_yaml(path: Path, value: Any) -> None:
    """Write plain values as YAML, atomically."""
    write_atomically(path, yaml_text(value).encode())


def yaml_text(value: Any) -> str:
    """Return plain values as YAML, in their order."""
    text: str = yaml.dump(value, Dumper=SAFE_DUMPER, sort_keys=False, allow_unicode=True, width=100)
    return text


def _starts(given: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(given, list | tuple | None):
        raise UserError(
            f"start_from is {given!r}; allowed: a list of configurations, as an export holds; write one."
        )
    return tuple(given or ())


def _check_start(start: Any) -> None:
    """Raise UserError unless this has the form of a configuration; the space checks its values."""
    whole = isinstance(start, dict) and isinstance(start.get("parameters"), dict)
    if not whole or "algorithm" not in start:
        raise UserError(
            f"start_from holds {start!r}; allowed: mappings with algorithm, divergence and parameters, as "
            "an export holds; write such."
        )


def _runs_there(output: str) -> str:
    folder = Path(output).expanduser()
    if not folder.is_dir():
        return " (which does not exist)"
    found = [*folder.glob("*/study.journal"), *folder.glob(f"*/{COMPARISON}")]
    names = sorted(path.parent.name for path in found)
    return f" ({', '.join(names[-5:])})" if names else " (which holds no run)"
