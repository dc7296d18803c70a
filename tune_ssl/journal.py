"""The study's journal: Optuna's file format, made safe against torn lines, full disks and old locks.

As Optuna ships it, a torn last line followed by one more write makes the file unreadable for
ever, a full disk does the same to a living process, and the lock of a killed one blocks for half
a minute. Here one process writes (``run.RunLock``), a damaged tail is cut off and kept before
opening, and a write that fails is taken back.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from ssl_core.errors import UserError


class JournalWriteError(RuntimeError):
    """The journal could not be written; what was in it is untouched and the run can be resumed."""


class RunJournal(JournalFileBackend):
    """A journal file whose failed writes leave no trace. Open it with ``open_journal``.

    Optuna reads back what it writes, after every record. Here it gets its own records from memory,
    and reads the file only where its size says that somebody else (a dashboard) wrote, too.

    Args:
        path: of the file, made where there is none.
        records: that are in it, where they were read already.
        length: how many bytes they are.
    """

    def __init__(self, path: Path, records: Sequence[dict[str, Any]] = (), length: int = 0) -> None:
        self._path = path.resolve()  # a relative path would make Optuna's lock a dangling link
        self._write_lock = JournalFileSymlinkLock(str(self._path))
        super().__init__(str(self._path), lock_obj=self._write_lock)
        self._records_read = 0
        self._unread = list(records)
        self._bytes_known = length
        self._held: list[bytes] | None = None
        self._lost: JournalWriteError | None = None

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the records from that number on."""
        size = os.stat(self._path).st_size
        if log_number_from != self._records_read or size != self._bytes_known:
            in_file = list(super().read_logs(log_number_from))
            self._bytes_known = self._log_number_offset[log_number_from + len(in_file)]
            self._unread = in_file + [json.loads(line) for line in self._held or ()]
            self._records_read = log_number_from
        records, self._unread = self._unread, []
        self._records_read += len(records)
        yield from records

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, all of them or none.

        Raises:
            JournalWriteError: the disk is full or the file cannot be written.
        """
        if self._lost is not None:
            raise self._lost
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        if self._held is None:
            with self._locked():
                self._append(b"".join(lines))
        else:
            self._held += lines
        self._unread += [json.loads(line) for line in lines]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what the body appends in one piece when it ends: one flush instead of many.

        Nothing of it may be acted on before. Where it cannot be written, nothing is written any
        more, because the reader knows what the file does not.

        Raises:
            JournalWriteError: as ``append_logs``.
        """
        if self._held is not None:
            yield
            return
        with self._locked():
            self._held = []
            try:
                yield
            finally:
                held, self._held = b"".join(self._held), None
                try:
                    self._append(held)
                except JournalWriteError as error:
                    self._lost = error
                    raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._write_lock.acquire()
        except OSError as error:
            raise JournalWriteError(f"{self._path}: {error}") from error
        try:
            yield
        finally:
            self._write_lock.release()

    def _append(self, data: bytes) -> None:
        if not data:
            return
        try:
            size = os.stat(self._path).st_size
            with self._taken_back(size), open(self._path, "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JournalWriteError(f"{self._path}: {error}") from error
        if size == self._bytes_known:
            self._bytes_known += len(data)

    @contextmanager
    def _taken_back(self, size: int) -> Iterator[None]:
        """Cut the file to that size again where the body cannot write; write no more if that fails, too."""
        try:
            yield
        except OSError:
            try:
                os.truncate(self._path, size)
            except OSError as error:
                self._lost = JournalWriteError(f"{self._path}: {error}")
            raise


class MemoryJournal(BaseJournalBackend):
    """A journal that is never written to disk; the simulator's."""

    def __init__(self) -> None:
        self._logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Return the records from that number on."""
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records."""
        self._logs.extend(logs)

    @contextmanager
    def together(self) -> Iterator[None]:
        """See ``RunJournal``; there is nothing to flush."""
        yield


class SearchStorage(JournalStorage):
    """Optuna's storage of one study, whose cost grows with the open trials, not with all.

    As shipped, it goes through every trial whenever it is asked for some. Here finished ones,
    which never change, are gone through once.
    """

    def __init__(self, journal: BaseJournalBackend) -> None:
        self._listed: list[FrozenTrial] = []
        self._open: set[int] = set()
        self._finished: Counter[TrialState] = Counter()
        super().__init__(journal)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See ``optuna.storages.BaseStorage``."""
        with self._thread_lock:
            self._update(study_id)
            if states is None:
                found = self._listed.copy()
            elif any(state in states for state in self._finished):
                found = [trial for trial in self._listed if trial.state in states]
            else:
                found = [trial for trial in self._open_trials() if trial.state in states]
            return copy.deepcopy(found) if deepcopy else found

    def open_trials(self, study_id: int) -> list[FrozenTrial]:
        """Return the trials that run or wait, by number; not to be changed."""
        with self._thread_lock:
            self._update(study_id)
            return self._open_trials()

    def finished(self, study_id: int) -> Counter[TrialState]:
        """Return how many trials ended in which state."""
        with self._thread_lock:
            self._update(study_id)
            return self._finished.copy()

    def _open_trials(self) -> list[FrozenTrial]:
        return [self._listed[number] for number in sorted(self._open)]

    def _update(self, study_id: int) -> None:
        self._sync_with_backend()
        trial_ids = self._replay_result._study_id_to_trial_ids.get(study_id, [])
        for number in range(len(self._listed), len(trial_ids)):
            self._listed.append(self._replay_result.get_trial(trial_ids[number]))
            self._open.add(number)
        for number in list(self._open):
            trial = self._replay_result.get_trial(trial_ids[number])
            self._listed[number] = trial
            if trial.state.is_finished():
                self._open.discard(number)
                self._finished[trial.state] += 1


def open_journal(path: Path) -> tuple[RunJournal, str | None]:
    """Return the journal at ``path``, mended where it was torn, and what was done, if anything.

    The caller holds the run's lock. A lock file a killed process left is removed; bytes after
    the last whole record are moved to ``<name>.torn-TIME``.

    Raises:
        UserError: a record in the middle is damaged, so that cutting would lose later ones.
    """
    Path(f"{path}.lock").unlink(missing_ok=True)
    if not path.exists():
        return RunJournal(path), None
    data = path.read_bytes()
    records, length = _whole_records(data)
    message = _cut_torn_tail(path, data, length) if length < len(data) else None
    return RunJournal(path, records, length), message


def _cut_torn_tail(path: Path, data: bytes, good: int) -> str:
    tail = data[good:]
    following = [line for line in tail.split(b"\n")[1:] if _record(line) is not None]
    if following:
        number = data[:good].count(b"\n") + 1
        raise UserError(
            f"{path} is damaged in record {number}, and {len(following)} whole records follow it; "
            "allowed: damage at the end only, which is mended; restore the file from a copy."
        )
    kept = _unused(path.with_name(f"{path.name}.torn-{time.strftime('%Y%m%dT%H%M%S')}"))
    kept.write_bytes(tail)
    os.truncate(path, good)
    return (
        f"{path.name} ended in {len(tail)} bytes of a torn record; they were moved to {kept.name}."
    )


def _unused(path: Path) -> Path:
    """Return the path, or the first with a number behind it that does not exist."""
    candidates = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(found for found in itertools.chain([path], candidates) if not found.exists())


def _whole_records(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the records from the start, each ended by a newline, and how many bytes they are."""
    records: list[dict[str, Any]] = []
    position = 0
    while (end := data.find(b"\n", position)) >= 0:
        record = _record(data[position:end])
        if record is None:
            break
        records.append(record)
        position = end + 1
    return records, position


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "op_code" in record else None
