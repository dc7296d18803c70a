"""Letters: a share of one says not distinguishable, and nothing else does."""

from __future__ import annotations

from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_ssl.statistics.letters import _letters, compact_letters


def display(cells: int, *pairs: tuple[int, int]) -> list[str]:
    """Return the letters of cells of which these pairs are distinguishable."""
    matrix = np.zeros((cells, cells), dtype=np.bool_)
    for first, second in pairs:
        matrix[first, second] = matrix[second, first] = True
    return ["".join(letters) for letters in compact_letters(matrix)]


def test_nothing_distinguishable_is_one_letter() -> None:
    assert display(3) == ["a", "a", "a"]


def test_everything_distinguishable_is_a_letter_each() -> None:
    assert display(3, (0, 1), (0, 2), (1, 2)) == ["a", "b", "c"]


def test_best_and_worst_differ_and_the_middle_is_like_both() -> None:
    assert display(3, (0, 2)) == ["a", "ab", "b"]


def test_an_erratic_cell_is_like_both_groups() -> None:
    """Cells 0, 1 above 3, 4; cell 2 scatters so that it is like all."""
    assert display(5, (0, 3), (0, 4), (1, 3), (1, 4)) == ["a", "a", "ab", "b", "b"]


def test_a_group_whose_pairs_others_hold_is_swept_away() -> None:
    """0-1-2 and 3 around them: the triangle 0 1 2 needs no letter beside 013, 023, 124, ..."""
    edges = {(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (1, 4), (2, 4), (0, 5), (2, 5)}
    apart = [(i, j) for i in range(6) for j in range(i + 1, 6) if (i, j) not in edges]
    letters = display(6, *apart)
    assert len(set("".join(letters))) == 3


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n * n - 1))))
)
def test_two_cells_share_a_letter_if_and_only_if_they_are_not_distinguishable(drawn) -> None:
    cells, marked = drawn
    matrix = np.zeros((cells, cells), dtype=np.bool_)
    for place in marked:
        first, second = divmod(place, cells)
        matrix[first, second] = matrix[second, first] = first != second
    letters = compact_letters(matrix)
    for first in range(cells):
        assert letters[first]
        for second in range(first):
            shared = bool(set(letters[first]) & set(letters[second]))
            assert shared == (not matrix[first, second])


def test_the_27th_letter_is_aa() -> None:
    assert list(islice(_letters(), 24, 29)) == ["y", "z", "aa", "ab", "ac"]
    assert len(set(islice(_letters(), 800))) == 800
