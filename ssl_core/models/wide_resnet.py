"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016), as SSL papers train them.

``wrn-28-2`` means depth 28, width 2: three groups of (depth - 4) / 6 pre-activation blocks with
16, 32 and 64 times the width channels, at full, half and quarter resolution. Leaky ReLU .1 and
BatchNorm eps 1e-3 are of Oliver et al. 2018. A training pass moves no running average of BatchNorm
(momentum 0): statistics come from passes of their own, see ``batch_norm.py``.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ssl_core.names import parse_model_name

STEM_CHANNELS = 16
LEAKY_SLOPE = 0.1
BATCH_NORM_EPS = 1e-3


class WideResNet(nn.Module):
    """Images (B, in_channels, height, width), both sides >= 8 -> logits (B, num_classes)."""

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        in_channels: int,
        num_classes: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        blocks_per_group = (depth - 4) // 6
        channels = [STEM_CHANNELS, 16 * width, 32 * width, 64 * width]
        self.stem = _conv3x3(in_channels, channels[0])
        blocks: list[nn.Module] = []
        for group, (before, after) in enumerate(itertools.pairwise(channels)):
            for position in range(blocks_per_group):
                stride = 2 if group > 0 and position == 0 else 1
                blocks.append(_Block(before if position == 0 else after, after, stride))
        self.blocks = nn.Sequential(*blocks)
        self.last_norm = _batch_norm(channels[-1])
        self.activation = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
        self.classifier = nn.Linear(channels[-1], num_classes)
        self._initialise(generator)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, in_channels, height, width)."""
        features = self.activation(self.last_norm(self.blocks(self.stem(images))))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits

    def _initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, LEAKY_SLOPE, mode="fan_out", generator=generator
                )
        nn.init.xavier_normal_(self.classifier.weight, generator=generator)
        nn.init.zeros_(self.classifier.bias)


class _Block(nn.Module):
    """Two 3x3 convolutions, each after its BatchNorm and activation, around a shortcut.

    Where channels or resolution change, the activated input feeds the shortcut too.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1 = _batch_norm(before)
        self.conv1 = _conv3x3(before, after, stride)
        self.norm2 = _batch_norm(after)
        self.conv2 = _conv3x3(after, after)
        self.activation = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
        self.shortcut: nn.Conv2d | None = None
        if before != after or stride != 1:
            self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = self.activation(self.norm1(features))
        residual = self.conv2(self.activation(self.norm2(self.conv1(activated))))
        carried = features if self.shortcut is None else self.shortcut(activated)
        output: Tensor = residual.add_(carried)  # of a convolution's output nothing else is made
        return output


def build_model(
    name: str, *, in_channels: int, num_classes: int, generator: torch.Generator
) -> WideResNet:
    """Return the network of that name with weights drawn from the generator, in training mode.

    Raises:
        UserError: the name is not wrn-DEPTH-WIDTH of a legal depth.
    """
    depth, width = parse_model_name(name)
    network = WideResNet(
        depth, width, in_channels=in_channels, num_classes=num_classes, generator=generator
    )
    # Convolutions follow the layout of their kernels: a step takes .85 of the time on a CPU.
    return network.to(memory_format=torch.channels_last)


def _conv3x3(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=0.0)
