"""The journal under everything that tears files, and the lock that gives a run one driver."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import begin, make_study, records_of, study_on
from tune_ssl.journal import (
    JournalWriteError,
    MemoryJournal,
    RunJournal,
    SearchStorage,
    open_journal,
)
from tune_ssl.run import RunDirectory, run_lock


@pytest.fixture
def written(tmp_path) -> bytes:
    """Return the bytes of a journal with two trials in it."""
    path = tmp_path / "original"
    study = study_on(path)
    study.report(begin(study).number, 1, 3, 0.5)
    study.report(begin(study).number, 1, 3, 0.75)
    return path.read_bytes()


def trial_count(path: Path) -> int:
    """Return how many trials Optuna's own backend finds in a journal."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return len(optuna.load_study(study_name="search", storage=storage).trials)


def torn_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.torn-*"))


def check_mended(path: Path, expected: bytes, cut: bytes) -> None:
    """Check that a file opens with the expected content, keeps what was cut, and goes on."""
    journal, message = open_journal(path)
    assert path.read_bytes() == expected
    assert [file.read_bytes() for file in torn_files(path.parent)] == [cut]
    assert message is not None
    assert f"{len(cut)} bytes" in message
    assert torn_files(path.parent)[0].name in message
    before = trial_count(path)
    begin(make_study(journal))
    assert path.read_bytes().startswith(expected)
    assert trial_count(path) in (before, before + 1)  # a new trial, or one that waited
    assert len(records_of(path)) == path.read_bytes().count(b"\n")
    assert open_journal(path)[1] is None


class TestTornEnd:
    def test_every_truncation_of_the_last_record_is_mended(self, tmp_path, written):
        start_of_last = written.rstrip(b"\n").rfind(b"\n") + 1
        assert len(written) - start_of_last > 50
        for end in range(start_of_last + 1, len(written)):
            folder = tmp_path / str(end)
            folder.mkdir()
            path = folder / "study.journal"
            path.write_bytes(written[:end])
            check_mended(path, written[:start_of_last], written[start_of_last:end])

    def test_a_cut_between_two_records_needs_no_mending(self, tmp_path, written):
        path = tmp_path / "study.journal"
        lines = written.splitlines(keepends=True)
        for count in range(len(lines) + 1):
            path.write_bytes(b"".join(lines[:count]))
            assert open_journal(path)[1] is None
            assert path.read_bytes() == b"".join(lines[:count])
        assert torn_files(tmp_path) == []

    @pytest.mark.parametrize(
        "tail",
        [
            b"\0",
            b"\0" * 4096,
            b"\0\0\0\n",
            b"\0\n\0\n\0",
            b'{"op_code":4,"worker_id":"\0\0\0\0\0\0',
            b"{",
            b"\xff\xfe\xfa",
            b"\xff\xfe\n\xfa\n",
            b"\n",
            b"\n\n\n",
            b"[]\n",
            b"12\n",
            b'"op_code"\n',
            b'{"op":4}\n',
            b"null\n",
        ],
        ids=repr,
    )
    def test_a_tail_that_is_no_record_is_cut_off_and_kept(self, tmp_path, written, tail):
        folder = tmp_path / "run"
        folder.mkdir()
        path = folder / "study.journal"
        path.write_bytes(written + tail)
        check_mended(path, written, tail)

    def test_without_mending_one_more_write_would_ruin_the_file(self, tmp_path, written):
        """The reason for all this: the day Optuna mends itself, this test says so."""
        path = tmp_path / "study.journal"
        path.write_bytes(written[:-10])
        backend = JournalFileBackend(str(path))
        backend.append_logs([{"op_code": 4}])
        backend.append_logs([{"op_code": 4}])
        with pytest.raises(ValueError, match=r"Expecting|Invalid|Unterminated|Extra data"):
            records_of(path)

    def test_a_file_of_nothing_but_a_torn_record_becomes_empty(self, tmp_path):
        path = tmp_path / "study.journal"
        path.write_bytes(b'{"op_code":0,"work')
        _, message = open_journal(path)
        assert message is not None
        assert path.read_bytes() == b""

    @pytest.mark.parametrize("content", [None, b""])
    def test_a_new_or_empty_file_is_opened_silently(self, tmp_path, content):
        path = tmp_path / "study.journal"
        if content is not None:
            path.write_bytes(content)
        journal, message = open_journal(path)
        assert message is None
        assert begin(make_study(journal)).number == 0


