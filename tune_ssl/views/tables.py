"""Tables printed when a command is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_ssl.text import duration, method_text, percent
from tune_ssl.views.messages import say

if TYPE_CHECKING:
    from ssl_core.training.profile import StepProfile
    from tune_ssl.workflows.doctor import Finding
    from tune_ssl.workflows.results import Status
    from tune_ssl.workflows.train import Trained

ROWS_SHOWN = 5


def best_table(records: Sequence[Mapping[str, Any]], rows: int = ROWS_SHOWN) -> Table:
    """Return the best configurations as a table."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("rank", "trial"):
        table.add_column(heading, justify="right")
    table.add_column("method", no_wrap=True)
    table.add_column(f"validation {metric_name(records[0])}", justify="right")
    uneven = records[0]["metric"] == "balanced_accuracy"
    if uneven:
        table.add_column("accuracy", justify="right")
    table.add_column("note")
    shown = [record for record in records if record["rank"] <= rows or record["recommended"]]
    for record in shown:
        table.add_row(
            str(record["rank"]),
            str(record["trial"]),
            method_text(record["algorithm"], record["divergence"]),
            value_text(record),
            *([percent(record["validation_accuracy"])] if uneven else []),
            _note(record),
        )
    return table


def metric_name(record: Mapping[str, Any]) -> str:
    """Return what a record's trial was judged by, in words."""
    return str(record["metric"]).replace("_", " ")


def value_text(record: Mapping[str, Any]) -> str:
    """Return the value a record's trial was judged by, with its standard error."""
    balanced = record["metric"] == "balanced_accuracy"
    value = record["validation_balanced_accuracy" if balanced else "validation_accuracy"]
    return f"{percent(value)} ± {percent(record['validation_standard_error'])}"


def value_and_accuracy(record: Mapping[str, Any]) -> str:
    """Return ``value_text`` after its name, and the accuracy beside it where that is another."""
    told = f"{metric_name(record)} {value_text(record)}"
    if record["metric"] == "balanced_accuracy":
        told += f", accuracy {percent(record['validation_accuracy'])}"
    return told


