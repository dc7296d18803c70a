"""The tables of docs/digits.md: ``tune-ssl compare`` itself, and what it said kept whole.

    python -m benchmarks.comparisons digits-20 --record

A comparison is a run below ``--output``: stopped, the same command goes on with it, and finished, it is
only read. The record holds every figure with the configurations behind it, and which image each
retraining classified correctly. With ``--published`` every method's published default, as its searches tried it
first, is trained on the same draws, too, and what the searches gained above it is told.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FixedTrial

from benchmarks.records import keep
from ssl_core.names import ALGORITHM_NAMES, DIVERGENCE_NAMES
from ssl_core.published import published_divergence
from tune_ssl import machine
from tune_ssl.confirmation import interval_values
from tune_ssl.run import RunConfig
from tune_ssl.statistics.cells import simultaneous_differences
from tune_ssl.statistics.crossed import DIFFERENCES, Floats, Interval, crossed_interval
from tune_ssl.statistics.repeats import over_searches
from tune_ssl.text import method_text, percent
from tune_ssl.trial import unpack_correct
from tune_ssl.views.compared import format_compared
from tune_ssl.views.judged import interval_text, points_text

RECORD = Path(__file__).with_name("comparisons.json")
DIGITS_CLASSES = 10

FULL = ("--alg", "all", "--divergence", "all", "--trials", "20", "--seeds", "20")
COMPARISONS: dict[str, tuple[str, ...]] = {
    "digits-20": (*FULL, "--labels", "20"),
    "digits-50": (*FULL, "--labels", "50"),
    "digits-20-repeats": (
        *("--alg", "supervised,pi_model,mean_teacher,ict", "--divergence", "mse,kl"),
        *("--trials", "20", "--repeats", "5", "--seeds", "5", "--labels", "20"),
    ),
    "digits-20-searches": (
        *("--alg", "supervised,mean_teacher,mixmatch", "--divergence", "mse"),
        *("--trials", "50", "--repeats", "10", "--seeds", "5", "--labels", "20"),
    ),
}
"""What is compared, as ``tune-ssl compare`` is told it."""


def main() -> None:
    """Compare or read, print, and with ``--record`` write down."""
    options = _options()
    result = compared(options.name, options.output)
    print(as_text(result))
    if options.published:
        result["above_published"] = above_published(result, options.processes)
        print(published_text(result))
    if options.record:
        keep(RECORD, options.name, {"compare": list(COMPARISONS[options.name])} | result)


def compared(name: str, output: str) -> dict[str, Any]:
    """Return what a comparison found; it is begun, gone on with, or read."""
    command = [Path(sys.executable).with_name("tune-ssl"), "compare", *COMPARISONS[name]]
    command += ["--name", name, "--output", output, "--no-dashboard", "--format", "json"]
    ended = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def above_published(result: Mapping[str, Any], processes: int) -> dict[str, dict[str, Any]]:
    """Return for each cell the published default's test accuracy, and the gain of its searches.

    The default is trained on the draws of every winner, and judged on the same test images; the interval
    is that of the comparison: over searches, or over draws where there is one search. For cells whose
    divergence is the paper's.
    """
    found = {}
    for row in result["cells"]:
        records = [records_of_default(row, search, result) for search in row["searched"]]
        with ProcessPoolExecutor(processes) as pool:
            lines = list(pool.map(_classified_test, itertools.chain(*records)))
        defaults = np.array(lines, dtype=np.float64).reshape(len(records), len(records[0]), -1)
        winners = np.array([classified_test(search) for search in row["searched"]])
        found[row["name"]] = gains(winners, defaults)
    return found


def gains(winners: Floats, defaults: Floats) -> dict[str, Any]:
    """Return what winners are better than defaults, over (searches, draws, images) of correctness."""
    difference = winners - defaults
    gain = crossed_interval(over_searches(list(difference)), clip=DIFFERENCES)
    return {
        "published": round(float(defaults.mean()), 4),
        "gain": interval_values(gain),
        "searches": difference.mean(axis=(1, 2)).round(4).tolist(),
    }


def records_of_default(
    row: Mapping[str, Any], search: Mapping[str, Any], result: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return what a cell's search tried first as a flat record for each draw of its winner."""
    default = default_of(row, result)
    draws = [
        {name: line[name] for name in ("split_seed", "seed")} for line in search["retrainings"]
    ]
    return [default | draw for draw in draws]


