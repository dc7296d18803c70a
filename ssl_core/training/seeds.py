"""One seed, many independent streams: each use of randomness has its own generator."""

from __future__ import annotations

import numpy as np
import torch

STREAMS = (
    "weights",
    "labeled_order",
    "unlabeled_order",
    "labeled_augmentation",
    "unlabeled_augmentation",
    "method",
    "statistics",
    "further_labeled_views",
)


def generator_for(
    seed: int, stream: str, device: torch.device | str = "cpu", *, step: int = 0
) -> torch.Generator:
    """Return a generator on ``device`` that depends on seed, stream and step alone.

    Separate streams keep a method's draws from moving another's: labeled batches and their
    augmentation are the same for every method at the same seed.
    """
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(STREAMS.index(stream), step))
    value = int(sequence.generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device=device).manual_seed(value)
