"""A training step as a CUDA graph: recorded once, then replayed without Python in between.

A small network on a large GPU waits for the CPU that launches its kernels one by one. A replay
launches all of them at once. What changes from step to step must lie on the device, in tensors
whose place never changes (``inputs.StepInputs``, weights, sums): anything else would stay as it
was when the step was recorded. tests/ssl_core/test_capture.py proves that nothing does, on any
machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

Capture = Callable[[Callable[[], None], Iterable[torch.Generator]], Callable[[], None]]
"""Records a step that draws from the generators; returns what repeats it."""

WARM_UP_STEPS = 3
"""Steps of the training itself before the capture: kernels are chosen, states of the optimiser made."""


def cuda_graph(
    step: Callable[[], None], generators: Iterable[torch.Generator], *, device: torch.device
) -> Callable[[], None]:
    """Return a replay of ``step``, which is recorded on that device and not executed here.

    The generators go on from replay to replay as they would from step to step.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Left to itself torch records what the first GPU is given, whichever the step runs on.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=_stream(device)):
        step()
    return graph.replay


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return a device's stream beside its usual one, always the same: torch keeps memory for each."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Run the body on a stream of its own, as what is to be captured must be warmed up."""
    if device.type != "cuda":
        yield
        return
    stream = _stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
