"""The ledger of test openings: counted per test set, once each, also by two processes at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tune_ssl.ledger import (
    account_ledger,
    count_opening,
    openings_of,
    openings_of_others,
)

COUNT = """
import sys
from pathlib import Path
from tune_ssl.ledger import count_opening

path, test_set, process, count = sys.argv[1:]
for number in range(int(count)):
    name = f"{process}-{number}"
    print(count_opening(Path(path), test_set=test_set, opening=name, about={}))
"""


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "runs" / "test_openings.jsonl"


def count(ledger, opening, test_set="digits", **about) -> int:
    return count_opening(ledger, test_set=test_set, opening=opening, about=about)


def test_each_opening_is_one_more(ledger):
    assert openings_of(ledger, "digits") == 0
    assert [count(ledger, name) for name in "abc"] == [1, 2, 3]
    assert openings_of(ledger, "digits") == 3


def test_test_sets_are_counted_apart(ledger):
    named = zip("abcd", ("digits", "svhn", "svhn", "digits"), strict=True)
    assert [count(ledger, *one) for one in named] == [1, 1, 2, 2]


def test_a_folder_whose_test_images_were_replaced_is_known(ledger):
    count(ledger, "a", "former", data_dir="/photos")
    count(ledger, "b", "former", data_dir="/photos")
    count(ledger, "c", "other", data_dir="/elsewhere")
    count(ledger, "d", "digits", data_dir=None)
    assert openings_of_others(ledger, "former", "/photos") == 0
    assert openings_of_others(ledger, "now", "/photos") == 2
    ledger.unlink()
    assert openings_of_others(ledger, "now", "/photos") == 2, "the account's knows it, too"
    assert openings_of_others(ledger, "now", None) == 0


def test_an_opening_that_is_counted_keeps_its_number_and_its_line(ledger):
    count(ledger, "a")
    count(ledger, "b")
    before = ledger.read_bytes()
    assert count(ledger, "a") == 1
    assert ledger.read_bytes() == before


def test_a_line_says_what_was_opened(ledger):
    count(ledger, "a", run="runs/x", draws=3)
    (line,) = ledger.read_text().splitlines()
    entry = json.loads(line)
    assert entry.pop("time")
    expected = {"test_set": "digits", "opening": "a", "run": "runs/x", "draws": 3, "number": 1}
    assert entry == expected


def test_openings_in_other_folders_of_the_account_count(ledger, tmp_path):
    other = tmp_path / "elsewhere" / "test_openings.jsonl"
    assert [count(other, "a"), count(ledger, "b"), count(other, "c")] == [1, 2, 3]
    assert [count(ledger, "b"), count(other, "a"), count(other, "c")] == [2, 1, 3]
    assert count(ledger, "d", test_set="svhn") == 1
    assert (openings_of(ledger, "digits"), openings_of(account_ledger(), "digits")) == (1, 3)


def test_openings_of_others_in_the_folder_count(ledger, monkeypatch, tmp_path):
    count(ledger, "a")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another account"))
    assert count(ledger, "b") == 2
    assert count(tmp_path / "elsewhere" / "test_openings.jsonl", "c") == 2


def test_without_a_home_the_folder_s_ledger_counts(ledger, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert [count(ledger, name) for name in "ab"] == [1, 2]


def test_a_ledger_of_an_earlier_version_is_counted_by_its_lines(ledger):
    ledger.parent.mkdir()
    lines = [{"test_set": "digits", "opening": name} for name in "ab"]
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [count(ledger, "b"), count(ledger, "c")] == [2, 3]


@pytest.mark.parametrize("torn", [b'{"test_set": "digits", "openi', b"[1]\n", b"\n\n"])
def test_a_torn_line_never_was_an_opening(ledger, torn):
    count(ledger, "a")
    with open(ledger, "ab") as file:
        file.write(torn)
    assert count(ledger, "b") == 2
    assert count(ledger, "c") == 3
    assert openings_of(ledger, "digits") == 3, "in the torn ledger itself, not the account's alone"


def test_processes_that_open_at_once_get_numbers_of_their_own(ledger):
    running = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT, str(ledger), "digits", str(process), "20"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(3)
    ]
    numbers = [int(line) for one in running for line in one.communicate()[0].splitlines()]
    assert sorted(numbers) == list(range(1, 61))
