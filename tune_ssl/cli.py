"""The command line: parses, hands over to a workflow, prints what it returns.

Results go to stdout, messages to stderr. An error is one line; ``--debug`` adds the traceback.
Workflows are imported inside their commands: help, a mistyped name and completion load nothing.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from typer.core import TyperGroup
from typer.exceptions import Abort, Exit, TyperException

from ssl_core.errors import StoppedError, UserError, unknown_name
from ssl_core.names import (
    ALGORITHM_NAMES,
    DATASET_NAMES,
    DIVERGENCE_NAMES,
    algorithm_names,
    divergence_names,
)

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_OUTPUT = "runs"
GROUP_FLAGS = ("--help", "-h", "--version", "--install-completion", "--show-completion")

SEARCHED, CONFIRMED, DATA, TRAINING, SEARCH, MACHINE, RUN = (
    "What is searched",
    "What is confirmed",
    "Images",
    "Each training",
    "How it is searched",
    "Machines",
    "The run",
)


class SearchByDefault(TyperGroup):
    """A group in which the word ``search`` may be left out before its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``search`` where the first word is an option that is not the group's own."""
        if args and args[0].startswith("-") and args[0].split("=")[0] not in GROUP_FLAGS:
            args = ["search", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an interrupt is told from an exit with its code, as typer does not."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Abort from interrupt


app = typer.Typer(
    cls=SearchByDefault,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find the semi-supervised method, divergence and hyperparameters that hold up, with every GPU "
    "you have. Start with: tune-ssl --alg ict --trials 50",
)


def _complete_algorithms(incomplete: str) -> list[str]:
    return _complete_list(incomplete, (*ALGORITHM_NAMES, "any"))


def _complete_divergences(incomplete: str) -> list[str]:
    return _complete_list(incomplete, (*DIVERGENCE_NAMES, "any"))


def _complete_list(incomplete: str, names: tuple[str, ...]) -> list[str]:
    """Return completions of the last name of a comma list."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


OptionalInt = int | None
OutputOption = Annotated[
    str, typer.Option("--output", help="Folder that holds the runs.", rich_help_panel=RUN)
]
RunArgument = Annotated[
    str, typer.Argument(help="A run's folder, or its name below --output.", metavar="RUN")
]
TimeLimitOption = Annotated[
    str | None,
    typer.Option(
        help="Stop this invocation after a time such as 2h or 90m; resumable.", rich_help_panel=RUN
    ),
]
DeviceHoursOption = Annotated[
    float | None,
    typer.Option(
        help="Stop when all trials together, over all invocations, used this much device time.",
        rich_help_panel=RUN,
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        help="Join the Ray cluster there (or auto) instead of starting Ray on this host.",
        rich_help_panel=MACHINE,
    ),
]
DashboardOption = Annotated[
    bool,
    typer.Option(
        "--dashboard/--no-dashboard",
        help="Serve Ray's dashboard on this host.",
        rich_help_panel=MACHINE,
    ),
]
ShipCodeOption = Annotated[
    bool,
    typer.Option(
        "--ship-code",
        help="Send this package to the cluster's nodes.",
        rich_help_panel=MACHINE,
    ),
]
StealLockOption = Annotated[
    bool,
    typer.Option(
        "--steal-lock",
        help="Take a run whose driver is gone, where the file system has no locks.",
        rich_help_panel=RUN,
    ),
]
ConcurrencyOption = Annotated[
    OptionalInt,
    typer.Option(
        help="Trials at a time at most; 1 makes the search reproducible. \\[default: as many as fit]",
        rich_help_panel=MACHINE,
        show_default=False,
    ),
]

# What a search and a comparison are both told.
AlgOption = Annotated[
    str | None,
    typer.Option(
        help="A method, a comma list, or any.",
        autocompletion=_complete_algorithms,
        rich_help_panel=SEARCHED,
    ),
]
DivergenceOption = Annotated[
    str | None,
    typer.Option(
        help="A divergence, a comma list, or any. \\[default: the one of each method's paper]",
        autocompletion=_complete_divergences,
        rich_help_panel=SEARCHED,
        show_default=False,
    ),
]
EntropyOption = Annotated[
    str | None,
    typer.Option(
        help="Weight of entropy minimisation, or the word search; supervised has none. \\[default: 0]",
        rich_help_panel=SEARCHED,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(DATASET_NAMES)}. \\[default: digits]",
        autocompletion=lambda incomplete: _complete_list(incomplete, DATASET_NAMES),
        rich_help_panel=DATA,
    ),
]
DataDirOption = Annotated[
    str | None,
    typer.Option(help="Folder of the images (downloads too).", rich_help_panel=DATA),
]
LabelsOption = Annotated[
    OptionalInt,
    typer.Option(
        help="Labeled images to train on; a train/ folder needs a number. \\[default: by data set]",
        rich_help_panel=DATA,
    ),
]
ValidationOption = Annotated[
    OptionalInt,
    typer.Option(
        help="Labeled images to choose on. \\[default: by data set]", rich_help_panel=DATA
    ),
]
SplitSeedOption = Annotated[
    OptionalInt,
    typer.Option(help="Draw of labels and validation images. \\[default: 0]", rich_help_panel=DATA),
]
UnlabeledOption = Annotated[
    OptionalInt,
    typer.Option(
        help="Images of the unlabeled pool, the labeled among them. \\[default: all that validation leaves]",
        rich_help_panel=DATA,
    ),
]
LabeledClassesOption = Annotated[
    str | None,
    typer.Option(
        help="Classes to tell apart, a comma list of names or places from 0; labels, validation and test "
        "are of these. \\[default: all]",
        rich_help_panel=DATA,
    ),
]
ClassMismatchOption = Annotated[
    float | None,
    typer.Option(
        help="Percent of the pool's images beside the labeled that are of other classes than "
        "--labeled-classes. \\[default: as they come]",
        rich_help_panel=DATA,
    ),
]
ImbalanceOption = Annotated[
    float | None,
    typer.Option(
        help="Largest to smallest class of labeled and unlabeled images, a long tail. \\[default: none made]",
        rich_help_panel=DATA,
    ),
]
ReshuffleOption = Annotated[
    bool | None,
    typer.Option(
        "--reshuffle-validation/--fixed-validation",
        help="Divide the labels anew for every trial. \\[default: False]",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
ImageSizeOption = Annotated[
    OptionalInt,
    typer.Option(
        help="Side to which a folder's images are resized. \\[default: 32]",
        rich_help_panel=DATA,
    ),
]
FlipOption = Annotated[
    bool | None,
    typer.Option(
        "--flip/--no-flip",
        help="Mirror images when augmenting. \\[default: the data set's rule]",
        rich_help_panel=DATA,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Network, wrn-DEPTH-WIDTH. \\[default: by data set]", rich_help_panel=TRAINING
    ),
]
MaxStepsOption = Annotated[
    OptionalInt,
    typer.Option(
        help="Optimiser steps of a full training. \\[default: by data set]",
        rich_help_panel=TRAINING,
    ),
]
BatchSizeOption = Annotated[
    OptionalInt,
    typer.Option(
        help="Labeled images per step. \\[default: by data set]", rich_help_panel=TRAINING
    ),
]
UnlabeledRatioOption = Annotated[
    OptionalInt,
    typer.Option(help="Unlabeled images per labeled one. \\[default: 1]", rich_help_panel=TRAINING),
]
ProtocolOption = Annotated[
    str | None,
    typer.Option(
        help="How trainings are done and judged: default, oliver (Oliver et al. 2018), or a YAML file of "
        "one's own. Flags stand over it. \\[default: default]",
        rich_help_panel=TRAINING,
    ),
]
NormalisationOption = Annotated[
    str | None,
    typer.Option(
        help="Of the network's input: channels, symmetric or zca. \\[default: channels]",
        rich_help_panel=TRAINING,
    ),
]
OptimizerOption = Annotated[
    str | None,
    typer.Option(help="adamw, adam or sgd. \\[default: adamw]", rich_help_panel=TRAINING),
]
LrScheduleOption = Annotated[
    str | None,
    typer.Option(help="cosine, step or constant. \\[default: cosine]", rich_help_panel=TRAINING),
]
EvaluateOption = Annotated[
    str | None,
    typer.Option(
        help="The one network that is measured: ema or student. \\[default: ema]",
        rich_help_panel=TRAINING,
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help="accuracy, balanced_accuracy or auto. \\[default: auto]", rich_help_panel=TRAINING
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="auto, float32 or bfloat16. \\[default: auto]", rich_help_panel=TRAINING),
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the networks' passes: for large images, needs a C++ compiler. \\[default: False]",
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]
SeedOption = Annotated[
    OptionalInt,
    typer.Option(help="Of the search and its trainings. \\[default: 0]", rich_help_panel=SEARCH),
]
SamplerOption = Annotated[
    str | None,
    typer.Option(help="tpe or random. \\[default: tpe]", rich_help_panel=SEARCH),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(help="asha or none. \\[default: asha]", rich_help_panel=SEARCH),
]
ReductionFactorOption = Annotated[
    OptionalInt,
    typer.Option(
        help="ASHA keeps one trial in so many at a rung. \\[default: 2]", rich_help_panel=SEARCH
    ),
]
GraceOption = Annotated[
    OptionalInt,
    typer.Option(
        help="First rung, in steps. \\[default: max-steps / reduction-factor^2]",
        rich_help_panel=SEARCH,
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(help="auto, cpu, cuda or mps. \\[default: auto]", rich_help_panel=MACHINE),
]
ThreadsOption = Annotated[
    OptionalInt,
    typer.Option(help="CPU threads of a training. \\[default: its CPUs]", rich_help_panel=MACHINE),
]
CpusPerTrialOption = Annotated[
    float | None,
    typer.Option(help="CPUs a trial is given. \\[default: 1]", rich_help_panel=MACHINE),
]
GpusPerTrialOption = Annotated[
    str | None,
    typer.Option(
        help="GPUs a trial is given; fractions share one, auto measures how many should. "
        "\\[default: 1 where there are any]",
        rich_help_panel=MACHINE,
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        help="Where checkpoints and weights go: a folder every node sees, or file://, s3://, gs://. "
        "[default: the run's folder]",
        rich_help_panel=RUN,
    ),
]

SHARED_SETTINGS = (
    *("alg", "divergence", "trials"),
    *("dataset", "data_dir", "labels", "validation", "split_seed", "image_size", "flip"),
    *("unlabeled", "labeled_classes", "class_mismatch", "imbalance"),
    "reshuffle_validation",
    *("model", "max_steps", "batch_size", "unlabeled_ratio", "optimizer", "lr_schedule"),
    *("protocol", "normalisation", "evaluate", "metric", "precision", "compile"),
    *("seed", "sampler", "scheduler", "reduction_factor", "grace"),
    *("device", "threads", "concurrency", "cpus_per_trial", "gpus_per_trial", "storage"),
)

TableFormat = Annotated[
    Literal["table", "json"],
    typer.Option("--format", help="How the result is printed on stdout."),
]

CompareFormat = Annotated[
    Literal["table", "json", "csv", "markdown", "latex"],
    typer.Option("--format", help="How the result is printed on stdout."),
]

ConfirmFormat = Annotated[
    Literal["table", "json", "csv", "markdown"],
    typer.Option("--format", help="How the result is printed on stdout."),
]


@app.command()
def search(
    alg: AlgOption = None,
    divergence: DivergenceOption = None,
    trials: Annotated[
        OptionalInt,
        typer.Option(help="Trials that shall finish. \\[default: 50]", rich_help_panel=SEARCHED),
    ] = None,
    entropy_min: EntropyOption = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    labels: LabelsOption = None,
    validation: ValidationOption = None,
    split_seed: SplitSeedOption = None,
    unlabeled: UnlabeledOption = None,
    labeled_classes: LabeledClassesOption = None,
    class_mismatch: ClassMismatchOption = None,
    imbalance: ImbalanceOption = None,
    reshuffle_validation: ReshuffleOption = None,
    image_size: ImageSizeOption = None,
    flip: FlipOption = None,
    protocol: ProtocolOption = None,
    normalisation: NormalisationOption = None,
    model: ModelOption = None,
    max_steps: MaxStepsOption = None,
    batch_size: BatchSizeOption = None,
    unlabeled_ratio: UnlabeledRatioOption = None,
    optimizer: OptimizerOption = None,
    lr_schedule: LrScheduleOption = None,
    evaluate: EvaluateOption = None,
    metric: MetricOption = None,
    precision: PrecisionOption = None,
    compile: CompileOption = None,
    seed: SeedOption = None,
    sampler: SamplerOption = None,
    scheduler: SchedulerOption = None,
    reduction_factor: ReductionFactorOption = None,
    grace: GraceOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    concurrency: ConcurrencyOption = None,
    cpus_per_trial: CpusPerTrialOption = None,
    gpus_per_trial: GpusPerTrialOption = None,
    address: AddressOption = None,
    dashboard: DashboardOption = True,
    ship_code: ShipCodeOption = False,
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the run. \\[default: made from method and time]", rich_help_panel=RUN
        ),
    ] = None,
    output: OutputOption = DEFAULT_OUTPUT,
    storage: StorageOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings from a file: a run's config.yaml, or an export, whose configurations are "
            "tried after the published defaults. Flags stand over it.",
            rich_help_panel=RUN,
        ),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            help="An earlier run on the same images whose trials inform the sampler.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    time_limit: TimeLimitOption = None,
    device_hours: DeviceHoursOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be done, and check it.", rich_help_panel=RUN
        ),
    ] = False,
    result_format: TableFormat = "table",
) -> None:
    """Search for the best configuration of one or several methods (the default command)."""
    flags = _settings_given(locals())
    _check_names(flags)
    from tune_ssl.run import RunDirectory
    from tune_ssl.workflows.settings import settings_from

    if warm_start is not None:
        flags["warm_start"] = str(RunDirectory.open(warm_start, output).path)
    settings = settings_from(config, {k: v for k, v in flags.items() if v is not None}, _tell)
    invocation = _invocation(time_limit, device_hours, address, dashboard, ship_code, False)
    if dry_run:
        _print_plan(settings, name, output, here=address is None, result_format=result_format)
        return
    from tune_ssl.workflows import search as workflow

    outcome = workflow.search(settings, invocation, _console(), name=name, output=output)
    _finish(outcome, result_format)


@app.command()
def resume(
    run: RunArgument,
    trials: Annotated[
        OptionalInt, typer.Option(help="Extend the search to this many trials.")
    ] = None,
    output: OutputOption = DEFAULT_OUTPUT,
    data_dir: Annotated[
        str | None, typer.Option(help="Where the images are now, if they were moved.")
    ] = None,
    concurrency: ConcurrencyOption = None,
    address: AddressOption = None,
    dashboard: DashboardOption = True,
    ship_code: ShipCodeOption = False,
    time_limit: TimeLimitOption = None,
    device_hours: DeviceHoursOption = None,
    steal_lock: StealLockOption = False,
    result_format: CompareFormat = "table",
) -> None:
    """Continue a run that was interrupted, or extend one that is done; or a confirmation, a comparison."""
    from tune_ssl.retraining import holds_retrainings
    from tune_ssl.run import RunDirectory, find_comparison, whole_of

    invocation = _invocation(time_limit, device_hours, address, dashboard, ship_code, steal_lock)
    comparison = find_comparison(run, output)
    if comparison is not None:
        _resume_compare(comparison, invocation, trials, concurrency, data_dir, result_format)
    directory = RunDirectory.open(run, output)
    whole = whole_of(directory)
    if whole.path != directory.path:
        _tell(f"{directory.path} is a part of comparison {whole.name!r}, which goes on as a whole.")
        _resume_compare(whole, invocation, trials, concurrency, data_dir, result_format)
    if holds_retrainings(directory):
        _check_form(result_format, ConfirmFormat, "a confirmation")
        _resume_confirm(directory, invocation, trials, concurrency, data_dir, result_format)
    _check_form(result_format, TableFormat, "a search")
    from tune_ssl.workflows import search as workflow

    outcome = workflow.resume(
        directory,
        invocation,
        _console(),
        trials=trials,
        concurrency=concurrency,
        data_dir=data_dir,
    )
    _finish(outcome, result_format)


@app.command()
def status(
    run: RunArgument, output: OutputOption = DEFAULT_OUTPUT, result_format: TableFormat = "table"
) -> None:
    """Show where a run stands, while it runs or after; of a comparison, each of its parts."""
    from tune_ssl.run import RunDirectory, find_comparison
    from tune_ssl.views import tables
    from tune_ssl.workflows import results

    comparison = find_comparison(run, output)
    if comparison is not None:
        _print_parts(comparison, result_format)
        return
    found = results.status(RunDirectory.open(run, output))
    if result_format == "json":
        _print_json(found.to_mapping())
    else:
        tables.print_status(found)


@app.command()
def export(
    run: RunArgument,
    top: Annotated[
        OptionalInt, typer.Option(help="How many configurations, the best first. \\[default: all]")
    ] = None,
    form: Annotated[
        Literal["yaml", "json", "csv"] | None,
        typer.Option("--format", help="Form of the text. \\[default: the file's ending, or yaml]"),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-o", "--file", help="Write there instead of stdout.")
    ] = None,
    output: OutputOption = DEFAULT_OUTPUT,
) -> None:
    """Write a run's best configurations, which train and search --config read."""
    from ssl_core.errors import check_integer
    from tune_ssl.run import RunDirectory
    from tune_ssl.text import counted
    from tune_ssl.views.export import format_records
    from tune_ssl.workflows import results

    if top is not None:
        check_integer("top", top, 1)
    ending = "" if file is None else file.suffix[1:].lower()
    form = form or ("json" if ending == "json" else "csv" if ending == "csv" else "yaml")
    records = results.best_records(RunDirectory.open(run, output), top)
    text = format_records(records, form)
    if file is None:
        _write_stdout(text)
        return
    _check_may_be_replaced(file)
    _write_file(file, text)
    _tell(f"{counted(len(records), 'configuration')} written to {file}")


@app.command()
def report(
    run: RunArgument,
    form: Annotated[
        Literal["table", "markdown", "json"] | None,
        typer.Option(
            "--format",
            help="Form of the text. \\[default: table; of a file json where its name says so, else markdown]",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-o", "--file", help="Write there instead of stdout.")
    ] = None,
    output: OutputOption = DEFAULT_OUTPUT,
) -> None:
    """Say what a search's trials tell beyond the best; also writes RUN/report.html.

    Which hyperparameters matter, how flat the optimum is, how often the published default would have
    won. Nothing is trained and no test image is opened.
    """
    from tune_ssl.views.report import format_report, print_report
    from tune_ssl.workflows.report import report_of

    found = report_of(run, output, _console())
    if file is None and form in (None, "table"):
        print_report(found)
        return
    json_wanted = file is not None and file.suffix.lower() == ".json"
    if form == "table":
        raise UserError(
            f"format is table with file {str(file)!r}; allowed: markdown or json in a file; give one of them."
        )
    text = format_report(found, form or ("json" if json_wanted else "markdown"))
    if file is None:
        _write_stdout(text)
    else:
        _write_file(file, text)


@app.command()
def confirm(
    run: RunArgument,
    top: Annotated[
        int,
        typer.Option(
            help="How many of the best are retrained, beside the published default.",
            rich_help_panel=CONFIRMED,
        ),
    ] = 3,
    seeds: Annotated[
        OptionalInt,
        typer.Option(
            help="Draws of labels, each with a seed of its own, the same for all. \\[default: 20 on "
            "digits, else 10]",
            rich_help_panel=CONFIRMED,
            show_default=False,
        ),
    ] = None,
    cross_validate: Annotated[
        OptionalInt,
        typer.Option(
            help="Judge by so many folds of the search's own labels instead of the test set, which stays "
            "closed: not sealed, for images without test/. --seeds are then repeats.",
            rich_help_panel=CONFIRMED,
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the confirmation, below the run's confirm/. \\[default: made from top and seeds]",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    output: OutputOption = DEFAULT_OUTPUT,
    data_dir: Annotated[
        str | None,
        typer.Option(help="Where the images are now, if they were moved.", rich_help_panel=DATA),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda or mps, if another than the search's.", rich_help_panel=MACHINE
        ),
    ] = None,
    concurrency: ConcurrencyOption = None,
    cpus_per_trial: Annotated[
        float | None,
        typer.Option(
            help="CPUs a training is given. \\[default: as the search]", rich_help_panel=MACHINE
        ),
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            help="GPUs a training is given. \\[default: as the search]", rich_help_panel=MACHINE
        ),
    ] = None,
    address: AddressOption = None,
    dashboard: DashboardOption = True,
    ship_code: ShipCodeOption = False,
    time_limit: TimeLimitOption = None,
    device_hours: DeviceHoursOption = None,
    steal_lock: StealLockOption = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be done and about how long.", rich_help_panel=RUN
        ),
    ] = False,
    result_format: ConfirmFormat = "table",
) -> None:
    """Retrain a search's best on fresh draws of labels, then open the test set, once.

    The winner is named from the retrainings' validation before any test image is read. Repeated, the
    command goes on where it stopped, and tells again what was measured without another opening.
    """
    from tune_ssl.run import RunDirectory

    directory = RunDirectory.open(run, output)
    invocation = _invocation(time_limit, device_hours, address, dashboard, ship_code, steal_lock)
    from tune_ssl.workflows import confirm as workflow

    wishes = workflow.Wishes(
        top=top,
        seeds=seeds,
        cross_validate=cross_validate,
        name=name,
        data_dir=data_dir,
        device=device,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        concurrency=concurrency,
    )
    prepared = workflow.prepare_confirm(directory, wishes, here=address is None)
    if dry_run:
        _write_lines(prepared.bill, result_format)
        return
    _finish_confirm(workflow.confirm(prepared, invocation, _console()), result_format)


