"""Augmentation of a batch of images as tensors, drawn for each image, on the batch's device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The weak augmentation of a data set: shift, and where it keeps the class, flip and noise.

    Args:
        max_shift: pixels an image moves at most, each way, in both directions.
        flip: mirror every image with probability 1/2.
        noise: standard deviation of Gaussian noise, in units of the normalised input.
    """

    max_shift: int
    flip: bool
    noise: float

    def __call__(self, images: Tensor, normalisation: Normalisation, generator: torch.Generator) -> Tensor:
        """Return one new view (B, channels, height, width) float32 of uint8 images."""
        if self.flip:
            images = random_flip(images, generator)
        view = normalisation(random_shift(images, self.max_shift, generator))
        return add_noise(view, self.noise, generator) if self.noise > 0 else view


def default_shift(image_size: int) -> int:
    """Return the largest shift for images of that side: a sixteenth of it, at least one pixel.

    Two pixels at 32x32 (Oliver et al. 2018), one at 8x8.
    """
    return max(1, round(image_size / 16))


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Scaling to mean 0 and standard deviation 1 per channel over the training images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, channels, height, width) as normalised float32."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images.to(torch.float32) - mean) / std


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (B, channels, height, width) left to right with probability 1/2."""
    coins = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(coins.view(-1, 1, 1, 1), images.flip(3), images)


def random_shift(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Move each image (B, channels, height, width) by its own draw, reflecting at the border.

    Offsets are uniform in [-max_shift, max_shift] for rows and for columns.
    """
    count, _, height, width = images.shape
    offsets = torch.randint(
        -max_shift, max_shift + 1, (count, 2), generator=generator, device=images.device
    )
    rows = _reflected_positions(height, offsets[:, 0])[:, None, :, None]
    columns = _reflected_positions(width, offsets[:, 1])[:, None, None, :]
    return images.gather(2, rows.expand_as(images)).gather(3, columns.expand_as(images))


def add_noise(images: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of that standard deviation to every input of float images."""
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return images + std * noise


def _reflected_positions(size: int, offsets: Tensor) -> Tensor:
    """Return (B, size) source positions for a move by ``offsets`` (B,), reflected into range."""
    positions = torch.arange(size, device=offsets.device) + offsets[:, None]
    positions = positions.abs()
    return (size - 1) - ((size - 1) - positions).abs()
