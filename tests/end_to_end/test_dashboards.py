"""What can be watched while a search runs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.end_to_end.command import ended_trials, environment

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(url: str, timeout: float = 60) -> tuple[int, str]:
    """Return status and text of a page, once its server answers at all."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.3)


def test_optuna_dashboard_opens_the_journal_and_ray_asks_for_its_token(start, tmp_path: Path):
    options = ["--alg", "ict", "--max-steps", "270", "--trials", "40", "--name", "watched"]
    running = start(*options, cwd=tmp_path)
    folder = tmp_path / "runs" / "watched"
    running.wait_until(lambda: ended_trials(folder) >= 2)
    line = next(text for text in running.log.read_text().splitlines() if "dashboard: http" in text)
    assert answer(line.split()[1])[0] == 200
    assert answer(line.split()[1] + "/api/version")[0] in (200, 401)
    assert answer(line.split()[1] + "/nodes?view=summary")[0] == 401

    port = free_port()
    command = Path(sys.executable).with_name("optuna-dashboard")
    server = subprocess.Popen(
        [command, folder / "study.journal", "--port", str(port)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        status, text = answer(f"http://127.0.0.1:{port}/api/studies")
        assert status == 200
        summaries = json.loads(text)["study_summaries"]
        assert [summary["study_name"] for summary in summaries] == ["watched"]
        detail = json.loads(answer(f"http://127.0.0.1:{port}/api/studies/0?after=0")[1])
        states = {trial["state"] for trial in detail["trials"]}
        assert "Running" in states
        assert states & {"Pruned", "Complete"}
    finally:
        server.kill()
        server.wait()
    assert running.process.poll() is None, "reading the journal disturbed the search"
