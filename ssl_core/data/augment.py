"""Augmentation of a batch of images as tensors, drawn for each image, on the batch's device."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ssl_core.data.recipe import (
    CONTRAST_NORM,
    SMALLEST_NORM,
    Augmentation,
    Preprocessing,
    Whitening,
)


def augmented_view(
    images: Tensor,
    augmentation: Augmentation,
    preprocessing: Preprocessing | PreprocessingTensors,
    generator: torch.Generator,
) -> Tensor:
    """Return one new view (B, channels, height, width) float32 of uint8 images.

    Images are whitened before they are flipped and shifted, as Oliver et al. 2018 do it: the
    network then sees a mirrored whitened image, not a whitened mirrored one. Of channels that are
    normalised one by one, the order changes nothing, and uint8 moves faster.
    """
    preprocessing = _on_device(preprocessing, images.device)
    if preprocessing.whitens:
        view = _moved(normalise(images, preprocessing), augmentation, generator)
    else:
        view = normalise(_moved(images, augmentation, generator), preprocessing)
    return add_noise(view, augmentation.noise, generator) if augmentation.noise > 0 else view


def _moved(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    if augmentation.flip:
        images = random_flip(images, generator)
    return random_shift(images, augmentation.max_shift, generator)


def normalise(images: Tensor, preprocessing: Preprocessing | PreprocessingTensors) -> Tensor:
    """Return uint8 images (B, channels, height, width) as a network's input, float32."""
    preprocessing = _on_device(preprocessing, images.device)
    if preprocessing.whitens:
        return _whiten(images, preprocessing)
    return (images.to(torch.float32) - preprocessing.mean) / preprocessing.scale


class PreprocessingTensors:
    """A preprocessing on a device, in tensors whose place never changes: a captured step reads them.

    Attributes:
        whitens: whether it is a ``Whitening``.
        mean: (1, channels, 1, 1), or (d,).
        scale: (1, channels, 1, 1), the deviation, or (d, d), the whitening's matrix.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.whitens = isinstance(preprocessing, Whitening)
        self.mean, self.scale = (part.to(device) for part in _parts(preprocessing))

    def write(self, preprocessing: Preprocessing) -> None:
        """Become another preprocessing of the same kind and shapes."""
        mean, scale = _parts(preprocessing)
        self.mean.copy_(mean)
        self.scale.copy_(scale)


def _parts(preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Return mean and scale on the CPU, copied: many trials of a host share a whitening's arrays."""
    if isinstance(preprocessing, Whitening):
        return torch.tensor(preprocessing.mean), torch.tensor(preprocessing.matrix)
    mean, std = (torch.tensor(values) for values in (preprocessing.mean, preprocessing.std))
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


_SENT: WeakKeyDictionary[Preprocessing, dict[torch.device, PreprocessingTensors]] = (
    WeakKeyDictionary()
)


def _on_device(
    preprocessing: Preprocessing | PreprocessingTensors, device: torch.device
) -> PreprocessingTensors:
    """Return a preprocessing's tensors, kept as long as itself: sent there once, not for each batch."""
    if isinstance(preprocessing, PreprocessingTensors):
        return preprocessing
    known = _SENT.setdefault(preprocessing, {})
    if device not in known:
        known[device] = PreprocessingTensors(preprocessing, device)
    return known[device]


def _whiten(images: Tensor, whitening: PreprocessingTensors) -> Tensor:
    """Return images after global contrast normalisation and ZCA whitening; see ``Whitening``."""
    rows = images.flatten(1).to(torch.float32)
    rows = rows - rows.mean(dim=1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    norms = torch.where(norms < SMALLEST_NORM, torch.ones_like(norms), norms)
    whitened: Tensor = (CONTRAST_NORM * rows / norms - whitening.mean) @ whitening.scale
    return whitened.view(images.shape)


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
