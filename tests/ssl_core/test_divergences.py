"""Each divergence by literals, limits, gradients and independent references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from ssl_core.divergences import (
    DIVERGENCES,
    js,
    kl,
    l1,
    mse,
    notebook_js,
    notebook_kl,
    reverse_kl,
)

LN2 = math.log(2.0)
BOTH_DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

# t = (1/2, 1/2) and q = (1/4, 3/4), worked out by hand.
SQUASHED = 1.0 / (1.0 + math.exp(0.5))  # softmax of (1/4, 3/4), first entry
LITERALS = {
    "mse": 1 / 16,
    "l1": 1 / 4,
    "kl": math.log(2 / math.sqrt(3)),
    "reverse_kl": 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2),
    "js": 0.25 * math.log(16 / 15) + 0.125 * math.log(2 / 3) + 0.375 * math.log(6 / 5),
    "notebook_kl": 0.5 * (-LN2 - 0.5),
    "notebook_js": 0.25
    * (SQUASHED * math.log(2 * SQUASHED) + (1 - SQUASHED) * math.log(2 * (1 - SQUASHED))),
}


def random_pair(rows: int, classes: int, seed: int, zeros: bool = False):
    """Return targets and log-predictions (rows, classes) in float64, some targets exactly 0."""
    random = np.random.RandomState(seed)
    target = random.dirichlet(np.full(classes, 0.5), size=rows)
    if zeros:
        target[:, 1:][random.rand(rows, classes - 1) < 0.5] = 0.0
        target /= target.sum(axis=1, keepdims=True)
    prediction = random.dirichlet(np.full(classes, 0.8), size=rows)
    return torch.from_numpy(target), torch.from_numpy(prediction).log()


def log_softmax_of(logits: list[list[float]], dtype: torch.dtype = torch.float64):
    return torch.log_softmax(torch.tensor(logits, dtype=dtype), dim=1)


def test_the_literals_cover_every_divergence():
    assert LITERALS.keys() == DIVERGENCES.keys()


@pytest.mark.parametrize("name", LITERALS)
def test_value_worked_out_by_hand(name):
    target = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    log_prediction = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
    assert DIVERGENCES[name](target, log_prediction).item() == pytest.approx(
        LITERALS[name], rel=1e-14
    )


@pytest.mark.parametrize("zeros", [False, True])
def test_mse_and_l1_are_means_over_classes(zeros):
    target, log_prediction = random_pair(50, 7, seed=0, zeros=zeros)
    difference = target.numpy() - np.exp(log_prediction.numpy())
    np.testing.assert_allclose(mse(target, log_prediction), np.mean(difference**2, axis=1), 1e-12)
    np.testing.assert_allclose(l1(target, log_prediction), np.mean(abs(difference), axis=1), 1e-12)


@pytest.mark.parametrize("zeros", [False, True])
def test_kl_is_scipys_relative_entropy_summed_over_classes(zeros):
    target, log_prediction = random_pair(50, 7, seed=1, zeros=zeros)
    expected = rel_entr(target.numpy(), np.exp(log_prediction.numpy())).sum(axis=1)
    np.testing.assert_allclose(kl(target, log_prediction), expected, rtol=1e-10, atol=1e-14)


def test_reverse_kl_is_scipys_relative_entropy_the_other_way_round():
    target, log_prediction = random_pair(50, 7, seed=2)
    target = 0.999 * target + 0.001 / 7  # above the floor
    expected = rel_entr(np.exp(log_prediction.numpy()), target.numpy()).sum(axis=1)
    np.testing.assert_allclose(reverse_kl(target, log_prediction), expected, rtol=1e-10)


def test_reverse_kl_puts_a_floor_of_1e_minus_7_under_the_target():
    target = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    log_prediction = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    expected = -LN2 + 0.5 * 7 * math.log(10)
    assert reverse_kl(target, log_prediction).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("zeros", [False, True])
def test_js_is_the_square_of_scipys_jensen_shannon_distance(zeros):
    target, log_prediction = random_pair(50, 7, seed=3, zeros=zeros)
    expected = jensenshannon(target.numpy(), np.exp(log_prediction.numpy()), axis=1) ** 2
    np.testing.assert_allclose(js(target, log_prediction), expected, rtol=1e-9, atol=1e-14)


def test_kl_against_a_one_hot_target_is_the_cross_entropy():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    target = torch.eye(5, dtype=torch.float64)[labels]
    torch.testing.assert_close(kl(target, torch.log_softmax(logits, 1)), expected)


def test_kl_and_reverse_kl_are_different_directions():
    narrow, wide = [0.98, 0.01, 0.01], [0.4, 0.3, 0.3]
    target = torch.tensor([narrow], dtype=torch.float64)
    log_prediction = torch.tensor([wide], dtype=torch.float64).log()
    forward = sum(t * math.log(t / q) for t, q in zip(narrow, wide, strict=True))
    backward = sum(q * math.log(q / t) for t, q in zip(narrow, wide, strict=True))
    assert abs(forward - backward) > 0.5
    assert kl(target, log_prediction).item() == pytest.approx(forward, rel=1e-12)
    assert reverse_kl(target, log_prediction).item() == pytest.approx(backward, rel=1e-12)


def test_near_agreement_js_is_a_quarter_of_kl_and_kl_is_symmetric():
    base = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    log_prediction = (base + 1e-4 * torch.tensor([[1.0, -2.0, 1.0]])).log()
    forward = kl(base, log_prediction).item()
    assert js(base, log_prediction).item() == pytest.approx(forward / 4, rel=1e-3)
    assert reverse_kl(base, log_prediction).item() == pytest.approx(forward, rel=1e-2)


def test_opposite_certainties_reach_the_upper_bounds():
    target = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    log_prediction = log_softmax_of([[200.0, 0.0, 0.0]])
    assert mse(target, log_prediction).item() == pytest.approx(2 / 3, rel=1e-12)
    assert l1(target, log_prediction).item() == pytest.approx(2 / 3, rel=1e-12)
    assert js(target, log_prediction).item() == pytest.approx(LN2, rel=1e-12)
    assert kl(target, log_prediction).item() == pytest.approx(200.0, rel=1e-12)


@BOTH_DTYPES
@pytest.mark.parametrize("gap", [0.0, 5.0, 50.0, 120.0, 2000.0])
@pytest.mark.parametrize("true_class", [0, 1])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_one_hot_target_gives_finite_values_and_gradients(name, true_class, gap, dtype):
    logits = torch.tensor([[gap, 0.0, -gap]], dtype=dtype, requires_grad=True)
    target = torch.eye(3, dtype=dtype)[[true_class]]
    value = DIVERGENCES[name](target, torch.log_softmax(logits, dim=1))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


@BOTH_DTYPES
def test_zero_log_zero_is_zero_where_the_target_is_zero(dtype):
    """With t_c = 0 class c adds nothing to kl, and q_c ln 2 / 2 to js."""
    log_prediction = torch.tensor([[0.7, 0.2, 0.1]], dtype=dtype).log().requires_grad_()
    target = torch.tensor([[0.6, 0.4, 0.0]], dtype=dtype)
    kl(target, log_prediction).sum().backward()
    torch.testing.assert_close(log_prediction.grad, -target)

    log_prediction.grad = None
    js(target, log_prediction).sum().backward()
    assert log_prediction.grad[0, 2].item() == pytest.approx(0.05 * LN2, rel=1e-6)


@BOTH_DTYPES
@pytest.mark.parametrize("log_q", [-1.0, -20.0, -95.0, -740.0, -3000.0])
def test_js_and_its_gradient_stay_exact_as_q_vanishes_where_the_target_is_zero(log_q, dtype):
    """The gradient by log q is q/2 log(q/m), with m = q/2 where t = 0."""
    log_prediction = torch.tensor([[math.log1p(-math.exp(log_q)), log_q]], dtype=dtype)
    log_prediction.requires_grad_()
    target = torch.tensor([[1.0, 0.0]], dtype=dtype)
    value = js(target, log_prediction)
    value.sum().backward()
    q = math.exp(log_q)
    m = (2.0 - q) / 2
    expected = 0.5 * (-math.log(m) + (1 - q) * math.log((1 - q) / m) + q * LN2)
    assert value.item() == pytest.approx(expected, abs=1e-7)
    assert log_prediction.grad[0, 1].item() == pytest.approx(0.5 * q * LN2, rel=1e-5, abs=1e-42)


def test_js_gradient_is_half_q_log_q_over_m():
    target, log_prediction = random_pair(20, 6, seed=4)
    log_prediction.requires_grad_()
    js(target, log_prediction).sum().backward()
    q = log_prediction.detach().exp()
    expected = 0.5 * q * (2 * q / (target + q)).log()
    torch.testing.assert_close(log_prediction.grad, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("one_hot", [False, True])
def test_gradient_agrees_with_finite_differences(name, one_hot):
    target, _ = random_pair(4, 5, seed=5, zeros=True)
    if one_hot:
        target = torch.eye(5, dtype=torch.float64)[[0, 1, 2, 3]]
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: DIVERGENCES[name](target, torch.log_softmax(z, dim=1)), logits.requires_grad_()
    )


@pytest.mark.parametrize("name", DIVERGENCES)
def test_float32_agrees_with_float64(name):
    target, log_prediction = random_pair(50, 10, seed=6, zeros=True)
    double = DIVERGENCES[name](target, log_prediction)
    single = DIVERGENCES[name](target.float(), log_prediction.float())
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)


# What the seed notebook computed under the names of KL and JS.


def test_notebook_kl_is_an_inner_product_in_disguise():
    target, log_prediction = random_pair(30, 10, seed=7, zeros=True)
    t, q = target.numpy(), np.exp(log_prediction.numpy())
    entropy = rel_entr(t, np.ones_like(t)).sum(axis=1)
    np.testing.assert_allclose(
        notebook_kl(target, log_prediction), (entropy - (t * q).sum(axis=1)) / 10, rtol=1e-12
    )


def test_notebook_kl_is_minus_2403_at_uniform_agreement_with_ten_classes():
    uniform = torch.full((1, 10), 0.1, dtype=torch.float64)
    value = notebook_kl(uniform, uniform.log()).item()
    assert value == pytest.approx(-0.2403, abs=5e-5)
    assert value == pytest.approx(-(math.log(10) + 0.1) / 10, rel=1e-13)


def test_notebook_kl_is_never_positive_nor_below_its_minimum():
    target, log_prediction = random_pair(200, 10, seed=8, zeros=True)
    values = notebook_kl(target, log_prediction)
    # Over all t and q the entropy of t plus the inner product is at most log(e + C - 1).
    assert values.max() <= 0
    assert values.min() >= -math.log(math.e + 9) / 10


def test_notebook_js_squashes_both_sides_and_averages():
    target, log_prediction = random_pair(30, 10, seed=9, zeros=True)

    def squash(rows):
        weights = np.exp(rows)
        return weights / weights.sum(axis=1, keepdims=True)

    s_t, s_q = squash(target.numpy()), squash(np.exp(log_prediction.numpy()))
    expected = 0.5 * rel_entr(s_q, s_t).mean(axis=1)
    np.testing.assert_allclose(notebook_js(target, log_prediction), expected, rtol=1e-10)


@pytest.mark.parametrize(("classes", "at_most"), [(2, 0.1155), (3, 0.0607), (10, 0.0073)])
def test_the_largest_notebook_js_depends_on_the_number_of_classes(classes, at_most):
    target = torch.eye(classes, dtype=torch.float64)[[0]]
    opposite = log_softmax_of([[0.0, 100.0] + (classes - 2) * [0.0]])
    largest = notebook_js(target, opposite).item()
    assert largest == pytest.approx(at_most, abs=5e-5)
    bound = (math.e - 1) / (2 * classes * (math.e + classes - 1))
    assert largest == pytest.approx(bound, rel=1e-12)
    others = notebook_js(*random_pair(200, classes, seed=10, zeros=True))
    assert others.max() < largest
    assert others.min() >= 0


@pytest.mark.parametrize("classes", [3, 10])
def test_notebook_js_is_4_c_times_weaker_than_mse_around_uniform(classes):
    uniform = torch.full((1, classes), 1 / classes, dtype=torch.float64)
    near = uniform.clone()
    near[0, :2] += torch.tensor([1e-4, -1e-4])
    ratio = mse(near, uniform.log()) / notebook_js(near, uniform.log())
    assert ratio.item() == pytest.approx(4 * classes, rel=1e-3)
