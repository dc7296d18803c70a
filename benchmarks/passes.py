"""The least that a network's other layers take: their passes over memory, as few as there can be.

BatchNorm reads its input twice, for the statistics and to normalise it, and writes once; backward it reads
input and gradient twice, for two sums and for the gradient it writes: eight passes, with the activation
done on the way. The sum at the end of a block is three, and three more backward, where the gradients
of its two ways meet. Nothing else of a step is counted. Run as copies of tensors of the same shapes and
precision (a copy is two passes), this bounds what fusing everything but the convolutions could bring.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.convolutions import at_once
from ssl_core.models.wide_resnet import WideResNet

OF_A_NORM = 8
OF_A_SUM = 6
OF_A_COPY = 2

Passes = list[tuple[int, tuple[int, ...]]]


def passes_of(network: WideResNet, images: Tensor) -> Passes:
    """Return how many passes over tensors of which shape a step on the images takes at least."""
    found: Passes = []

    def noting(passes: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: found.append((passes, tuple(output.shape)))

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [module.register_forward_hook(noting(OF_A_NORM)) for module in norms]
    hooks += [block.register_forward_hook(noting(OF_A_SUM)) for block in network.blocks]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


def bare_passes(passes: Passes, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """Return what makes them all once, as copies."""
    prepared = [
        (count // OF_A_COPY, *(torch.zeros(shape, dtype=dtype, device=device) for _ in range(2)))
        for count, shape in passes
    ]

    def run() -> None:
        for copies, source, target in prepared:
            for _ in range(copies):
                target.copy_(source)

    return at_once(run, device)
