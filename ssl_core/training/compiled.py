"""A method's passes through its networks compiled by torch (inductor): BatchNorm, activation and their neighbours in fewer passes over memory.

What is compiled for one network serves every later one of its shape in the same process, and lies in
torch's cache on disk for other processes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.algorithms.common import Network

SHAPES_AT_MOST = 64
"""Of all networks of a process: each architecture, batch size, precision and kind of gradient is compiled for itself.
torch's own limit is 8."""


def compiled(network: nn.Module, threads: int) -> Network:
    """Return what makes the network's passes, compiled when they are first made; that takes seconds.

    The network is left as it is, and every change of its weights is seen. A pass that gradients of its images are
    asked of (VAT's probing one) is made as it is: a compiled one would compute those of the weights as well.

    Args:
        threads: as many compile at once.

    Raises:
        torch._dynamo.exc.BackendCompilerFailed: at a pass, where there is no C++ compiler or no header of Python.
    """
    from torch._dynamo import config as tracing_config  # here: they load slowly
    from torch._inductor import config as kernel_config

    kernel_config.compile_threads = threads
    tracing_config.recompile_limit = SHAPES_AT_MOST
    # Of one size each, and as a whole: what cannot be compiled is an error and not slower in silence.
    whole = torch.compile(network, dynamic=False, fullgraph=True)

    def logits(images: Tensor) -> Tensor:
        made: Tensor = network(images) if images.requires_grad else whole(images)
        return made

    return logits
