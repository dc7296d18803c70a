"""What a measurement's record says of how it was made."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tune_ssl import machine


def write_record(path: Path, measured: dict[str, Any]) -> None:
    """Write a measurement and its circumstances: date, command, commit, hardware, versions."""
    path.write_text(json.dumps({**_circumstances(), **measured}, indent=2) + "\n")


def _circumstances() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    described = machine.describe()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python -m", _module(), *sys.argv[1:]]),
        "commit": commit,
        "hardware": {key: described[key] for key in ("processor", "cores", "gpus")},
        "versions": described["versions"],
    }


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec is not None else Path(sys.argv[0]).stem