@app.command()
def compare(
    alg: AlgOption = None,
    divergence: DivergenceOption = None,
    trials: Annotated[
        OptionalInt,
        typer.Option(
            help="Trials of each cell's search. \\[default: 50]", rich_help_panel=SEARCHED
        ),
    ] = None,
    budget_per_cell: Annotated[
        str | None,
        typer.Option(
            help="Device time of each cell's search, such as 10m, in the place of --trials. A larger one, under the "
            "same --name, goes on with what was searched.",
            rich_help_panel=SEARCHED,
        ),
    ] = None,
    claim: Annotated[
        str,
        typer.Option(
            help="cells: each method with each divergence has a search and the same budget. methods: each "
            "method has one search over all divergences, and as much as all its cells would have, "
            "supervised too.",
            rich_help_panel=SEARCHED,
        ),
    ] = "cells",
    repeats: Annotated[
        int,
        typer.Option(
            help="Independent searches of each cell, for claims about procedures: intervals are then over "
            "searches.",
            rich_help_panel=SEARCHED,
        ),
    ] = 1,
    entropy_min: EntropyOption = None,
    seeds: Annotated[
        OptionalInt,
        typer.Option(
            help="Draws of labels on which each search's best is retrained, the same for all. \\[default: "
            "20 on digits, else 10]",
            rich_help_panel=CONFIRMED,
            show_default=False,
        ),
    ] = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    labels: LabelsOption = None,
    validation: ValidationOption = None,
    split_seed: SplitSeedOption = None,
    unlabeled: UnlabeledOption = None,
    labeled_classes: LabeledClassesOption = None,
    class_mismatch: ClassMismatchOption = None,
    imbalance: ImbalanceOption = None,
    reshuffle_validation: ReshuffleOption = None,
    image_size: ImageSizeOption = None,
    flip: FlipOption = None,
    protocol: ProtocolOption = None,
    normalisation: NormalisationOption = None,
    model: ModelOption = None,
    max_steps: MaxStepsOption = None,
    batch_size: BatchSizeOption = None,
    unlabeled_ratio: UnlabeledRatioOption = None,
    optimizer: OptimizerOption = None,
    lr_schedule: LrScheduleOption = None,
    evaluate: EvaluateOption = None,
    metric: MetricOption = None,
    precision: PrecisionOption = None,
    compile: CompileOption = None,
    seed: SeedOption = None,
    sampler: SamplerOption = None,
    scheduler: SchedulerOption = None,
    reduction_factor: ReductionFactorOption = None,
    grace: GraceOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    concurrency: ConcurrencyOption = None,
    cpus_per_trial: CpusPerTrialOption = None,
    gpus_per_trial: GpusPerTrialOption = None,
    address: AddressOption = None,
    dashboard: DashboardOption = True,
    ship_code: ShipCodeOption = False,
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the comparison. \\[default: made from what is compared, so that the same command goes on]",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    output: OutputOption = DEFAULT_OUTPUT,
    storage: StorageOption = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings from a file; flags stand over it.", rich_help_panel=RUN),
    ] = None,
    time_limit: TimeLimitOption = None,
    steal_lock: StealLockOption = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be done and about how long.", rich_help_panel=RUN
        ),
    ] = False,
    result_format: CompareFormat = "table",
) -> None:
    """Compare methods and divergences: equal budgets, the same fresh draws, one opening of the test set.

    Supervised training is always among them, tuned with the same budget. Stopped, the same command
    goes on, as does resume; finished cells are not touched.
    """
    flags = _settings_given(locals())
    _check_names(flags)
    if trials is not None and budget_per_cell is not None:
        raise UserError(
            f"trials is {trials} and budget-per-cell {budget_per_cell}; allowed: one of the two; leave the "
            "other out."
        )
    from tune_ssl.run import RunConfig
    from tune_ssl.workflows.settings import settings_from

    settings = settings_from(config, {k: v for k, v in flags.items() if v is not None}, _tell)
    budget = _seconds(budget_per_cell, "budget-per-cell")
    if budget is not None and settings.trials != RunConfig.trials:
        _tell(f"trials of {config} are left out: --budget-per-cell counts device time.")
    invocation = _invocation(time_limit, None, address, dashboard, ship_code, steal_lock)
    from tune_ssl.workflows import compare as workflow

    asked = workflow.comparison_of(
        settings, claim=claim, budget_per_cell=budget, seeds=seeds, repeats=repeats
    )
    prepared = workflow.prepare_compare(asked, name=name, output=output, here=address is None)
    if dry_run:
        lines = [*prepared.bill, *(workflow.time_lines(asked) if address is None else [])]
        _write_lines(lines, result_format)
        return
    _finish_compare(workflow.compare(prepared, invocation, _console()), result_format)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="An exported file, or one configuration.")],
    rank: Annotated[
        OptionalInt, typer.Option(help="Which of an export. \\[default: the first]")
    ] = None,
    recommended: Annotated[
        bool,
        typer.Option(
            "--recommended",
            help="The recommended one of an export: of those tied with rank 1, the published default, else "
            "the one that took the least device time.",
        ),
    ] = False,
    seed: Annotated[
        OptionalInt, typer.Option(help="Train with another seed than the configuration's.")
    ] = None,
    split_seed: Annotated[
        OptionalInt, typer.Option(help="Train on another draw of labels.")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Where the images are, if elsewhere than the file says.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps, if another than the file says.")
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the network's passes, if otherwise than the file says: other bits.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="New folder for weights, metrics and configuration.")
    ] = Path("trained"),
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Also tell where a step's time goes; writes trace.json for Perfetto."
        ),
    ] = False,
    result_format: TableFormat = "table",
) -> None:
    """Train one configuration here: writes weights.safetensors, metrics.json and config.yaml."""
    from tune_ssl.workflows import train as workflow

    record = workflow.choose(config, rank=rank, recommended=recommended)
    trained = workflow.train(
        record,
        output,
        _console(),
        seed=seed,
        split_seed=split_seed,
        data_dir=data_dir,
        device=device,
        compile=compile,
        profile=profile,
    )
    if result_format == "json":
        _print_json(trained.metrics | {"folder": str(trained.folder)})
        return
    from tune_ssl.views import tables

    tables.print_trained(trained)


