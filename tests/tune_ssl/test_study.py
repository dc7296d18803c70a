"""The study: how trials end, wait, are continued and counted; facts that a resume rests on."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import (
    RUNGS,
    begin,
    make_study,
    outcome,
    queue,
    queue_defaults,
    small_space,
    study_on,
)
from tune_ssl.journal import MemoryJournal, RunJournal
from tune_ssl.simulator import simulate
from tune_ssl.study import (
    ATTEMPTS_WITHOUT_PROGRESS,
    DEFAULT,
    FOREIGN,
    REASON,
    SECONDS,
    Checkpoint,
    Verdict,
    read_trials,
)

pytestmark = pytest.mark.usefixtures("no_fsync")

FULL = RUNGS[-1]


def checkpoint(attempt: int, step: int = 3) -> Checkpoint:
    return Checkpoint(
        path=f"trials/0000/attempt-{attempt}/step-{step:06d}.pt",
        step=step,
        sha256="0" * 64,
        attempt=attempt,
    )


def lose(study, attempt: int, *, stored: int | None = None, counts: bool = True) -> bool:
    """Begin the waiting trial again and lose it, with a checkpoint of a step; does it wait?"""
    assignment = begin(study)
    assert (assignment.number, assignment.attempt) == (0, attempt)
    if stored is not None:
        assert study.name_checkpoint(0, attempt, checkpoint(attempt, stored))
    return study.interrupt(0, attempt, "node lost", counts=counts)


class TestHowATrialEnds:
    def test_at_full_length_it_is_complete_with_its_value_and_result(self):
        study = make_study()
        begin(study)
        study.report(0, 1, 3, 0.4)
        assert study.complete(0, 1, 0.8, {"correct": "8:AA=="}) is Verdict.STOP
        trial = study.get_trial(0)
        assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.8)
        assert trial.intermediate_values == {3: 0.4, FULL: 0.8}
        assert trial.system_attrs["tune_ssl:result"] == {"correct": "8:AA=="}
        assert REASON not in trial.user_attrs

    def test_cut_at_a_rung_it_is_pruned_with_its_last_value(self):
        study = make_study()
        begin(study)
        begin(study)
        study.report(0, 1, 3, 0.9)
        assert study.report(1, 1, 3, 0.2) is Verdict.STOP
        trial = study.get_trial(1)
        assert (trial.state, trial.value) == (TrialState.PRUNED, 0.2)
        assert trial.intermediate_values == {3: 0.2}
        assert "step 3" in trial.user_attrs[REASON]

    @pytest.mark.parametrize(
        "reason", ["the loss was not finite by step 7", "the device had too little memory"]
    )
    def test_where_its_parameters_do_not_work_it_is_pruned_without_a_value(self, reason):
        study = make_study()
        begin(study)
        assert study.prune_without_value(0, 1, reason) is Verdict.STOP
        trial = study.get_trial(0)
        assert (trial.state, trial.value) == (TrialState.PRUNED, None)
        assert trial.intermediate_values == {}
        assert trial.user_attrs[REASON] == reason

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_value_that_is_not_finite_reported_at_a_rung_prunes_without_a_value(self, value):
        study = make_study()
        begin(study)
        begin(study)
        assert study.report(0, 1, 3, value) is Verdict.STOP
        trial = study.get_trial(0)
        assert (trial.state, trial.value) == (TrialState.PRUNED, None)
        assert study.report(1, 1, 3, 0.5) is Verdict.CONTINUE, "it must not count at the rung"

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_value_that_is_not_finite_at_full_length_prunes_without_a_value(self, value):
        study = make_study()
        begin(study)
        study.complete(0, 1, value, {})
        trial = study.get_trial(0)
        assert (trial.state, trial.value) == (TrialState.PRUNED, None)

    def test_interrupted_it_waits(self):
        study = make_study()
        begin(study)
        assert study.interrupt(0, 1, "node lost")
        trial = study.get_trial(0)
        assert trial.state == TrialState.WAITING
        assert trial.values is None

    def test_by_an_exception_it_fails_and_is_not_tried_again(self):
        study = make_study(trials=1)
        begin(study)
        assert study.fail(0, 1, "ValueError: broken") is Verdict.STOP
        trial = study.get_trial(0)
        assert (trial.state, trial.value) == (TrialState.FAIL, None)
        assert trial.user_attrs[REASON] == "ValueError: broken"
        assert study.next() is None

    @pytest.mark.parametrize("end", ["complete", "cut", "prune", "fail"])
    def test_an_end_is_final(self, end):
        study = make_study()
        begin(study)
        begin(study)
        study.report(0, 1, 3, 0.9)
        {
            "complete": lambda: study.complete(1, 1, 0.5, {}),
            "cut": lambda: study.report(1, 1, 3, 0.1),
            "prune": lambda: study.prune_without_value(1, 1, "nan"),
            "fail": lambda: study.fail(1, 1, "broken"),
        }[end]()
        before = study.get_trial(1)
        assert study.report(1, 1, 9, 0.9) is Verdict.STALE
        assert study.complete(1, 1, 0.9, {}) is Verdict.STALE
        assert study.prune_without_value(1, 1, "late") is Verdict.STALE
        assert study.fail(1, 1, "late") is Verdict.STALE
        assert study.interrupt(1, 1, "late") is False
        assert study.name_checkpoint(1, 1, checkpoint(1)) is False
        study.start(1, 1)
        after = study.get_trial(1)
        assert (after.state, after.values, after.user_attrs, after.system_attrs) == (
            before.state,
            before.values,
            before.user_attrs,
            before.system_attrs,
        )


class TestWaiting:
    def test_it_keeps_number_parameters_reports_and_checkpoint(self, tmp_path):
        path = tmp_path / "journal"
        study = study_on(path)
        first = begin(study)
        study.report(0, 1, 3, 0.5)
        study.name_checkpoint(0, 1, checkpoint(1))
        study.add_seconds(0, 2.5)
        study.interrupt(0, 1, "node lost")

        study = study_on(path)
        again = begin(study)
        assert again.number == first.number == 0
        assert again.attempt == 2
        assert again.suggestion == first.suggestion
        assert again.checkpoint == checkpoint(1)
        trial = study.get_trial(0)
        assert trial.intermediate_values == {3: 0.5}
        assert trial.user_attrs[SECONDS] == 2.5
        assert trial.user_attrs["rung 3"]["kept"] is True

    def test_it_goes_before_new_trials_and_before_queued_ones(self):
        study = make_study()
        queue(study, study.space.defaults()[0].params)
        queue(study, study.space.defaults()[0].params)
        begin(study)
        study.interrupt(0, 1, "node lost")
        assert [begin(study).number for _ in range(4)] == [0, 1, 2, 3]

    def test_it_may_wait_more_than_once_and_counts_its_attempts(self):
        study = make_study()
        for attempt in range(1, 6):
            assert lose(study, attempt, stored=3 * attempt)

    def test_a_checkpoint_of_an_earlier_attempt_is_kept_until_a_new_one_is_named(self):
        study = make_study()
        assert lose(study, 1, stored=3)
        assert begin(study).checkpoint == checkpoint(1)
        study.interrupt(0, 2, "node lost")
        assert begin(study).checkpoint == checkpoint(1)
        study.name_checkpoint(0, 3, checkpoint(3, 9))
        study.interrupt(0, 3, "node lost")
        assert begin(study).checkpoint == checkpoint(3, 9)


class TestStaleAttempts:
    def test_nothing_an_earlier_attempt_says_is_heard(self):
        study = make_study()
        begin(study)
        study.interrupt(0, 1, "node lost")
        before = study.get_trial(0)
        for _ in range(2):  # while it waits, and while it runs again
            assert study.report(0, 1, 3, 0.9) is Verdict.STALE
            assert study.complete(0, 1, 0.9, {}) is Verdict.STALE
            assert study.prune_without_value(0, 1, "nan") is Verdict.STALE
            assert study.fail(0, 1, "broken") is Verdict.STALE
            assert study.interrupt(0, 1, "lost") is False
            assert study.name_checkpoint(0, 1, checkpoint(1)) is False
            trial = study.get_trial(0)
            assert trial.intermediate_values == {}
            assert trial.user_attrs == before.user_attrs | {
                key: value for key, value in trial.user_attrs.items() if key == "started"
            }
            assert "tune_ssl:checkpoint" not in trial.system_attrs
            if trial.state == TrialState.WAITING:
                begin(study)
        assert study.get_trial(0).state == TrialState.RUNNING

    def test_nor_does_it_count_at_a_rung(self):
        study = make_study()
        begin(study)
        study.interrupt(0, 1, "node lost")
        study.report(0, 1, 3, 0.99)
        begin(study)
        assert begin(study).number == 1
        assert study.report(1, 1, 3, 0.1) is Verdict.CONTINUE

    def test_a_start_of_an_earlier_attempt_is_not_the_start_of_this_one(self):
        study = make_study()
        begin(study)
        study.interrupt(0, 1, "node lost")
        study.next()
        study.start(0, 1)
        counts = study.counts()
        assert (counts.running, counts.waiting) == (0, 1)


class TestAttemptsWithoutProgress:
    def test_three_without_a_new_checkpoint_are_the_end(self):
        study = make_study(trials=1)
        assert lose(study, 1)
        assert lose(study, 2)
        assert not lose(study, 3)
        trial = study.get_trial(0)
        assert (trial.state, trial.value) == (TrialState.FAIL, None)
        assert "3 times" in trial.user_attrs[REASON]
        assert "node lost" in trial.user_attrs[REASON]
        assert study.next() is None
        assert ATTEMPTS_WITHOUT_PROGRESS == 3

    def test_a_checkpoint_in_an_attempt_sets_the_count_back(self):
        study = make_study()
        assert lose(study, 1)
        assert lose(study, 2)
        assert lose(study, 3, stored=3)
        assert lose(study, 4)
        assert lose(study, 5)
        assert not lose(study, 6)

    def test_so_it_does_where_the_attempt_itself_does_not_count_as_a_drain(self):
        study = make_study()
        assert lose(study, 1)
        assert lose(study, 2)
        assert lose(study, 3, counts=False)
        assert lose(study, 4, stored=3, counts=False)
        assert lose(study, 5)
        assert lose(study, 6)
        assert not lose(study, 7)

    def test_an_old_checkpoint_is_no_progress(self):
        study = make_study()
        assert lose(study, 1, stored=3)
        assert lose(study, 2)
        assert lose(study, 3)
        assert not lose(study, 4)

    def test_storing_the_rung_one_was_continued_from_once_more_is_no_progress(self):
        """An attempt begins by reporting the rung its checkpoint stands on, and stores it anew."""
        study = make_study()
        assert lose(study, 1, stored=3)
        for attempt in (2, 3, 4):
            waits = lose(study, attempt, stored=3)
        assert not waits

    def test_attempts_that_never_began_to_train_do_not_count(self):
        study = make_study()
        for attempt in range(1, 11):
            assert study.next().attempt == attempt
            assert study.interrupt(0, attempt, "the driver ended")
        assert lose(study, 11)
        assert lose(study, 12)
        assert study.next().attempt == 13
        assert study.interrupt(0, 13, "the driver ended")
        assert not lose(study, 14)

    def test_the_count_outlives_the_process(self, tmp_path):
        for attempt in (1, 2):
            assert lose(study_on(tmp_path / "journal"), attempt)
        assert not lose(study_on(tmp_path / "journal"), 3)


class TestDecisions:
    def test_their_numbers_are_attributes_of_the_trial(self):
        study = make_study()
        for value in (0.6, 0.2, 0.5):
            begin(study)
            study.report(study.get_trials()[-1].number, 1, 3, value)
        found = [trial.user_attrs["rung 3"] for trial in study.get_trials()]
        assert found[0] == {"value": 0.6, "cutoff": None, "population": 0, "kept": True}
        assert found[1] == {"value": 0.2, "cutoff": 0.6, "population": 1, "kept": False}
        assert found[2]["cutoff"] == pytest.approx(0.2 + (0.6 - 0.2) * 2 / 3)
        assert (found[2]["population"], found[2]["kept"]) == (2, True)

    def test_a_published_default_goes_on_where_another_with_its_value_is_cut(self):
        study = make_study()
        queue_defaults(study, study.space.defaults())
        assert [DEFAULT in study.get_trial(begin(study).number).user_attrs for _ in range(3)] == [
            True,
            False,
            False,
        ]
        assert study.report(1, 1, 3, 0.9) is Verdict.CONTINUE
        assert study.report(0, 1, 3, 0.2) is Verdict.CONTINUE
        assert study.report(2, 1, 3, 0.2) is Verdict.STOP
        found = study.get_trial(0).user_attrs["rung 3"]
        assert found == {"value": 0.2, "cutoff": None, "population": 1, "kept": True}
        assert study.get_trial(2).user_attrs["rung 3"]["population"] == 2, "its value counts"

    def test_they_are_the_same_where_the_study_is_opened_again_before_each(self, tmp_path):
        path = tmp_path / "journal"
        whole = make_study()
        for study in (whole, study_on(path)):
            for _ in range(4):
                begin(study)
        reports = [(0, 3, 0.6), (1, 3, 0.2), (2, 3, 0.5), (0, 9, 0.7), (3, 3, 0.4), (2, 9, 0.6)]
        verdicts = [
            (whole.report(number, 1, step, value), study_on(path).report(number, 1, step, value))
            for number, step, value in reports
        ]
        go, cut = Verdict.CONTINUE, Verdict.STOP
        assert verdicts == [(verdict, verdict) for verdict in (go, cut, go, go, cut, cut)]
        assert outcome(study_on(path).get_trials()) == outcome(whole.get_trials())

    @pytest.mark.parametrize("reopened", [False, True])
    def test_a_rung_reported_again_keeps_its_decision(self, tmp_path, reopened):
        path = tmp_path / "journal"
        study = study_on(path)
        begin(study)
        study.report(0, 1, 3, 0.5)
        study.interrupt(0, 1, "node lost")
        decision = dict(study.get_trial(0).user_attrs["rung 3"])
        if reopened:
            study = study_on(path)
        begin(study)
        for value in (0.8, 0.9, 0.7):  # others arrive that would have cut it
            study.report(begin(study).number, 1, 3, value)
        assert study.report(0, 2, 3, 0.5) is Verdict.CONTINUE
        assert study.get_trial(0).user_attrs["rung 3"] == decision
        assert study.get_trial(0).intermediate_values == {3: 0.5}

    def test_a_cut_that_was_decided_but_not_carried_out_is_carried_out(self, tmp_path):
        path = tmp_path / "journal"
        study = study_on(path)
        begin(study)
        begin(study)
        study.report(0, 1, 3, 0.9)
        before = path.read_bytes()
        study.report(1, 1, 3, 0.2)
        # All of the report is there but the end of the trial, which is the last record.
        lines = path.read_bytes()[len(before) :].splitlines(keepends=True)
        path.write_bytes(before + b"".join(lines[:-1]))

        study = study_on(path)
        assert study.get_trial(1).state == TrialState.RUNNING
        study.recover("killed")
        begin(study)
        begin(study)
        assert study.report(1, 2, 3, 0.2) is Verdict.STOP
        assert study.get_trial(1).state == TrialState.PRUNED
        assert study.get_trial(1).value == 0.2


class TestCounts:
    def test_each_trial_is_counted_once_by_what_it_does(self):
        study = make_study(trials=9)
        for _ in range(6):
            begin(study)
        study.next()  # handed out, but no worker has it
        queue(study, study.space.defaults()[0].params)
        study.report(0, 1, 3, 0.9)
        study.complete(0, 1, 0.9, {})
        study.report(1, 1, 3, 0.1)
        study.prune_without_value(2, 1, "nan")
        study.fail(3, 1, "broken")
        study.interrupt(4, 1, "lost")
        counts = study.counts()
        assert vars(counts) == {
            "asked": 9,
            "complete": 1,
            "pruned": 2,
            "failed": 1,
            "running": 1,
            "waiting": 3,
        }
        assert counts.finished == 4

    def test_failures_count_towards_the_goal(self):
        study = make_study(trials=3)
        for number in range(3):
            begin(study)
            study.fail(number, 1, "broken")
        assert study.next() is None
        assert study.counts().finished == 3

    def test_seconds_add_up_over_attempts(self):
        study = make_study()
        begin(study)
        study.add_seconds(0, 1.25)
        study.interrupt(0, 1, "lost")
        begin(study)
        study.add_seconds(0, 2.5)
        assert study.get_trial(0).user_attrs[SECONDS] == 3.75


class TestGoal:
    def test_no_more_trials_are_handed_out_than_asked_for(self):
        study = make_study(trials=3)
        assert [study.next().number for _ in range(3)] == [0, 1, 2]
        assert study.next() is None

    def test_not_even_where_more_were_queued(self):
        study = make_study(trials=2)
        for _ in range(5):
            queue(study, study.space.defaults()[0].params)
        handed_out = [study.next() for _ in range(5)]
        assert [trial.number for trial in handed_out if trial is not None] == [0, 1]

    def test_a_search_with_more_queued_than_asked_for_finishes_as_many_as_asked(self):
        study = make_study(trials=2)
        for _ in range(5):
            queue(study, study.space.defaults()[0].params)
        simulate(study, lambda suggestion, step: 0.5, slots=5)
        assert study.counts().finished == 2

    def test_a_search_can_be_extended(self, tmp_path):
        path = tmp_path / "journal"
        simulate(study_on(path, trials=4), lambda suggestion, step: 0.5, slots=1)
        study = study_on(path, trials=7)
        simulate(study, lambda suggestion, step: 0.5, slots=1)
        assert study.counts().finished == 7
        whole = make_study(trials=7)
        simulate(whole, lambda suggestion, step: 0.5, slots=1)
        assert [trial.params for trial in study.get_trials()] == [
            trial.params for trial in whole.get_trials()
        ]

    def test_a_goal_below_what_is_finished_hands_out_nothing(self, tmp_path):
        path = tmp_path / "journal"
        simulate(study_on(path, trials=4), lambda suggestion, step: 0.5, slots=1)
        assert study_on(path, trials=2).next() is None


class TestRecover:
    def test_every_running_trial_waits_afterwards(self, tmp_path):
        path = tmp_path / "journal"
        study = study_on(path)
        for _ in range(3):
            begin(study)
        study.complete(1, 1, 0.5, {})
        study = study_on(path)
        assert study.recover("the driver before was lost") == [0, 2]
        assert [trial.state for trial in study.get_trials()] == [
            TrialState.WAITING,
            TrialState.COMPLETE,
            TrialState.WAITING,
        ]
        assert study.recover("again") == []
        assert [begin(study).attempt for _ in range(2)] == [2, 2]

    def test_a_trial_killed_before_its_attempt_was_noted_waits_too(self, tmp_path):
        path = tmp_path / "journal"
        study = study_on(path)
        before = len(path.read_bytes().splitlines())
        study.next()
        lines = path.read_bytes().splitlines(keepends=True)
        for count in range(before + 1, len(lines)):
            copy = tmp_path / f"killed-{count}"
            copy.write_bytes(b"".join(lines[:count]))
            reopened = study_on(copy)
            assert reopened.recover("killed") == [0]
            assert begin(reopened).number == 0
            attempt = reopened.get_trial(0).system_attrs["tune_ssl:attempt"]
            assert reopened.complete(0, attempt, 0.5, {}) is Verdict.STOP
            assert reopened.get_trial(0).state == TrialState.COMPLETE

    def test_trials_that_fail_by_it_are_not_left_running(self, tmp_path):
        path = tmp_path / "journal"
        for _ in range(3):
            study = study_on(path)
            begin(study)
            study_on(path).recover("the driver before was lost")
        states = {trial.state for trial in study_on(path).get_trials()}
        assert TrialState.RUNNING not in states
        assert study_on(path).get_trial(0).state == TrialState.FAIL


class TestDefaults:
    def space(self):
        return small_space(("vat", "mean_teacher", "ict"), ("mse", "kl"))

    def test_they_come_first_and_are_marked_with_their_source(self):
        study = make_study(space=self.space(), trials=20)
        defaults = sorted(study.space.defaults(), key=lambda default: default.converted)
        queue_defaults(study, study.space.defaults())
        for number, default in enumerate(defaults):
            assignment = begin(study)
            trial = study.get_trial(number)
            assert assignment.number == number
            assert trial.params == default.params
            assert trial.user_attrs[DEFAULT] == default.source
        assert len(defaults) == 6
        begin(study)
        assert DEFAULT not in study.get_trial(6).user_attrs

    @pytest.mark.parametrize(
        ("trials", "queued"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3), (12, 6), (50, 6)]
    )
    def test_at_most_half_of_the_trials_but_at_least_one(self, trials, queued):
        study = make_study(space=self.space(), trials=trials)
        queue_defaults(study, study.space.defaults())
        found = study.get_trials()
        assert len(found) == queued
        assert all(trial.state == TrialState.WAITING for trial in found)

    def test_a_default_is_handed_out_with_the_published_values(self):
        study = make_study()
        queue_defaults(study, study.space.defaults())
        assignment = begin(study)
        assert (assignment.suggestion.algorithm, assignment.suggestion.divergence) == (
            "mean_teacher",
            "mse",
        )
        # Oliver et al.: learning rate 4e-4, weight 8, decay .95.
        assert assignment.suggestion.parameters["learning_rate"] == pytest.approx(4e-4)
        assert assignment.suggestion.parameters["unlabeled_weight"] == pytest.approx(8.0, rel=1e-5)
        assert assignment.suggestion.parameters["ema_horizon"] == pytest.approx(20.0)

    def test_configurations_from_elsewhere_say_so(self):
        study = make_study()
        queue(study, study.space.defaults()[0].params)
        begin(study)
        assert study.get_trial(0).user_attrs[FOREIGN] == "--config"
        assert DEFAULT not in study.get_trial(0).user_attrs


class TestReading:
    def test_a_journal_is_read_while_it_is_written(self, tmp_path):
        path = tmp_path / "journal"
        study = study_on(path)
        study.set_attribute("num_classes", 10)
        begin(study)
        trials, attributes = read_trials(path)
        assert [trial.state for trial in trials] == [TrialState.RUNNING]
        assert attributes == {"num_classes": 10} == study.attributes()

    def test_a_torn_end_does_not_hinder_reading_and_is_not_touched(self, tmp_path):
        path = tmp_path / "journal"
        begin(study_on(path))
        torn = path.read_bytes() + b'{"op_code":8,"work'
        path.write_bytes(torn)
        assert len(read_trials(path)[0]) == 1
        assert path.read_bytes() == torn

    def test_a_journal_without_a_study_is_said_to_have_none(self, tmp_path):
        path = tmp_path / "journal"
        path.touch()
        with pytest.raises(UserError, match="no study yet"):
            read_trials(path)


class TestWhatOptunaIsTrustedWith:
    """Facts of Optuna's that interrupted trials rest on; a change there must be noticed here."""

    def suggest(self, trial):
        return trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 1e-3, 1.0, log=True)

    def test_a_journal_storage_hands_a_trial_set_back_to_waiting_out_again(self, tmp_path):
        storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
        study = optuna.create_study(storage=storage)
        first = study.ask()
        suggested = self.suggest(first)
        first.report(0.5, 3)
        storage.set_trial_state_values(first._trial_id, TrialState.WAITING)
        reopened = optuna.load_study(
            study_name=study.study_name,
            storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal"))),
        )
        again = reopened.ask()
        assert again.number == first.number
        assert self.suggest(again) == suggested
        assert reopened.trials[0].intermediate_values == {3: 0.5}
        assert len(reopened.trials) == 1

    def test_an_in_memory_storage_does_not(self):
        storage = InMemoryStorage()
        study = optuna.create_study(storage=storage)
        first, _second = study.ask(), study.ask()
        self.suggest(first)
        storage.set_trial_state_values(first._trial_id, TrialState.WAITING)
        assert study.ask().number != first.number

    def test_ours_is_never_in_memory_not_even_the_simulator_s(self, tmp_path, monkeypatch):
        def refuse(*_arguments, **_options):
            raise AssertionError("an in-memory storage was made")

        monkeypatch.setattr(InMemoryStorage, "__init__", refuse)
        for backend in (MemoryJournal(), RunJournal(tmp_path / "journal")):
            study = make_study(backend, trials=3)
            begin(study)
            study.interrupt(0, 1, "lost")
            simulate(study, lambda suggestion, step: 0.5, slots=2)
            assert study.counts().finished == 3
        package = Path(importlib.util.find_spec("tune_ssl").origin).parent
        for source in package.rglob("*.py"):
            assert "InMemoryStorage" not in source.read_text()


def test_optuna_calls_the_value_what_it_is():
    study = make_study()
    assert study._study.metric_names == ["validation accuracy"]
