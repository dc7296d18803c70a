"""The whole pipeline where there is nothing to learn: ``tune-ssl compare`` on permuted labels.

    python -m benchmarks.permuted_labels --record

Every table has a data set of its own: the digits as files, the labels of training and of test images
permuted among them. The command that a user runs then searches, retrains, opens the test set and prints
its table. Nothing is there to be found: test accuracy should be at chance, and at most one table in
twenty should call any two cells distinguishable, reference lines among them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.records import write_record
from ssl_core.data.digits import load_test_images, load_training_images
from ssl_core.data.images import LabeledImages

RECORD = Path(__file__).with_name("permuted_labels.json")
CHANCE = 0.1
METHODS = "pi_model,mean_teacher,mixmatch"


def main() -> None:
    """Make all tables, print, and with ``--record`` write down."""
    options = _options()
    tables = []
    for seed in range(options.tables):
        tables.append(table(seed, options))
        print(as_text(tables[-1]), flush=True)
    found = {"tables": tables, **summary(tables)}
    print({name: found[name] for name in ("claims", "accuracy_lowest", "accuracy_highest")})
    if options.record:
        settings = {name: getattr(options, name) for name in ("trials", "seeds", "max_steps")}
        write_record(RECORD, settings | found)


def table(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the cells of one comparison: accuracies, letters, verdicts."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        random = np.random.default_rng(seed)
        write_permuted(load_training_images(), place / "images" / "train", random)
        write_permuted(load_test_images(), place / "images" / "test", random)
        command = [
            *(Path(sys.executable).with_name("tune-ssl"), "compare", "--alg", METHODS),
            *("--divergence", "mse", "--trials", options.trials, "--seeds", options.seeds),
            *("--dataset", "folder", "--data-dir", place / "images", "--image-size", 8),
            *("--model", "wrn-10-1", "--max-steps", options.max_steps, "--no-flip"),
            *("--labels", 20, "--validation", 100, "--seed", seed, "--split-seed", seed),
            *("--output", place / "runs", "--no-dashboard", "--format", "json"),
        ]
        ended = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False
        )
    if ended.returncode:
        raise RuntimeError(f"compare ended with {ended.returncode}:\n{ended.stderr}")
    return cells_of(seed, json.loads(ended.stdout))


def write_permuted(source: LabeledImages, folder: Path, random: np.random.Generator) -> None:
    """Write images into a folder per class, each with the label of another."""
    labels = random.permutation(source.labels)
    for place, (image, label) in enumerate(zip(source.images, labels, strict=True)):
        own = folder / source.class_names[label]
        own.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(own / f"{place:04d}.png")


def cells_of(seed: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a comparison says of its cells, and whether it claims that any two differ."""
    rows = [*result["cells"], *result["references"]]
    letters = {row["name"]: set(row["letters"]) for row in rows}
    apart = [
        [one, other]
        for place, one in enumerate(letters)
        for other in list(letters)[place + 1 :]
        if not letters[one] & letters[other]
    ]
    beside = [row["name"] for row in rows if row["verdict"] in ("better", "worse")]
    return {
        "seed": seed,
        "winner": result["winner"],
        "test": {row["name"]: row["test"] for row in rows},
        "apart": apart,
        "beside_control": beside,
        "claims": bool(apart or beside),
    }


def summary(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many tables claim anything, and between what the means of all cells lie."""
    means: dict[str, list[float]] = {}
    for one in tables:
        for name, test in one["test"].items():
            means.setdefault(name, []).append(test["mean"])
    averages = {name: round(float(np.mean(values)), 4) for name, values in means.items()}
    return {
        "claims": sum(one["claims"] for one in tables),
        "of": len(tables),
        "accuracy": averages,
        "accuracy_lowest": min(averages.values()),
        "accuracy_highest": max(averages.values()),
    }


def as_text(row: Mapping[str, Any]) -> str:
    """Return a table in a line."""
    accuracies = ", ".join(
        f"{name} {100 * test['mean']:.1f} %" for name, test in row["test"].items()
    )
    said = f"CLAIMS {row['apart']} {row['beside_control']}" if row["claims"] else "claims nothing"
    return f"table {row['seed']}: {accuracies}; {said}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=20)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--max-steps", type=int, default=60)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