def default_of(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a cell's search tried first, its published default moved into its ranges, without a draw."""
    divergence = _divergence(row)
    search = RunConfig(
        alg=(row["algorithm"],),
        divergence=() if divergence is None else (divergence,),
        max_steps=result["steps"],
    )
    space = search.space(DIGITS_CLASSES)
    (default,) = space.defaults()
    return {
        "algorithm": row["algorithm"],
        "divergence": divergence,
        "parameters": dict(space.suggest(FixedTrial(default.params)).parameters),
        "num_labels": result["labels"],
        "num_validation": result["validation_images"],
        "max_steps": result["steps"],
        "threads": 1,
    }


def configurations(method: str) -> dict[str, dict[str, Any]]:
    """Return the best of a method's search at 20 labels and its published default, as flat records without draws."""
    table = recorded("digits-20")
    name = method_text(method, published_divergence(method))
    (row,) = (row for row in table["cells"] if row["name"] == name)
    default = default_of(row, table)
    return {"best": default | {"parameters": row["searched"][0]["parameters"]}, "default": default}


def recorded(name: str) -> dict[str, Any]:
    """Return what is recorded of a comparison."""
    kept: dict[str, Any] = json.loads(RECORD.read_text())[name]
    return kept


def classified_test(search: Mapping[str, Any]) -> Floats:
    """Return which test images the retrainings of a search's winner classified, as (draws, images)."""
    return _unpacked([line["test_correct"] for line in search["retrainings"]])


def _unpacked(packed: Sequence[str]) -> Floats:
    return np.stack([unpack_correct(one) for one in packed]).astype(np.float64)


def _classified_test(record: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    from benchmarks.sealed import classified
    from ssl_core.data.prepare import prepare
    from ssl_core.training.config import TrainingConfig

    config = TrainingConfig.from_record(record)
    return unpack_correct(classified(config, prepare(config.data))["test"])


def published_text(result: Mapping[str, Any]) -> str:
    """Return what the published defaults reach and what searching gained, as a Markdown table."""
    lines = ["| cell | published default | gain of searching |", "|---|---|---|"]
    for name, row in result["above_published"].items():
        lines.append(f"| {name} | {percent(row['published'])} | {points_text(row['gain'])} |")
    return "\n".join(lines)


def as_text(result: Mapping[str, Any]) -> str:
    """Return the matrix, which divergences of a method are apart, and the whole table, as Markdown."""
    return "\n\n".join([matrix(result), apart_text(result), format_compared(result, "markdown")])


def matrix(result: Mapping[str, Any]) -> str:
    """Return test accuracies with their intervals, a row for each method, a column for each divergence."""
    there = {_divergence(row) for row in result["cells"]}
    columns = [name for name in DIVERGENCE_NAMES if name in there]
    lines = [["method", *columns], ["---"] * (1 + len(columns))]
    for method in ALGORITHM_NAMES:
        own = [row for row in result["cells"] if row["algorithm"] == method]
        cells = {_divergence(row) or columns[0]: row for row in own}  # without one: the first
        if cells:
            tests = [cells[name]["test"] if name in cells else None for name in columns]
            lines.append([method, *("" if test is None else interval_text(test) for test in tests)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def between(result: Mapping[str, Any]) -> Callable[[str, str], Interval]:
    """Return what gives the interval of one row's accuracy minus another's; all hold together."""
    tables = {
        row["name"]: over_searches([classified_test(search) for search in row["searched"]])
        for row in result["cells"]
    }
    groups = result["searches"]
    for row in result["references"]:
        lines = _unpacked(row["correct"]).reshape(groups, result["draws"], -1)
        tables[row["name"]] = over_searches(list(lines))
    names = list(tables)
    together = simultaneous_differences(
        np.stack([tables[name] for name in names]), control=names.index(result["control"])
    )
    return lambda one, other: together.interval(names.index(one), names.index(other))


def apart(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of one method's cells that are distinguishable, the better one first."""
    found = []
    for method in ALGORITHM_NAMES:
        rows = [row for row in result["cells"] if row["algorithm"] == method]
        rows.sort(key=lambda row: -row["test"]["mean"])
        found += [
            (one["name"], other["name"])
            for place, one in enumerate(rows)
            for other in rows[place + 1 :]
            if not set(one["letters"]) & set(other["letters"])
        ]
    return found


def apart_text(result: Mapping[str, Any]) -> str:
    """Return in words which divergences of one method are distinguishable, and what beats supervised."""
    pairs = apart(result)
    told = ", ".join(f"{one} above {other}" for one, other in pairs) or "none"
    above = [
        f"{row['name']} {points_text(row['minus_control'])}"
        for row in result["cells"]
        if row["verdict"] == "better"
    ]
    of = sum(row["name"] != result["control"] for row in result["cells"])
    return (
        f"Divergences of one method that are distinguishable: {told}.\n"
        f"Better than tuned supervised: {len(above)} of {of}: {', '.join(above)}."
    )


def _divergence(row: Mapping[str, Any]) -> str | None:
    (name,) = row["divergences"]
    return None if name is None else str(name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=COMPARISONS)
    parser.add_argument("--output", default="runs", help="folder that holds the runs")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--processes", type=int, default=machine.usable_cpus())
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
