"""Whole searches on a virtual clock: the real study and sampler, a curve instead of a network."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.tune_ssl.fakes import (
    FINISHED,
    RUNGS,
    begin,
    make_study,
    quality,
    queue_defaults,
    records_of,
    small_space,
    study_on,
)
from tune_ssl.asha import decide
from tune_ssl.simulator import DriverTime, Replayed, ReplayError, replay, simulate
from tune_ssl.study import Checkpoint, Verdict

pytestmark = pytest.mark.usefixtures("no_fsync")

BEST = 0.95 * (1.0 - np.exp(-3.0))
"""The most the toy curve reaches at full length."""


def curve(suggestion, step: int) -> float:
    """Return a smooth learning curve with one optimum in learning rate and horizon."""
    return quality(suggestion.parameters) * (1.0 - float(np.exp(-3.0 * step / RUNGS[-1])))


def search(trials=30, slots=4, seconds_per_step=1.0, **settings):
    """Return a simulated study and its events."""
    study = make_study(trials=trials, **settings)
    return study, simulate(study, curve, slots=slots, seconds_per_step=seconds_per_step)


def steps_of(events) -> int:
    """Return how many steps were trained in all, from the last report of every trial."""
    return sum({event.number: event.step for event in events}.values())


@pytest.mark.parametrize("slots", [1, 3, 50])
@pytest.mark.parametrize("factor", [3, None])
def test_every_trial_ends_and_as_many_as_were_asked_for(slots, factor):
    study, events = search(slots=slots, reduction_factor=factor)
    assert study.counts().finished == len(study.get_trials()) == 30
    assert all(trial.state in FINISHED for trial in study.get_trials())
    ends = [event.number for event in events if event.verdict is Verdict.STOP]
    assert sorted(ends) == list(range(30))


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_gives_the_same_events(slots, sampler):
    one, other = (search(slots=slots, sampler=sampler, seed=5)[1] for _ in range(2))
    assert one == other
    assert search(slots=slots, sampler=sampler, seed=6)[1] != one


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_there_are_never_more_trials_at_a_time_than_slots_nor_fewer_while_some_are_left(slots):
    _, events = search(slots=slots)
    running, most, starts = set(), 0, 0
    for event in events:
        if event.verdict is None:
            running.add(event.number)
            starts += 1
        elif event.verdict is Verdict.STOP:
            running.remove(event.number)
        most = max(most, len(running))
        if event.verdict is Verdict.CONTINUE and starts < 30:
            assert len(running) == slots
    assert most == slots
    assert running == set()


@pytest.mark.parametrize("seconds_per_step", [1.0, 0.25])
def test_the_clock_is_that_of_the_steps_trained(seconds_per_step):
    study, events = search(slots=1, seconds_per_step=seconds_per_step)
    times = [event.seconds for event in events]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(steps_of(events) * seconds_per_step)
    began = {event.number: event.seconds for event in events if event.verdict is None}
    for event in events:
        if event.verdict is not None:
            assert event.seconds - began[event.number] == pytest.approx(
                event.step * seconds_per_step
            )
    assert study.counts().complete > 0


def test_values_are_those_of_the_curve_and_of_the_study():
    study, events = search()
    reported = {}
    for event in events:
        if event.verdict is not None:
            reported.setdefault(event.number, {})[event.step] = event.value
    assert reported == {
        trial.number: dict(trial.intermediate_values) for trial in study.get_trials()
    }
    assert list(reported[0]) == sorted(reported[0])
    assert all(set(steps) <= set(RUNGS) for steps in reported.values())


def test_halving_spends_less_than_full_training_and_without_it_all_is_spent():
    _, halved = search(trials=60)
    _, full = search(trials=60, reduction_factor=None)
    assert steps_of(full) == 60 * RUNGS[-1]
    assert steps_of(halved) < 0.6 * steps_of(full)


def test_halving_keeps_about_the_best_third_at_the_first_rung():
    study, _ = search(trials=200, sampler="random", reduction_factor=3)
    went_on = [
        trial.user_attrs["rung 3"]["kept"]
        for trial in study.get_trials()
        if "rung 3" in trial.user_attrs
    ]
    assert len(went_on) == 200
    assert 0.25 < np.mean(went_on) < 0.45


@pytest.mark.parametrize("slots", [1, 5])
def test_a_replay_of_the_journal_reproduces_every_decision_from_its_attributes(tmp_path, slots):
    path = tmp_path / "journal"
    study = study_on(path, trials=25)
    queue_defaults(study, study.space.defaults())
    simulate(study, curve, slots=slots)

    arrived: dict[int, list[float]] = {}
    replayed = 0
    last_report: dict[int, tuple[int, float]] = {}
    for record in records_of(path):
        if "intermediate_value" in record:
            last_report[record["trial_id"]] = (record["step"], record["intermediate_value"])
        for key, noted in record.get("user_attr", {}).items():
            if not key.startswith("rung "):
                continue
            step, value = last_report[record["trial_id"]]
            assert key == f"rung {step}"
            before = arrived.setdefault(step, [])
            expected = decide(before, value, reduction_factor=3)
            assert (noted["value"], noted["population"]) == (value, len(before))
            if record["trial_id"] == 0:  # the published default is exempt
                assert (noted["cutoff"], noted["kept"]) == (None, True)
            else:
                assert (noted["cutoff"], noted["kept"]) == (expected.cutoff, expected.kept)
            before.append(value)
            replayed += 1
    assert replayed > 25
    for trial in study.get_trials():
        decisions = [v["kept"] for k, v in trial.user_attrs.items() if k.startswith("rung ")]
        assert (trial.state.name == "COMPLETE") == all(decisions)


def test_a_replay_in_recorded_order_reproduces_every_suggestion(tmp_path):
    path = tmp_path / "journal"
    study = study_on(path, trials=25)
    events = simulate(study, curve, slots=5)

    replayed = make_study(trials=25)
    suggestions = {}
    for event in events:
        if event.verdict is None:
            suggestions[event.number] = begin(replayed)
        elif event.step == RUNGS[-1]:
            replayed.complete(event.number, 1, event.value, {})
        else:
            assert replayed.report(event.number, 1, event.step, event.value) is event.verdict
    assert [trial.params for trial in replayed.get_trials()] == [
        trial.params for trial in study.get_trials()
    ]


def replay_of(records, **changes) -> Replayed:
    return replay(records, lambda journal: make_study(journal, **{"trials": 25} | changes))


def eventful_search(path, trials):
    """Return the records of a search with queued trials, an interrupted one and every other end."""
    study = study_on(path, trials=trials)
    queue_defaults(study, study.space.defaults())
    for _ in range(3):
        begin(study)
    study.report(0, 1, 3, 0.5)
    study.name_checkpoint(1, 1, Checkpoint(path="1.pt", step=2, sha256="0", attempt=1))
    study.prune_without_value(2, 1, "the loss was not finite")
    study = study_on(path, trials=trials)
    study.recover("the driver was lost")
    study.fail(begin(study).number, 2, "broken")
    simulate(study, curve, slots=5)
    return records_of(path)


@pytest.fixture
def eventful(tmp_path):
    return eventful_search(tmp_path / "journal", trials=25)


def test_replay_goes_through_a_whole_journal(eventful):
    decided = sum(key.startswith("rung ") for r in eventful for key in r.get("user_attr", {}))
    assert replay_of(eventful) == Replayed(suggestions=25 + 2, decisions=decided)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("param_value_internal", lambda value: value * (1 + 1e-12)),
        ("intermediate_value", lambda value: value + 1e-9),
        ("user_attr", lambda value: {k: {**v, "kept": not v["kept"]} for k, v in value.items()}),
    ],
    ids=["suggestion", "value", "decision"],
)
@pytest.mark.parametrize("which", [0, -1])
def test_replay_tells_one_changed_record(eventful, key, change, which):
    places = [
        place
        for place, record in enumerate(eventful)
        if key in record and (key != "user_attr" or "rung" in next(iter(record[key])))
    ]
    place = places[which]
    eventful[place] = eventful[place] | {key: change(eventful[place][key])}
    with pytest.raises(ReplayError, match="record"):
        replay_of(eventful)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return eventful_search(tmp_path_factory.mktemp("short") / "journal", trials=8)


def torn_and_resumed(records, place, path):
    """Return the journal of a search whose driver was killed after so many records, and resumed."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records[:place]))
    study = study_on(path, trials=8)
    study.recover("the driver was lost")
    simulate(study, curve, slots=5)
    assert study.counts().finished == 8
    return records_of(path)


