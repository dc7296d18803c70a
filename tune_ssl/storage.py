"""Where checkpoints and weights are kept: a folder every node sees, or an object store.

A path given to the methods is relative to the storage's root, with ``/`` between its parts.
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ssl_core.errors import UserError
from ssl_core.files import write_atomically

WITHOUT_FOLDERS = ("s3", "gcs")
"""Of these pyarrow would make an empty file for every folder of a path, with a request for each."""


def absolute_root(root: str) -> str:
    """Return a storage's root so that it holds from anywhere."""
    return root if "://" in root else str(Path(root).expanduser().absolute())


def without_keys(root: str) -> str:
    """Return a storage's root without the keys an address may hold before an @."""
    scheme, mark, rest = root.partition("://")
    keys, at, place = rest.rpartition("@")
    if not mark or not at or ("/" in keys and ":" not in keys.split("/")[0]):  # in a folder's name
        return root
    return f"{scheme}://***@{place}"


def root_below(root: str | None, folder: str) -> str | None:
    """Return the root of a storage of one's own below another; options of an address stay behind it.

    None, which stands for a run's own folder, stays None.
    """
    if root is None:
        return None
    address, mark, options = root.partition("?") if "://" in root else (root, "", "")
    return f"{address.rstrip('/')}/{folder}{mark}{options}"


class DamagedFileError(OSError):
    """A file is not as it was stored, or was read in part; ``size`` is how many bytes came."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes, other than were stored")
        self.size = size


class RunStorage:
    """Files under one root: a local or shared folder, or a URI such as ``s3://bucket/runs``.

    A file is there wholly or not at all: written beside and renamed in a folder, visible only
    when complete in an object store.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = _folder_of(root)
        self._filesystem: Any = None
        self._prefix = ""
        if self._folder is None:
            self._filesystem, self._prefix = _open_uri(root)

    @property
    def shown(self) -> str:
        """The root as messages name it: without the keys an address may hold."""
        return without_keys(self.root)

    def __reduce__(self) -> tuple[type[RunStorage], tuple[str]]:
        return RunStorage, (self.root,)

    def write(self, path: str, data: bytes) -> None:
        """Store bytes under a path, atomically."""
        if self._folder is not None:
            write_atomically(self._folder / path, data)
            return
        if self._filesystem.type_name not in WITHOUT_FOLDERS:
            self._filesystem.create_dir(self._at(path).rsplit("/", 1)[0], recursive=True)
        with self._filesystem.open_output_stream(self._at(path)) as stream:
            stream.write(data)

    def read(self, path: str) -> bytes:
        """Return the bytes stored under a path.

        Raises:
            OSError: nothing is there, or it cannot be read.
        """
        if self._folder is not None:
            return (self._folder / path).read_bytes()
        # Not as a stream, which would ask an object store for every quarter of a megabyte.
        with self._filesystem.open_input_file(self._at(path)) as file:
            data: bytes = file.read()
        return data

    def read_stored(self, path: str, sha256: str) -> bytes:
        """Return the bytes stored under a path, if they have that SHA-256.

        Raises:
            DamagedFileError: they have not.
            OSError: as ``read``.
        """
        data = self.read(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedFileError(len(data))
        return data

    def delete(self, path: str) -> None:
        """Remove a file or a folder with all below it, if it is there."""
        if self._folder is not None:
            _delete_local(self._folder / path)
            return
        from pyarrow import fs

        kind = self._filesystem.get_file_info(self._at(path)).type
        if kind == fs.FileType.Directory:
            self._filesystem.delete_dir(self._at(path))
        elif kind == fs.FileType.File:
            self._filesystem.delete_file(self._at(path))

    def files(self, path: str) -> list[str]:
        """Return the files anywhere below a folder, as paths from it, sorted; none if it is not there.

        An object store is asked once for every thousand, not folder by folder.
        """
        if self._folder is not None:
            folder = self._folder / path
            below = (file for file in folder.rglob("*") if file.is_file())
            return sorted(file.relative_to(folder).as_posix() for file in below)
        from pyarrow import fs

        root = self._at(path).rstrip("/")
        selector = fs.FileSelector(root, allow_not_found=True, recursive=True)
        found = self._filesystem.get_file_info(selector)
        return sorted(
            info.path.removeprefix(f"{root}/") for info in found if info.type == fs.FileType.File
        )

    def check_writable(self) -> None:
        """Write, read and remove a small file.

        Raises:
            UserError: the storage does not take it or does not give it back.
        """
        probe, data = f"probe-{uuid.uuid4().hex}", b"tune-ssl"
        try:
            self.write(probe, data)
            returned = self.read(probe)
            self.delete(probe)
        except OSError as error:
            raise UserError(
                f"storage {self.shown!r} cannot be written ({error}); allowed: a folder or object store "
                "every node can write; check its path and permissions."
            ) from error
        if returned != data:
            raise UserError(
                f"storage {self.shown!r} returned other bytes than were written; use another."
            )

    def _at(self, path: str) -> str:
        return f"{self._prefix}/{path}"


def _folder_of(root: str) -> Path | None:
    """Return the folder a root means, None for an object store; ``file://`` means a folder."""
    if root.startswith("file://"):
        return Path(unquote(urlsplit(root).path))
    return None if "://" in root else Path(root)


def _open_uri(root: str) -> tuple[Any, str]:
    import pyarrow
    from pyarrow import fs

    try:
        filesystem, prefix = fs.FileSystem.from_uri(root)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        told = str(error).replace(root, without_keys(root))
        raise UserError(
            f"storage {without_keys(root)!r} cannot be opened ({told}); allowed: a folder, file://, s3:// or gs://; "
            "check the address."
        ) from error
    return filesystem, prefix.rstrip("/")


def _delete_local(path: Path) -> None:
    import shutil

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
