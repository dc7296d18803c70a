"""Where the time of a training step goes, as torch's profiler sees it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import DeviceType, ProfilerActivity, profile

from ssl_core.errors import UserError
from ssl_core.training.loop import Training
from ssl_core.training.step import STEP_PARTS

WARM_UP_STEPS = 5
"""First steps allocate memory and choose kernels."""
PROFILED_STEPS = 10
OPERATORS_TOLD = 12


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One kind of operator: calls and milliseconds in a step, without the operators it calls."""

    name: str
    calls: float
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """Where a step's time goes.

    ``parts`` are milliseconds of a step by what they are for, in the order of the step, and
    ``operators`` those that take longest. On a GPU both are time of the device. ``trace`` is a
    file for ``chrome://tracing`` or Perfetto.
    """

    steps: int
    parts: dict[str, float]
    operators: tuple[Operator, ...]
    trace: bytes


def profile_steps(training: Training) -> StepProfile:
    """Train some steps to warm up and some under the profiler, which changes no number.

    None of them is replayed from a graph, where a profiler sees kernels and not what they are for.

    Raises:
        UserError: fewer steps are left than that takes.
    """
    left = training.config.max_steps - training.step
    if left < WARM_UP_STEPS + PROFILED_STEPS:
        raise UserError(
            f"{left} steps are left to be profiled; allowed: {WARM_UP_STEPS + PROFILED_STEPS} or more; "
            "profile with a larger max_steps."
        )
    with training.uncaptured():
        return _profiled(training)


def _profiled(training: Training) -> StepProfile:
    training.run(training.step + WARM_UP_STEPS)
    on_gpu = training.config.device.startswith("cuda")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells stderr that it begins and ends
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    # On a thread of its own, as it is on a GPU, the backward pass would count for no part.
    on_one_thread = torch.autograd.set_multithreading_enabled(False)
    with on_one_thread, profile(activities=activities, acc_events=True) as profiler:
        training.run(training.step + PROFILED_STEPS)
        if on_gpu:
            torch.cuda.synchronize(training.config.device)
    events = profiler.key_averages()
    parts = dict.fromkeys(STEP_PARTS, 0.0)
    for event in events:
        if event.key in parts:
            spent = event.device_time_total if on_gpu else event.cpu_time_total
            parts[event.key] = max(parts[event.key], _milliseconds(spent))
    operators = [
        Operator(
            name=event.key,
            calls=event.count / PROFILED_STEPS,
            milliseconds=_milliseconds(
                event.self_device_time_total if on_gpu else event.self_cpu_time_total
            ),
        )
        for event in events
        # On a GPU a kernel is listed beside the operator that launched it, with the same time.
        if event.key not in parts and event.device_type == DeviceType.CPU
    ]
    operators.sort(key=lambda operator: -operator.milliseconds)
    return StepProfile(
        steps=PROFILED_STEPS,
        parts=parts,
        operators=tuple(operators[:OPERATORS_TOLD]),
        trace=_trace(profiler),
    )


def _milliseconds(microseconds: float) -> float:
    """Return what all profiled steps took as milliseconds of one."""
    return microseconds / 1000 / PROFILED_STEPS


def _trace(profiler: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return path.read_bytes()
