"""What a table of divergences shows when each column goes on training the model of the column before.

    python -m benchmarks.warm_starts --record

The notebook this project began with filled the columns MSE, L1, KL, JS of a method one after the other
with the same network and optimiser. Here that is done on digits in four orders, so that every divergence
stands once in every place, and beside it every divergence is trained from fresh weights, for the steps of
one column and for those of all four: with the published weight converted to each divergence's scale, with the
same number before each, and with that number before what the notebook computed as KL and JS. Draws of
labels are paired; figures are means of test accuracy over draws, with 95 % t intervals of paired differences, and
the standard deviation of the columns' own means, which says how much of a table's order there is to explain.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paired import interval
from benchmarks.records import keep

RECORD = Path(__file__).with_name("warm_starts.json")
COLUMNS = ("mse", "l1", "kl", "js")
ORDERS = tuple(COLUMNS[place:] + COLUMNS[:place] for place in range(len(COLUMNS)))
"""The notebook's order first; every divergence once in every place."""
NOTEBOOK = ("mse", "l1", "notebook_kl", "notebook_js")
"""The columns as the notebook computed them."""
CARRIED = ("student", "ema", "ema_updates", "optimizer")
"""What the notebook kept from one column to the next."""
LEVEL = 0.95
FIRST_DRAW = 9000  # of labels; no search has seen it or those after it


class Task(NamedTuple):
    """Divergences trained one after the other on one network, on one draw of labels.

    ``steps`` is of each; ``column`` the steps of a column of the table, which the average's horizon
    is cut to everywhere. ``weight`` says which stands before a divergence: that of MSE ``converted`` to
    it, the ``same`` number, or the ``notebook``'s.
    """

    method: str
    divergences: tuple[str, ...]
    steps: int
    column: int
    draw: int
    weight: str = "converted"


def main() -> None:
    """Train all, print, and with ``--record`` write down."""
    options = _options()
    draws = range(FIRST_DRAW, FIRST_DRAW + options.draws)
    for method in options.methods.split(","):
        tasks = [task for draw in draws for task in tasks_of(method, options.steps, draw)]
        with ProcessPoolExecutor(options.processes) as pool:
            found = dict(zip(tasks, pool.map(accuracies, tasks), strict=True))
        row = {"method": method, "steps": options.steps, "draws": options.draws}
        row |= figures(method, options.steps, draws, found)
        print(as_text(row), flush=True)
        if options.record:
            keep(RECORD, method, row)


def tasks_of(method: str, steps: int, draw: int) -> list[Task]:
    """Return the four sequences, then each divergence alone, see ``alone``."""
    every = len(COLUMNS) * steps
    return [
        *(Task(method, order, steps, steps, draw) for order in ORDERS),
        *alone(method, COLUMNS, steps, steps, draw),
        *alone(method, COLUMNS, every, steps, draw),
        *alone(method, COLUMNS, every, steps, draw, "same"),
        *alone(method, NOTEBOOK, every, steps, draw, "notebook"),
    ]


def alone(
    method: str,
    divergences: Sequence[str],
    length: int,
    column: int,
    draw: int,
    weight: str = "converted",
) -> list[Task]:
    """Return the training of each divergence from fresh weights for a number of steps."""
    return [Task(method, (name,), length, column, draw, weight) for name in divergences]


def accuracies(task: Task) -> list[float]:
    """Return the test accuracy after each column of a task."""
    from benchmarks.sealed import tested
    from ssl_core.data.prepare import prepare
    from ssl_core.training.config import TrainingConfig
    from ssl_core.training.device import set_up_process
    from ssl_core.training.loop import Training

    set_up_process(1)
    found: list[float] = []
    before: dict[str, Any] = {}
    for divergence in task.divergences:
        config = TrainingConfig.from_record(
            {
                "algorithm": task.method,
                "divergence": divergence,
                "parameters": parameters(task, divergence),
                "max_steps": task.steps,
                "lr_schedule": "constant",
                "split_seed": task.draw,
                "seed": task.draw,
            }
        )
        shared = prepare(config.data)
        training = Training(config, shared)
        training.load_state_dict(training.state_dict() | before)
        training.run(task.steps)
        training.report()  # recomputes the BatchNorm statistics
        found.append(tested(training, shared).accuracy)
        state = training.state_dict()
        before = {name: state[name] for name in CARRIED}
    print(".", end="", file=sys.stderr, flush=True)
    return found


def parameters(task: Task, divergence: str) -> dict[str, float]:
    """Return the method's published values, with the weight that the task says."""
    weighed_as = {"converted": divergence, "same": "mse", "notebook": "notebook_kl"}[task.weight]
    weight = published(task.method, weighed_as, task.column)["unlabeled_weight"]
    return published(task.method, divergence, task.column) | {"unlabeled_weight": weight}


