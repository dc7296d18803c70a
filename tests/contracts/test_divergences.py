"""One contract over every divergence: D >= 0, D(p, p) = 0, one value per row, the dtype given.

``notebook_kl`` and ``notebook_js`` are no divergences and keep only the second half of it.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_core.divergences import DIVERGENCES, REVERSE_KL_FLOOR
from tests.examples import EXAMPLES

PROPER = [name for name in DIVERGENCES if not name.startswith("notebook_")]
SYMMETRIC = ["mse", "l1", "js"]
UPPER_BOUNDS = {"mse": lambda c: 2 / c, "l1": lambda c: 2 / c, "js": lambda c: math.log(2)}

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@st.composite
def logit_rows(draw):
    """Two tables of logits (B, C) of one shape, from all alike to hopelessly certain."""
    classes = draw(st.integers(2, 10))
    rows = draw(st.integers(1, 3))
    scale = draw(st.sampled_from([0.0, 0.01, 1.0, 10.0, 100.0]))
    numbers = st.floats(-1.0, 1.0, width=32)
    table = st.lists(
        st.lists(numbers, min_size=classes, max_size=classes), min_size=rows, max_size=rows
    )
    return [
        [[scale * value for value in row] for row in draw(table)] for _ in ("target", "prediction")
    ]


def log_probabilities(logits, dtype):
    return torch.log_softmax(torch.tensor(logits, dtype=torch.float64), dim=1).to(dtype)


def rounding(classes: int, dtype: torch.dtype) -> float:
    """Return what rounding may do: logarithms reach 200 here, and each is known to one unit."""
    return 200 * classes * torch.finfo(dtype).eps


@DTYPES
@pytest.mark.parametrize("name", PROPER)
@EXAMPLES
@given(logits=logit_rows())
def test_never_negative(name, dtype, logits):
    target, log_prediction = (log_probabilities(side, dtype) for side in logits)
    classes = target.shape[1]
    # The floor adds up to 1e-7 to each target, which can take as much away.
    floor = classes * REVERSE_KL_FLOOR if name == "reverse_kl" else 0.0
    values = DIVERGENCES[name](target.exp(), log_prediction)
    assert (values >= -rounding(classes, dtype) - floor).all()


@DTYPES
@pytest.mark.parametrize("name", PROPER)
@EXAMPLES
@given(logits=logit_rows())
def test_zero_where_prediction_and_target_agree(name, dtype, logits):
    log_p = log_probabilities(logits[0], dtype)
    classes = log_p.shape[1]
    floor = classes * REVERSE_KL_FLOOR if name == "reverse_kl" else 0.0
    values = DIVERGENCES[name](log_p.exp(), log_p)
    assert (values.abs() <= rounding(classes, dtype) + floor).all()


@pytest.mark.parametrize("name", PROPER)
def test_clearly_positive_where_they_disagree(name):
    target = torch.tensor([[0.9, 0.05, 0.05]], dtype=torch.float64)
    log_prediction = torch.tensor([[0.05, 0.9, 0.05]], dtype=torch.float64).log()
    assert DIVERGENCES[name](target, log_prediction).item() > 0.1


@pytest.mark.parametrize("name", PROPER)
def test_gradient_vanishes_at_agreement(name):
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    logits.requires_grad_()
    log_p = torch.log_softmax(logits, dim=1)
    (gradient,) = torch.autograd.grad(DIVERGENCES[name](log_p.detach().exp(), log_p).sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)


@DTYPES
@pytest.mark.parametrize("name", UPPER_BOUNDS)
@EXAMPLES
@given(logits=logit_rows())
def test_within_its_upper_bound(name, dtype, logits):
    target, log_prediction = (log_probabilities(side, dtype) for side in logits)
    classes = target.shape[1]
    values = DIVERGENCES[name](target.exp(), log_prediction)
    assert (values <= UPPER_BOUNDS[name](classes) + rounding(classes, dtype)).all()


@DTYPES
@pytest.mark.parametrize("name", SYMMETRIC)
@EXAMPLES
@given(logits=logit_rows())
def test_symmetric_where_claimed(name, dtype, logits):
    log_p, log_q = (log_probabilities(side, dtype) for side in logits)
    there, back = DIVERGENCES[name](log_p.exp(), log_q), DIVERGENCES[name](log_q.exp(), log_p)
    torch.testing.assert_close(there, back, rtol=0, atol=rounding(log_p.shape[1], dtype))


@pytest.mark.parametrize("name", sorted(set(PROPER) - set(SYMMETRIC)))
def test_not_symmetric_where_not_claimed(name):
    log_p = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    log_q = torch.tensor([[0.1, 0.1, 0.8]], dtype=torch.float64).log()
    there, back = DIVERGENCES[name](log_p.exp(), log_q), DIVERGENCES[name](log_q.exp(), log_p)
    assert abs(there - back).item() > 0.01


@DTYPES
@pytest.mark.parametrize("name", DIVERGENCES)
def test_one_value_per_row_in_the_dtype_given(name, dtype):
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    target, log_prediction = torch.softmax(logits[0], 1), torch.log_softmax(logits[1], 1)
    values = DIVERGENCES[name](target, log_prediction)
    assert values.shape == (4,)
    assert values.dtype == dtype
    alone = torch.cat(
        [DIVERGENCES[name](target[[i]], log_prediction[[i]]) for i in range(len(target))]
    )
    torch.testing.assert_close(values, alone)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_order_of_classes_does_not_matter(name):
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target, log_prediction = torch.softmax(logits[0], 1), torch.log_softmax(logits[1], 1)
    order = [3, 0, 5, 1, 4, 2]
    torch.testing.assert_close(
        DIVERGENCES[name](target[:, order], log_prediction[:, order]),
        DIVERGENCES[name](target, log_prediction),
    )
