"""Augmentation of a batch of images as tensors, drawn for each image, on the batch's device."""

from __future__ import annotations

from functools import cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ssl_core.data.recipe import (
    CONTRAST_NORM,
    SMALLEST_NORM,
    Augmentation,
    Normalisation,
    Preprocessing,
    Whitening,
)


def augmented_view(
    images: Tensor,
    augmentation: Augmentation,
    normalisation: Preprocessing,
    generator: torch.Generator,
) -> Tensor:
    """Return one new view (B, channels, height, width) float32 of uint8 images.

    Images are whitened before they are flipped and shifted, as Oliver et al. 2018 do it: the
    network then sees a mirrored whitened image, not a whitened mirrored one. Of channels that are
    normalised one by one, the order changes nothing, and uint8 moves faster.
    """
    if isinstance(normalisation, Whitening):
        view = _moved(normalise(images, normalisation), augmentation, generator)
    else:
        view = normalise(_moved(images, augmentation, generator), normalisation)
    return add_noise(view, augmentation.noise, generator) if augmentation.noise > 0 else view


def _moved(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    if augmentation.flip:
        images = random_flip(images, generator)
    return random_shift(images, augmentation.max_shift, generator)


def normalise(images: Tensor, normalisation: Preprocessing) -> Tensor:
    """Return uint8 images (B, channels, height, width) as a network's input, float32."""
    if isinstance(normalisation, Whitening):
        return _whiten(images, normalisation)
    mean, std = _constants(normalisation, images.device)
    return (images.to(torch.float32) - mean) / std


def _whiten(images: Tensor, whitening: Whitening) -> Tensor:
    """Return images after global contrast normalisation and ZCA whitening; see ``Whitening``."""
    mean, matrix = _whitening_tensors(whitening, images.device)
    rows = images.flatten(1).to(torch.float32)
    rows = rows - rows.mean(dim=1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    norms = torch.where(norms < SMALLEST_NORM, torch.ones_like(norms), norms)
    whitened: Tensor = (CONTRAST_NORM * rows / norms - mean) @ matrix
    return whitened.view(images.shape)


_ON_DEVICES: WeakKeyDictionary[Whitening, dict[torch.device, tuple[Tensor, Tensor]]] = (
    WeakKeyDictionary()
)
"""Kept as long as the whitening itself: a captured step goes on reading where they lie."""


def _whitening_tensors(whitening: Whitening, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean (d,) and matrix (d, d) on the device: sent there once, not each step."""
    known = _ON_DEVICES.setdefault(whitening, {})
    if device not in known:
        # Copied: what many trials of a host share must not be written through a tensor.
        mean, matrix = (
            torch.tensor(array, device=device) for array in (whitening.mean, whitening.matrix)
        )
        known[device] = (mean, matrix)
    return known[device]


@cache
def _constants(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (1, channels, 1, 1) on the device: sent there once, not each step."""
    mean, std = (
        torch.tensor(values, device=device).view(1, -1, 1, 1)
        for values in (normalisation.mean, normalisation.std)
    )
    return mean, std


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
