"""What a process keeps, and what torch is told of a GPU, as far as it can be seen without one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssl_core.algorithms.vat import _whole_float32
from ssl_core.training.device import limit_memory

GIGABYTE = 2**30

FAULTS = """
import resource, torch
from ssl_core.training.device import set_up_process

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = min(faults() for _ in range(3))
set_up_process(1)
kept = min(faults() for _ in range(20))
set_up_process(1)
print(torch.get_num_threads(), given_back, kept, faults())
"""
"""Pages that a tensor of 64 MiB is given anew: as it was, once set up, and when the next training begins."""


@pytest.fixture
def told(monkeypatch):
    """Return what torch's own function hands to CUDA; the second of two GPUs is the current one."""
    calls = []
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda _: SimpleNamespace(total_memory=80 * GIGABYTE),
    )
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda *given: calls.append(given), raising=False
    )
    return calls


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_a_process_that_trains_keeps_what_it_frees_until_the_next_training():
    ended = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    threads, given_back, kept, at_the_next = map(int, ended.stdout.split())
    assert threads == 1
    assert given_back > 10 * kept
    assert at_the_next > 10 * kept


HUGE = """
import torch
from pathlib import Path
from ssl_core.training.device import set_up_process

def megabytes(what):
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(what))

before = megabytes("Rss:")
for _ in range(3):
    set_up_process(1)
print(megabytes("Rss:") - before)
held = [torch.ones(2**20) for _ in range(16)]
print(megabytes("AnonHugePages:"))
"""


@pytest.mark.skipif(
    not (HUGE_PAGES := Path("/sys/kernel/mm/transparent_hugepage/enabled")).is_file()
    or "[never]" in HUGE_PAGES.read_text(),
    reason="this system has no huge pages",
)
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_its_heap_grows_by_huge_pages_and_takes_none_before_they_are_needed():
    ended = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    taken, huge = map(int, ended.stdout.split())
    assert taken < 32
    assert huge >= 32


@pytest.mark.parametrize(("device", "index"), [("cuda", 1), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_share_is_set_for_the_gpu_that_is_meant(told, device, index):
    limit_memory(device, 0.25, reserved=8 * GIGABYTE)
    assert told == [(pytest.approx(0.15), index)]


@pytest.mark.parametrize(("device", "share"), [("cuda", 1.0), ("cpu", 0.25), ("mps", 0.25)])
def test_a_whole_gpu_and_others_are_not_limited(told, device, share):
    limit_memory(device, share, reserved=0)
    assert told == []


def test_something_is_left_however_small_the_share(told):
    limit_memory("cuda", 0.02, reserved=8 * GIGABYTE)
    assert told == [(0.01, 1)]


def test_vat_s_power_iteration_rounds_to_tf32_nowhere():
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, cudnn.enabled
    assert cudnn.allow_tf32, "torch's default"
    with _whole_float32(torch.device("cuda")):
        assert not cudnn.allow_tf32
        assert (cudnn.benchmark, cudnn.deterministic, cudnn.enabled) == before[1:]
    assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, cudnn.enabled) == before
    with _whole_float32(torch.device("cpu")):
        assert cudnn.allow_tf32
