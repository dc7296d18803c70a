"""Targets made from predictions: sharpened guesses, hard pseudo-labels, confidence masks.

Pure functions of probabilities (B, C). None of them stops a gradient: the algorithm that
calls them computes its predictions without one.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sharpen(probabilities: Tensor, temperature: float | Tensor) -> Tensor:
    """Return p^(1/T) normalised over classes, (B, C); T = 1 leaves p, T -> 0 tends to one-hot.

    Source: Berthelot et al. 2019 (MixMatch), equation 7. Temperature T > 0.
    """
    return torch.softmax(probabilities.log() / temperature, dim=1)


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return labels (B,) in [0, C) as one-hot rows (B, C)."""
    # torch.nn.functional.one_hot looks at the labels on the CPU first: a step would wait for it.
    rows = torch.zeros(len(labels), num_classes, dtype=dtype, device=labels.device)
    return rows.scatter_(1, labels[:, None], 1.0)


def hard_pseudo_labels(probabilities: Tensor) -> Tensor:
    """Return one-hot rows (B, C) at each row's most probable class. Source: Lee 2013."""
    labels = probabilities.argmax(dim=1)
    return one_hot(labels, probabilities.shape[1], probabilities.dtype)


def confidence_mask(probabilities: Tensor, threshold: float | Tensor) -> Tensor:
    """Return (B,) ones where the largest probability is at least the threshold, zeros elsewhere.

    Threshold in [0, 1]; at 0 every row counts.
    """
    return (probabilities.amax(dim=1) >= threshold).to(probabilities.dtype)
