"""The ledger of test openings: how often a data set's test images have been used to judge.

A test set is unbiased once. Every further look at it, by whichever run, lets its figures steer
what is tried next, so each is counted, and every test figure is printed with its number. The
ledger lies beside the runs, a line of JSON an opening, appended and never changed.

An opening is named by the table of retrainings it measures, so that a driver killed between here
and its result is not counted twice, nor is printing again what was measured.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LEDGER = "test_openings.jsonl"


def count_opening(path: Path, *, test_set: str, opening: str, about: Mapping[str, Any]) -> int:
    """Write down that a test set is opened, and return the how many-th time that is, from 1.

    An opening that is in the ledger keeps its number. Two processes may call this at once.

    Args:
        path: of the ledger, which need not exist.
        test_set: fingerprint of the images and labels.
        opening: name of this opening.
        about: what is written beside them.

    Raises:
        OSError: the ledger cannot be written; then the test set must stay closed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        _lock(file.fileno())  # until the file is closed
        file.seek(0)
        data = file.read()
        openings = _openings(data, test_set)
        if opening not in openings:
            entry = {"time": time.strftime("%FT%T%z"), "test_set": test_set, "opening": opening}
            line = json.dumps(entry | dict(about)).encode() + b"\n"
            torn = b"\n" if data and not data.endswith(b"\n") else b""
            file.write(torn + line)
            file.flush()
            os.fsync(file.fileno())
            openings.append(opening)
        return openings.index(opening) + 1


def openings_of(path: Path, test_set: str) -> int:
    """Return how often a test set was opened so far."""
    return len(_openings(path.read_bytes(), test_set)) if path.exists() else 0


def _openings(data: bytes, test_set: str) -> list[str]:
    """Return the names of a test set's openings, in their order; a torn line never was one."""
    found = []
    for line in data.splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("test_set") == test_set:
                found.append(str(entry.get("opening")))
    return list(dict.fromkeys(found))


def _lock(descriptor: int) -> None:
    import fcntl

    with suppress(OSError):  # a file system without locks: one append is still one line
        fcntl.flock(descriptor, fcntl.LOCK_EX)
