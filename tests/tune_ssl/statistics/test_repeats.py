"""What an interval is about: searches or retrainings, and how many are enough."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.errors import UserError
from tune_ssl.statistics.crossed import crossed_interval
from tune_ssl.statistics.repeats import (
    caption,
    check_retrainings,
    collapsed,
    interval_over_searches,
    is_indicative,
    over_searches,
)


def test_fewer_than_three_retrainings_are_refused() -> None:
    check_retrainings(3)
    with pytest.raises(UserError, match="seeds is 2; allowed: at least 3"):
        check_retrainings(2)


def test_fewer_than_ten_are_indicative() -> None:
    assert [is_indicative(count) for count in (3, 9, 10, 20)] == [True, True, False, False]


def test_a_caption_says_what_the_interval_is_about() -> None:
    one = "conditional on the configuration found by one search"
    assert caption(repeats=1, retrainings=20) == one
    assert caption(repeats=1, retrainings=5) == f"{one}; indicative"
    assert caption(repeats=10, retrainings=5) == "over 10 independent searches"
    assert caption(repeats=4, retrainings=20) == "over 4 independent searches; indicative"


def test_a_row_is_a_search_image_by_image() -> None:
    first = [[1, 0, 1], [1, 0, 0]]
    second = [[0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1]]
    assert over_searches([first, second]) == pytest.approx(
        np.array([[1.0, 0.0, 0.5], [0.5, 0.75, 1.0]])
    )


def test_a_single_search_is_judged_by_its_retrainings() -> None:
    table = np.random.default_rng(0).random((6, 30)) < 0.8
    assert interval_over_searches([table]) == crossed_interval(table)
    with pytest.raises(ValueError, match="no search"):
        interval_over_searches([])


def test_an_interval_over_searches_covers_the_method_where_one_search_does_not() -> None:
    """Searches differ by .05, retrainings of one by .02: 6 searches of 10 retrainings, mean 0."""
    generator = np.random.default_rng(8)
    over, conditional = 0, 0
    for _ in range(400):
        found = generator.normal(0, 0.05, (6, 1, 1))
        image = generator.normal(0, 0.1, (1, 1, 40))
        rows = found + generator.normal(0, 0.02, (6, 10, 1)) + image
        tables = rows + generator.normal(0, 0.2, (6, 10, 40)) + 0.5
        whole = interval_over_searches(list(tables))
        single = interval_over_searches([tables[0]])
        over += whole.low <= 0.5 <= whole.high
        conditional += single.low <= 0.5 <= single.high
    assert 0.92 <= over / 400 <= 0.985
    assert conditional / 400 < 0.8


def test_what_lies_far_below_the_others_has_collapsed() -> None:
    found = collapsed([0.8, 0.82, 0.61, 0.599, 0.78, 0.8, 0.99])
    assert found.tolist() == [False, False, False, True, False, False, False]
    assert not collapsed([0.1, 0.9, 0.9, 0.9, 0.9, 0.9][1:]).any()
    assert not collapsed([0.1, 0.1, 0.9]).any(), "what most do is no collapse of few"