@app.command()
def algorithms(result_format: TableFormat = "table") -> None:
    """List methods, divergences, search spaces and published defaults."""
    from tune_ssl.workflows import results

    described = results.describe_algorithms()
    if result_format == "json":
        _print_json(described)
        return
    from tune_ssl.views import tables

    tables.print_algorithms(described)


@app.command()
def doctor(output: OutputOption = DEFAULT_OUTPUT) -> None:
    """Say what this host offers a search, and what would hinder one."""
    from tune_ssl.views import tables
    from tune_ssl.workflows.doctor import examine

    tables.print_findings(examine(Path(output)))


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Nothing but the version; every command stands alone."""
    if version:
        from tune_ssl import __version__

        print(f"tune-ssl {__version__}")
        raise Exit(0)


def main() -> None:
    """Run the command line; the console script's entry."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) != len(sys.argv) - 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(_run(arguments, debug))


def _run(arguments: list[str], debug: bool) -> int:
    """Return the exit code of a command line; every error becomes one line on stderr."""
    try:
        _refuse_repeated(arguments)
        returned = app(arguments, prog_name="tune-ssl", standalone_mode=False)
        return returned if isinstance(returned, int) else 0
    except Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, Abort):
        return _say("interrupted", 130)
    except UserError as error:
        return _say(str(error), 2, debug)
    except StoppedError as error:
        return _say(str(error), 1, debug)
    except TyperException as error:
        if not error.format_message():  # help was asked for by giving nothing, and is printed
            return error.exit_code
        return _say(" ".join(error.format_message().split()), error.exit_code, debug)
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return _say(f"internal error: {message}; add --debug for the traceback", 1, debug)


