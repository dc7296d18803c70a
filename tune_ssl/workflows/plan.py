"""From what was asked for to what will be done: what the images decide, and what the machine does."""

from __future__ import annotations

import dataclasses
import sys
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from ssl_core.data.pools import mismatched
from ssl_core.data.prepare import SplitImages
from ssl_core.errors import UserError
from tune_ssl import machine
from tune_ssl.protocol import PROTOCOL_SETTINGS
from tune_ssl.run import AUTO, RunConfig
from tune_ssl.statistics.power import DISAGREEMENT, LEVEL, POWER, separable_difference
from tune_ssl.storage import absolute_root, root_below
from tune_ssl.text import method_text, size
from tune_ssl.views.messages import say

IMBALANCED = 2.0
"""From this ratio of the largest to the smallest class on, a folder's metric is balanced."""

SKIPPED_SHOWN = 5

BFLOAT16_FROM_SIDE = 16
"""From here bfloat16 pays: a step is 1.7 x as fast at 16 pixels, 2.2 x at 32, 1.2 x at 8 (step_growth.json)."""


def with_data(config: RunConfig, shared: SplitImages) -> RunConfig:
    """Return the settings with what the images decide: how many are drawn, and the metric.

    Raises:
        UserError: a semi-supervised method has no unlabeled images.
    """
    check_unlabeled(config.dataset, config.alg, shared)
    metric = config.metric
    if metric == "auto":
        classes = np.bincount(shared.validation_labels, minlength=shared.num_classes)
        uneven = classes.max() >= IMBALANCED * max(1, classes.min())
        by_class = config.data().is_imbalanced or (config.dataset == "folder" and uneven)
        metric = "balanced_accuracy" if by_class else "accuracy"
    return dataclasses.replace(
        config,
        labels=len(shared.labeled),
        validation=len(shared.validation),
        metric=metric,
        model=config.resolved_model,
        max_steps=config.steps,
        batch_size=config.resolved_batch_size,
    )


def with_own_places(config: RunConfig, name: str) -> RunConfig:
    """Return the settings with places that hold from anywhere, and a storage of this run's own."""
    storage = config.storage
    if storage is not None:
        storage = root_below(absolute_root(storage), f"{name}-{uuid.uuid4().hex[:8]}")
    config = dataclasses.replace(config, storage=storage)
    return placed(config, data_dir=config.data_dir)


def placed(
    config: RunConfig, *, concurrency: int | None = None, data_dir: str | None = None
) -> RunConfig:
    """Return the settings with another pace, or with a folder of images that holds from anywhere."""
    if concurrency is not None:
        config = dataclasses.replace(config, concurrency=concurrency)
    if data_dir is not None:
        place = str(Path(data_dir).expanduser().absolute())
        config = dataclasses.replace(config, data_dir=place)
    return config


def slots_here(config: RunConfig) -> int:
    """Return how many trainings go on at a time on this host's processor."""
    slots = max(1, int(machine.usable_cpus() / config.cpus_per_trial))
    return min(slots, config.concurrency or slots)


def check_unlabeled(dataset: str, algorithms: Iterable[str], shared: SplitImages) -> None:
    """Raise UserError where a semi-supervised method would have nothing to learn from."""
    methods = [name for name in algorithms if name != "supervised"]
    if methods and len(shared.unlabeled) == len(shared.labeled):
        raise UserError(
            f"{dataset} leaves no unlabeled images for {methods[0]}: all {len(shared.labeled)} are "
            "labeled or for validation; allowed: supervised alone, or images without labels; add such images "
            "(a folder has them in unlabeled/), or give fewer --labels or a larger --unlabeled."
        )


def on_this_host(config: RunConfig) -> RunConfig:
    """Return the settings with what the machine decides, where that is this host alone.

    Raises:
        UserError: more is asked for than there is, or a compiler is and there is none.
    """
    check_compiler(config.compile)
    return on_cluster(config, machine.usable_cpus(), machine.gpu_count())


def check_compiler(wanted: bool) -> None:
    """Raise UserError where networks shall be compiled and this host cannot."""
    missing = machine.missing_to_compile() if wanted else None
    if missing is not None:
        raise UserError(
            f"compile is true and this host has {missing}; allowed: with a C++ compiler and Python's headers; "
            "install them, or search and train with --no-compile."
        )