class TestDamageInTheMiddle:
    @pytest.mark.parametrize("place", [0, 1, 7, -3])
    @pytest.mark.parametrize("damage", ["cut", "nul", "emptied", "joined"])
    def test_it_is_refused_and_nothing_is_changed(self, tmp_path, written, place, damage):
        lines = written.splitlines(keepends=True)
        place %= len(lines)
        line = lines[place]
        lines[place] = {
            "cut": line[:20] + b"\n",
            "nul": b"\0" * (len(line) - 1) + b"\n",
            "emptied": b"\n",
            "joined": line[:20],  # the torn record and the next are one line
        }[damage]
        path = tmp_path / "run.journal"
        damaged = b"".join(lines)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"damaged in record {place + 1}\b.*copy"):
            open_journal(path)
        assert path.read_bytes() == damaged
        assert torn_files(tmp_path) == []


class TestLockFile:
    @pytest.mark.parametrize("kind", ["file", "dangling link", "link to the journal"])
    def test_one_left_by_a_killed_process_is_removed_on_opening(self, tmp_path, written, kind):
        path = tmp_path / "study.journal"
        path.write_bytes(written)
        lock = Path(f"{path}.lock")
        if kind == "file":
            lock.touch()
        else:
            lock.symlink_to(path if kind == "link to the journal" else tmp_path / "gone")
        journal, _ = open_journal(path)
        assert not os.path.lexists(lock)
        begin(make_study(journal))  # would wait half a minute
        assert not os.path.lexists(lock)

    def test_a_relative_path_means_the_same_file_from_another_folder(self, tmp_path, monkeypatch):
        here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
        here.mkdir()
        elsewhere.mkdir()
        monkeypatch.chdir(here)
        study = study_on(Path("study.journal"))
        begin(study)
        monkeypatch.chdir(elsewhere)
        begin(study)
        assert list(elsewhere.iterdir()) == []
        assert trial_count(here / "study.journal") == 2

    def test_a_folder_that_is_gone_is_a_write_error(self, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        journal, _ = open_journal(folder / "study.journal")
        (folder / "study.journal").unlink()
        folder.rmdir()
        with pytest.raises(JournalWriteError, match="No such file"):
            journal.append_logs([{"op_code": 4}])


RECORD = {"op_code": 4, "worker_id": "w", "text": "ä" * 50}
"""Not ASCII, so that bytes and characters differ in number where it is not escaped."""


def failing(code: int) -> Callable[..., None]:
    """Return what raises the error of that number whatever it is asked."""

    def fails(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return fails


class TestFailingWrites:
    def test_every_size_at_which_a_write_is_cut_short_leaves_no_trace(self, tmp_path, written):
        """RLIMIT_FSIZE ends a write in the middle, as a full disk or a quota does."""
        path = tmp_path / "run.journal"
        path.write_bytes(written)
        script = textwrap.dedent(
            """
            import json, pathlib, resource, signal, sys
            from tune_ssl.journal import JournalWriteError, open_journal
            path, record = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            before = path.read_bytes()
            length = len(json.dumps(record, separators=(",", ":"))) + 1
            journal, _ = open_journal(path)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            for room in range(2 * length):
                resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
                try:
                    journal.append_logs([record, record])
                    raise SystemExit(f"{room} bytes of room were enough")
                except JournalWriteError as error:
                    assert str(path) in str(error)
                    assert "large" in str(error)
                assert path.read_bytes() == before, room
                assert not pathlib.Path(f"{path}.lock").is_symlink(), room
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 2 * length, hard))
            journal.append_logs([record, record])
            """
        )
        subprocess.run(
            [sys.executable, "-c", script, str(path), json.dumps(RECORD)], check=True, timeout=60
        )
        assert open_journal(path)[1] is None
        assert records_of(path)[-2:] == [RECORD, RECORD]
        assert path.read_bytes().startswith(written)

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO])
    def test_a_failing_fsync_leaves_no_trace(self, tmp_path, written, monkeypatch, code):
        path = tmp_path / "run.journal"
        path.write_bytes(written)
        journal, _ = open_journal(path)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing(code))
            with pytest.raises(JournalWriteError, match=os.strerror(code)):
                journal.append_logs([RECORD])
        assert path.read_bytes() == written
        journal.append_logs([RECORD])
        assert records_of(path)[-1] == RECORD

    def test_a_file_that_cannot_be_cut_again_is_written_no_more(
        self, tmp_path, written, monkeypatch
    ):
        path = tmp_path / "run.journal"
        path.write_bytes(written)
        journal, _ = open_journal(path)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing(errno.EIO))
            patched.setattr(os, "truncate", failing(errno.EIO))
            with pytest.raises(JournalWriteError):
                journal.append_logs([RECORD])
        left = path.read_bytes()
        with pytest.raises(JournalWriteError, match=os.strerror(errno.EIO)):
            journal.append_logs([RECORD])
        assert path.read_bytes() == left

    def test_a_journal_that_is_gone_is_a_write_error(self, tmp_path, written):
        path = tmp_path / "run.journal"
        path.write_bytes(written)
        journal, _ = open_journal(path)
        path.unlink()
        with pytest.raises(JournalWriteError, match="No such file"):
            journal.append_logs([RECORD])

    def test_a_study_goes_on_after_a_full_disk(self, tmp_path, monkeypatch):
        path = tmp_path / "run.journal"
        study = study_on(path)
        trial = begin(study)
        before = path.read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing(errno.ENOSPC))
            with pytest.raises(JournalWriteError):
                study.report(trial.number, 1, 3, 0.5)
        assert path.read_bytes() == before
        reopened = study_on(path)
        assert reopened.recover("full disk") == [trial.number]
        again = begin(reopened)
        reopened.report(again.number, 2, 3, 0.5)
        assert reopened.get_trial(0).intermediate_values == {3: 0.5}

    def test_the_lock_file_that_cannot_be_made_is_a_write_error(
        self, tmp_path, written, monkeypatch
    ):
        path = tmp_path / "run.journal"
        path.write_bytes(written)
        journal, _ = open_journal(path)

        monkeypatch.setattr(os, "symlink", failing(errno.ENOSPC))
        with pytest.raises(JournalWriteError, match="No space left"):
            journal.append_logs([RECORD])
        assert path.read_bytes() == written

    def test_a_second_signal_in_mid_write_leaves_whole_records_and_no_lock(
        self, tmp_path, written, monkeypatch
    ):
        path = tmp_path / "run.journal"
        path.write_bytes(written)
        journal, _ = open_journal(path)

        def interrupted(_descriptor):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                journal.append_logs([RECORD])
        assert not os.path.lexists(f"{path}.lock")
        journal.append_logs([RECORD])
        assert records_of(path)[-1] == RECORD
        assert open_journal(path)[1] is None

    def test_records_are_appended_all_together_in_order(self, tmp_path):
        path = tmp_path / "run.journal"
        journal = RunJournal(path)
        records = [{"op_code": 4, "count": count} for count in range(5)]
        journal.append_logs(records[:2])
        journal.append_logs(records[2:])
        journal.append_logs([])
        assert list(journal.read_logs(0)) == records
        assert list(journal.read_logs(3)) == records[3:]

    def test_a_note_that_somebody_else_wrote_is_read_between_our_own(self, tmp_path):
        path = tmp_path / "run.journal"
        ours, theirs = RunJournal(path), JournalFileBackend(str(path))
        records = [{"op_code": 4, "count": count} for count in range(5)]
        ours.append_logs(records[:1])
        assert list(ours.read_logs(0)) == records[:1]
        theirs.append_logs(records[1:2])
        ours.append_logs(records[2:3])
        assert list(ours.read_logs(1)) == records[1:3]
        theirs.append_logs(records[3:4])
        with ours.together():
            ours.append_logs(records[4:])
            assert list(ours.read_logs(3)) == records[3:]
        assert records_of(path) == records

    def test_a_file_is_read_once_when_it_is_opened(self, tmp_path, monkeypatch):
        path = tmp_path / "run.journal"
        records = [{"op_code": 4, "count": count} for count in range(4)]
        RunJournal(path).append_logs(records[:2])
        journal, _ = open_journal(path)
        with monkeypatch.context() as patched:
            patched.setattr(JournalFileBackend, "read_logs", lambda *_: pytest.fail("read again"))
            assert list(journal.read_logs(0)) == records[:2]
            journal.append_logs(records[2:3])
            assert list(journal.read_logs(2)) == records[2:3]
        JournalFileBackend(str(path)).append_logs(records[3:])
        assert list(journal.read_logs(3)) == records[3:]
        assert list(journal.read_logs(0)) == records


