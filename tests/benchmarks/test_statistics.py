"""The statistics' benchmark: its model has the truth it says, its counts count, a short run records."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import bank, statistics
from benchmarks.corrections import RULES
from benchmarks.statistics import (
    CELLS,
    DRAWS,
    RECORD,
    Model,
    from_bank,
    intercept,
    table_model,
    tally,
)
from ssl_core.errors import UserError
from ssl_core.names import ALGORITHM_NAMES
from tune_ssl.trial import pack_correct


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


@pytest.fixture
def banked(tmp_path, monkeypatch):
    """Record 6 retrainings each of two methods' two configurations, one draw short for one."""
    monkeypatch.setattr(bank, "FOLDER", tmp_path)
    generator = np.random.default_rng(0)
    for method in ALGORITHM_NAMES[:2]:
        lines = []
        for number in range(6):
            for which, record in bank.configurations(method).items():
                if (method, which, number) != ("pseudo_label", "best", 3):
                    lines.append(
                        {
                            "method": method,
                            "which": which,
                            "configuration": bank.digest(record),
                            "draw": bank.FIRST_DRAW + number,
                            "test": pack_correct(generator.random(50) < 0.8),
                            "validation": pack_correct(np.arange(10) <= number),
                        }
                    )
        lines.append(lines[-1] | {"configuration": "another", "draw": 0})
        (tmp_path / f"{method}.jsonl").write_text(
            "".join(json.dumps(x) + "\n" for x in lines[::-1])
        )


def test_a_bank_trains_what_is_missing_and_nothing_else(banked):
    assert ALGORITHM_NAMES[1] == "pseudo_label"
    jobs = bank.missing(["supervised", "pseudo_label"], 7)
    assert [(job.method, job.which, job.draw - bank.FIRST_DRAW) for job in jobs] == [
        ("pseudo_label", "best", 3),
        ("supervised", "best", 6),
        ("supervised", "default", 6),
        ("pseudo_label", "best", 6),
        ("pseudo_label", "default", 6),
    ]
    assert len(bank.missing(["ict"], 2)) == 4


def test_rows_of_a_bank_are_paired_by_their_draws(banked):
    cells = bank.correctness("validation")
    names = [
        f"{method} {w}" for method in ("supervised", "pseudo_label") for w in ("best", "default")
    ]
    assert list(cells) == names
    for table in cells.values():
        assert table.sum(axis=1).tolist() == [1, 2, 3, 5, 6]  # draws in order, without the fourth
    complete = bank.correctness("validation", at_least=6)
    assert list(complete) == [name for name in names if name != "pseudo_label best"]
    assert all(len(table) == 6 for table in complete.values())
    assert bank.correctness("test", at_least=7) == {}


def test_the_best_and_the_default_differ_in_what_was_searched_only():
    for method in ALGORITHM_NAMES:
        best, default = bank.configurations(method).values()
        assert best.keys() - default.keys() == {"parameters"}
        assert not {"seed", "split_seed"} & best.keys()
        assert {name: best[name] for name in default} == default


def test_a_retraining_says_what_it_classified(monkeypatch):
    short = {"algorithm": "supervised", "num_labels": 20, "max_steps": 3}
    monkeypatch.setattr(bank, "configurations", lambda method: {"best": short, "default": short})
    line = bank.retrain(bank.Job("supervised", "best", 5000))
    assert bank.retrain(bank.Job("supervised", "best", 5001))["test"] != line["test"]
    assert line["finite"]
    assert line["configuration"] == bank.digest(short)
    assert [line[images].split(":")[0] for images in ("validation", "test")] == ["400", "600"]


def test_intervals_from_a_bank_cover_the_bank():
    generator = np.random.default_rng(3)
    ability = generator.normal(0.75, 0.05, (3, 60, 1)) + generator.normal(0, 0.1, (1, 1, 200))
    recorded = dict(zip("abc", generator.random((3, 60, 200)) < ability, strict=True))
    row = from_bank(recorded, 10, 300)
    assert (row["retrainings"], row["draws"]) == (60, 10)
    assert all(0.9 <= share <= 0.99 for share in row["accuracies"].values())
    assert 0.92 <= row["pairs"] <= 0.985
    assert row["whole_tables"] >= 0.92


def test_a_short_run_records_its_parts_and_keeps_the_others(banked, tmp_path, monkeypatch, capsys):
    path = tmp_path / "statistics.json"
    path.write_text('{"coverage": {"rows": []}}')
    monkeypatch.setattr(statistics, "RECORD", path)
    monkeypatch.setattr(bank, "RETRAININGS", 5)
    monkeypatch.setattr(
        sys, "argv", ["statistics", "equal", "bank", "--replicates", "2", "--record"]
    )
    statistics.main()
    made = json.loads(path.read_text())
    assert list(made) == ["coverage", "equal", "bank"]
    assert made["coverage"] == {"rows": []}
    assert made["equal"]["replicates"] == 2
    assert [row["draws"] for row in made["bank"]["rows"]] == list(DRAWS)
    assert len(made["bank"]["rows"][0]["accuracies"]) == 4
    assert len(capsys.readouterr().out.splitlines()) == len(made["equal"]["rows"]) + 3
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