def on_cluster(config: RunConfig, cpus: float, gpus: float) -> RunConfig:
    """Return the settings with what the machine decides: device, GPUs, threads.

    Raises:
        UserError: more is asked for than there is.
    """
    measured = config.gpus_per_trial == AUTO
    wanted = None if measured or config.gpus_per_trial is None else config.gpu_share
    if config.device == "mps" and sys.platform != "darwin":
        raise UserError("device is mps and this is no Mac; allowed: auto, cpu, cuda; leave it out.")
    if (config.device == "cuda" or (wanted or 0) > 0) and gpus == 0:
        raise UserError(
            f"GPUs were asked for (device {config.device}, gpus-per-trial "
            f"{'not given' if wanted is None else f'{wanted:g}'}) and there are none; "
            "allowed: --device cpu; leave --gpus-per-trial out."
        )
    device = config.device
    if device == "auto":
        device = "cuda" if gpus > 0 and wanted != 0 else "cpu"
    wanted = (1.0 if wanted is None else wanted) if device == "cuda" else 0.0
    share = AUTO if measured and device == "cuda" else wanted
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
        gpus_per_trial=share,
        threads=config.threads or max(1, int(config.cpus_per_trial)),
    )


def with_precision(config: RunConfig, shared: SplitImages) -> RunConfig:
    """Return the settings with the precision a training computes in, where none was given.

    bfloat16 where this host's processor or GPUs compute in it and images are large enough for it to
    pay. Losses, optimiser and the power iteration of VAT stay in float32 either way.
    """
    if config.precision != "auto":
        return config
    on_gpu = config.device == "cuda"
    able = machine.gpus_compute_in_bfloat16() if on_gpu else machine.computes_in_bfloat16()
    pays = config.device != "mps" and shared.images.shape[2] >= BFLOAT16_FROM_SIDE
    return dataclasses.replace(config, precision="bfloat16" if able and pays else "float32")


def describe_data(
    config: RunConfig,
    shared: SplitImages,
    console: Console,
    *,
    named_in: str | None = "split.json",
) -> None:
    """Say which images the search uses, and what the labels cost; ``named_in`` lists those it skips."""
    labels, validation = len(shared.labeled), len(shared.validation)
    unlabeled_only = len(shared.unlabeled) - labels
    others = "" if config.labeled_classes is None else " and others"
    say(
        console,
        f"{config.dataset}: {len(shared.images)} training images in {shared.num_classes} classes{others}; "
        f"{labels} labeled + {unlabeled_only} unlabeled to train on, {validation} to choose on.",
    )
    bill = f"{labels} to train + {validation} to choose = {labels + validation}"
    say(console, f"The bill in labels: {bill}.")
    say(console, separable_text(validation))
    for line in describe_conditions(config, shared):
        say(console, line)
    if config.reshuffle_validation:
        say(console, f"Every trial divides these {labels + validation} labels anew.")
    if config.metric == "balanced_accuracy":
        say(console, "The classes are uneven: trials are judged by balanced accuracy.")
    describe_skipped(shared.skipped, console, named_in)


def separable_text(validation: int) -> str:
    """Return what so many validation images can tell, as a sentence."""
    test = f"paired McNemar test at {100 * LEVEL:g} %, power {100 * POWER:g} %"
    found = separable_difference(validation)
    if found is None:
        return f"{validation} validation images separate no two configurations ({test})."
    return (
        f"{validation} validation images separate two configurations that differ by {100 * found:.1f} points or "
        f"more ({test}, if they disagree on {100 * max(DISAGREEMENT, found):.0f} % of images)."
    )


