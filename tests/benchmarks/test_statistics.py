"""The statistics' benchmark: its model has the truth it says, its counts count, a short run records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import statistics
from benchmarks.comparisons import recorded
from benchmarks.corrections import RULES
from benchmarks.statistics import (
    BANKS,
    CELLS,
    DRAWS,
    RECORD,
    Model,
    banked,
    from_bank,
    intercept,
    table_model,
    tally,
    validated,
)
from ssl_core.errors import UserError


def test_an_intercept_without_effects_is_the_logit():
    assert intercept(0.8, 0.0) == pytest.approx(np.log(4))
    assert intercept(0.5, 2.0) == pytest.approx(0.0, abs=1e-9)


def test_cells_have_the_accuracy_they_shall_whatever_their_scatter():
    model = Model(draw=0.3, image=1.5, cell_draw=np.array([0.2, 1.2]), cell_image=0.6)
    mu = model.intercepts([0.8, 0.85])
    generator = np.random.default_rng(0)
    means = np.mean([model.tables(mu, 4, generator).mean(axis=(1, 2)) for _ in range(600)], axis=0)
    assert means == pytest.approx([0.8, 0.85], abs=0.01)  # 3 standard errors of the erratic one
    scatter = [model.tables(mu, 400, generator).mean(axis=2).std(axis=1) for _ in range(2)]
    assert np.mean(scatter, axis=0)[1] > 2 * np.mean(scatter, axis=0)[0]


def test_cells_that_collapse_have_the_accuracy_they_shall():
    model = table_model(7, "collapsing")
    mu = model.intercepts(0.8)
    means = model.tables(mu, 6000, np.random.default_rng(0)).mean(axis=2)[[0, 6]]
    assert means.mean(axis=1) == pytest.approx([0.8, 0.8], abs=0.02)  # one draw of images
    assert (means < 0.6).mean(axis=1) == pytest.approx([0, 0.2], abs=0.02)


def test_one_cell_in_seven_is_erratic_and_neither_control_nor_planted():
    own = table_model(28, "unequal").cell_draw
    assert np.flatnonzero(own > 1).tolist() == [6, 13, 20, 27]
    assert len(set(table_model(28, "equal").cell_draw)) == 1
    collapsing = table_model(28, "collapsing").collapses
    assert np.flatnonzero(collapsing).tolist() == [6, 13, 20, 27]


def test_claims_are_counted_by_hand():
    """Cell 1 is the better one; claimed are 0-1 and 1-2, rightly, and 0-2."""
    differ = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]], dtype=bool)
    claims = np.array([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    assert tally(claims, differ).tolist() == [1, 1, 1, 2 / 3]
    assert tally(claims & differ, differ).tolist() == [0, 0, 1, 2 / 3]
    assert tally(claims, np.zeros_like(differ)).tolist() == [1, 3, 1, 0]


def test_intervals_from_a_bank_cover_the_bank():
    generator = np.random.default_rng(3)
    ability = generator.normal(0.75, 0.05, (3, 60, 1)) + generator.normal(0, 0.1, (1, 1, 200))
    recorded = dict(zip("abc", generator.random((3, 60, 200)) < ability, strict=True))
    ignorant = generator.random((3, 60))  # validation that knows nothing chooses without luck
    row = from_bank(recorded, 10, 300, validation=ignorant)
    assert (row["cells"], row["retrainings"], row["draws"]) == (3, 60, 10)
    assert all(0.9 <= share <= 0.99 for share in row["accuracies"].values())
    assert 0.92 <= row["pairs"] <= 0.985
    assert row["whole_tables"] >= 0.92
    assert row["false_tables"] <= 0.08
    assert row["wrong_tables"] <= 0.05
    assert row["winner"]["covered"] >= 0.9
    assert abs(row["winner"]["too_high"]) < 0.006
    assert (row["collapsing"], row["steady"]) == ([], row["whole_tables"])


def test_a_winner_named_by_the_same_draws_looks_better_than_it_is():
    """Ten equal cells whose draws move validation and test alike."""
    generator = np.random.default_rng(5)
    drawn = generator.normal(0.7, 0.1, (10, 20))
    cells = generator.random((10, 20, 300)) < drawn[..., None]
    row = from_bank(dict(zip("abcdefghij", cells, strict=True)), 5, 300, validation=drawn)
    assert row["winner"]["too_high"] > 0.02
    assert row["winner"]["covered"] < np.mean(list(row["accuracies"].values())) - 0.02


def test_tables_are_counted_with_and_without_cells_that_collapse():
    generator = np.random.default_rng(6)
    drawn = np.full((4, 20), 0.8)
    drawn[3, 0] = 0.2
    cells = dict(zip("abcd", generator.random((4, 20, 300)) < drawn[..., None], strict=True))
    row = from_bank(cells, 10, 300, validation=drawn)
    assert row["collapsing"] == ["d"]
    assert row["steady"] > row["whole_tables"] + 0.02


def test_what_a_bank_says_of_size_and_power():
    """Two cells that are equal, and one that is twelve points better, in every draw."""
    generator = np.random.default_rng(4)
    ability = np.array([0.6, 0.6, 0.72])[:, None, None] + generator.normal(0, 0.1, (1, 1, 300))
    cells = dict(zip("abc", generator.random((3, 40, 300)) < ability, strict=True))
    row = from_bank(cells, 10, 200, validation=generator.random((3, 40)))
    assert row["found"] == {"10 to 100": {"pairs": 2, "share": 1.0}}
    assert row["wrong_tables"] < 0.05
    assert 0.0 < row["false_tables"] < 0.1
    means = {name: table.mean() for name, table in cells.items()}
    assert abs(means["a"] - means["b"]) < 0.02


def test_a_comparison_s_retrainings_are_a_bank_whose_first_cell_is_the_control():
    for name in BANKS:
        cells = banked(name)
        assert next(iter(cells)) == "supervised"
        assert len(cells) == 25
        assert {table.shape for table in cells.values()} == {(20, 600)}
        assert validated(name).shape == (25, 20)
        shown = {row["name"]: row["validation"] for row in recorded(name)["cells"]}
        assert dict(zip(cells, validated(name).mean(axis=1), strict=True)) == pytest.approx(shown)
        means = {row["name"]: row["test"]["mean"] for row in recorded(name)["cells"]}
        for cell, table in cells.items():
            assert table.mean() == pytest.approx(means[cell], abs=1e-6)


def test_a_short_run_records_its_parts_and_keeps_the_others(tmp_path, monkeypatch, capsys):
    path = tmp_path / "statistics.json"
    path.write_text('{"coverage": {"rows": []}}')
    monkeypatch.setattr(statistics, "RECORD", path)
    monkeypatch.setattr(
        sys, "argv", ["statistics", "equal", "bank", "--replicates", "2", "--record"]
    )
    statistics.main()
    made = json.loads(path.read_text())
    assert list(made) == ["coverage", "equal", "bank"]
    assert made["coverage"] == {"rows": []}
    assert made["equal"]["replicates"] == 2
    rows = made["bank"]["rows"]
    assert [(row["bank"], row["draws"]) for row in rows] == [
        (name, draws) for name in BANKS for draws in DRAWS
    ]
    assert len(rows[0]["accuracies"]) == 25
    assert len(capsys.readouterr().out.splitlines()) == len(made["equal"]["rows"]) + 6
    for row in made["equal"]["rows"]:
        assert row["false_tables"].keys() == RULES.keys()
        assert ("found" in row) == (row["effect"] > 0)


def test_an_unknown_part_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["statistics", "equals"])
    with pytest.raises(UserError, match="did you mean 'equal'"):
        statistics.main()


def test_what_is_recorded_is_what_the_documentation_claims():
    record = json.loads(RECORD.read_text())
    assert all(0.93 <= row["crossed"] <= 0.97 for row in record["coverage"]["rows"])
    for part in ("equal", "unequal"):
        assert record[part]["replicates"] >= 2000
        for row in record[part]["rows"]:
            assert row["false_tables"]["chosen"] <= 0.05 + 2 * 0.005  # two standard errors
            if row["effect"] and row["draws"] == 20:
                assert row["found"]["chosen"] >= 0.8
    assert {row["cells"] for row in record["equal"]["rows"]} == set(CELLS)
    collapsing = [row for row in record["collapsing"]["rows"] if not row["effect"]]
    for row in collapsing:  # the limit that docs/statistics.md names
        assert (row["false_tables"]["chosen"] < 0.07) == (row["draws"] == 20)


def test_the_page_s_figures_of_real_retrainings_are_those_of_the_record():
    page = (Path(__file__).parents[2] / "docs/statistics.md").read_text()
    rows = json.loads(RECORD.read_text())["bank"]["rows"]
    assert [(row["bank"], row["draws"]) for row in rows] == [(b, s) for b in BANKS for s in DRAWS]
    for row in rows:
        covered = sorted(row["accuracies"].values())
        shares = [
            f"{row['found'][points]['share']:.2f}" if points in row["found"] else "-"
            for points in ("2 to 5", "5 to 10", "10 to 100")
        ]
        assert (
            f"| {row['bank'][-2:]} | {row['draws']} | {np.median(covered):.2f} | {covered[0]:.2f} | "
            f"{row['winner']['covered']:.2f}, {100 * row['winner']['too_high']:+.1f} | "
            f"{row['pairs']:.2f} | {row['whole_tables']:.2f} | {row['steady']:.2f} | {row['false_tables']:.3f} | "
            f"{row['wrong_tables']:.4f} | {' / '.join(shares)} |"
        ) in page
    words = " ".join(page.split())
    falling = [
        row["accuracies"][name] for row in rows for name in row["collapsing"] if row["draws"] >= 10
    ]
    assert f"({min(falling):.2f} to {max(falling):.2f})".replace("0.", ".") in words
    others = {
        (row["bank"], row["draws"]): min(
            covered for name, covered in row["accuracies"].items() if name not in row["collapsing"]
        )
        for row in rows
    }
    assert {round(others[b, 10], 2) for b in BANKS} == {0.91}
    assert min(others[b, 20] for b in BANKS) >= 0.93
    steady = [f"{row['steady']:.2f}"[1:] for row in rows]
    assert "in {}, {} and {}: so a table".format(*steady[:3]) in words
    assert {name.split(" / ")[0] for row in rows for name in row["collapsing"]} == {"ict"}
    assert [len(row["collapsing"]) for row in rows] == [3, 3, 3, 0, 0, 0]
    covered = [f"{row['winner']['covered']:.2f}"[1:] for row in rows]
    too_high = [f"{100 * row['winner']['too_high']:.1f}" for row in rows]
    assert "covers in {}, {} and {} at 20 labels".format(*covered[:3]) in words
    assert "shown {}, {} and {} points too high".format(*too_high[:3]) in words
    assert "and in {}, {} and {} at 50".format(*covered[3:]) in words
    assert max(map(float, too_high[3:])) == 0.2
    at_20, at_50 = ([1 - row["whole_tables"] for row in rows if row["bank"] == b] for b in BANKS)
    few, some, many = (f"{share:.2f}"[1:] for share in at_20)
    assert f"in {few}, {some} and {many}** at S = 5, 10, 20" in words
    assert f"in {min(at_50):.2f} to {max(at_50):.2f} (1 less".replace("0.", ".") in words
    medians = [np.median(list(row["accuracies"].values())) for row in rows]
    assert f"covers in {medians[0]:.2f} and {medians[3]:.2f}.".replace("0.", ".") in words
    found = {(row["bank"], row["draws"]): row["found"]["5 to 10"]["share"] for row in rows}
    told = [f"{found[b, draws]:.2f}"[1:] for draws in (20, 10, 5) for b in BANKS]
    said = "found in {} and {} at S = 20, in {} and {} at 10, in {} and {} at 5."
    assert said.format(*told) in words
    (worst,) = [row for row in recorded("digits-20")["cells"] if row["name"] == "ict / l1"]
    falls = sorted(line["test_accuracy"] for line in worst["searched"][0]["retrainings"])
    assert f"to {100 * falls[0]:.0f} % on one draw of twenty and to {100 * falls[1]:.0f} %" in words
    assert max(row["wrong_tables"] for row in rows) == 0.0035
    assert max(row["false_tables"] for row in rows) < 0.05
    worst = {min(row["accuracies"], key=row["accuracies"].get) for row in rows[:3]}
    assert worst == {"ict / l1"}
