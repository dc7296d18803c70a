"""Tables printed when a command is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from tune_ssl.views.text import duration, percent

if TYPE_CHECKING:
    from tune_ssl.workflows.doctor import Finding
    from tune_ssl.workflows.results import Status
    from tune_ssl.workflows.train import Trained

ROWS_SHOWN = 5


def best_table(records: Sequence[Mapping[str, Any]], rows: int = ROWS_SHOWN) -> Table:
    """Return the best configurations as a table."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("rank", "trial"):
        table.add_column(heading, justify="right")
    table.add_column("method / divergence")
    table.add_column("validation accuracy", justify="right")
    table.add_column("note")
    for record in records[:rows]:
        accuracy = percent(record["validation_accuracy"])
        error = percent(record["validation_standard_error"])
        table.add_row(
            str(record["rank"]),
            str(record["trial"]),
            method_text(record["algorithm"], record["divergence"]),
            f"{accuracy} ± {error}",
            _note(record),
        )
    return table


def method_text(algorithm: str, divergence: str | None) -> str:
    """Return a method and its divergence as people write them."""
    return algorithm if divergence is None else f"{algorithm} / {divergence}"


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """Return parameters in one line, to four digits."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in parameters.items()
    )


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
    """Print the best configurations on stdout, and the parameters of the first and recommended."""
    console = Console(highlight=False)
    console.print(best_table(records))
    console.print("± is the standard error of these validation images only.")
    for record in records:
        if record["rank"] == 1 or record["recommended"]:
            which = "rank 1" if record["rank"] == 1 else f"recommended, rank {record['rank']}"
            console.print(f"{which}: {parameters_text(record['parameters'])}")


def print_status(status: Status) -> None:
    """Print where a run stands on stdout."""
    console, counts = Console(highlight=False), status.counts
    console.print(
        f"{status.name}: {counts.finished} of {counts.asked} finished ({counts.complete} complete, "
        f"{counts.pruned} pruned, {counts.failed} failed), {counts.running} running, "
        f"{counts.waiting} waiting; device time {duration(status.device_seconds)}",
        soft_wrap=True,
    )
    for trial in status.running:
        value = "" if trial["last_value"] is None else f", {percent(trial['last_value'])} there"
        rung = "no rung yet" if trial["last_rung"] is None else f"rung {trial['last_rung']}{value}"
        console.print(f"trial {trial['trial']} is running: {rung}")
    for trial in status.failed:
        console.print(f"trial {trial['trial']} failed: {trial['reason']}", markup=False)
    if status.best is None:
        console.print("best: no trial has reached the full length yet")
        return
    best = status.best
    console.print(
        f"best: trial {best['trial']}, {method_text(best['algorithm'], best['divergence'])}, "
        f"{percent(best['validation_accuracy'])} ± {percent(best['validation_standard_error'])} "
        "(validation images only)",
        soft_wrap=True,
    )


def print_trained(trained: Trained) -> None:
    """Print what a training gave on stdout."""
    console, metrics = Console(highlight=False), trained.metrics
    accuracy = percent(metrics["validation_accuracy"])
    error = percent(metrics["validation_standard_error"])
    console.print(f"validation accuracy {accuracy} ± {error} (validation images only)")
    exported = metrics.get("exported_validation_accuracy")
    if exported is not None:
        same = "the same as" if exported == metrics["validation_accuracy"] else "other than"
        console.print(f"{same} the exported {percent(exported)}")
    console.print(f"weights, metrics and configuration: {trained.folder}", soft_wrap=True)


def print_algorithms(described: Sequence[Mapping[str, Any]]) -> None:
    """Print methods, their spaces and their published defaults on stdout."""
    console = Console(highlight=False)
    for method in described:
        divergence = method["divergence"]
        compared = f"divergence of its paper: {divergence}" if divergence else "no divergence"
        console.print(f"[bold]{method['algorithm']}[/bold]  ({compared})")
        for name, found in method["space"].items():
            scale = ", log" if found["log"] else ""
            console.print(f"    {name}  {found['low']:g} .. {found['high']:g}{scale}")
        for default in method["defaults"]:
            console.print(
                f"    published ({default['setting']}, {default['divergence'] or 'labels only'}): "
                f"{default['as_published']}\n        {default['source']}; {default['conversion']}",
                markup=False,
            )
    console.print(
        "divergences: mse, l1, kl, js (any); reverse_kl, notebook_kl, notebook_js by name only"
    )


def print_findings(findings: Sequence[Finding]) -> None:
    """Print what was found on a host on stdout."""
    console = Console(highlight=False)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        mark = "[green]ok[/green]  " if finding.good else "[red]look[/red]"
        console.print(f"{mark}  {finding.what:<{width}}  {finding.found}", soft_wrap=True)
