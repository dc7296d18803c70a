"""The memory of the GPU a training runs on."""

from __future__ import annotations

import torch


def forget_peak(device: str) -> None:
    """Give back what nobody uses of a GPU, and let ``peak_device_bytes`` begin anew."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_device_bytes(device: str) -> int:
    """Return the most memory taken of a GPU since ``forget_peak``; 0 on others.

    What torch has reserved, which is what ``limit_memory`` limits: more than its tensors take.
    """
    return torch.cuda.max_memory_reserved(device) if device.startswith("cuda") else 0


def device_bytes(device: str) -> int | None:
    """Return the memory of a GPU; None for other devices."""
    if not device.startswith("cuda"):
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def limit_memory(device: str, share: float, reserved: int) -> None:
    """Let this process fill no more than its share of a GPU that several trials use.

    More than that is an out-of-memory error of this process alone.

    Args:
        share: of the GPU, in (0, 1].
        reserved: bytes that CUDA takes for each process beside its tensors.
    """
    total = device_bytes(device)
    if total is None or share >= 1:
        return
    index = torch.device(device).index  # which torch wants to be named here
    if index is None:
        index = torch.cuda.current_device()
    torch.cuda.set_per_process_memory_fraction(max(0.01, share - reserved / total), index)