LISTS = ("--alg", "--divergence", "--labeled-classes")


def _refuse_repeated(arguments: list[str]) -> None:
    """Refuse a list that is given twice, of which the last would count alone. Of other options it may.

    Raises:
        UserError: one is.
    """
    given = [word.partition("=")[0] for word in arguments]
    for option in LISTS:
        if given.count(option) > 1:
            raise UserError(
                f"{option} was given {given.count(option)} times; allowed: once; give several names in one "
                "list, as in --alg pi_model,vat."
            )


def _say(text: str, code: int, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"tune-ssl: {text}", file=sys.stderr)
    return code


def _tell(text: str) -> None:
    from tune_ssl.views.messages import say

    say(_console(), text)


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _print_json(value: Any) -> None:
    import json

    _write_stdout(json.dumps(value, indent=2) + "\n")


def _write_stdout(text: str) -> None:
    """Write a result; whoever reads it may stop reading when it has seen enough."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the flush at exit


def _check_may_be_replaced(file: Path) -> None:
    """Refuse a file that no export has written: it may be somebody's only copy."""
    from tune_ssl.views.export import is_exported

    try:
        text = file.read_text(errors="replace") if file.is_file() else ""
    except OSError:  # not to be read: then writing it says why
        return
    if text and not is_exported(text):
        raise UserError(
            f"{str(file)!r} is there and is no export; allowed: a new file, or an earlier export to be replaced; "
            "give another with -o, or move it."
        )


