"""What cross-validation says of configurations, on labels that their search has seen. Pure.

Every retraining is on one fold of a draw's labels: it trains on labels of other folds and is judged on
the fold, which is its validation part and no part of its unlabeled pool. In a repeat every label
judges each configuration once. No test image is opened, and nothing is sealed: the search chose by these labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial

from ssl_core.data.prepare import SplitImages, all_labels
from ssl_core.data.splits import draw_folds
from tune_ssl.confirmation import check_whole, diverged_of, interval_values
from tune_ssl.retraining import Configuration, Retrainings
from tune_ssl.statistics.crossed import DIFFERENCES, Floats, balanced_outcomes
from tune_ssl.statistics.folds import corrected_interval, fold_scores
from tune_ssl.statistics.repeats import is_indicative
from tune_ssl.study import RESULT, SECONDS
from tune_ssl.trial import DIVISION, unpack_correct

Indices = npt.NDArray[np.int64]
LEVEL = 0.95


def cross_validation(
    retrainings: Retrainings, trials: Sequence[FrozenTrial], drawn: SplitImages
) -> dict[str, Any]:
    """Return every figure, and what it is computed from, as plain values.

    Differences are from the first configuration, which the search named, and hold together over the
    table: each has Student's t at 1 - .05/m of m comparisons (Bonferroni).

    Args:
        trials: of the retrainings' study, all finished; one that diverged classified nothing.
        drawn: the draw whose labels are divided, as its split_seed draws it.

    Raises:
        UserError: a retraining failed, so that the table has a hole.
    """
    check_whole(trials)
    count = retrainings.folds
    assert count is not None
    known, classes = all_labels(drawn)
    folds = _folds(retrainings, classes, count)
    balanced = retrainings.settings.metric == "balanced_accuracy"
    tables = _outcomes(retrainings, trials, folds, count)
    weighed = [balanced_outcomes(table, classes) if balanced else table for table in tables]
    scores = [fold_scores(table, folds, count) for table in weighed]
    diverged = diverged_of(retrainings, trials)
    return {
        "origin": retrainings.origin,
        "metric": retrainings.settings.metric,
        "folds": count,
        "repeats": len(folds),
        "trainings": folds.shape[0] * count,
        "indicative": is_indicative(folds.shape[0] * count),
        "dataset": retrainings.settings.dataset,
        "classes": list(drawn.class_names),
        "images": known.tolist(),
        "labels": classes.tolist(),
        "fold_of_image": folds.tolist(),
        "searched_to_train": len(drawn.labeled),
        "searched_to_choose": len(drawn.validation),
        "searched_reshuffled": any(DIVISION in one.origin for one in retrainings.configurations),
        "configurations": [
            {
                **dataclasses.asdict(one),
                "accuracy": interval_values(corrected_interval(scores[row], level=LEVEL)),
                **_beside_first(scores, row),
                "diverged": diverged[row],
                "fold_scores": scores[row].tolist(),
                "retrainings": _rows(retrainings, one, trials),
            }
            for row, one in enumerate(retrainings.configurations)
        ],
    }


def _folds(retrainings: Retrainings, classes: Indices, count: int) -> Indices:
    """Return the fold of every label in every repeat, (R, n)."""
    seeds = dict.fromkeys(draw.division_seed for draw in retrainings.draws)
    return np.stack([draw_folds(classes, count, seed) for seed in seeds if seed is not None])


def _outcomes(
    retrainings: Retrainings, trials: Sequence[FrozenTrial], folds: Indices, count: int
) -> Floats:
    """Return which labels every configuration classified in every repeat, (K, R, n)."""
    tables = np.zeros((len(retrainings.configurations), *folds.shape))
    for trial in trials:
        row, column = retrainings.place(trial.number)
        repeat, fold = divmod(column, count)
        result = trial.system_attrs.get(RESULT)
        if result is not None:
            tables[row, repeat, folds[repeat] == fold + 1] = unpack_correct(result["correct"])
    return tables


def _beside_first(scores: Sequence[Floats], row: int) -> dict[str, Any]:
    if row == 0:
        return {"minus_first": None, "verdict": ""}
    difference = corrected_interval(
        scores[row] - scores[0],
        level=1 - (1 - LEVEL) / (len(scores) - 1),
        clip=DIFFERENCES,
    )
    return {"minus_first": interval_values(difference), "verdict": difference.verdict}


def _rows(
    retrainings: Retrainings, configuration: Configuration, trials: Sequence[FrozenTrial]
) -> list[dict[str, Any]]:
    return [
        {
            "trial": trial.number,
            **retrainings.at(trial.number)[1].to_mapping(),
            "validation": trial.value,
            "correct": trial.system_attrs.get(RESULT, {}).get("correct"),
            "device_seconds": trial.user_attrs.get(SECONDS, 0.0),
        }
        for trial in trials
        if retrainings.at(trial.number)[0] == configuration
    ]
