"""Fixtures of the tests that run the real command."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.command import Running


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start commands that are killed after the test if they still run."""
    begun: list[Running] = []

    def begin(*arguments, cwd, **more) -> Running:
        begun.append(Running(*arguments, cwd=cwd, **more))
        return begun[-1]

    yield begin
    for running in begun:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
