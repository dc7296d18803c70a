"""Ramps and learning-rate schedules as functions of the part of the budget that is done."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_core.schedules import (
    LEARNING_RATE_SCHEDULES,
    constant,
    cosine_decay,
    gaussian_ramp_up,
    linear_ramp_up,
    step_decay,
)
from tests.examples import EXAMPLES

RAMPS = pytest.mark.parametrize("ramp", [gaussian_ramp_up, linear_ramp_up])
FRACTIONS = st.floats(0.0, 1.0)


def at(progress: float) -> torch.Tensor:
    return torch.tensor(progress, dtype=torch.float64)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, math.exp(-5.0)),
        (0.1, math.exp(-5.0 * 0.75**2)),
        (0.2, math.exp(-1.25)),
        (0.3, math.exp(-5.0 / 16)),
        (0.4, 1.0),
        (0.7, 1.0),
        (1.0, 1.0),
    ],
)
def test_gaussian_ramp_over_two_fifths_of_the_budget(progress, expected):
    assert gaussian_ramp_up(at(progress), 0.4).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.0), (0.05, 0.2), (0.125, 0.5), (0.25, 1.0), (0.9, 1.0)]
)
def test_linear_ramp_over_a_quarter_of_the_budget(progress, expected):
    assert linear_ramp_up(at(progress), 0.25).item() == pytest.approx(expected, abs=1e-12)


@RAMPS
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_a_ramp_of_zero_is_no_ramp(ramp, progress):
    assert ramp(at(progress), 0.0).item() == 1.0


@RAMPS
@EXAMPLES
@given(earlier=FRACTIONS, later=FRACTIONS, fraction=st.floats(0.01, 1.0))
def test_a_ramp_never_falls_and_stays_between_zero_and_one(ramp, earlier, later, fraction):
    earlier, later = sorted((earlier, later))
    low, high = ramp(at(earlier), fraction).item(), ramp(at(later), fraction).item()
    assert 0.0 <= low <= high <= 1.0


@RAMPS
@EXAMPLES
@given(part=FRACTIONS, fraction=st.floats(0.01, 1.0))
def test_a_ramp_depends_on_the_part_of_it_that_is_done(ramp, part, fraction):
    expected = ramp(at(part), 1.0).item()
    assert ramp(at(part * fraction), fraction).item() == pytest.approx(expected, abs=1e-9)


def test_cosine_decay_follows_fixmatch():
    assert cosine_decay(at(0.0)).item() == 1.0
    assert cosine_decay(at(1.0)).item() == pytest.approx(math.sin(math.pi / 16), rel=1e-12)
    assert cosine_decay(at(4 / 7)).item() == pytest.approx(math.sqrt(0.5), rel=1e-12)


def test_step_decay_is_a_fifth_after_four_fifths_of_the_budget():
    values = [step_decay(at(progress)).item() for progress in (0.0, 0.79, 0.8, 1.0)]
    assert values == [1.0, 1.0, 0.2, 0.2]


def test_constant_is_one():
    assert [constant(at(progress)).item() for progress in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", LEARNING_RATE_SCHEDULES)
@EXAMPLES
@given(earlier=FRACTIONS, later=FRACTIONS)
def test_a_learning_rate_schedule_starts_at_one_and_never_rises(name, earlier, later):
    schedule = LEARNING_RATE_SCHEDULES[name]
    earlier, later = sorted((earlier, later))
    assert schedule(at(0.0)).item() == 1.0
    assert 0.0 < schedule(at(later)).item() <= schedule(at(earlier)).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_schedule_gives_a_scalar_tensor_of_the_dtype_given(dtype):
    progress = torch.tensor(0.3, dtype=dtype)
    values = [schedule(progress) for schedule in LEARNING_RATE_SCHEDULES.values()]
    values += [ramp(progress, r) for ramp in (gaussian_ramp_up, linear_ramp_up) for r in (0.0, 0.5)]
    assert all(value.shape == () and value.dtype == dtype for value in values)