def _write_file(file: Path, text: str) -> None:
    from ssl_core.files import write_atomically

    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise UserError(
            f"{str(file)!r} cannot be written ({error.strerror}); allowed: a file in a folder you may "
            "write; give another with -o."
        ) from error


def _check_names(flags: dict[str, Any]) -> None:
    """Refuse a mistyped name before anything is loaded."""
    algorithm_names(flags["alg"])
    divergence_names(flags["divergence"])
    if flags["dataset"] is not None and flags["dataset"] not in DATASET_NAMES:
        raise unknown_name("dataset", flags["dataset"], DATASET_NAMES)


def _settings_given(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return those of a command's parameters that are settings a search and a comparison share."""
    share = _number_or("auto", "gpus-per-trial", parameters["gpus_per_trial"], "0.5")
    entropy = _number_or("search", "entropy-min", parameters["entropy_min"], "0.1")
    given = {name: parameters[name] for name in SHARED_SETTINGS}
    return given | {"gpus_per_trial": share, "entropy_min": entropy}


def _number_or(word: str, name: str, given: str | None, example: str) -> float | str | None:
    if given is None or given == word:
        return given
    try:
        return float(given)
    except ValueError as error:
        raise UserError(
            f"{name} is {given!r}; allowed: a number >= 0 or the word {word}; give {example}, say."
        ) from error


def _seconds(given: str | None, name: str = "time-limit") -> float | None:
    """Return a duration such as 90s, 30m, 2h, 1d or 1h30m in seconds.

    Raises:
        UserError: it has another form, or is not positive.
    """
    if given is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    text = given.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    whole = "".join(number + unit for number, unit in parts)
    total = sum(float(number) * units[unit] for number, unit in parts)
    if whole != text or total <= 0:
        raise UserError(
            f"{name} is {given!r}; allowed: a duration such as 90s, 30m, 2h or 1h30m; give one."
        )
    return total


def _invocation(
    time_limit: str | None,
    device_hours: float | None,
    address: str | None,
    dashboard: bool,
    ship_code: bool,
    steal_lock: bool,
) -> Any:
    from ssl_core.errors import check_number

    if device_hours is not None:
        check_number("device-hours", device_hours, 0.0, low_open=True)
    seconds = _seconds(time_limit)
    from tune_ssl.driver import Limits
    from tune_ssl.workflows.driving import Invocation

    return Invocation(
        limits=Limits(
            seconds=seconds,
            device_seconds=None if device_hours is None else device_hours * 3600,
        ),
        address=address,
        dashboard=dashboard,
        ship_code=ship_code,
        steal_lock=steal_lock,
    )


def _print_plan(
    settings: Any, name: str | None, output: str, *, here: bool, result_format: str
) -> None:
    from ssl_core.data.prepare import prepare
    from tune_ssl.run import new_run
    from tune_ssl.workflows import plan
    from tune_ssl.workflows.opening import describe_warm_start, trials_to_start_from

    new_run(name, output, settings)
    shared = prepare(settings.data())
    settings = plan.with_data(settings, shared)
    if here:
        settings = plan.on_this_host(settings)
        settings = plan.with_precision(settings, shared)
    plan.describe_data(settings, shared, _console(), named_in=None)
    plan.describe_starts(settings, shared, _console())
    lines = plan.describe_plan(settings, shared)
    if here and settings.warm_start is not None:
        lines.append(describe_warm_start(trials_to_start_from(settings, shared)))
    _write_lines(lines, result_format)


def _write_lines(lines: list[str], result_format: str) -> None:
    """Write what would be done on stdout: as JSON by what stands before each colon, else as it is.

    Raises:
        UserError: a form of results that a plan does not have.
    """
    if result_format not in ("table", "json"):
        raise UserError(
            f"format is {result_format!r} with --dry-run; allowed: table, json, because there are no figures "
            "yet; leave it out."
        )
    if result_format == "table":
        _write_stdout("".join(f"{line}\n" for line in lines))
        return
    told: dict[str, Any] = {}
    for line in lines:
        name, colon, text = line.partition(": ")
        told.setdefault(name if colon else "note", []).append(text if colon else line)
    _print_json({name: own[0] if len(own) == 1 else own for name, own in told.items()})


def _check_form(given: str, form: Any, what: str) -> None:
    """Raise UserError where results of that kind have no such form.

    Args:
        form: the option whose values they have.
    """
    allowed = get_args(get_args(form)[0])
    if given not in allowed:
        raise UserError(
            f"format is {given!r} with {what}; allowed: {', '.join(allowed)}; give one of these."
        )


def _resume_confirm(
    directory: Any,
    invocation: Any,
    trials: int | None,
    concurrency: int | None,
    data_dir: str | None,
    result_format: str,
) -> None:
    from tune_ssl.workflows import confirm as workflow

    if trials is not None:
        raise UserError(
            f"trials is {trials} with a confirmation; allowed: none, its table is fixed; leave it out, or "
            "confirm with other --top or --seeds."
        )
    ended = workflow.resume_confirm(
        directory, invocation, _console(), concurrency=concurrency, data_dir=data_dir
    )
    _finish_confirm(ended, result_format)


def _resume_compare(
    directory: Any,
    invocation: Any,
    trials: int | None,
    concurrency: int | None,
    data_dir: str | None,
    result_format: str,
) -> None:
    """Go on with a comparison, and exit with its code."""
    if trials is not None or invocation.limits.device_seconds is not None:
        raise UserError(
            f"trials or device-hours were given with comparison {directory.name!r}; allowed: neither, its "
            "budgets are equal and fixed; leave them out."
        )
    from tune_ssl.workflows import compare as workflow

    ended = workflow.resume_compare(
        directory, invocation, _console(), concurrency=concurrency, data_dir=data_dir
    )
    _finish_compare(ended, result_format)


def _print_parts(comparison: Any, result_format: str) -> None:
    """Print where each part of a comparison stands."""
    from tune_ssl.views import tables
    from tune_ssl.workflows import compare as workflow
    from tune_ssl.workflows import results

    begun, to_come = workflow.parts(comparison)
    found = [
        dataclasses.replace(
            results.status(part),
            name=f"{comparison.name}/{part.path.relative_to(comparison.path)}",
        )
        for part in begun
    ]
    if result_format == "json":
        _print_json({"begun": [one.to_mapping() for one in found], "to_come": to_come})
        return
    for one in found:
        tables.print_status(one)
    if to_come:
        _write_stdout(f"to come: {', '.join(to_come)}\n")


def _finish_compare(ended: Any, result_format: str) -> None:
    from tune_ssl.views import compared

    _finish_judged(ended, result_format, compared.print_compared, compared.format_compared)


def _finish_confirm(ended: Any, result_format: str) -> None:
    from tune_ssl.views import confirmed, cross_validated

    if ended.result is not None and "folds" in ended.result:
        _finish_judged(
            ended,
            result_format,
            cross_validated.print_cross_validated,
            cross_validated.format_cross_validated,
        )
    _finish_judged(ended, result_format, confirmed.print_confirmed, confirmed.format_confirmed)


def _finish_judged(
    ended: Any,
    result_format: str,
    print_table: Callable[[Any], None],
    format_as: Callable[[Any, str], str],
) -> None:
    """Print what retrainings gave on stdout and their end on stderr; exit with their code."""
    from tune_ssl.views.messages import say

    if ended.result is not None:
        if result_format == "table":
            print_table(ended.result)
        else:
            _write_stdout(format_as(ended.result, result_format))
    sys.stdout.flush()
    say(_console(), ended.message)
    if ended.result is not None:
        say(_console(), f"every figure and what it is made of: {ended.directory.path}/result.json")
    raise Exit(ended.exit_code)


def _finish(outcome: Any, result_format: str) -> None:
    """Print a search's result on stdout and its end on stderr; exit with its code."""
    from tune_ssl.machine import command_path
    from tune_ssl.views import tables
    from tune_ssl.views.export import format_records
    from tune_ssl.views.messages import say

    if result_format == "json":
        _write_stdout(format_records(outcome.records, "json"))
    elif outcome.records:
        tables.print_best(outcome.records)
    sys.stdout.flush()
    console = _console()
    for note in outcome.notes:
        say(console, note)
    say(console, outcome.message)
    if outcome.records:
        best = outcome.directory.best_path
        say(console, f"best configurations: {best}")
        say(console, f"next: {command_path('tune-ssl')} train {best}")
    raise Exit(outcome.exit_code)


if __name__ == "__main__":
    main()
