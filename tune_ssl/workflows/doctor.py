"""``doctor``: what this host offers a search, and what would hinder one. No torch, no ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from tune_ssl import machine
from tune_ssl.machine import DASHBOARD_PORT, free_port_from, ray_token_path
from tune_ssl.text import size

SMALLEST_SHARED_MEMORY = 2**30


class Finding(NamedTuple):
    """One line of the report; ``good`` is False where something should be done."""

    what: str
    found: str
    good: bool


def examine(output: Path) -> list[Finding]:
    """Return what was found on this host, for runs kept below ``output``."""
    return [
        *_versions(),
        Finding("cores", f"{machine.usable_cpus()} usable", True),
        _memory(),
        _gpus(),
        _compiler(),
        _shared_memory(),
        _disk(output),
        _port(),
        _address(),
        _token(),
    ]


def _versions() -> list[Finding]:
    found = machine.versions()
    return [Finding(name, version, version != "missing") for name, version in found.items()]


def _memory() -> Finding:
    memory = machine.memory_bytes()
    if memory is None:
        return Finding("memory", "unknown", True)
    total, available = memory
    return Finding("memory", f"{size(available)} of {size(total)} free", available > 2 * 2**30)


def _gpus() -> Finding:
    names = machine.gpu_names()
    if not names:
        return Finding("gpus", "none; trials run on the CPU", True)
    shared = (
        "share one by NVIDIA MPS" if machine.mps_runs() else "take turns on one, without NVIDIA MPS"
    )
    return Finding("gpus", f"{', '.join(names)}; trials {shared}", True)


def _compiler() -> Finding:
    missing = machine.missing_to_compile()
    return Finding("compiler", missing or "there is one, for --compile", True)


def _shared_memory() -> Finding:
    free = machine.shared_memory_bytes()
    if free is None:
        return Finding("/dev/shm", "none; Ray keeps images on disk, which is slow", False)
    good = free >= SMALLEST_SHARED_MEMORY
    hint = "" if good else "; in a container, raise it with --shm-size"
    return Finding("/dev/shm", f"{size(free)} free{hint}", good)


def _disk(output: Path) -> Finding:
    place = output.absolute()
    while not place.exists():
        place = place.parent
    free = machine.disk_free_bytes(place)
    writable = os.access(place, os.W_OK)
    text = f"{size(free or 0)} free at {place}{'' if writable else ', which cannot be written'}"
    return Finding("disk", text, writable and (free or 0) > 2**30)


def _port() -> Finding:
    port = free_port_from(DASHBOARD_PORT)
    if port == DASHBOARD_PORT:
        return Finding("dashboard", f"port {port} is free", True)
    return Finding("dashboard", f"port {DASHBOARD_PORT} is taken; {port} will be used", True)


def _address() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        return Finding("RAY_ADDRESS", f"{address}: searches join that cluster", True)
    return Finding("RAY_ADDRESS", "not set: searches start Ray on this host", True)


def _token() -> Finding:
    path = ray_token_path()
    if not path.exists():
        return Finding("Ray token", "none yet; Ray makes one", True)
    private = path.stat().st_mode & 0o077 == 0
    text = "readable by its owner alone" if private else f"{path} can be read by others: chmod 600"
    return Finding("Ray token", text, private)
