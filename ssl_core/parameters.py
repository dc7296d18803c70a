"""What may stand under a configuration's ``parameters``, known without torch.

A search refuses what a training would refuse before it loads one. A contract test keeps both
tables equal to the fields, the checks and the defaults of the Configs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ssl_core.errors import UserError, check_flag, check_keys, check_number
from ssl_core.names import ALGORITHM_NAMES


class Legal(NamedTuple):
    """The interval of a parameter's legal values; ``open`` excludes the end itself."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False


LEGAL = {
    "learning_rate": Legal(0.0, low_open=True),
    "weight_decay": Legal(0.0),
    "ema_horizon": Legal(1.0),
    "unlabeled_weight": Legal(0.0),
    "ramp_fraction": Legal(0.0, 1.0),
    "entropy_weight": Legal(0.0),
    "threshold": Legal(0.0, 1.0, high_open=True),
    "eps_relative": Legal(0.0, low_open=True),
    "mixup_alpha": Legal(0.0, low_open=True),
    "temperature": Legal(0.0, low_open=True),
}
"""Every parameter that is searched; a name means the same in every method."""

NOT_SEARCHED: dict[str, dict[str, float]] = {
    "supervised": {"entropy_weight": 0.0},
    "pi_model": {"consistency_on_labeled": False},
    "mean_teacher": {"consistency_on_labeled": False},
    "ict": {"mix_logits": False, "supervised_mixup": False},
    "mixmatch": {"num_guesses": 2},
}
"""The options of a method that only ``train`` can change, and their values in every search."""


MEMORIES = 10
"""How many times 1 / momentum steps a running average must have seen: then e^-10 of it is old."""


def fewest_steps(momentum: float) -> int:
    """Return after how many steps running BatchNorm statistics can be evaluated with."""
    return math.ceil(round(MEMORIES / momentum, 6))


def check_batch_norm_momentum(momentum: float | None, max_steps: int) -> None:
    """Raise UserError unless statistics of that momentum, None for recomputed ones, fit the training."""
    if momentum is None:
        return
    check_number("batch_norm_momentum", momentum, 0.0, 1.0, low_open=True)
    fewest = fewest_steps(momentum)
    if max_steps < fewest:
        raise UserError(
            f"max-steps is {max_steps} with running BatchNorm statistics of momentum {momentum:g}, as protocol "
            f"oliver has them; allowed: {fewest} or more, because a shorter training is evaluated on statistics "
            f"of weights long gone; give --max-steps {fewest} or another --protocol."
        )


def check_searchable(
    algorithm: str, parameters: Mapping[str, object], searched: tuple[str, ...]
) -> None:
    """Raise UserError unless a search can begin with these parameters of a method.

    ``searched`` names what the method's space suggests.
    """
    assert algorithm in ALGORITHM_NAMES
    options = NOT_SEARCHED.get(algorithm, {})
    check_keys(f"parameters of {algorithm}", parameters, (*searched, *options))
    for name, value in parameters.items():
        if name in options:
            _check_option(algorithm, name, value, options[name])
        else:
            check_number(name, value, **LEGAL[name]._asdict())


def _check_option(algorithm: str, name: str, given: object, fixed: float) -> None:
    if isinstance(fixed, bool):
        check_flag(name, given)
    else:
        check_number(name, given)
    if given != fixed:
        value = str(fixed).lower()
        raise UserError(
            f"{name} is {given!r} with {algorithm}; allowed in a search: {value}, because it is not "
            "searched; leave it out, or train that configuration with 'tune-ssl train'."
        )
