"""The process and the GPU that a training runs in: threads and memory."""

from __future__ import annotations

import ctypes

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # as malloc.h numbers them
HUGE_PAGES = 14  # as madvise(2) numbers it
HUGE_PAGE_BYTES = 2**21
KEPT_BYTES = 2**31 - 1


def set_up_process(threads: int) -> None:
    """Make this process ready for a training, with so many CPU threads; another number gives other bits.

    What an earlier training left of memory is given back to the system. From then on what is freed is kept, and the
    heap grows by huge pages: a step frees and takes the same megabytes again and again, and pages that were given
    back are cleared before they return. A step of WRN-28-2 on a CPU takes about nine tenths of the time. Without glibc
    nothing is done about memory.
    """
    torch.set_num_threads(threads)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.malloc_trim(0)
        libc.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(MMAP_MAX, 0)
        _grow_by_huge_pages(libc)


def _grow_by_huge_pages(libc: ctypes.CDLL) -> None:
    """Ask for huge pages where the heap will grow: what is taken, marked and freed at once stays marked.

    No page is there before it is written to. Where the system has no huge pages, or not so much room, nothing changes.
    """
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    room = KEPT_BYTES - 2**26  # freeing more than is kept would give it back
    start = libc.malloc(room)
    if start:
        first = -(-start // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        libc.madvise(first, start + room - first, HUGE_PAGES)
        libc.free(start)


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