def test_replay_goes_through_a_journal_torn_anywhere(short, tmp_path):
    began = next(p for p, r in enumerate(short) if r["op_code"] == 4) + 1  # the queue, whole
    unfinished = 0
    for place in range(began, len(short), 2):
        records = torn_and_resumed(short, place, tmp_path / f"torn-{place}")
        done = replay_of(records, trials=8)
        decided = sum(key.startswith("rung ") for r in records for key in r.get("user_attr", {}))
        unfinished += done.decisions < decided  # written, and its trial's state was not
        assert decided - 1 <= done.decisions <= decided
        assert done.suggestions >= 8
    assert unfinished


def test_replay_goes_through_a_journal_that_ends_anywhere(short):
    for place in range(1, len(short)):
        replay_of(short[:place], trials=8)


def test_replay_tells_a_record_that_is_missing_where_its_driver_went_on(eventful):
    values = [p for p, record in enumerate(eventful) if "param_value_internal" in record]
    del eventful[values[-1]]
    with pytest.raises(ReplayError, match="record"):
        replay_of(eventful)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"reduction_factor": 2}, {"sampler": "random"}])
def test_replay_tells_other_settings(eventful, changes):
    with pytest.raises(ReplayError, match="record"):
        replay_of(eventful, **changes)


# The driver's time.


