"""Timing several loops side by side, in turns: what disturbs the machine disturbs all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def in_turns(
    loops: Mapping[str, Callable[[int], None]],
    *,
    steps: int,
    turns: int,
    device: str,
    warm_up: int = 5,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Return the seconds of a step of each loop in each turn, the device waited for.

    Args:
        loops: each takes as many steps as it is told to.
        steps: of a turn.
        warm_up: steps before the first turn: memory, a loader's workers, on a GPU the captured step.
        pause: seconds before each turn.
    """
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for take in loops.values():
        take(warm_up)
    for _ in range(turns):
        for name, take in loops.items():
            time.sleep(pause)
            wait(device)
            began = time.perf_counter()
            take(steps)
            wait(device)
            taken[name].append((time.perf_counter() - began) / steps)
    return taken


def repeated(step: Callable[[], None]) -> Callable[[int], None]:
    """Return what takes as many steps as it is told to, of what takes one."""

    def take(count: int) -> None:
        for _ in range(count):
            step()

    return take


def is_there(device: str) -> bool:
    """Return whether there is such a device, and say where a benchmark cannot run for want of it."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        print(f"not measured: torch sees no GPU here for --device {device}")
        return False
    return True


def discard(value: object) -> None:
    """Do nothing with what had to be computed, or waited for."""


def wait(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
