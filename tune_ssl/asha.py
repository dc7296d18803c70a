"""The rung decision of asynchronous successive halving (Li et al. 2020), as pure functions.

Trials are compared at rungs: steps grace, grace x eta, ... below the full length. At a rung a
trial goes on if its value is not below the top 1/eta of what was recorded there before it. It is
the stopping variant: a trial that was let go on is never stopped later by newcomers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_core.errors import UserError, check_integer


@dataclass(frozen=True, kw_only=True)
class RungDecision:
    """What was decided for one trial at one rung, and the numbers it rests on.

    ``cutoff`` is None where nobody had been there before; ``population`` counts those who had.
    """

    value: float
    cutoff: float | None
    population: int
    kept: bool


def rung_steps(max_steps: int, *, grace: int | None, reduction_factor: int) -> tuple[int, ...]:
    """Return the steps at which trials are evaluated: the rungs, then the full length.

    Args:
        grace: the first rung; None for rungs at 1/reduction_factor^2 and 1/reduction_factor.
        reduction_factor: eta >= 2, by which steps grow from rung to rung.

    Raises:
        UserError: the training is too short for the rungs, or grace is not below it.
    """
    check_integer("reduction-factor", reduction_factor, 2)
    if grace is None:
        shortest = reduction_factor**2
        if max_steps < shortest:
            raise UserError(
                f"max-steps is {max_steps}, too short for rungs at 1/{shortest} and 1/{reduction_factor}; "
                f"allowed: {shortest} or more; raise it, or use --scheduler none."
            )
        return (-(-max_steps // shortest), -(-max_steps // reduction_factor), max_steps)
    check_integer("grace", grace, 1)
    if grace >= max_steps:
        raise UserError(
            f"grace is {grace} and max-steps {max_steps}; allowed: a first rung below the full length; "
            "lower --grace, or use --scheduler none."
        )
    steps = []
    step = grace
    while step < max_steps:
        steps.append(step)
        step *= reduction_factor
    return (*steps, max_steps)


def decide(earlier: Sequence[float], value: float, *, reduction_factor: int) -> RungDecision:
    """Return whether a trial with ``value`` goes on past a rung.

    ``earlier`` are the values recorded there before, in any order; higher is better. The cutoff
    is their 1 - 1/eta quantile, linearly interpolated.
    """
    if not earlier:
        return RungDecision(value=value, cutoff=None, population=0, kept=math.isfinite(value))
    cutoff = float(np.quantile(np.asarray(earlier, dtype=np.float64), 1.0 - 1.0 / reduction_factor))
    kept = math.isfinite(value) and value >= cutoff
    return RungDecision(value=value, cutoff=cutoff, population=len(earlier), kept=kept)