def describe_conditions(config: RunConfig, shared: SplitImages) -> list[str]:
    """Return a sentence for each condition of docs/conditions.md that was asked for."""
    labels, pool = len(shared.labeled), len(shared.unlabeled)
    lines = []
    if config.unlabeled is not None:
        lines.append(f"The unlabeled pool: {pool} images, the {labels} labeled among them.")
    if config.labeled_classes is not None:
        names = ", ".join(shared.class_names)
        lines.append(
            f"Classes to tell apart: {names}; labels, validation and test images are of these."
        )
    if config.class_mismatch is not None:
        others = mismatched(pool - labels, config.class_mismatch)
        lines.append(
            f"Class mismatch: {others} of the {pool - labels} unlabeled images, {config.class_mismatch:g} %, are "
            "of other classes."
        )
    if config.data().is_imbalanced:
        counts = np.bincount(shared.labels, minlength=shared.num_classes)
        first, last = shared.class_names[0], shared.class_names[-1]
        lines.append(
            f"Imbalance {config.imbalance:g}: from {counts[0]} labels of class {first} to {counts[-1]} of class "
            f"{last}; the unlabeled likewise, validation and test images as they are."
        )
    return lines


def describe_skipped(skipped: Sequence[str], console: Console, named_in: str | None) -> None:
    """Say which files are not used: at most five by name where a file will list them all."""
    for problem in skipped[: SKIPPED_SHOWN if named_in else None]:
        say(console, f"warning: skipped {problem}")
    if skipped:
        names = f"; {named_in} names them" if named_in else ""
        say(console, f"warning: {len(skipped)} skipped in all{names}.")


def describe_starts(config: RunConfig, shared: SplitImages, console: Console) -> None:
    """Say which values of the configurations to start from the search cannot take as given."""
    for move in config.moved_starts(shared.num_classes):
        say(console, f"warning: {move}")


def _describe_protocol(config: RunConfig) -> list[str]:
    """Return the protocol's name and every value it set, flags standing over them."""
    values = {name: getattr(config, name) for name in PROTOCOL_SETTINGS}
    said = [f"{name} {value}" for name, value in values.items() if value is not None]
    return [f"protocol: {config.protocol} ({', '.join(said)})"]


def describe_training(config: RunConfig) -> list[str]:
    """Return how every trial is trained and when it is measured: protocol, network, rungs."""
    rungs, batch = config.rungs(), config.resolved_batch_size
    how = "" if config.precision == "auto" else f" in {config.precision}"
    how += ", compiled" if config.compile else ""
    return [
        *_describe_protocol(config),
        f"network: {config.resolved_model}{how}, {rungs[-1]} steps of {batch} labeled and "
        f"{batch * config.unlabeled_ratio} unlabeled images",
        f"rungs: {', '.join(str(step) for step in rungs[:-1]) or 'none'}; full length {rungs[-1]}",
    ]


def planned_steps(config: RunConfig) -> int:
    """Return the steps of all trials together if they are cut as planned."""
    rungs, factor = config.rungs(), config.reduction_factor
    return sum(
        max(1, config.trials // factor**place) * (step - before)
        for place, (before, step) in enumerate(zip((0, *rungs), rungs, strict=False))
    )


def describe_plan(config: RunConfig, shared: SplitImages) -> list[str]:
    """Return what a search would do, line by line, for ``--dry-run``."""
    space = config.space(shared.num_classes)
    cells = list(space.cells())
    defaults = min(len(cells), max(1, config.trials // 2))
    given = f", then {len(config.start_from)} of --config" if config.start_from else ""
    least = planned_steps(config)
    protocol, network, rungs = describe_training(config)
    conditions = "; ".join(f"{name} {value}" for name, value in config.conditions().items())
    return [
        protocol,
        "methods: " + ", ".join(method_text(*cell) for cell in cells),
        network,
        rungs,
        f"trials: {config.trials}, the first {defaults} with published defaults{given}",
        f"steps in all: about {least} if trials are cut as planned, at most {config.trials * config.steps}",
        f"images: {size(shared.images.nbytes)}",
        *([f"conditions: {conditions}"] if conditions else []),
        *(_reshuffled(shared) if config.reshuffle_validation else []),
    ]


def _reshuffled(shared: SplitImages) -> list[str]:
    labels, validation = len(shared.labeled), len(shared.validation)
    return [
        f"validation: reshuffled, every trial divides the same {labels + validation} labels anew into "
        f"{labels} to train and {validation} to choose on; rungs compare trials across divisions, and ties are "
        "found by an unpaired test"
    ]