class Ticking:
    """A stopwatch that shows the same time more whenever it is read."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._read = 0

    def __call__(self) -> float:
        self._read += 1
        return self._read * self._seconds


def busy(slots, trials=30, **driver):
    study = make_study(trials=trials, sampler="random")
    events = simulate(study, curve, slots=slots, driver=DriverTime(**driver))
    assert study.counts().finished == trials
    return events


def test_with_one_slot_the_drivers_time_is_added_to_the_steps():
    events = busy(1, stopwatch=Ticking(0.25), start=2.0, result=0.5)
    reports = len(events) - 30
    assert events[-1].seconds == pytest.approx(
        steps_of(events) + 30 * (2.0 + 0.25) + reports * (0.5 + 0.25)
    )


def test_a_driver_does_one_thing_at_a_time():
    """A hundred slots, and a driver that takes a second for each start."""
    events = busy(100, start=1.0)
    assert [e.seconds for e in events if e.verdict is None] == pytest.approx(range(1, 31))
    events = busy(100, result=1.0)
    times = [event.seconds for event in events if event.verdict is not None]
    assert min(np.diff(times)) >= 1.0
    assert times == sorted(times)


def test_what_runs_is_heard_while_free_slots_are_filled():
    events = busy(100, start=2.0)
    heard = next(event.seconds for event in events if event.verdict is not None)
    assert heard == pytest.approx(2.0 + RUNGS[0] + 1.0)  # it returned in the middle of a start
    assert heard < max(event.seconds for event in events if event.verdict is None)


def test_each_slice_costs_the_driver_a_result():
    events = busy(1, result=0.5, slice_length=2.0)
    slices = {RUNGS[0]: 2, RUNGS[1]: 3, RUNGS[2]: 9}
    heard = sum(slices[event.step] for event in events if event.verdict is not None)
    assert events[-1].seconds == pytest.approx(steps_of(events) + 0.5 * heard)


def test_slices_alone_change_nothing():
    events = busy(1, slice_length=2.0)
    assert events == search(slots=1, sampler="random")[1]


def test_a_search_interrupted_and_extended_is_simulated_to_its_end(tmp_path):
    path = tmp_path / "journal"
    study = study_on(path, trials=5)
    begin(study)
    begin(study)
    study.report(0, 1, 3, 0.5)
    study = study_on(path, trials=8)
    study.recover("the driver was lost")
    events = simulate(study, curve, slots=2)
    assert study.counts().finished == 8
    assert [event.number for event in events if event.verdict is None] == list(range(8))


def test_tpe_with_halving_finds_better_than_random_with_halving():
    """Over eight seeds the best it finds falls short by less than half as much."""
    shortfall = {
        sampler: np.mean(
            [
                BEST
                - max(
                    trial.value
                    for trial in search(trials=40, sampler=sampler, seed=seed)[0].get_trials()
                    if trial.state.name == "COMPLETE"
                )
                for seed in range(8)
            ]
        )
        for sampler in ("tpe", "random")
    }
    assert 0.0 <= shortfall["tpe"] < 0.5 * shortfall["random"]


def test_what_tpe_suggests_later_is_much_better_than_random():
    later = {
        sampler: np.mean(
            [
                quality(trial.params)
                for seed in range(4)
                for trial in search(trials=40, sampler=sampler, seed=seed)[0].get_trials()[20:]
            ]
        )
        for sampler in ("tpe", "random")
    }
    assert later["tpe"] > later["random"] + 0.15


def test_a_joint_search_spends_its_later_trials_on_the_better_method():
    def with_favourite(suggestion, step):
        return curve(suggestion, step) * (1.0 if suggestion.algorithm == "ict" else 0.5)

    study = make_study(space=small_space(("pi_model", "ict")), trials=50, seed=1)
    simulate(study, with_favourite, slots=2)
    later = [trial.params["algorithm"] for trial in study.get_trials()[25:]]
    assert later.count("ict") >= 18
