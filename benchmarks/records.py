"""Where and how a benchmark was measured, kept beside its figures."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from tune_ssl import machine


def provenance(command: str) -> dict[str, Any]:
    """Return date, command, commit, hardware and versions of a measurement made here and now."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    described = machine.describe()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        "commit": commit,
        "hardware": {key: described[key] for key in ("processor", "cores", "gpus")},
        "versions": described["versions"],
    }
