"""Where checkpoints go: a folder, or what pyarrow opens by a URI."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import textwrap

import pytest

from ssl_core.errors import UserError
from tune_ssl.storage import DamagedFileError, RunStorage

KINDS = ("folder", "uri")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "storage"
    return {"folder": str(folder), "uri": folder.as_uri()}


@pytest.fixture(params=[*KINDS, "s3"])
def storage(request, root, tmp_path) -> RunStorage:
    if request.param != "s3":
        return RunStorage(root[request.param])
    address = request.getfixturevalue("bucket")
    return RunStorage(address.replace("/runs", f"/{tmp_path.name}"))


def test_what_is_written_is_read_back(storage):
    data = bytes(range(256)) * 100
    storage.write("trials/0007/attempt-2/step-000400.pt", data)
    storage.write("empty", b"")
    assert storage.read("trials/0007/attempt-2/step-000400.pt") == data
    assert storage.read("empty") == b""


def test_a_file_that_is_not_as_it_was_stored_is_told_from_one_that_is_not_there(storage):
    storage.write("a/b", b"data")
    digest = hashlib.sha256(b"data").hexdigest()
    assert storage.read_stored("a/b", digest) == b"data"
    storage.write("a/b", b"dat")
    with pytest.raises(DamagedFileError) as damaged:
        storage.read_stored("a/b", digest)
    assert damaged.value.size == 3
    with pytest.raises(FileNotFoundError):
        storage.read_stored("nothing/there", digest)


def test_both_kinds_put_a_file_at_the_same_place(root):
    RunStorage(root["uri"]).write("a/b", b"data")
    assert RunStorage(root["folder"]).read("a/b") == b"data"


@pytest.mark.parametrize(
    ("root", "shown"),
    [
        ("s3://key:se%2Fcret@bucket/runs?region=a", "s3://***@bucket/runs?region=a"),
        ("s3://key:se/cret@bucket/runs", "s3://***@bucket/runs"),
        ("s3://bucket/runs@home", "s3://bucket/runs@home"),
        ("s3://bucket/runs", "s3://bucket/runs"),
        ("/home/a:b@c/runs", "/home/a:b@c/runs"),
    ],
)
def test_keys_in_an_address_are_not_shown(root, shown):
    storage = RunStorage.__new__(RunStorage)
    storage.root = root
    assert storage.shown == shown


def test_nor_where_the_address_cannot_be_opened():
    with pytest.raises(UserError, match="cannot be opened") as refused:
        RunStorage("ftp://key:secret@host/runs")
    assert "secret" not in str(refused.value)


def test_a_file_is_replaced(storage):
    storage.write("a/b", b"a long first version")
    storage.write("a/b", b"second")
    assert storage.read("a/b") == b"second"
    assert storage.files("a") == ["b"]


def test_files_are_listed_sorted_however_deep_and_without_their_folders(storage):
    for name in ("b", "a", "c/e", "c/d/f"):
        storage.write(f"trials/{name}", b"data")
    storage.delete("trials/a")
    assert storage.files("trials") == ["b", "c/d/f", "c/e"]
    assert storage.files("trials/c") == ["d/f", "e"]
    assert storage.files("nothing/there") == []


def test_a_file_is_deleted_alone_and_a_folder_with_all_below_it(storage):
    for name in ("a", "b", "c/d/e"):
        storage.write(f"trials/{name}", b"data")
    storage.delete("trials/a")
    storage.delete("trials/c")
    assert storage.files("trials") == ["b"]
    storage.delete("trials/a")
    storage.delete("nothing/there")


def test_what_is_not_there_cannot_be_read(storage):
    with pytest.raises(OSError, match="nothing"):
        storage.read("nothing")


def test_it_can_be_sent_to_a_worker(storage):
    storage.write("a", b"data")
    sent = pickle.loads(pickle.dumps(storage))
    assert sent.read("a") == b"data"
    assert sent.root == storage.root


def test_the_check_leaves_nothing_behind(storage):
    storage.check_writable()
    assert storage.files("") == []


class TestUnusable:
    @pytest.fixture
    def below_a_file(self, tmp_path):
        (tmp_path / "file").write_text("in the way")
        folder = tmp_path / "file" / "storage"
        return {"folder": str(folder), "uri": folder.as_uri()}

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_that_cannot_be_written_is_refused(self, below_a_file, kind):
        storage = RunStorage(below_a_file[kind])
        with pytest.raises(UserError, match=r"cannot be written .*allowed:") as caught:
            storage.check_writable()
        assert storage.root in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("method", ["write", "read", "delete"])
    def test_so_is_one_that_fails_at_any_of_its_tasks(self, storage, monkeypatch, method):
        def failing(self, *_arguments):
            raise OSError("the share is gone")

        monkeypatch.setattr(RunStorage, method, failing)
        with pytest.raises(UserError, match="the share is gone"):
            storage.check_writable()

    def test_and_one_that_gives_other_bytes_back(self, storage, monkeypatch):
        monkeypatch.setattr(RunStorage, "read", lambda self, path: b"other")
        with pytest.raises(UserError, match="other bytes"):
            storage.check_writable()

    @pytest.mark.parametrize("address", ["nonsense://bucket", "://", "http://host/path"])
    def test_an_address_of_no_known_kind_is_refused_at_once(self, address):
        with pytest.raises(UserError, match=r"cannot be opened .*allowed: .*s3://"):
            RunStorage(address)


class TestWholeOrNotAtAll:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from tune_ssl.storage import RunStorage
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        storage = RunStorage(sys.argv[1])
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            storage.write("weights", b"new" * 1_000_000)
        except OSError:
            raise SystemExit(7)
        """
    )

    def write_too_much(self, root: str) -> None:
        ended = subprocess.run([sys.executable, "-c", self.script, root], timeout=60)
        assert ended.returncode == 7

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_cut_short_by_a_full_disk_is_not_there(self, root, kind):
        storage = RunStorage(root[kind])
        storage.write("other", b"data")
        self.write_too_much(root[kind])
        assert storage.files("") == ["other"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_and_the_one_that_was_there_still_is(self, root, kind):
        storage = RunStorage(root[kind])
        storage.write("weights", b"old")
        self.write_too_much(root[kind])
        assert storage.read("weights") == b"old"
        assert storage.files("") == ["weights"]
