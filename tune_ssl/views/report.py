"""What a search says beyond its winner: in the terminal, as Markdown or JSON, and as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich.console import Console

from tune_ssl.text import counted, percent
from tune_ssl.views.charts import bars, curves
from tune_ssl.views.judged import as_markdown, in_a_line, interval_text, print_figures
from tune_ssl.views.messages import say

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .8em;border-bottom:1px solid #ddd}
th{text-align:left;white-space:pre-line}td.r{text-align:right}svg{max-width:100%;height:auto}"""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One question: its answer as a table, what the figures are about, and a picture as SVG.

    ``sides`` has an l or r for each column.
    """

    title: str
    headings: Sequence[str] = ()
    sides: str = ""
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    picture: str = ""


def print_report(result: Mapping[str, Any]) -> None:
    """Print a report on stdout."""
    console = Console(highlight=False)
    for section in sections(result):
        say(console, f"\n{section.title}")
        if section.rows:
            print_figures(section.headings, section.sides, section.rows, section.notes)
        else:
            for note in section.notes:
                say(console, note)


def format_report(result: Mapping[str, Any], form: str) -> str:
    """Return a report as ``json`` (every figure), ``markdown`` or ``html`` (one page without a network)."""
    if form == "json":
        return json.dumps(result, indent=2) + "\n"
    found = sections(result)
    if form == "markdown":
        return f"# {result['run']}\n\n" + "\n".join(_markdown(section) for section in found)
    title = escape(f"tune-ssl report: {result['run']}")
    body = "\n".join(_html(section) for section in found)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def sections(result: Mapping[str, Any]) -> list[Section]:
    """Return the answers, those about a confirmation only where there is one."""
    return [
        _default(result),
        *(_importance(result, group) for group in result["importance"]["groups"]),
        _flatness(result),
        *(_confirmation(one) for one in result["confirmations"]),
    ]


def _default(result: Mapping[str, Any]) -> Section:
    found, title = result["default"], "How often the published default would have won"
    if found is None:
        return Section(
            title=title, notes=["No published default reached the full length: nothing to say."]
        )
    sizes = found["sizes"]
    notes = [
        f"Published default {percent(found['value'])}, best {percent(found['best'])}; better than the default: "
        f"{found['better']} of {counted(found['finished'], 'finished trial')}.",
        "Any n: the default and any others of those tried, each set as likely; on images like these: "
        "validation images resampled. First n: in the order tried. Best: its mean and 5 to 95 % over such "
        "searches, and never more than these trials found.",
    ]
    if result["sampler"] != "random":
        notes.append(
            "Later trials were suggested by what earlier ones gave, so a small search looks better here than it "
            "would have been."
        )
    return Section(
        title=title,
        headings=(
            "trials (n)",
            "default named best,\nany n",
            "on images\nlike these",
            "first n",
            "best validation\n(5 to 95 %)",
        ),
        sides="rrrrr",
        rows=[
            (
                str(row["trials"]),
                percent(row["on_these_images"]),
                "" if row["on_such_images"] is None else percent(row["on_such_images"]),
                percent(row["first"]),
                interval_text(row["best"]),
            )
            for row in sizes
        ],
        notes=notes,
        picture=curves(
            [row["trials"] for row in sizes],
            {
                "default named best, any n": [row["on_these_images"] for row in sizes],
                "default named best, first n": [row["first"] for row in sizes],
                "expected best validation": [row["best"]["mean"] for row in sizes],
            },
            "trials",
        ),
    )


def _importance(result: Mapping[str, Any], group: Mapping[str, Any]) -> Section:
    step = result["importance"]["step"]
    title = f"Importance of hyperparameters: {group['of']}"
    if group["parameters"] is None:
        return Section(
            title=title,
            notes=[
                f"{counted(group['trials'], 'trial')} measured at step {step}: fewer than 10 cannot say which "
                "hyperparameters matter."
            ],
        )
    rows = [
        (
            row["name"],
            f"{percent(row['share'])} ({100 * row['low']:.1f} to {100 * row['high']:.1f})",
            "" if row["above_dummy"] else "no more than a dummy",
        )
        for row in group["parameters"]
    ]
    dummy = f"{percent(group['dummy'])} (below {100 * group['dummy_limit']:.1f} in 95 %)"
    return Section(
        title=title,
        headings=("hyperparameter", "explains of the variance\n(90 %)", ""),
        sides="lrl",
        rows=[*rows, ("a dummy", dummy, "")],
        notes=_importance_notes(result, group["trials"]),
        picture=bars(
            [(row["name"], row["share"], row["low"], row["high"]) for row in group["parameters"]],
            line=("a dummy stays below", group["dummy_limit"]),
        ),
    )


def _importance_notes(result: Mapping[str, Any], trials: int) -> list[str]:
    found = result["importance"]
    correlation = found["spearman_with_final"]
    told = [
        f"Share of the variance of validation {_metric(result)} at step {found['step']}, over the whole range, that "
        f"each explains by itself (fANOVA), of {trials} trials; 90 % by bootstrap over trials, seed "
        f"{result['seed']}. At the first rung, because it is the last at which trials that were cut count, too."
    ]
    if correlation is not None:
        told.append(
            f"Among complete trials the rank correlation with the final value is {correlation:.2f}."
        )
    if result["without_value"]:
        told.append(
            f"{result['without_value']} trials ended without a final value (a loss that was not finite, or too little memory)."
        )
    return told


def _flatness(result: Mapping[str, Any]) -> Section:
    found, title = result["flatness"], "How flat the optimum is"
    if found is None:
        return Section(
            title=title, notes=["No trial reached the full length: there is no optimum yet."]
        )
    told = found["parameters"] and found["parameters"][0]["within"] is not None
    notes = [
        f"Best: trial {found['trial']}, {found['method']}, {percent(found['value'])} ± "
        f"{percent(found['standard_error'])}; tied with {found['tied']} of {found['complete'] - 1} other complete "
        f"trials. Within {_near(found['within'])} points of it: {_counts(found['within'])} trials, itself among them.",
    ]
    if told:
        notes.append(
            "Stays within: where the model (a Gaussian process) expects no more than that to be lost by moving "
            "this hyperparameter alone; in brackets its width as a part of the range, on the scale searched, then "
            "the width that is flat with 95 % probability and the one with 5 %. On a made-up surface what the first one "
            "spans was flat in 98 to 100 % of cases, and no more than the second in 71 to 79 %: rely on the first."
        )
    else:
        notes.append(
            "Fewer than 10 complete trials of this method and divergence: how far one may move from the best "
            "cannot be said."
        )
    notes += [
        f"{row['name']} is best at the {row['edge']} end of its range: its range in search_spaces/ may be too narrow here."
        for row in found["parameters"]
        if row["edge"]
    ]
    return Section(
        title=title,
        headings=(
            "hyperparameter",
            "best",
            "range",
            "tied trials",
            *(("stays within 1 standard error", "stays within 1 point") if told else ()),
        ),
        sides="lrll" + ("ll" if told else ""),
        rows=[
            (
                row["name"],
                f"{row['best']:.4g}",
                _ends(row["range"]),
                "" if row["tied"] is None else _ends(row["tied"]),
                *(_flat(one) for one in row["within"] or ()),
            )
            for row in found["parameters"]
        ],
        notes=notes,
    )


def _confirmation(found: Mapping[str, Any]) -> Section:
    notes = []
    if found["default"] is not None and "default_first" in found:
        notes.append(
            f"On {found['default_first']} of {found['draws']} fresh draws of labels the {found['default']} was best by "
            "validation."
        )
    return Section(
        title=f"Confirmation {found['name']}",
        headings=(
            "configuration",
            "retrained\nvalidation",
            f"test, opening {found['opening']}\n(95 %)",
            "",
        ),
        sides="lrrl",
        rows=[
            (
                row["name"],
                percent(row["validation"]),
                interval_text(row["test"]),
                "winner" if row["name"] == found["winner"] else row["verdict"],
            )
            for row in found["configurations"]
        ],
        notes=notes,
    )


def _metric(result: Mapping[str, Any]) -> str:
    return str(result["metric"]).replace("_", " ")


def _ends(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3g} .. {ends[1]:.3g}"


def _flat(one: Mapping[str, Any]) -> str:
    widths = (100 * one[key] for key in ("width", "width_surely", "width_at_most"))
    return "{} ({:.0f} %: {:.0f} to {:.0f})".format(_ends(one["likely"]), *widths)


def _near(within: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{100 * one['points']:.1f}" for one in within)


def _counts(within: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(one["trials"]) for one in within)


def _markdown(section: Section) -> str:
    head = f"## {section.title}\n\n"
    if section.rows:
        return head + as_markdown(section.headings, section.rows, section.notes)
    return head + "\n".join(section.notes) + "\n"


def _html(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", section.picture]
    if section.rows:
        head = "".join(f"<th>{escape(heading)}</th>" for heading in in_a_line(section.headings))
        parts.append(f"<table><tr>{head}</tr>")
        parts += [_html_row(row, section.sides) for row in section.rows]
        parts.append("</table>")
    parts += [f"<p>{escape(note)}</p>" for note in section.notes]
    return "\n".join(part for part in parts if part)


def _html_row(row: Sequence[str], sides: str) -> str:
    cells = (
        f'<td class="{side}">{escape(cell)}</td>' for cell, side in zip(row, sides, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"
