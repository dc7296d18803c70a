"""The sealed test images, for trainings of a benchmark that are finished."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_core.data.prepare import SplitImages
from ssl_core.data.sources import load_test_images
from ssl_core.data.store import ImageStore
from ssl_core.training.config import TrainingConfig
from ssl_core.training.device import set_up_process
from ssl_core.training.evaluate import Evaluation, evaluate
from ssl_core.training.loop import Training
from tune_ssl.trial import pack_correct


def classified(config: TrainingConfig, shared: SplitImages) -> dict[str, Any]:
    """Train; return whether all was ``finite``, and which ``validation`` and ``test`` images were right.

    A training whose loss was not finite classified nothing.
    """
    set_up_process(config.threads)
    training = Training(config, shared)
    training.run(config.max_steps)
    validation = training.report().evaluated  # makes the BatchNorm statistics too
    test = tested(training, shared)
    finite = training.finite and validation.finite and test.finite
    return {
        "finite": finite,
        "validation": pack_correct(validation.correct & finite),
        "test": pack_correct(test.correct & finite),
    }


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