def parameters_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Return the hyperparameters of rank 1 and of the recommended one, side by side."""
    shown = [record for record in records if record["rank"] == 1 or record["recommended"]]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("hyperparameter")
    for record in shown:
        rank = f"rank {record['rank']}"
        table.add_column(f"recommended, {rank}" if record["recommended"] else rank, justify="right")
    for name in dict.fromkeys(name for record in shown for name in record["parameters"]):
        values = [record["parameters"].get(name, "") for record in shown]
        table.add_row(name, *(_short(value) for value in values))
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _note(record: Mapping[str, Any]) -> str:
    notes = []
    if record["rank"] == 1 and record["tied_with"]:
        notes.append(f"tied with {len(record['tied_with'])} more")
    elif record["tied_with"]:
        notes.append("tied with rank 1")
    if record["published_default"]:
        notes.append("published default")
    if record["recommended"]:
        notes.append("recommended")
    return ", ".join(notes)


def print_best(records: Sequence[Mapping[str, Any]]) -> None:
    """Print the best configurations on stdout, and what the first and the recommended one set."""
    console = Console(highlight=False)
    console.print(best_table(records))
    reshuffled = "division_seed" in records[0]
    say(console, _error_text(reshuffled))
    if records[0]["tied_with"]:
        images = "their images, each its own," if reshuffled else "these images"
        say(
            console,
            f"Tied: {images} cannot tell them apart. Recommended of the tied: the published default, "
            "else the one that took the least device time.",
        )
    console.print(parameters_table(records))


def _error_text(reshuffled: bool) -> str:
    if not reshuffled:
        return "± is the standard error of these validation images only."
    return (
        "± is the standard error of a trial's own validation images only. Every trial divided the labels anew, "
        "so that values differ by the luck of their labels too."
    )


def print_status(status: Status) -> None:
    """Print where a run stands on stdout."""
    console, counts = Console(), status.counts
    asked, time = f" of {counts.asked}", duration(status.device_seconds)
    if status.device_seconds_budget is not None:
        asked, time = "", f"{time} of {duration(status.device_seconds_budget)}"
    left = f"{counts.running} running, {counts.waiting} waiting"
    if status.done and status.driver is None:
        left = "done"
    say(
        console,
        f"{status.name}: {counts.finished}{asked} finished ({counts.complete} complete, "
        f"{counts.pruned} pruned, {counts.failed} failed), {left}; device time {time}",
    )
    if status.driver is None and not status.done:
        say(console, f"nobody drives it now; continue with: tune-ssl resume {status.resumed_by}")
    running = "is running" if status.driver is not None else "was running when its driver was lost"
    for trial in status.running:
        value = "" if trial["last_value"] is None else f", {percent(trial['last_value'])} there"
        rung = "no rung yet" if trial["last_rung"] is None else f"rung {trial['last_rung']}{value}"
        say(console, f"trial {trial['trial']} {running}: {rung}")
    for trial in status.failed:
        say(console, f"trial {trial['trial']} failed: {trial['reason']}")
    if status.memory_megabytes is not None:
        of_gpu = "" if status.gpu_megabytes is None else f", {status.gpu_megabytes} MB of a GPU"
        say(console, f"memory of a trial: at most {status.memory_megabytes} MB{of_gpu}")
    if status.retrains is not None:
        unnamed = "; no winner before all are finished" * (counts.finished < counts.asked)
        say(console, f"retrainings of {status.retrains}{unnamed}")
        return
    if status.best is None:
        say(console, "best: no trial has reached the full length yet")
        return
    best = status.best
    method = method_text(best["algorithm"], best["divergence"])
    say(
        console,
        f"best: trial {best['trial']}, {method}, {value_and_accuracy(best)} "
        "(validation images only)",
    )


def print_trained(trained: Trained) -> None:
    """Print what a training gave on stdout."""
    console, metrics = Console(), trained.metrics
    say(console, f"validation {value_and_accuracy(metrics)} (validation images only)")
    accuracy, exported = (
        metrics["validation_accuracy"],
        metrics.get("exported_validation_accuracy"),
    )
    if exported is not None:
        same = "the same as" if exported == accuracy else "other than"
        say(console, f"accuracy {percent(accuracy)}, {same} the exported {percent(exported)}")
        if exported != accuracy:
            say(console, _other_machinery(metrics))
    say(console, f"weights, metrics and configuration: {trained.folder}")
    if trained.profile is not None:
        console.print(profile_table(trained.profile))
        say(console, f"mean of {trained.profile.steps} steps; trace: {trained.folder}/trace.json")


def profile_table(profile: StepProfile) -> Table:
    """Return where a step's time goes: by part, then by operator."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("part of a step, operator", no_wrap=True)
    for heading in ("calls", "ms", "share"):
        table.add_column(heading, justify="right")
    step = sum(profile.parts.values())
    for name, spent in profile.parts.items():
        table.add_row(name, "", f"{spent:.2f}", f"{spent / step:.0%}")
    table.add_section()
    for operator in profile.operators:
        spent = operator.milliseconds
        calls = f"{operator.calls:.0f}"
        table.add_row(operator.name, calls, f"{spent:.2f}", f"{spent / step:.0%}")
    return table


def _other_machinery(metrics: Mapping[str, Any]) -> str:
    """Return why a configuration may have given other bits than where it was exported."""
    then, now = metrics.get("exported_made_with", {}), metrics.get("made_with", {})
    differing = [
        f"exported with {name} {then[name]}, trained with {value}"
        for name, value in now.items()
        if name in then and then[name] != value
    ]
    return "; ".join(differing) or "same versions and processor; other data, device or code"


def print_algorithms(described: Sequence[Mapping[str, Any]]) -> None:
    """Print methods, their spaces and their published defaults on stdout."""
    console = Console()
    for method in described:
        divergence = method["divergence"]
        compared = f"divergence of its paper: {divergence}" if divergence else "no divergence"
        console.print(Text.assemble((method["algorithm"], "bold"), f"  ({compared})"))
        for name, found in method["space"].items():
            scale = ", log" if found["log"] else ""
            say(console, f"    {name}  {found['low']:g} .. {found['high']:g}{scale}")
            for divergence, (low, high) in found.get("stands_for", {}).items():
                say(console, f"        with {divergence}: weight {low:g} .. {high:g}, log")
        for default in method["defaults"]:
            setting = f"{default['setting']}, {default['divergence'] or 'labels only'}"
            say(console, f"    published ({setting}): {default['as_published']}")
            say(console, f"        {default['source']}; {default['conversion']}")
    say(console, "spaces as for digits: 450 steps, 10 classes; ema_horizon follows --max-steps,")
    say(console, "the weights of mse and l1 the number of classes; threshold_gap is 1 - threshold")
    say(console, "divergences: mse, l1, kl, js (any); reverse_kl, notebook_kl, notebook_js by name")


def print_findings(findings: Sequence[Finding]) -> None:
    """Print what was found on a host on stdout."""
    console = Console()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        mark = ("ok  ", "green") if finding.good else ("look", "red")
        line = Text.assemble(mark, f"  {finding.what:<{width}}  {finding.found}")
        console.print(line, soft_wrap=True)
