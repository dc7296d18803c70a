"""What kept memory is worth: the ratio is of turns, and the page shows what is recorded."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.memory import OURS, RECORD, USUAL, as_text, figures


def turn(usual: float, ours: float) -> dict:
    rest = {"pages": 4000, "megabytes": 900}
    return {
        USUAL: {"milliseconds": usual, **rest},
        OURS: {"milliseconds": ours, "pages": 2, "megabytes": 910},
    }


def test_the_ratio_is_that_of_the_middle_turn():
    found = figures([turn(200, 160), turn(400, 360), turn(100, 100)])
    assert found["ratio"] == 0.9
    assert found[USUAL] == {"milliseconds": 200, "pages": 4000, "megabytes": 900}
    assert found[OURS]["milliseconds"] == 160
    told = as_text(found | {"method": "ict", "precision": "float32"})
    assert told.startswith("ict, float32: 160 ms beside 200 ms, 0.90; pages a step 2 beside 4000")


def test_the_page_shows_what_is_recorded():
    page = " ".join((Path(__file__).parents[2] / "docs/speed.md").read_text().split())
    kept = json.loads(RECORD.read_text())
    ratios = [f"{row['ratio']:.2f}"[1:] for row in kept.values()]
    assert len(ratios) == 6
    assert f"takes {min(ratios)} to {max(ratios)} of the time" in page
    most = max(row[OURS]["megabytes"] / row[USUAL]["megabytes"] for row in kept.values())
    assert most < 1.1, "and no more memory"