class TestTogether:
    """Several records in one write."""

    def test_they_are_read_at_once_and_written_in_one_piece_at_the_end(self, tmp_path, monkeypatch):
        path = tmp_path / "run.journal"
        study = study_on(path)
        before, flushes = path.read_bytes(), []
        flush = os.fsync
        monkeypatch.setattr(os, "fsync", lambda file: (flushes.append(file), flush(file)))
        with study.together():
            trial = begin(study)
            study.report(trial.number, trial.attempt, 3, 0.5)
            assert study.get_trial(0).intermediate_values == {3: 0.5}
            assert path.read_bytes() == before
        assert len(flushes) == 1
        assert study_on(path).get_trials() == study.get_trials()

    def test_what_was_appended_before_an_exception_is_written(self, tmp_path):
        path = tmp_path / "run.journal"
        study = study_on(path)

        def interrupted():
            with study.together():
                begin(study)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert study_on(path).get_trials() == study.get_trials()

    def test_where_they_cannot_be_written_nothing_more_is(self, tmp_path, monkeypatch):
        """The study in memory has a trial that the file has not: later records would not fit."""
        path = tmp_path / "run.journal"
        study = study_on(path)
        before = path.read_bytes()

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing(errno.ENOSPC))
            with pytest.raises(JournalWriteError):
                study.next()
        with pytest.raises(JournalWriteError, match="No space left"):
            study.recover("full disk")
        assert path.read_bytes() == before
        assert not os.path.lexists(f"{path}.lock")
        assert begin(study_on(path)).number == 0


