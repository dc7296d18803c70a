"""The least passes over memory beside the convolutions: how many, over what, and that they are made."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.passes import bare_passes, passes_of
from ssl_core.models.wide_resnet import build_model

IMAGES = torch.randn(4, 3, 16, 16)


def network():
    return build_model("wrn-10-1", in_channels=3, num_classes=10, generator=torch.Generator())


def test_every_norm_takes_eight_and_every_block_six():
    found = passes_of(network(), IMAGES)
    norms = [(16, 16), (16, 16), (16, 16), (32, 8), (32, 8), (64, 4), (64, 4)]  # channels, side
    blocks = [(16, 16), (32, 8), (64, 4)]
    expected = [(8, norm) for norm in norms] + [(6, block) for block in blocks]
    assert sorted(found) == sorted(
        (count, (4, channels, side, side)) for count, (channels, side) in expected
    )


def test_the_network_is_left_as_it_was():
    own = network()
    passes_of(own, IMAGES)
    assert not any(module._forward_hooks for module in own.modules())


class Copies(TorchDispatchMode):
    """Sums what is copied."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator is torch.ops.aten.copy_.default:
            self.numbers += args[0].numel()
        return operator(*args, **(kwargs or {}))


def test_a_copy_makes_two_of_them():
    passes = passes_of(network(), IMAGES)
    run = bare_passes(passes, torch.bfloat16, torch.device("cpu"))
    with Copies() as copies:
        run()
    moved = sum(count * torch.Size(shape).numel() for count, shape in passes)
    assert 2 * copies.numbers == moved
