"""Measuring a network on validation or test images."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ssl_core.data.augment import normalise
from ssl_core.data.images import Indices, Labels
from ssl_core.data.recipe import Preprocessing
from ssl_core.data.store import ImageStore

EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one network did on one set of images.

    ``correct`` (N,) says which images it classified; ``finite`` is False where a logit was not.
    """

    correct: npt.NDArray[np.bool_]
    labels: Labels
    finite: bool

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly, in [0, 1]."""
        return float(self.correct.mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean over classes of the share classified correctly, in [0, 1]."""
        return float(np.mean([own.mean() for own in self._by_class()]))

    def value(self, metric: str) -> float:
        """Return the accuracy or the balanced accuracy."""
        return self.balanced_accuracy if metric == "balanced_accuracy" else self.accuracy

    def standard_error(self, metric: str) -> float:
        """Return the metric's binomial standard error: from this draw of images only."""
        groups = self._by_class() if metric == "balanced_accuracy" else [self.correct]
        variance = sum(own.mean() * (1.0 - own.mean()) / len(own) for own in groups)
        return math.sqrt(variance) / len(groups)

    def _by_class(self) -> list[npt.NDArray[np.bool_]]:
        return [self.correct[self.labels == label] for label in np.unique(self.labels)]


def evaluate(
    network: nn.Module,
    store: ImageStore,
    indices: Indices,
    labels: Labels,
    normalisation: Preprocessing,
    device: torch.device,
) -> Evaluation:
    """Classify images by a network whose BatchNorm statistics are ready; training mode is kept.

    Args:
        indices: (N,) rows of the store to classify.
        labels: (N,) their classes.
    """
    evaluating = evaluate_in_parts(network, store, indices, labels, normalisation, device)
    while True:
        try:
            next(evaluating)
        except StopIteration as end:
            evaluation: Evaluation = end.value
            return evaluation


@torch.no_grad()
def evaluate_in_parts(
    network: nn.Module,
    store: ImageStore,
    indices: Indices,
    labels: Labels,
    normalisation: Preprocessing,
    device: torch.device,
) -> Generator[None, None, Evaluation]:
    """Do what ``evaluate`` does, yielding after each batch of images."""
    was_training = network.training
    correct: list[Tensor] = []
    finite = torch.ones((), dtype=torch.bool, device=device)
    for start in range(0, len(indices), EVALUATION_BATCH):
        network.eval()
        chosen = torch.from_numpy(indices[start : start + EVALUATION_BATCH].copy())
        truth = torch.from_numpy(labels[start : start + EVALUATION_BATCH].copy())
        logits = network(normalise(store.take(chosen), normalisation))
        finite &= torch.isfinite(logits).all()
        correct.append(logits.argmax(dim=1) == truth.to(device))
        network.train(was_training)
        yield
    return Evaluation(
        correct=torch.cat(correct).cpu().numpy(), labels=np.asarray(labels), finite=bool(finite)
    )
