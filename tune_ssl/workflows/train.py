"""``train``: one training from a configuration, here, without Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ssl_core.data.recipe import Preprocessing, Whitening
from ssl_core.errors import UserError, check_integer
from ssl_core.files import write_atomically
from tune_ssl import machine
from tune_ssl.run import DEFAULT_PROTOCOL, read_yaml, write_yaml
from tune_ssl.text import duration
from tune_ssl.views.export import EXPORTED_KEYS, configuration_of, records_in
from tune_ssl.views.messages import say
from tune_ssl.workflows.plan import check_compiler, check_unlabeled, describe_skipped

if TYPE_CHECKING:
    from ssl_core.training.profile import StepProfile

SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training gave, and the folder that holds it; ``profile`` where it was asked for."""

    folder: Path
    metrics: dict[str, Any]
    profile: StepProfile | None = None


def choose(path: Path, *, rank: int | None = None, recommended: bool = False) -> dict[str, Any]:
    """Return one configuration of a file: its first, the one of a rank, or the recommended one.

    Raises:
        UserError: the file holds no such configuration.
    """
    records = records_in(read_yaml(path), repr(str(path)))
    if "alg" in records[0]:
        raise UserError(
            f"{str(path)!r} holds the settings of a search; allowed: a configuration, as 'tune-ssl export' "
            "writes it; give the best.yaml beside it, or search with --config."
        )
    if recommended and rank is not None:
        raise UserError(
            f"rank {rank} and --recommended were given; allowed: one of the two; leave one out."
        )
    if recommended:
        records = [record for record in records if record.get("recommended")]
        wanted = "a recommended one"
    elif rank is not None:
        check_integer("rank", rank, 1)
        ranks = sorted(record["rank"] for record in records if "rank" in record)
        there = f"{ranks[0]} to {ranks[-1]}" if ranks else "none"
        records = [record for record in records if record.get("rank") == rank]
        wanted = f"one of rank {rank}; ranks there: {there}"
    else:
        wanted = "any"
    if not records:
        raise UserError(
            f"{str(path)!r} has no such configuration ({wanted}); allowed: those 'tune-ssl export' wrote "
            "into it; choose another, or export without --top."
        )
    return records[0]


def train(
    record: Mapping[str, Any],
    folder: Path,
    console: Console,
    *,
    seed: int | None = None,
    split_seed: int | None = None,
    data_dir: str | None = None,
    device: str | None = None,
    compile: bool | None = None,
    profile: bool = False,
) -> Trained:
    """Train one configuration and write weights, metrics and the configuration as resolved.

    With nothing changed it gives the exported validation accuracy exactly, on the same type of
    machine with the same versions: threads and precision are those of the configuration.

    Raises:
        UserError: the configuration cannot be used, or the folder is not empty.
    """
    from ssl_core.data.prepare import divided, prepare, resolved
    from ssl_core.training.config import TrainingConfig
    from tune_ssl.trial import TrainingFactory

    changes = {
        **{"seed": seed, "split_seed": split_seed, "data_dir": data_dir},
        **{"device": device, "compile": compile},
    }
    _check_whole(record)
    given = configuration_of(record) | {k: v for k, v in changes.items() if v is not None}
    config = TrainingConfig.from_record(given)
    _check_device(config.device)
    check_compiler(config.compile)
    drawn = prepare(config.data.undivided)
    shared = divided(drawn, config.data)
    check_unlabeled(config.data.dataset, (config.algorithm,), shared)
    describe_skipped(shared.skipped, console, "metrics.json")
    complete = config.to_record() | _numbers(resolved(config.data, drawn))
    with _new_folder(folder):
        work = TrainingFactory(drawn)(complete)
        profiled = work.profile() if profile else None
        _run_with_progress(work, config.max_steps, console)
        measured = work.measure()
        assert measured is not None  # it was given all the time it takes
        if not (work.finite and measured.finite):
            raise UserError(
                f"the loss was not finite by step {work.step} of {config.max_steps}, so there is nothing to "
                "keep; allowed: values with which it stays finite; lower the learning rate or the weight."
            )
    metrics = {
        "metric": config.metric,
        "validation_accuracy": measured.details["accuracy"],
        "validation_balanced_accuracy": measured.details["balanced_accuracy"],
        "validation_standard_error": measured.details["standard_error"],
        "steps": work.step,
        "classes": list(shared.class_names),
        "normalisation": _normalisation(shared.normalisation),
        "terms": measured.details["terms"],
        "skipped": list(shared.skipped),
        "made_with": machine.made_with(),
    }
    unchanged = seed is None and split_seed is None
    if unchanged and {"validation_accuracy", "trial"} <= record.keys():
        metrics["exported_validation_accuracy"] = record["validation_accuracy"]
        metrics["exported_made_with"] = record.get("made_with") or {}
    write_atomically(folder / "weights.safetensors", work.weights())
    write_atomically(folder / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    write_yaml(folder / "config.yaml", complete)
    if profiled is not None:
        write_atomically(folder / "trace.json", profiled.trace)
    return Trained(folder=folder, metrics=metrics, profile=profiled)


def _numbers(data: Any) -> dict[str, int]:
    return {"num_labels": data.num_labels, "num_validation": data.num_validation}


def _check_whole(record: Mapping[str, Any]) -> None:
    """Refuse a configuration that names a protocol and would be trained by other defaults."""
    protocol = record.get("protocol", DEFAULT_PROTOCOL)
    needed = (*EXPORTED_KEYS, "normalisation", "batch_norm_momentum")
    missing = [key for key in needed if key not in record]
    if protocol != DEFAULT_PROTOCOL and missing:
        raise UserError(
            f"the configuration names protocol {protocol!r} and has no {', '.join(missing)}; allowed: all that an "
            "export holds, because a training reads no protocol; export it from a search with --protocol, or "
            "leave protocol out."
        )


def _normalisation(used: Preprocessing) -> dict[str, Any]:
    if isinstance(used, Whitening):
        return {"whitening": "in weights.safetensors"}
    return {"mean": list(used.mean), "std": list(used.std)}


def _check_device(name: str) -> None:
    import torch

    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device is {name} and torch sees {torch.cuda.device_count()} GPUs here; allowed: --device cpu "
            "(other bits, much slower); add it, or train where there is a GPU."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device is mps and there is none here; allowed: --device cpu; add it.")


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Make the folder before the work is done that shall go there; remove it if that fails."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"output {str(folder)!r} exists; allowed: a new or empty folder; give another with --output."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output {str(folder)!r} cannot be made ({error.strerror}); allowed: a folder you may write; "
            "give another with --output."
        ) from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def _run_with_progress(work: Any, max_steps: int, console: Console) -> None:
    """Train to the end, with a bar where there is a terminal, else a line now and then."""
    from rich.progress import Progress

    began = said = time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("training", total=max_steps)
        while work.step < max_steps and work.finite:
            work.run(max_steps, 0.5)
            progress.update(bar, completed=work.step)
            if not console.is_terminal and time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                left = (said - began) / work.step * (max_steps - work.step)
                say(console, f"step {work.step} of {max_steps}, about {duration(left)} left")
