"""The names users type: algorithms, divergences, data sets, models.

Nothing heavy is imported here, so that a command line can check a name at once. A contract
test keeps these tuples equal to the dicts that hold the implementations.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ssl_core.errors import UserError, unknown_name

ALGORITHM_NAMES = (
    "supervised",
    "pseudo_label",
    "pi_model",
    "vat",
    "mean_teacher",
    "ict",
    "mixmatch",
)

ALGORITHM_SHORT_NAMES = {
    "sup": "supervised",
    "pl": "pseudo_label",
    "pi": "pi_model",
    "mt": "mean_teacher",
    "mm": "mixmatch",
}

DIVERGENCE_NAMES = ("mse", "l1", "kl", "reverse_kl", "js", "notebook_kl", "notebook_js")

ONE_HOT_TARGETS = frozenset({"pseudo_label"})
"""The methods whose targets are one-hot: reverse_kl is not defined against them."""

SEARCHED_DIVERGENCE_NAMES = ("mse", "l1", "kl", "js")
"""What ``any`` and ``all`` stand for: the four divergences worth searching over."""

DATASET_NAMES = ("digits", "svhn", "cifar10", "cifar100", "folder")

OPTIMIZER_NAMES = ("adamw", "adam", "sgd")
LR_SCHEDULE_NAMES = ("constant", "cosine", "step")
EVALUATED_NETWORKS = ("ema", "student")
NORMALISATION_NAMES = ("channels", "symmetric", "zca")
METRIC_NAMES = ("accuracy", "balanced_accuracy")
PRECISIONS = ("float32", "bfloat16")


def check_device(given: object) -> None:
    """Raise UserError unless ``given`` is a device torch knows: cpu, cuda, cuda:1, mps."""
    if not isinstance(given, str) or re.fullmatch(r"cpu|mps|cuda(:\d+)?", given) is None:
        raise UserError(f"device is {given!r}; allowed: cpu, cuda, cuda:N, mps; give one of them.")


def algorithm_name(given: str) -> str:
    """Return the full name of an algorithm, given in any case or as the notebook's short name.

    Raises:
        UserError: the name is unknown; the message suggests the nearest.
    """
    name = given.strip().lower().replace("-", "_")
    name = ALGORITHM_SHORT_NAMES.get(name, name)
    if name not in ALGORITHM_NAMES:
        raise unknown_name("algorithm", given, ALGORITHM_NAMES)
    return name


def algorithm_names(given: object) -> tuple[str, ...]:
    """Return the algorithms of a name, a comma list or a list, each once, in the order given.

    ``any`` and ``all`` stand for every one.

    Raises:
        UserError: a name is unknown; the message suggests the nearest.
    """
    return _names(given, algorithm_name, ALGORITHM_NAMES)


def divergence_names(given: object) -> tuple[str, ...]:
    """Return the divergences of a name, a comma list or a list, each once, in the order given.

    ``any`` and ``all`` stand for the four worth searching over.

    Raises:
        UserError: a name is unknown; the message suggests the nearest.
    """
    return _names(given, divergence_name, SEARCHED_DIVERGENCE_NAMES)


def divergence_name(given: str) -> str:
    """Return the name of a divergence, given in any case.

    Raises:
        UserError: the name is unknown; the message suggests the nearest.
    """
    name = given.strip().lower().replace("-", "_")
    if name not in DIVERGENCE_NAMES:
        raise unknown_name("divergence", given, DIVERGENCE_NAMES)
    return name


def parse_model_name(name: str) -> tuple[int, int]:
    """Return (depth, width) of a name such as ``wrn-28-2``.

    Raises:
        UserError: the name has another form, or no network of that depth or width exists.
    """
    match = re.fullmatch(r"wrn-(\d+)-(\d+)", str(name))
    depth, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if depth < 10 or (depth - 4) % 6 != 0 or width < 1:
        raise UserError(
            f"unknown model {name!r}; allowed: wrn-DEPTH-WIDTH with depth 10, 16, 22, 28, ... "
            f"(6n + 4) and width >= 1; did you mean {_nearest_model(str(name))}?"
        )
    return depth, width


def _nearest_model(given: str) -> str:
    """Return the legal name nearest to the numbers given, or two common ones where there are none."""
    numbers = [int(digits) for digits in re.findall(r"\d{1,4}", given)]
    if "wrn" not in given.lower() or not numbers:
        return "'wrn-28-2' or, for tiny images, 'wrn-10-1'"
    depth = max(10, 6 * round((numbers[0] - 4) / 6) + 4)
    return f"'wrn-{depth}-{max(1, numbers[1]) if len(numbers) > 1 else 2}'"


def _names(
    given: object, canonical: Callable[[str], str], everything: tuple[str, ...]
) -> tuple[str, ...]:
    texts = given if isinstance(given, list | tuple) else [given] if given else []
    names: list[str] = []
    for name in ",".join(str(text) for text in texts).split(","):
        if name.strip().lower() in ("any", "all"):
            names += everything
        elif name.strip():
            names.append(canonical(name))
    return tuple(dict.fromkeys(names))