class TestMemoryJournal:
    def test_it_gives_back_what_was_appended(self):
        journal = MemoryJournal()
        records = [{"op_code": 4, "count": count} for count in range(5)]
        journal.append_logs(records[:2])
        journal.append_logs(records[2:])
        assert list(journal.read_logs(0)) == records
        assert list(journal.read_logs(4)) == records[4:]


class TestSearchStorage:
    """It must say what Optuna's own says of the same journal, whenever it is asked."""

    STATES = (None, *((state,) for state in TrialState), (TrialState.RUNNING, TrialState.FAIL))

    @pytest.fixture
    def pair(self, tmp_path):
        path = tmp_path / "journal"
        ours, theirs = (
            SearchStorage(RunJournal(path)),
            JournalStorage(JournalFileBackend(str(path))),
        )
        return ours, theirs, ours.create_new_study([StudyDirection.MAXIMIZE], "study")

    def same(self, ours, theirs, study) -> None:
        for states in self.STATES:
            assert ours.get_all_trials(study, False, states) == theirs.get_all_trials(
                study, False, states
            )
        trials = theirs.get_all_trials(study)
        assert ours.open_trials(study) == [t for t in trials if not t.state.is_finished()]
        ended = Counter(trial.state for trial in trials if trial.state.is_finished())
        assert ours.finished(study) == ended

    @pytest.mark.parametrize("writer", [0, 1])
    def test_after_every_event_whoever_wrote_it(self, pair, writer):
        ours, theirs, study = pair
        writes = pair[writer]
        self.same(ours, theirs, study)
        ends = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING)
        for number, end in enumerate(2 * ends):
            trial = writes.create_new_trial(study)
            assert trial == number
            self.same(ours, theirs, study)
            writes.set_trial_user_attr(trial, "reason", "because")
            self.same(ours, theirs, study)
            if number > 3:
                writes.set_trial_state_values(trial, end, [0.5] if number % 4 == 0 else None)
                self.same(ours, theirs, study)
        writes.set_trial_state_values(1, TrialState.PRUNED)
        self.same(ours, theirs, study)

    def test_what_it_returns_may_be_kept_and_a_deep_copy_changed(self, pair):
        ours, theirs, study = pair
        ours.create_new_trial(study)
        kept = ours.get_all_trials(study, deepcopy=False)
        ours.get_all_trials(study)[0].user_attrs["mine"] = True
        ours.create_new_trial(study)
        assert len(kept) == 1
        self.same(ours, theirs, study)


