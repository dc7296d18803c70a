"""The convolutions of a network, as they are run alone."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.convolutions import bare_step, convolutions_of
from benchmarks.turns import in_turns, repeated
from ssl_core.models.wide_resnet import build_model


def network():
    return build_model(
        "wrn-10-2", in_channels=3, num_classes=10, generator=torch.Generator().manual_seed(0)
    )


def test_their_operations_are_those_torch_counts_in_a_training_step():
    own, images = network(), torch.randn(4, 3, 16, 16)
    found = convolutions_of(own, images)
    with FlopCounterMode(display=False) as counted:
        own(images).sum().backward()
    by_operator = counted.get_flop_counts()["Global"]
    expected = sum(n for operator, n in by_operator.items() if "convolution" in str(operator))
    assert sum(one.flops for one in found) == expected


def test_a_bare_step_calls_each_of_them_forward_and_backward():
    found = convolutions_of(network(), torch.randn(4, 3, 16, 16))
    run = bare_step(found, torch.float32, torch.device("cpu"))
    with FlopCounterMode(display=False) as counted:
        run()
    assert counted.get_total_flops() == sum(one.flops for one in found)
    taken = in_turns({"bare": repeated(run)}, steps=1, turns=3, device="cpu", warm_up=1)
    assert min(taken["bare"]) > 0
