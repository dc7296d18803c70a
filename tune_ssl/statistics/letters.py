"""Groups as letters: cells that share one are not distinguishable."""

from __future__ import annotations

import string
from collections.abc import Iterator
from itertools import combinations, count, product

import numpy as np
import numpy.typing as npt


def compact_letters(distinguishable: npt.NDArray[np.bool_]) -> list[tuple[str, ...]]:
    """Return each cell's letters: two cells share one if and only if they are not distinguishable.

    Insert and absorb, then sweep (Piepho 2004, Journal of Computational and Graphical Statistics
    13:456). A letter stands for a set of cells. At first all share one; each distinguishable pair
    splits the sets that hold both; a set within another goes, and at last one whose every pair
    another set holds. Letters are given in the order of the cells.

    Args:
        distinguishable: (K, K), symmetric, False on the diagonal; best cell first.
    """
    cells = len(distinguishable)
    groups = {frozenset(range(cells))}
    for pair in combinations(range(cells), 2):
        if distinguishable[pair]:
            groups = _split(groups, frozenset(pair))
    kept = _swept(sorted(groups, key=sorted))
    return [
        tuple(letter for letter, group in zip(_letters(), kept, strict=False) if cell in group)
        for cell in range(cells)
    ]


def _split(groups: set[frozenset[int]], pair: frozenset[int]) -> set[frozenset[int]]:
    """Return groups of which none holds the pair, and none lies within another."""
    holding = {group for group in groups if pair <= group}
    parts = {group - {cell} for group in holding for cell in pair}
    rest = groups - holding
    candidates = rest | parts
    return rest | {part for part in parts if not any(part < other for other in candidates)}


def _swept(groups: list[frozenset[int]]) -> list[frozenset[int]]:
    """Return the groups without those whose pairs, and cell, others hold."""
    kept = list(groups)
    for group in reversed(groups):
        others = [other for other in kept if other != group]
        pairs = [
            {*pair} for pair in product(group, repeat=2)
        ]  # a cell with itself: it needs a letter
        if all(any(pair <= other for other in others) for pair in pairs):
            kept = others
    return kept


def _letters() -> Iterator[str]:
    """Yield a to z, then aa, ab, and so on."""
    for length in count(1):
        for letters in product(string.ascii_lowercase, repeat=length):
            yield "".join(letters)
