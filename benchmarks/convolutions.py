"""What a network's own convolutions take, and how much they compute: the ceiling of a training step.

They are run alone, forward and backward, with random numbers in the shapes, memory layout and
precision of the step. A step cannot be faster than its convolutions, so their share of it says how near
it is to the hardware's limit with these kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.turns import discard
from ssl_core.training.capture import WARM_UP_STEPS, cuda_graph, side_stream


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One call of a convolution. ``needs_input_gradient`` is False for the first of a network."""

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    needs_input_gradient: bool

    @property
    def output_positions(self) -> int:
        """Positions of one output channel, over the batch."""
        batch, _, *sides = self.input_shape
        _, _, *kernel = self.weight_shape
        height, width = (
            (side + 2 * pad - size) // stride + 1
            for side, pad, size, stride in zip(
                sides, self.padding, kernel, self.stride, strict=True
            )
        )
        return batch * height * width

    @property
    def flops(self) -> int:
        """Floating point operations forward and backward; a multiplication and an addition are two."""
        outputs, inputs, height, width = self.weight_shape
        forward = 2 * self.output_positions * outputs * inputs * height * width
        return forward * (3 if self.needs_input_gradient else 2)


def convolutions_of(network: nn.Module, images: Tensor) -> list[Convolution]:
    """Return the convolutions that a forward pass over the images calls, in order."""
    found: list[Convolution] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        assert not isinstance(module.padding, str)
        found.append(
            Convolution(
                input_shape=tuple(inputs[0].shape),
                weight_shape=tuple(module.weight.shape),
                stride=(module.stride[0], module.stride[1]),
                padding=(module.padding[0], module.padding[1]),
                needs_input_gradient=bool(found),
            )
        )

    hooks = [
        module.register_forward_hook(note)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


def bare_step(
    convolutions: list[Convolution], dtype: torch.dtype, device: torch.device
) -> Callable[[], None]:
    """Return what runs all of them once, forward and backward, channels last; on a GPU by the kernels that measure best."""
    prepared = [_prepared(one, dtype, device) for one in convolutions]

    def run() -> None:
        for one, images, weight, gradient in prepared:
            torch.nn.functional.conv2d(images, weight, None, one.stride, one.padding)
            torch.ops.aten.convolution_backward(
                gradient,
                images,
                weight,
                None,
                one.stride,
                one.padding,
                (1, 1),
                False,
                (0, 0),
                1,
                (one.needs_input_gradient, True, False),
            )

    # On a GPU kernels are chosen while the run is warmed up and recorded.
    with torch.backends.cudnn.flags(enabled=True, benchmark=device.type == "cuda"):
        return at_once(run, device)


def at_once(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a run as a training does it there: on a GPU as a graph, or launching would be timed."""
    if device.type != "cuda":
        return run
    for _ in range(WARM_UP_STEPS):
        with side_stream(device):
            run()
    return cuda_graph(run, (), device=device)


def matrix_product(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """Return what multiplies two matrices of that size: 2 size^3 operations, near the device's peak."""
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: discard(one @ other)


def _prepared(
    one: Convolution, dtype: torch.dtype, device: torch.device
) -> tuple[Convolution, Tensor, Tensor, Tensor]:
    images = torch.randn(one.input_shape, device=device)
    weight = torch.randn(one.weight_shape, device=device)
    with torch.no_grad():
        output = torch.nn.functional.conv2d(images, weight, None, one.stride, one.padding)
    images, weight, gradient = (
        tensor.to(dtype=dtype, memory_format=torch.channels_last)
        for tensor in (images, weight, torch.randn_like(output))
    )
    return one, images, weight, gradient