def published(method: str, divergence: str, column: int) -> dict[str, float]:
    """Return the method's published values, the weight converted for a divergence nobody published."""
    from ssl_core.data.catalogue import DATASET_CARDS
    from ssl_core.published import longest_horizon, published_default

    setting = DATASET_CARDS["digits"].published_setting
    default = published_default(
        method, divergence, num_classes=10, setting=setting, optimizer="adamw"
    )
    horizon = min(default.parameters["ema_horizon"], longest_horizon(column))
    return default.parameters | {"ema_horizon": horizon}


def figures(
    method: str, steps: int, draws: Sequence[int], found: dict[Task, list[float]]
) -> dict[str, Any]:
    """Return means by place, by divergence and from fresh weights, and the differences that matter."""
    chains = np.array(
        [[found[Task(method, order, steps, steps, draw)] for order in ORDERS] for draw in draws]
    )  # (draws, orders, places)
    place_of = np.array([[order.index(name) for order in ORDERS] for name in COLUMNS])
    by_divergence = np.stack(
        [chains[:, range(len(ORDERS)), places].mean(axis=1) for places in place_of], axis=1
    )  # (draws, divergences), over all places
    by_place = chains.mean(axis=1)

    def fresh(
        length: int, columns: Sequence[str] = COLUMNS, weight: str = "converted"
    ) -> np.ndarray[Any, Any]:
        tasks = [alone(method, columns, length, steps, draw, weight) for draw in draws]
        return np.array([[found[task][0] for task in row] for row in tasks])

    every = len(COLUMNS) * steps
    short, long = fresh(steps), fresh(every)
    tables = {
        "notebook_order": (chains[:, 0], COLUMNS),
        "by_place": (by_place, ("first", "second", "third", "fourth")),
        "by_divergence": (by_divergence, COLUMNS),
        "fresh": (short, COLUMNS),
        "fresh_all_steps": (long, COLUMNS),
        "same_weight": (fresh(every, COLUMNS, "same"), COLUMNS),
        "notebook_formulas": (fresh(every, NOTEBOOK, "notebook"), NOTEBOOK),
    }
    return {
        **{name: named(values, columns) for name, (values, columns) in tables.items()},
        "spread": {name: spread(values) for name, (values, _) in tables.items()},
        "last_minus_first_place": interval(by_place[:, -1] - by_place[:, 0], LEVEL),
        "last_place_minus_fresh_all_steps": interval(by_place[:, -1] - long.mean(axis=1), LEVEL),
        "minus_mse_in_notebook_order": against_first(chains[:, 0]),
        "minus_mse_fresh": against_first(short),
        "minus_mse_fresh_all_steps": against_first(long),
    }


def named(values: np.ndarray[Any, Any], names: Sequence[str]) -> dict[str, float]:
    """Return the means over draws by name."""
    return dict(zip(names, values.mean(axis=0).round(4).tolist(), strict=True))


def spread(values: np.ndarray[Any, Any]) -> float:
    """Return the standard deviation of the columns' true means, estimated from (draws, columns).

    That is the variance component of a two-way layout, (MS_columns - MS_error) / draws, not below 0: the
    scatter of a few noisy means is taken out, which the range of the means would be made of.
    """
    draws, columns = values.shape
    of_columns = draws * values.mean(axis=0).var(ddof=1)
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    error = (rest**2).sum() / ((draws - 1) * (columns - 1))
    return round(math.sqrt(max(0.0, of_columns - error) / draws), 4)


def against_first(values: np.ndarray[Any, Any]) -> dict[str, list[float]]:
    """Return how the other columns differ from the first, over (draws, columns)."""
    return {
        name: interval(values[:, place] - values[:, 0], LEVEL)
        for place, name in enumerate(COLUMNS)
        if place
    }


def as_text(row: dict[str, Any]) -> str:
    """Return a method's figures as people read them."""
    lines = [f"{row['method']}, {row['steps']} steps a column, {row['draws']} draws of labels"]
    for title, key in (
        ("one after the other, in its order", "notebook_order"),
        ("by place, over all orders", "by_place"),
        ("by divergence, over all places", "by_divergence"),
        ("fresh weights, one column's steps", "fresh"),
        ("fresh weights, all columns' steps", "fresh_all_steps"),
        ("the same, one number before all", "same_weight"),
        ("the same, as the notebook computed them", "notebook_formulas"),
    ):
        values = ", ".join(f"{name} {100 * value:.1f} %" for name, value in row[key].items())
        lines.append(f"  {title}: {values}; spread {100 * row['spread'][key]:.1f} points")
    for title, key in (
        ("fourth place above first", "last_minus_first_place"),
        ("fourth place above fresh weights with as many steps", "last_place_minus_fresh_all_steps"),
    ):
        mean, low, high = (100 * value for value in row[key])
        lines.append(f"  {title}: {mean:+.1f} points ({low:+.1f} to {high:+.1f})")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default="pi_model,mean_teacher,ict")
    parser.add_argument("--steps", type=int, default=100, help="of a column")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
