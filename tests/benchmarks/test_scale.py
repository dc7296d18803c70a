"""A large search on the virtual clock: what is counted, and that it is the real driver's."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks import scale
from benchmarks.scale import SharedMachineClock, lengthened, measured, use_of
from tests.tune_ssl.fakes import RUNGS, make_study
from tune_ssl.journal import MemoryJournal
from tune_ssl.simulator import Event, simulate
from tune_ssl.study import Verdict


def event(seconds, number, step, verdict=Verdict.CONTINUE):
    value = None if verdict is None else 0.5
    return Event(seconds=seconds, number=number, step=step, value=value, verdict=verdict)


def test_use_of_the_slots_until_the_last_start_and_after_it():
    """Two slots; trial 1 waits 20 s for its verdict at the rung, trial 2 starts when 0 ends."""
    events = [
        event(0, 0, 0, None),
        event(0, 1, 0, None),
        event(40, 0, 4, Verdict.STOP),
        event(60, 1, 4),
        event(80, 2, 0, None),
        event(110, 1, 9, Verdict.STOP),
        event(120, 2, 4, Verdict.STOP),
    ]
    use = use_of(events, slots=2, seconds_per_step=10.0)
    # Until 80 s: 40 + (40 + 20) of 160; after it 30 + 40 of 80.
    assert use["utilisation"] == pytest.approx(100 / 160)
    assert use["tail_utilisation"] == pytest.approx(70 / 80)
    assert (use["last_start_hours"], use["tail_hours"]) == (0.022, 0.011)


@pytest.fixture(scope="module")
def options():
    return argparse.Namespace(
        alg="ict", trials=12, slots=4, tune_start=0.02, tune_result=0.002, reopen=30, fsync=0.001
    )


@pytest.fixture(scope="module")
def figures(options, tmp_path_factory):
    parts = measured(options, tmp_path_factory.mktemp("scale") / "run")
    return {key: value for part in parts for key, value in part.items()}


def test_a_search_to_its_end_its_replay_and_its_journal_lengthened(figures):
    assert sum(figures["trials"].values()) == 12
    assert 0.9 < figures["utilisation"] <= 1.0
    assert figures["replay"]["suggestions"] == 12
    assert figures["replay"]["decisions"] >= 12
    assert figures["reopened"]["trials"] == 36
    assert set(figures["milliseconds"]) == {"suggest", "report"}


def test_a_slow_driver_leaves_slots_idle(options, tmp_path):
    slow = argparse.Namespace(**vars(options) | {"tune_start": 600.0})
    assert next(measured(slow, tmp_path / "run"))["utilisation"] < 0.6


def test_every_fsync_costs_its_time():
    clock = SharedMachineClock(100.0)
    began = clock()
    clock.fsync(0)
    clock.fsync(0)
    assert 200.0 <= clock() - began < 300.0


def test_a_lengthened_journal_holds_the_same_trials_again():
    journal = MemoryJournal()
    simulate(make_study(journal, trials=10), lambda suggestion, step: 0.5, slots=3)
    longer = MemoryJournal()
    longer.append_logs(lengthened(journal.read_logs(0), 25))
    trials = make_study(longer).get_trials()
    assert [trial.number for trial in trials] == list(range(30))
    for first, second in zip(trials[:10], trials[20:], strict=True):
        assert (first.params, first.state, first.values) == (
            second.params,
            second.state,
            second.values,
        )
    assert RUNGS[-1] in trials[20].intermediate_values


def test_recorded_searches_ended_were_replayed_and_with_ten_trials_a_slot_kept_the_slots_busy():
    records = json.loads(scale.RECORD.read_text())
    assert records
    for name, record in records.items():
        trials = int(name.split()[0])
        assert record["engine"] == scale.engine()
        assert sum(record["trials"].values()) == trials
        assert trials < 10 * record["slots"] or record["utilisation"] >= 0.95
        assert record.get("replay", {"suggestions": trials})["suggestions"] == trials
