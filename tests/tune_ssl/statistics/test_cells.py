"""Many cells: literals, limits, independent references, error and power on a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tune_ssl.statistics.cells import (
    compare_cells,
    half_widths,
    pair_levels,
    pair_squares,
    simultaneous_differences,
)
from tune_ssl.statistics.crossed import MeanSquares, mean_products, paired_difference

NAMES = ("supervised", "ict", "vat", "mixmatch")


def simulated(
    generator: np.random.Generator,
    draw_sds: np.ndarray,
    *,
    draws: int,
    images: int = 60,
    image_sd: float = 0.05,
    effects: float | np.ndarray = 0.0,
) -> np.ndarray:
    """Return tables of cells whose true means are the effects, with draws and images of their own."""
    cells = len(draw_sds)
    return (
        np.broadcast_to(effects, cells)[:, None, None]
        + generator.normal(0, 0.1, (1, draws, 1))
        + generator.normal(0, 0.3, (1, 1, images))
        + generator.normal(0, 1, (cells, draws, 1)) * draw_sds[:, None, None]
        + generator.normal(0, image_sd, (cells, 1, images))
        + generator.normal(0, 0.2, (cells, draws, images))
    )


@pytest.fixture(scope="module")
def tables() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    accuracies = (0.70, 0.72, 0.90, 0.91)
    return {
        name: (generator.random((10, 200)) < accuracy).astype(float)
        for name, accuracy in zip(NAMES, accuracies, strict=True)
    }


# Levels.


def test_without_a_control_all_pairs_share_the_error() -> None:
    levels = pair_levels(4, None, 0.95)
    assert levels[0, 1] == levels[2, 3] == pytest.approx(1 - 0.05 / 6)


def test_with_a_control_half_of_the_error_is_its_own() -> None:
    levels = pair_levels(4, 1, 0.95)
    assert levels == pytest.approx(levels.T)
    assert levels[0, 1] == levels[1, 3] == pytest.approx(1 - 0.025 / 3)
    assert levels[0, 2] == levels[2, 3] == pytest.approx(1 - 0.025 / 3)
    assert pair_levels(7, 0, 0.95)[1, 2] == pytest.approx(1 - 0.025 / 15)
    assert pair_levels(7, 0, 0.95)[0, 2] == pytest.approx(1 - 0.025 / 6)


@pytest.mark.parametrize("cells", [2, 3, 7, 28])
@pytest.mark.parametrize("control", [None, 0])
def test_the_errors_of_all_pairs_add_up_to_the_whole(cells: int, control: int | None) -> None:
    first, second = np.triu_indices(cells, 1)
    assert (1 - pair_levels(cells, control, 0.95)[first, second]).sum() == pytest.approx(0.05)


# Widths.


def test_the_mean_squares_of_a_pair_are_those_of_its_difference() -> None:
    tables = np.random.default_rng(1).normal(size=(3, 6, 20))
    pairs = pair_squares(mean_products(tables))
    for first, second in ((0, 1), (2, 0), (1, 1)):
        alone = mean_products((tables[first] - tables[second])[None])
        for found, expected in zip(pairs, alone, strict=True):
            assert found[first, second] == pytest.approx(expected[0, 0], abs=1e-12)


def test_a_width_by_hand() -> None:
    """The pair 0 1 has MS_S = 1; the mean over the three is 2, which counts in its freedom."""
    draws = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
    squares = MeanSquares(draws=draws, images=5.0 * np.ones((3, 3)), residual=2.0 * np.ones((3, 3)))
    widths = half_widths(squares, (4, 11), control=None, level=0.95)
    images = 25 / 10 + 4 / 30
    level = 1 - 0.05 / 3 / 2
    of_the_mean = stats.t.ppf(level, (2 + 3) ** 2 / (2**2 / 3 + images)) * np.sqrt((1 + 3) / 44)
    of_its_own = stats.t.ppf(level, (3 + 3) ** 2 / (3**2 / 3 + images)) * np.sqrt((3 + 3) / 44)
    assert widths[0, 1] == widths[1, 0] == pytest.approx(of_the_mean)
    assert widths[1, 2] == pytest.approx(of_its_own)
    assert widths[0, 0] == 0.0


def test_two_cells_are_a_paired_difference(tables) -> None:
    both = {name: tables[name] for name in ("supervised", "vat")}
    for control in (None, "supervised"):
        rows = compare_cells(both, control=control)
        assert [row.name for row in rows] == ["vat", "supervised"]
    expected = paired_difference(tables["vat"], tables["supervised"])
    found = rows[0].against_control
    assert (found.mean, found.low, found.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert rows[1].against_control is None


def test_without_image_effects_it_is_bonferronis_paired_t_test() -> None:
    """scipy.stats.ttest_rel on the retrainings' accuracies, its p-value times the number of pairs."""
    accuracies = np.array([[0.1, 0.3, 0.2, 0.5], [0.5, 0.3, 0.1, 0.2], [0.3, 0.9, 0.4, 0.6]])
    tables = np.repeat(accuracies[:, :, None], 30, axis=2)
    found = simultaneous_differences(tables)
    for pair in ((0, 1), (0, 2), (1, 2)):
        reference = stats.ttest_rel(accuracies[pair[0]], accuracies[pair[1]])
        interval = reference.confidence_interval(1 - 0.05 / 3)
        assert found.means[pair] + found.half_widths[pair] == pytest.approx(interval.high)
        assert found.distinguishable[pair] == (3 * reference.pvalue < 0.05)