HOLD = """
import pathlib, sys
from tune_ssl.run import RunDirectory, run_lock
with run_lock(RunDirectory(pathlib.Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def directory(tmp_path) -> RunDirectory:
    made = RunDirectory(tmp_path / "ict")
    made.create()
    return made


@pytest.fixture
def holder(directory):
    """Another process that holds the run; killed at the latest when the test ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def refusing_flock(code):
    def flock(_file, _operation):
        raise OSError(code, os.strerror(code))

    return flock


class TestRunLock:
    def test_a_second_driver_is_refused_by_host_process_and_start(self, directory, holder):
        with pytest.raises(UserError) as caught, run_lock(directory):
            pass
        message = str(caught.value)
        content = json.loads((directory.path / "lock").read_text())
        assert content["host"] == socket.gethostname()
        assert content["pid"] == holder.pid
        for value in (directory.name, content["host"], str(holder.pid), content["start"]):
            assert value in message
        assert "\n" not in message

    def test_a_refused_driver_leaves_the_holder_in_place(self, directory, holder):
        content = (directory.path / "lock").read_bytes()
        for _ in range(2):
            with pytest.raises(UserError), run_lock(directory):
                pass
        assert (directory.path / "lock").read_bytes() == content

    def test_stealing_does_not_take_a_run_that_is_really_held(self, directory, holder):
        with pytest.raises(UserError, match=str(holder.pid)), run_lock(directory, steal=True):
            pass

    def test_a_run_that_cannot_be_written_is_refused(self, tmp_path):
        (tmp_path / "run" / "lock").mkdir(parents=True)  # stands for any folder one may not write
        with pytest.raises(UserError, match="'run' cannot be written"):
            run_lock(RunDirectory(tmp_path / "run")).__enter__()

    def test_it_is_free_again_when_its_holder_is_killed(self, directory, holder):
        holder.kill()
        holder.wait()
        with run_lock(directory):
            assert json.loads((directory.path / "lock").read_text())["pid"] == os.getpid()

    def test_it_is_free_again_when_its_holder_ends(self, directory, holder):
        holder.communicate("\n")
        assert holder.returncode == 0
        with run_lock(directory):
            pass

    def test_it_is_free_again_after_an_exception(self, directory):
        with pytest.raises(RuntimeError), run_lock(directory):
            raise RuntimeError
        with run_lock(directory):
            pass

    def test_the_same_process_cannot_take_it_twice(self, directory):
        with run_lock(directory), pytest.raises(UserError), run_lock(directory):
            pass

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
    def test_without_file_locks_what_a_killed_driver_left_must_be_stolen(
        self, directory, monkeypatch, code
    ):
        left = {"host": "node7", "pid": 4711, "start": "2026-01-02T03:04:05"}
        (directory.path / "lock").write_text(json.dumps(left))
        monkeypatch.setattr(fcntl, "flock", refusing_flock(code))
        with pytest.raises(UserError, match=r"node7.*4711.*--steal-lock"), run_lock(directory):
            pass
        assert json.loads((directory.path / "lock").read_text()) == left
        with run_lock(directory, steal=True):
            assert json.loads((directory.path / "lock").read_text())["pid"] == os.getpid()

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
    def test_without_file_locks_a_run_in_use_is_refused(self, directory, monkeypatch, code):
        monkeypatch.setattr(fcntl, "flock", refusing_flock(code))
        with (
            run_lock(directory),
            pytest.raises(UserError, match=f"{os.getpid()}"),
            run_lock(directory),
        ):
            pass

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
    def test_without_file_locks_a_driver_that_ended_well_leaves_the_run_free(
        self, directory, monkeypatch, code
    ):
        monkeypatch.setattr(fcntl, "flock", refusing_flock(code))
        for _ in range(2):
            with run_lock(directory):
                pass
