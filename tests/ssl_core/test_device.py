"""What torch is told of a GPU, as far as it can be seen without one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ssl_core.algorithms.vat import _whole_float32
from ssl_core.training.device import limit_memory

GIGABYTE = 2**30


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
