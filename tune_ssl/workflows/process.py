"""What a search does to its own process, and undoes: signals and standard output."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tune_ssl.drivers import Drivers


def let_sigterm_interrupt() -> None:
    """Let SIGTERM end a command as Ctrl-C does, while there is no search to drain yet.

    ray.init sets a handler that exits without a word, so this is called again after it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def draining_signals(drivers: Drivers) -> Iterator[None]:
    """Drain at the first SIGINT or SIGTERM, stop at the second; as before when the body ends.

    Enter it after ray.init, whose own SIGTERM handler would replace this one.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if drivers.draining is not None:
            raise KeyboardInterrupt
        drivers.drain(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass  # the second signal: the caller closes the study
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send everything written to file descriptor 1 to stderr: Ray prints there uninvited."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
