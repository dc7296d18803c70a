"""The sealed test images, for trainings that a benchmark has finished."""

from __future__ import annotations

import numpy as np

from ssl_core.data.prepare import SplitImages
from ssl_core.data.sources import load_test_images
from ssl_core.data.store import ImageStore
from ssl_core.training.evaluate import Evaluation, evaluate
from ssl_core.training.loop import Training


def tested(training: Training, shared: SplitImages) -> Evaluation:
    """Classify the test images by a training's evaluated network, after its last ``report``."""
    data = training.config.data
    test = load_test_images(data.dataset, data.data_dir, data.image_size)
    return evaluate(
        training.evaluated_network,
        ImageStore(test.images, training.config.device),
        np.arange(len(test.images)),
        test.labels,
        shared.normalisation,
        next(training.evaluated_network.parameters()).device,
    )
