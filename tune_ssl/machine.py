"""What this host has, and when it was too little: cores that may be used, memory, disk, GPUs, versions. Loads no torch, no ray."""

from __future__ import annotations

import math
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from tune_ssl import __version__

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "scikit-learn")
DASHBOARD_PORT = 8265

OUT_OF_MEMORY_WORDS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def usable_cpus() -> int:
    """Return the cores this process may use: its affinity, and what its cgroup allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = _cgroup_cpus()
    return max(1, min(cores or 1, math.floor(limit) if limit is not None else cores or 1))


def _cgroup_cpus() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def memory_bytes() -> tuple[int, int] | None:
    """Return (total, available) memory, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", "\n".join(lines), re.MULTILINE)
    kilobytes = {name: int(value) for name, value in found}
    if len(kilobytes) < 2:
        return None
    return kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024


def forget_peak_resident() -> None:
    """Let ``peak_resident_bytes`` begin anew, where the system can: Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_resident_bytes() -> int:
    """Return the most memory this process had since ``forget_peak_resident``, or at any time."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def shared_memory_bytes() -> int | None:
    """Return the free size of /dev/shm, where the images live; None where there is none."""
    return disk_free_bytes(Path("/dev/shm"))


def disk_free_bytes(path: Path) -> int | None:
    """Return the free bytes of a path's file system, None where there is none."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def gpu_names() -> list[str]:
    """Return the names of NVIDIA GPUs as nvidia-smi lists them; none where it is missing."""
    return _of_gpus("name")


def _of_gpus(what: str) -> list[str]:
    try:
        listed = subprocess.run(
            ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]


def gpu_count() -> float:
    """Return how many GPUs there are; inf where there may be some of another make than NVIDIA's."""
    listed = len(gpu_names())
    return math.inf if not listed and Path("/dev/kfd").exists() else float(listed)


def computes_in_bfloat16() -> bool:
    """Return whether this processor multiplies in bfloat16: AVX512-BF16 or AMX."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and bool({"avx512_bf16", "amx_bf16"} & set(flags[1].split()))


def mps_runs() -> bool:
    """Return whether NVIDIA's Multi-Process Service serves this host; without it processes take turns on a GPU."""
    pipes = os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps"
    return (Path(pipes) / "control").exists()


def gpus_compute_in_bfloat16() -> bool:
    """Return whether all NVIDIA GPUs of this host do: compute capability 8.0 or later."""
    capabilities = [float(found) for found in _of_gpus("compute_cap")]
    return bool(capabilities) and min(capabilities) >= 8.0


def missing_to_compile() -> str | None:
    """Return what torch's compiler would miss on this host, None where it would find all."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    [compiler, *_] = os.environ.get("CXX", "").split() or [usual]
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler})"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.exists() else f"no header of Python ({header})"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages results depend on.

    Ours is that of the code that runs: code that was shipped to a node (``--ship-code``) is not installed.
    """
    found = {"python": platform.python_version(), "tune-ssl": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


@cache
def made_with() -> dict[str, str]:
    """Return what a training's bits depend on beside its configuration."""
    found = versions()
    names = ("tune-ssl", "torch", "numpy")
    return {"processor": processor_name(), **{name: found[name] for name in names}}


def processor_name() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """Return this host as plain values, for a run's environment.json; no environment variables."""
    memory = memory_bytes()
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": usable_cpus(),
        "memory_bytes": memory[0] if memory else None,
        "gpus": gpu_names(),
        "versions": versions(),
    }


def ray_token_path() -> Path:
    """Return the file with the token that opens Ray's dashboard and ports."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(given) if given else Path.home() / ".ray" / "auth_token"


def free_port_from(first: int) -> int:
    """Return the first port from ``first`` on that nothing listens on at 127.0.0.1."""
    for port in range(first, first + 100):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return first


def command_path(name: str) -> str:
    """Return how a command of this environment is typed: its name where the shell finds it."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found is not None and (not own.exists() or Path(found).resolve() == own.resolve()):
        return name
    return str(own) if own.exists() else name


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device had too little memory; torch need not be loaded to ask.

    Where not torch's allocator but CUDA or a library of it was refused memory, the message says so. What the error was
    raised from, or while it was handled, counts: a capture of a graph that memory ends is an error of its own.
    """
    seen: list[BaseException] = []
    chained: BaseException | None = error
    while chained is not None and chained not in seen:
        seen.append(chained)
        chained = chained.__cause__ or chained.__context__
    return any(_says_out_of_memory(one) for one in seen)


def _says_out_of_memory(error: BaseException) -> bool:
    said = any(words in str(error) for words in OUT_OF_MEMORY_WORDS)
    return said or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
