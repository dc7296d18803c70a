"""Divergences between a target distribution and a predicted one.

Every function has the same contract: ``D(target, log_prediction) -> (B,)`` with

* ``target`` (B, C): probabilities, rows sum to 1, zeros allowed; never differentiated, so the
  caller computes it without gradients;
* ``log_prediction`` (B, C): logarithms of probabilities as ``log_softmax`` gives them, finite;
* one value per row, in the dtype given (float32 or float64).

Below, t is the target, q = exp(log_prediction), C the number of classes, and 0 log 0 = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Divergence = Callable[[Tensor, Tensor], Tensor]

REVERSE_KL_FLOOR = 1e-7


def mse(target: Tensor, log_prediction: Tensor) -> Tensor:
    """Return the mean squared error, 1/C sum_c (t_c - q_c)^2, in [0, 2/C].

    Source: Laine & Aila 2017, Tarvainen & Valpola 2017 (consistency cost, mean over classes).
    """
    return (target - log_prediction.exp()).square().mean(dim=1)


def l1(target: Tensor, log_prediction: Tensor) -> Tensor:
    """Return the mean absolute error, 1/C sum_c |t_c - q_c|, in [0, 2/C]."""
    return (target - log_prediction.exp()).abs().mean(dim=1)


def kl(target: Tensor, log_prediction: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence KL(t || q) = sum_c t_c (log t_c - log q_c) >= 0.

    Against a one-hot target this is the cross-entropy. Source: Miyato et al. 2018, equation 5.
    """
    return (torch.xlogy(target, target) - target * log_prediction).sum(dim=1)


def reverse_kl(target: Tensor, log_prediction: Tensor) -> Tensor:
    """Return KL(q || t) = sum_c q_c (log q_c - log max(t_c, 1e-7)).

    The floor keeps it finite, so a one-hot target would measure the floor and not the
    prediction: methods with one-hot targets refuse it. Source: the direction of the VAT in
    Oliver et al. 2018.
    """
    log_target = target.clamp_min(REVERSE_KL_FLOOR).log()
    return (log_prediction.exp() * (log_prediction - log_target)).sum(dim=1)


def js(target: Tensor, log_prediction: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence in nats, symmetric, in [0, ln 2].

    With m = (t + q) / 2: 1/2 KL(t || m) + 1/2 KL(q || m). The mixture is formed from
    logarithms, because m underflows to 0 where t = 0 and q is tiny, and 0/0 would follow in
    the gradient. Source: Lin 1991.
    """
    log_mixture = torch.logaddexp(target.log(), log_prediction) - math.log(2.0)
    target_part = torch.xlogy(target, target) - target * log_mixture
    prediction_part = log_prediction.exp() * (log_prediction - log_mixture)
    return 0.5 * (target_part + prediction_part).sum(dim=1)


def notebook_kl(target: Tensor, log_prediction: Tensor) -> Tensor:
    """Return what the seed notebook computed as "KL": 1/C sum_c t_c (log t_c - q_c).

    ``kl_div`` was given probabilities where it wants log-probabilities. Not a divergence: it is
    negative and not 0 at t = q. Kept so that the notebook's table can be rerun and explained.
    """
    return (torch.xlogy(target, target) - target * log_prediction.exp()).mean(dim=1)


def notebook_js(target: Tensor, log_prediction: Tensor) -> Tensor:
    """Return what the seed notebook computed as "JS": 1/C sum_c s(q)_c (log s(q)_c - log s(t)_c)/2.

    s is softmax applied to a vector of probabilities, and the mixture was formed from q twice.
    At most (e - 1) / (2 C (e + C - 1)) per example, between two one-hot rows of other classes:
    .0607 with 3 classes, .0073 with 10. Around t = q = 1/C its gradient is 4 C times weaker than
    that of mse.
    """
    log_squashed_prediction = torch.log_softmax(log_prediction.exp(), dim=1)
    log_squashed_target = torch.log_softmax(target, dim=1)
    difference = log_squashed_prediction - log_squashed_target
    return 0.5 * (log_squashed_prediction.exp() * difference).mean(dim=1)


DIVERGENCES: dict[str, Divergence] = {
    "mse": mse,
    "l1": l1,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "js": js,
    "notebook_kl": notebook_kl,
    "notebook_js": notebook_js,
}
