"""What all tests share: one thread, so that times and bits do not depend on the machine."""

from __future__ import annotations

import os
import socket
import tempfile
import uuid
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XDG_STATE_HOME"] = f"{tempfile.gettempdir()}/tune-ssl-state-{os.getpid()}"


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the openings of each test apart, and none of them in a home."""
    place = tmp_path_factory.getbasetemp() / f"state-{uuid.uuid4().hex}"
    monkeypatch.setenv("XDG_STATE_HOME", str(place))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Return the address of a bucket in an object store on this host."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    endpoint = f"127.0.0.1:{port}"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"PUT /bucket HTTP/1.0\r\nHost: {endpoint}\r\n\r\n".encode())
        connection.recv(100)
    yield f"s3://key:secret@bucket/runs?endpoint_override={endpoint}&scheme=http"
    server.stop()
