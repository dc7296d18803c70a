"""How a measurement is kept beside its script: figures, and what they depend on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tune_ssl import machine


def write_record(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures of the module whose name the JSON file has."""
    _write(path, _circumstances(path) | figures)


def keep(path: Path, name: str, figures: dict[str, Any]) -> None:
    """Write figures under a name into a JSON file that may hold others."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    _write(path, kept | {name: figures | _circumstances(path)})


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return what was appended to a file, a JSON object in each line; nothing where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n")


def _circumstances(path: Path) -> dict[str, Any]:
    """Return date, command, commit, hardware with its load, and versions."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    described = machine.describe()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join([f"python -m benchmarks.{path.stem}", *sys.argv[1:]]),
        "commit": commit,
        "hardware": {key: described[key] for key in ("processor", "cores", "gpus")},
        "load": round(os.getloadavg()[1], 1),
        "versions": described["versions"],
    }
