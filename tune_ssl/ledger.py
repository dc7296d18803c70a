"""The ledger of test openings: how often a data set's test images have been used to judge.

A test set is unbiased once. Every further look at it, by whichever run, lets its figures steer
what is tried next, so each is counted, and every test figure is printed with its number. A ledger
lies beside the runs, where all who share the folder see it, and one for all folders of an account on
a host; the number counts what stands in either. A line of JSON an opening, appended and never changed.

An opening is named by the table of retrainings it measures, so that a driver killed between here
and its result is not counted twice, nor is printing again what was measured.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

LEDGER = "test_openings.jsonl"


def account_ledger() -> Path:
    """Return the ledger of this account on this host, whichever folders its runs are in."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tune-ssl" / LEDGER


def count_opening(path: Path, *, test_set: str, opening: str, about: Mapping[str, Any]) -> int:
    """Write down that a test set is opened, and return the how many-th time that is, from 1.

    An opening that is in the ledger keeps its number. Two processes may call this at once.

    Args:
        path: of the ledger beside the runs, which need not exist.
        test_set: fingerprint of the images and labels.
        opening: name of this opening.
        about: what is written beside them.

    Raises:
        OSError: the ledger cannot be written; then the test set must stay closed. The account's may
            be missing: a container has no home.
    """
    entry = {"time": time.strftime("%FT%T%z"), "test_set": test_set, "opening": opening, **about}
    with _opened(path) as file:
        known = _openings(file.read(), test_set)
        if opening in known:
            return known[opening]
        with suppress(OSError), _opened(account_ledger()) as of_account:
            elsewhere = _openings(of_account.read(), test_set)
            entry["number"] = len({*known, *elsewhere} - {opening}) + 1
            if opening not in elsewhere:
                _append(of_account, entry)
        entry.setdefault("number", len(known) + 1)
        _append(file, entry)
    return int(entry["number"])


def openings_of(path: Path, test_set: str) -> int:
    """Return how many openings of a test set a ledger holds."""
    return len(_openings(path.read_bytes(), test_set)) if path.exists() else 0


def openings_of_others(path: Path, test_set: str, data_dir: str | None) -> int:
    """Return how often a user's folder was opened with other test images in it, by both ledgers.

    Args:
        test_set: fingerprint of those that are in it now.
        data_dir: the folder; None for a data set that has none.
    """
    found: set[str] = set()
    for ledger in (path, account_ledger()):
        with suppress(OSError):
            for entry in _entries(ledger.read_bytes()):
                if entry.get("data_dir") == data_dir and entry.get("test_set") != test_set:
                    found.add(str(entry.get("opening")))
    return 0 if data_dir is None else len(found)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a ledger to read and append, for one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        _lock(file.fileno())  # until the file is closed
        file.seek(0)
        yield file


def _append(file: BinaryIO, entry: Mapping[str, Any]) -> None:
    file.seek(0)
    data = file.read()
    torn = b"\n" if data and not data.endswith(b"\n") else b""
    file.write(torn + json.dumps(entry).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _openings(data: bytes, test_set: str) -> dict[str, int]:
    """Return a test set's openings with their numbers, in their order; a torn line never was one."""
    found: dict[str, int] = {}
    for entry in _entries(data):
        if entry.get("test_set") == test_set:
            found.setdefault(str(entry.get("opening")), entry.get("number", len(found) + 1))
    return found


def _entries(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def _lock(descriptor: int) -> None:
    import fcntl

    with suppress(OSError):  # a file system without locks: one append is still one line
        fcntl.flock(descriptor, fcntl.LOCK_EX)