def test_a_comparison_beside_many_is_wider_than_alone(tables) -> None:
    alone = paired_difference(tables["vat"], tables["supervised"])
    row = next(r for r in compare_cells(tables, control="supervised") if r.name == "vat")
    assert row.against_control.low < alone.low
    assert row.against_control.high > alone.high


# The table.


def test_a_table_has_groups_and_verdicts(tables) -> None:
    rows = compare_cells(tables, control="supervised")
    assert [row.name for row in rows] == ["mixmatch", "vat", "ict", "supervised"]
    assert [row.letters for row in rows] == [("a",), ("a",), ("b",), ("b",)]
    assert [row.verdict for row in rows] == ["better", "better", "not distinguishable", ""]
    worse = compare_cells(tables, control="vat")
    assert [row.verdict for row in worse] == ["not distinguishable", "", "worse", "worse"]


def test_letters_and_verdicts_agree(tables) -> None:
    for control in tables:
        rows = compare_cells(tables, control=control)
        (own,) = (row for row in rows if row.name == control)
        for row in rows:
            if row.name != control:
                shares = bool(set(row.letters) & set(own.letters))
                assert shares == (row.verdict == "not distinguishable")


def test_the_order_in_which_cells_are_given_changes_nothing(tables) -> None:
    equal = {"also_vat": tables["vat"]} | tables
    expected = compare_cells(equal, control="supervised")
    for order in (reversed(equal), sorted(equal)):
        rows = compare_cells({name: equal[name] for name in order}, control="supervised")
        assert [(row.name, row.letters, row.verdict) for row in rows] == [
            (row.name, row.letters, row.verdict) for row in expected
        ]
    assert [row.name for row in expected[1:3]] == ["also_vat", "vat"]


def test_equal_cells_share_everything() -> None:
    table = np.random.default_rng(0).random((5, 40)) < 0.8
    rows = compare_cells({"b": table, "a": table, "c": table}, control="b")
    assert {row.letters for row in rows} == {("a",)}
    assert {row.verdict for row in rows} == {"", "not distinguishable"}


def test_what_cannot_be_compared_is_refused(tables) -> None:
    with pytest.raises(ValueError, match="control is 'none'"):
        compare_cells(tables, control="none")
    with pytest.raises(ValueError, match="1 cells"):
        compare_cells({"vat": tables["vat"]})
    with pytest.raises(ValueError, match="vat 10 x 200, ict 9 x 200"):
        compare_cells({"vat": tables["vat"], "ict": tables["ict"][:9]})


# What is claimed of tables whose truth is known.


def false_claims(draw_sds: np.ndarray, *, draws: int, image_sd: float, count: int = 400) -> float:
    """Return the share of tables of equal cells that make any claim."""
    generator = np.random.default_rng(11)
    claims = [
        simultaneous_differences(
            simulated(generator, draw_sds, draws=draws, image_sd=image_sd), control=0
        ).distinguishable.any()
        for _ in range(count)
    ]
    return float(np.mean(claims))


STEADY = np.full(28, 0.05)
ERRATIC = np.where(np.arange(28) == 5, 0.25, 0.05)


@pytest.mark.parametrize("draw_sds", [STEADY, ERRATIC], ids=["steady", "one erratic"])
@pytest.mark.parametrize(("draws", "image_sd"), [(5, 0.1), (10, 0.1), (20, 0.05)])
def test_at_most_5_percent_of_null_tables_claim_anything(draw_sds, draws, image_sd) -> None:
    """400 tables of 28 cells: .05 has a standard error of .011.

    With a pair's own Satterthwaite freedom .13 of the tables of 5 draws claim something, with pooled
    variances .11 and .14 of those of 10 and 20 with an erratic cell, without Bonferroni .98 of all.
    """
    assert false_claims(draw_sds, draws=draws, image_sd=image_sd) <= 0.075


def test_a_difference_that_is_there_is_found() -> None:
    """.05 at a standard error of .0114: sqrt(2 (.02^2 / 20 + .05^2 / 100 + .2^2 / 2000))."""
    generator = np.random.default_rng(4)
    effects = np.where(np.arange(7) == 3, 0.05, 0.0)
    found, false = 0, 0
    for _ in range(200):
        tables = simulated(generator, np.full(7, 0.02), draws=20, images=100, effects=effects)
        claims = simultaneous_differences(tables, control=0).distinguishable
        found += claims[0, 3]
        claims[3, :] = claims[:, 3] = False
        false += claims.any()
    assert found / 200 >= 0.85
    assert false / 200 <= 0.06
