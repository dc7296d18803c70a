"""What a choice is worth when it is made on 20, 100 or 400 validation labels.

    tune-ssl --alg any --trials 100 --scheduler none --sampler random --validation 800 --name labels
    python -m benchmarks.validation_labels runs/labels --record

Every trial of that run is trained in full and measured on 800 images. Here those are split at
random, again and again: the best trial of a random handful is chosen on the first few, then judged
on the other 400, which had no say in the choice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from optuna.trial import TrialState

from benchmarks.records import write_record
from tune_ssl.run import RunDirectory
from tune_ssl.study import RESULT, read_trials
from tune_ssl.trial import unpack_correct

RECORD = Path(__file__).parent / "validation_labels.json"
CHOSEN_ON = (20, 100, 400)
JUDGED_ON = 400
CANDIDATES = 20
REPEATS = 4000


def main() -> None:
    """Print, and with ``--record`` write down, what each number of labels does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    correct = correctness(RunDirectory(given.run))
    rows = [choice(correct, labels) for labels in CHOSEN_ON]
    record = {
        "trials": len(correct),
        "candidates": CANDIDATES,
        "judged_on": JUDGED_ON,
        "repeats": REPEATS,
        "rows": rows,
    }
    for row in rows:
        print(
            f"{row['labels']:>4} labels: standard error {row['standard_error']:.1%}, winner promised "
            f"{row['promised']:.1%}, is {row['is']:.1%}, the best was {row['best']:.1%}"
        )
    if given.record:
        write_record(RECORD, record)


def correctness(directory: RunDirectory) -> npt.NDArray[np.bool_]:
    """Return (trials, images): which validation image each complete trial classified correctly."""
    trials, _ = read_trials(directory.journal_path)
    return np.stack(
        [
            unpack_correct(trial.system_attrs[RESULT]["correct"])
            for trial in trials
            if trial.state == TrialState.COMPLETE
        ]
    )


def choice(correct: npt.NDArray[np.bool_], labels: int, seed: int = 0) -> dict[str, float]:
    """Return what choosing the best of ``CANDIDATES`` trials on so many labels gives, on average.

    ``promised`` is the winner's accuracy where it was chosen, ``is`` its accuracy on other
    images, ``best`` that of the candidate that is best on those, chosen on them: an upper bound.
    """
    generator = np.random.RandomState(seed)
    figures = np.empty((REPEATS, 3))
    for repeat in range(REPEATS):
        handful = correct[generator.permutation(len(correct))[:CANDIDATES]]
        images = generator.permutation(correct.shape[1])
        judged = handful[:, images[:JUDGED_ON]].mean(axis=1)
        seen = handful[:, images[JUDGED_ON : JUDGED_ON + labels]].mean(axis=1)
        winner = int(seen.argmax())
        figures[repeat] = seen[winner], judged[winner], judged.max()
    promised, is_, best = figures.mean(axis=0).round(4).tolist()
    error = float(np.sqrt(is_ * (1 - is_) / labels))
    return {
        "labels": labels,
        "standard_error": round(error, 4),
        "promised": promised,
        "is": is_,
        "best": best,
    }


if __name__ == "__main__":
    main()
