"""The wide residual network, its average, and its BatchNorm statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_core.errors import UserError
from ssl_core.models.batch_norm import recompute_statistics
from ssl_core.models.ema import EMA, decay_from_horizon, warmed_up_decay
from ssl_core.models.wide_resnet import build_model


def model(name="wrn-10-1", in_channels=1, num_classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return build_model(name, in_channels=in_channels, num_classes=num_classes, generator=generator)


def images(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# The network.


@pytest.mark.parametrize(
    ("name", "in_channels", "num_classes", "expected"),
    [
        ("wrn-28-2", 3, 10, 1_467_610),
        ("wrn-28-2", 3, 100, 1_467_610 + 90 * (128 + 1)),
        ("wrn-28-2", 1, 10, 1_467_610 - 2 * 9 * 16),
        ("wrn-10-1", 1, 10, 77_562),
        ("wrn-10-1", 3, 10, 77_562 + 2 * 9 * 16),
    ],
)
def test_number_of_parameters(name, in_channels, num_classes, expected):
    network = model(name, in_channels, num_classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("side", [(8, 8), (9, 9), (8, 12), (32, 32)])
def test_logits_for_one_and_three_channels_and_sides_from_eight(in_channels, side):
    network = model(in_channels=in_channels, num_classes=4)
    logits = network(images(3, in_channels, *side))
    assert logits.shape == (3, 4)
    assert torch.isfinite(logits).all()


def test_a_batch_of_one_image_keeps_its_row():
    assert model().eval()(images(1, 1, 8, 8)).shape == (1, 10)


def test_forward_pass_agrees_with_the_paper_written_out():
    """Pre-activation blocks, leaky ReLU .1, BatchNorm eps 1e-3 on the batch's own statistics."""
    network = model("wrn-16-2", in_channels=3).double()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.add_(0.1 * images(*parameter.shape, seed=index, dtype=torch.float64))
    weights = dict(network.named_parameters())

    def norm_and_activate(x, name):
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        scale, shift = (weights[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
        y = (x - mean) / (variance + 1e-3).sqrt() * scale + shift
        return torch.where(y > 0, y, 0.1 * y)

    given = images(4, 3, 8, 8, dtype=torch.float64)
    x = F.conv2d(given, weights["stem.weight"], padding=1)
    for block in range(6):  # three groups of (16 - 4) / 6 = 2 blocks
        first_of_group, name = block % 2 == 0, f"blocks.{block}"
        stride = 2 if first_of_group and block > 0 else 1
        activated = norm_and_activate(x, f"{name}.norm1")
        y = F.conv2d(activated, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = norm_and_activate(y, f"{name}.norm2")
        y = F.conv2d(y, weights[f"{name}.conv2.weight"], padding=1)
        if first_of_group:
            x = F.conv2d(activated, weights[f"{name}.shortcut.weight"], stride=stride)
        x = x + y
    pooled = norm_and_activate(x, "last_norm").mean(dim=(2, 3))
    expected = pooled @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(network(given), expected, rtol=1e-9, atol=1e-11)


def test_weights_are_drawn_from_the_generator_alone():
    state = torch.get_rng_state()
    first, again, other = model(seed=1), model(seed=1), model(seed=2)
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.stem.weight, other.stem.weight)
    torch.set_rng_state(state)


def test_convolutions_start_with_the_spread_of_he_et_al():
    network = model("wrn-28-2", in_channels=3)
    for name, convolution in network.named_modules():
        if isinstance(convolution, nn.Conv2d) and convolution.weight.numel() > 10_000:
            fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
            expected = math.sqrt(2 / (1 + 0.1**2) / fan_out)
            assert convolution.weight.std().item() == pytest.approx(expected, rel=0.05), name


def test_an_impossible_depth_is_refused():
    with pytest.raises(UserError, match="wrn-DEPTH-WIDTH"):
        model("wrn-11-1")


# The exponential moving average.


@pytest.mark.parametrize(
    ("horizon", "decay"), [(1.0, 0.0), (20.0, 0.95), (100.0, 0.99), (1000.0, 0.999)]
)
def test_a_horizon_is_one_over_one_minus_decay(horizon, decay):
    assert decay_from_horizon(horizon) == pytest.approx(decay, abs=1e-15)


@pytest.mark.parametrize("horizon", [0.0, 0.999, -5.0, math.inf, math.nan])
def test_a_horizon_below_one_step_is_refused(horizon):
    with pytest.raises(UserError, match="ema_horizon"):
        decay_from_horizon(horizon)


def test_warm_up_starts_at_zero_and_ends_at_the_decay():
    decays = [warmed_up_decay(0.95, updates) for updates in (0, 1, 2, 18, 19, 20, 10_000)]
    assert decays == pytest.approx([0, 1 / 2, 2 / 3, 18 / 19, 0.95, 0.95, 0.95])


def single_weight(value: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False).double()
    return move(layer, value)


def move(layer: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        layer.weight.fill_(value)
    return layer


def test_the_first_update_forgets_the_initial_weights():
    student = single_weight(-100.0)
    ema = EMA(student, decay=0.999)
    move(student, 3.0)
    ema.update()
    assert ema.network.weight.item() == 3.0


def test_the_average_is_a_plain_mean_during_warm_up():
    student = single_weight(-100.0)
    ema = EMA(student, decay=0.999)
    for value in (1.0, 2.0, 6.0, 7.0):
        move(student, value)
        ema.update()
    assert ema.network.weight.item() == pytest.approx(4.0, rel=1e-12)


def test_the_average_after_n_steps_of_constant_weights():
    """From a mean a over the horizon, n steps at b leave decay^n of the difference."""
    student = single_weight(0.0)
    ema = EMA(student, decay=0.9)
    for _ in range(30):
        move(student, 5.0)
        ema.update()
    assert ema.network.weight.item() == pytest.approx(5.0, rel=1e-12)
    for _ in range(7):
        move(student, 1.0)
        ema.update()
    assert ema.network.weight.item() == pytest.approx(1.0 + 4.0 * 0.9**7, rel=1e-12)


def test_the_average_agrees_with_its_recursion_for_every_parameter():
    student = model()
    ema = EMA(student, decay=0.6)
    expected = [np.zeros(tuple(parameter.shape)) for parameter in student.parameters()]
    for step in range(6):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.copy_(images(*parameter.shape, seed=step))
        ema.update()
        decay = min(1 - 1 / (step + 1), 0.6)
        for index, parameter in enumerate(student.parameters()):
            expected[index] = decay * expected[index] + (1 - decay) * parameter.detach().numpy()
    for found, wanted in zip(ema.network.parameters(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_average_is_a_copy_that_is_never_trained():
    student = model()
    ema = EMA(student, decay=0.5)
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    before = ema.network.stem.weight.clone()
    with torch.no_grad():
        student.stem.weight.add_(1.0)
    assert torch.equal(ema.network.stem.weight, before)


def test_the_average_keeps_batch_norm_statistics_of_its_own():
    student = model()
    ema = EMA(student, decay=0.5)
    student.last_norm.running_mean.fill_(7.0)
    ema.update()
    assert ema.network.last_norm.running_mean.abs().max() == 0.0


# BatchNorm statistics for evaluation.


def test_training_keeps_no_running_average():
    network = model()
    for seed in range(3):
        network(5.0 + images(8, 1, 8, 8, seed=seed))
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
        assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))


class TwoNorms(nn.Module):
    """conv -> norm -> tanh -> conv -> norm: the second sees what the first normalised."""

    def __init__(self, momentum: float | None) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(3, eps=1e-3, momentum=momentum)
        self.norm2 = nn.BatchNorm2d(2, eps=1e-3, momentum=momentum)
        with torch.no_grad():
            self.conv1.weight.copy_(images(3, 1, 1, 1, seed=5))
            self.conv2.weight.copy_(images(2, 3, 1, 1, seed=6))
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(self.conv2(torch.tanh(self.norm1(self.conv1(x)))))


def statistics_by_numpy(network: TwoNorms, batches: list[torch.Tensor]):
    """Return mean and variance per norm, averaged over the batches, computed without torch."""
    kernels = [network.conv1.weight[:, :, 0, 0], network.conv2.weight[:, :, 0, 0]]
    first, second = (kernel.detach().numpy() for kernel in kernels)
    sums = {}
    for batch in batches:
        x = np.einsum("oc,nchw->nohw", first, batch.numpy())
        axes = (0, 2, 3)
        sums.setdefault("norm1", []).append((x.mean(axes), x.var(axes, ddof=1)))
        x = x - x.mean(axes, keepdims=True)
        x = np.tanh(x / np.sqrt(np.square(x).mean(axes, keepdims=True) + 1e-3))
        x = np.einsum("oc,nchw->nohw", second, x)
        sums.setdefault("norm2", []).append((x.mean(axes), x.var(axes, ddof=1)))
    return {name: np.mean(values, axis=0) for name, values in sums.items()}


@pytest.mark.parametrize("momentum", [0.0, 0.001, 0.1, 1.0, None])
def test_statistics_are_the_mean_over_the_batches_whatever_the_momentum(momentum):
    network = TwoNorms(momentum)
    network.norm1.running_mean.fill_(math.nan)  # as a batch that was not finite leaves it
    network.norm2.running_var.fill_(1e6)
    batches = [2.0 * seed + images(5, 1, 4, 4, seed=seed, dtype=torch.float64) for seed in range(8)]
    recompute_statistics(network, batches)
    for name, (mean, variance) in statistics_by_numpy(network, batches).items():
        norm = network.get_submodule(name)
        np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(norm.running_var, variance, rtol=1e-10)
        assert norm.momentum == momentum


def test_recomputing_twice_gives_the_same_statistics():
    network, batches = model(), [images(6, 1, 8, 8, seed=seed) for seed in range(3)]
    recompute_statistics(network, batches)
    first = {name: buffer.clone() for name, buffer in network.named_buffers()}
    recompute_statistics(network, batches)
    assert all(torch.equal(first[name], buffer) for name, buffer in network.named_buffers())
    assert first["last_norm.running_mean"].abs().max() > 0


def test_recomputing_leaves_parameters_and_training_mode():
    network = model().eval()
    before = [parameter.clone() for parameter in network.parameters()]
    recompute_statistics(network, [images(6, 1, 8, 8)])
    assert network.training
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None
