"""What benchmarks that train pairs share: one training to its test accuracy, one paired interval."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import stats


def trained(record: Mapping[str, Any], *, capture: Literal["auto"] | None = "auto") -> float:
    """Train a configuration on one thread; return its test accuracy, 0 where a loss was not finite.

    Args:
        record: a training's flat configuration.
        capture: None to do every step anew on a GPU, too.
    """
    from benchmarks.sealed import tested
    from ssl_core.data.prepare import prepare
    from ssl_core.training.config import TrainingConfig
    from ssl_core.training.device import set_up_process
    from ssl_core.training.loop import Training

    set_up_process(1)
    config = TrainingConfig.from_record(record)
    shared = prepare(config.data)
    training = Training(config, shared, capture=capture)
    training.run(config.max_steps)
    training.report()  # recomputes the BatchNorm statistics
    print(".", end="", file=sys.stderr, flush=True)
    return tested(training, shared).accuracy if training.finite else 0.0


def interval(differences: Sequence[float] | np.ndarray[Any, Any], level: float) -> list[float]:
    """Return the mean of paired differences and the ends of its t interval of a level in (0, 1)."""
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return [round(value, 4) for value in (mean, mean - half, mean + half)]
