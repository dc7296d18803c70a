"""Whether the interval of ``confirm --cross-validate`` covers, where the truth is known.

    python -m benchmarks.cross_validation --record

Each of n labels has an effect on the trainings that have it, and as an image it is easy or hard; a training on
L labels of other folds classifies image i of its fold with probability sigma(mu + a + b_i), a the mean effect of its
labels, of standard deviation ``labels_sd``, plus that of its seed. The truth is the mean over all effects: other
labels, other images. Stands beside the corrected resampled t: the same without correction, and how wide the
interval is in points.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from benchmarks.records import write_record
from tune_ssl.statistics.crossed import t_quantile
from tune_ssl.statistics.folds import corrected_interval, fold_scores

RECORD = Path(__file__).with_name("cross_validation.json")
FOLDS = 5
CASES = ((420, 20), (100, 50), (100, 80))
"""Labels in all, labels of a training: digits, a folder's usual half, nearly all of the other folds."""
REPEATS = (1, 2, 4)
EFFECTS = ((0.5, 0.1), (0.2, 0.2), (0.02, 0.02))
"""Standard deviations of a training's labels and of its seed, in logits."""
IMAGE_SD = 1.5
INTERCEPT = 1.6


def main() -> None:
    """Print, and with ``--record`` write down, how often the interval covers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    rows = [
        coverage(labels, trained, repeats, *effects, options.replicates)
        for labels, trained in CASES
        for repeats in REPEATS
        for effects in EFFECTS
    ]
    for row in rows:
        print(row, flush=True)
    if options.record:
        write_record(RECORD, {"folds": FOLDS, "replicates": options.replicates, "rows": rows})


def coverage(
    labels: int, trained: int, repeats: int, labels_sd: float, seed_sd: float, replicates: int
) -> dict[str, Any]:
    """Return how often the intervals of cross-validations cover the truth, and their half-width."""
    generator = np.random.default_rng(labels + trained + repeats)
    spread = np.sqrt(labels_sd**2 + seed_sd**2 + IMAGE_SD**2)
    truth = float(special.expit(INTERCEPT + spread * generator.standard_normal(10**6)).mean())
    covered, plain, width = 0, 0, 0.0
    for _ in range(replicates):
        scores = cross_validated(labels, trained, repeats, labels_sd, seed_sd, generator)
        found = corrected_interval(scores, clip=(-9.0, 9.0))
        covered += found.low <= truth <= found.high
        width += found.high - found.mean
        error = scores.std(ddof=1) / np.sqrt(scores.size)
        plain += abs(scores.mean() - truth) <= float(t_quantile(0.95, scores.size - 1)) * error
    return {
        "labels": labels,
        "trained_on": trained,
        "repeats": repeats,
        "labels_sd": labels_sd,
        "seed_sd": seed_sd,
        "accuracy": round(truth, 3),
        "corrected": round(covered / replicates, 3),
        "uncorrected": round(plain / replicates, 3),
        "half_width": round(width / replicates, 3),
    }


def cross_validated(
    labels: int,
    trained: int,
    repeats: int,
    labels_sd: float,
    seed_sd: float,
    generator: np.random.Generator,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the fold scores (R, K) of one cross-validation of the model."""
    effects = labels_sd * generator.standard_normal(labels) / np.sqrt(trained)
    images = IMAGE_SD * generator.standard_normal(labels)
    folds = np.stack([generator.permutation(np.arange(labels) % FOLDS) + 1 for _ in range(repeats)])
    logits = np.empty((repeats, labels))
    for repeat, own in enumerate(folds):
        for fold in range(1, FOLDS + 1):
            chosen = generator.permutation(np.flatnonzero(own != fold))[:trained]
            training = effects[chosen].sum() + seed_sd * generator.standard_normal()
            logits[repeat, own == fold] = INTERCEPT + training
    return fold_scores(
        generator.random(logits.shape) < special.expit(logits + images), folds, FOLDS
    )


if __name__ == "__main__":
    main()
