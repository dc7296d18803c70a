"""Rungs, and the decision at a rung, against an independent reference and by properties."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.joint import DefaultTrial
from ssl_core.data.catalogue import DATASET_CARDS
from ssl_core.errors import UserError
from tests.tune_ssl.fakes import begin, make_study, queue, queue_defaults, study_on
from tune_ssl.asha import decide, rung_steps
from tune_ssl.run import RunConfig
from tune_ssl.study import Verdict

pytestmark = pytest.mark.usefixtures("no_fsync")

accuracies = st.floats(0.0, 1.0, allow_nan=False)
populations = st.lists(accuracies, min_size=1, max_size=30)
factors = st.integers(2, 6)
always = settings(derandomize=True, deadline=None, max_examples=150)


class TestRungs:
    @pytest.mark.parametrize(
        ("max_steps", "grace", "factor", "expected"),
        [
            (450, None, 3, (50, 150, 450)),
            (27, None, 3, (3, 9, 27)),
            (9, None, 3, (1, 3, 9)),
            (16, None, 4, (1, 4, 16)),
            (4, None, 2, (1, 2, 4)),
            (100, 1, 3, (1, 3, 9, 27, 81, 100)),
            (450, 150, 3, (150, 450)),
            (10, 9, 3, (9, 10)),
        ],
    )
    def test_rungs_grow_by_the_factor_up_to_the_full_length(
        self, max_steps, grace, factor, expected
    ):
        assert rung_steps(max_steps, grace=grace, reduction_factor=factor) == expected

    @always
    @given(st.integers(2, 5000), st.data(), factors)
    def test_each_rung_is_the_one_before_times_the_factor(self, max_steps, data, factor):
        grace = data.draw(st.integers(1, max_steps - 1))
        *below, last = rung_steps(max_steps, grace=grace, reduction_factor=factor)
        assert last == max_steps
        assert below[0] == grace
        assert all(after == factor * before for before, after in pairwise(below))
        assert below[-1] < max_steps <= below[-1] * factor

    @always
    @given(st.integers(4, 200_000), factors)
    def test_without_grace_there_are_two_rungs_whatever_the_length(self, max_steps, factor):
        if max_steps < factor**2:
            return
        rungs = rung_steps(max_steps, grace=None, reduction_factor=factor)
        assert len(rungs) == 3, (
            f"rungs {rungs}: trials are cut {rungs[-1] - rungs[-2]} steps before"
        )

    @pytest.mark.parametrize("dataset", DATASET_CARDS)
    def test_a_search_of_the_default_length_has_its_rungs_at_a_quarter_and_a_half(self, dataset):
        config = RunConfig(alg=("ict",), dataset=dataset)
        rungs = config.rungs()
        assert rungs[-1] == DATASET_CARDS[dataset].max_steps
        assert [round(rung / rungs[-1], 2) for rung in rungs] == [0.25, 0.5, 1.0]

    @pytest.mark.parametrize("max_steps", [1, 5, 8])
    def test_too_short_a_training_is_refused_with_the_shortest_that_will_do(self, max_steps):
        with pytest.raises(
            UserError, match=rf"max-steps is {max_steps}.*9 or more.*scheduler none"
        ):
            rung_steps(max_steps, grace=None, reduction_factor=3)

    @pytest.mark.parametrize("grace", [100, 101, 10_000])
    def test_a_first_rung_at_or_above_the_full_length_is_refused(self, grace):
        with pytest.raises(UserError, match=f"grace is {grace} and max-steps 100"):
            rung_steps(100, grace=grace, reduction_factor=3)

    @pytest.mark.parametrize("grace", [0, -1, 1.5, True])
    def test_grace_must_be_a_positive_integer(self, grace):
        with pytest.raises(UserError, match="grace is"):
            rung_steps(100, grace=grace, reduction_factor=3)

    @pytest.mark.parametrize("factor", [1, 0, -3, 2.5, True])
    def test_the_factor_must_be_an_integer_from_two_on(self, factor):
        with pytest.raises(UserError, match="reduction-factor is"):
            rung_steps(100, grace=None, reduction_factor=factor)


def cutoff_by_hand(earlier, factor):
    """The 1 - 1/eta quantile, interpolated between the two neighbours in rank."""
    ranked = sorted(earlier)
    place = (len(ranked) - 1) * (1.0 - 1.0 / factor)
    below = math.floor(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])


class TestDecision:
    @always
    @given(populations, accuracies, factors)
    def test_it_is_the_percentile_rule(self, earlier, value, factor):
        decision = decide(earlier, value, reduction_factor=factor)
        assert decision.cutoff == pytest.approx(cutoff_by_hand(earlier, factor), abs=1e-12)
        assert decision.cutoff == pytest.approx(
            np.percentile(earlier, 100.0 * (1.0 - 1.0 / factor)), abs=1e-12
        )
        assert decision.kept == (value >= decision.cutoff)
        assert (decision.value, decision.population) == (value, len(earlier))

    def test_literal_values(self):
        # Of 0.1 .. 0.4 the two-thirds quantile is 0.3.
        earlier = [0.4, 0.1, 0.3, 0.2]
        assert decide(earlier, 0.31, reduction_factor=3).kept
        assert not decide(earlier, 0.29, reduction_factor=3).kept
        assert decide(earlier, 0.25, reduction_factor=2).kept
        assert not decide(earlier, 0.24, reduction_factor=2).kept

    @always
    @given(accuracies, factors)
    def test_the_first_arrival_passes(self, value, factor):
        decision = decide([], value, reduction_factor=factor)
        assert decision.kept
        assert (decision.cutoff, decision.population) == (None, 0)

    @always
    @given(populations, accuracies, factors, st.randoms(use_true_random=False))
    def test_the_order_of_earlier_values_is_irrelevant(self, earlier, value, factor, random):
        shuffled = list(earlier)
        random.shuffle(shuffled)
        assert decide(earlier, value, reduction_factor=factor) == decide(
            shuffled, value, reduction_factor=factor
        )

    @pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
    @pytest.mark.parametrize("earlier", [[], [0.5], [0.1, 0.2, 0.9], [0.0, 0.0]])
    def test_a_value_that_is_not_finite_is_never_kept(self, earlier, value):
        assert not decide(earlier, value, reduction_factor=3).kept

    @always
    @given(populations, accuracies, accuracies, factors)
    def test_a_better_value_is_kept_where_a_worse_one_is(self, earlier, one, other, factor):
        worse, better = sorted((one, other))
        if decide(earlier, worse, reduction_factor=factor).kept:
            assert decide(earlier, better, reduction_factor=factor).kept

    @always
    @given(populations, factors)
    def test_nobody_as_good_as_the_best_before_is_cut(self, earlier, factor):
        assert decide(earlier, max(earlier), reduction_factor=factor).kept

    @always
    @given(populations, factors)
    def test_a_value_below_all_before_is_cut(self, earlier, factor):
        assert not decide(earlier, min(earlier) - 0.01, reduction_factor=factor).kept

    @pytest.mark.parametrize("factor", [2, 3, 4])
    def test_in_the_long_run_one_in_factor_goes_on(self, factor):
        values = np.random.RandomState(0).uniform(size=3000)
        kept = [
            decide(values[:count].tolist(), float(values[count]), reduction_factor=factor).kept
            for count in range(1000, 3000)
        ]
        assert np.mean(kept) == pytest.approx(1 / factor, abs=0.05)


class TestRungsOfAStudy:
    def test_rungs_rebuilt_from_the_journal_decide_as_the_living_ones(self, tmp_path):
        values = np.random.RandomState(1).uniform(size=(20, 2)).round(3)
        live = study_on(tmp_path / "live", trials=20)
        reopened_each_time = tmp_path / "reopened"
        for first, second in values:
            for study in (live, study_on(reopened_each_time, trials=20)):
                trial = begin(study)
                if study.report(trial.number, 1, 3, float(first)) is Verdict.CONTINUE:
                    study.report(trial.number, 1, 9, float(second))
        decided = [
            {key: value for key, value in trial.user_attrs.items() if key.startswith("rung")}
            for trial in live.get_trials()
        ]
        rebuilt = study_on(reopened_each_time, trials=20)
        assert [len(decisions) for decisions in decided].count(2) >= 5
        assert decided == [
            {key: value for key, value in trial.user_attrs.items() if key.startswith("rung")}
            for trial in rebuilt.get_trials()
        ]

    def test_every_recorded_decision_is_the_rule_on_what_was_there_before(self):
        study = make_study(trials=30)
        values = np.random.RandomState(2).uniform(size=30).round(3).tolist()
        for count, value in enumerate(values):
            trial = begin(study)
            verdict = study.report(trial.number, 1, 3, value)
            expected = decide(values[:count], value, reduction_factor=3)
            recorded = study.get_trial(trial.number).user_attrs["rung 3"]
            assert recorded == {
                "value": value,
                "cutoff": expected.cutoff,
                "population": count,
                "kept": expected.kept,
            }
            assert (verdict is Verdict.CONTINUE) == expected.kept

    def test_a_trial_resumed_above_a_rung_leaves_the_lower_rungs_alone(self, tmp_path):
        path = tmp_path / "journal"
        study = study_on(path, trials=10)
        long = begin(study)
        study.report(long.number, 1, 3, 0.50)
        study.interrupt(long.number, 1, "node lost")

        study = study_on(path, trials=10)
        again = begin(study)
        assert (again.number, again.attempt) == (long.number, 2)
        study.report(again.number, 2, 9, 0.84)
        fresh = begin(study)
        assert study.report(fresh.number, 1, 3, 0.55) is Verdict.CONTINUE
        decision = study.get_trial(fresh.number).user_attrs["rung 3"]
        assert (decision["cutoff"], decision["population"]) == (0.50, 1)

    def test_a_trial_first_measured_at_a_higher_rung_is_not_counted_at_lower_ones(self):
        study = make_study()
        skipping, fresh = begin(study), begin(study)
        study.report(skipping.number, 1, 9, 0.9)
        assert study.report(fresh.number, 1, 3, 0.1) is Verdict.CONTINUE
        assert study.get_trial(fresh.number).user_attrs["rung 3"]["population"] == 0

    def test_a_trial_is_not_compared_with_itself_after_a_restart_between_value_and_decision(
        self, tmp_path
    ):
        path = tmp_path / "journal"
        study = study_on(path)
        trial = begin(study)
        study.report(trial.number, 1, 3, 0.5)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]))  # the value is there, the decision is not

        study = study_on(path)
        study.recover("killed")
        again = begin(study)
        assert study.report(again.number, 2, 3, 0.5) is Verdict.CONTINUE
        assert study.get_trial(again.number).user_attrs["rung 3"]["population"] == 0

    def test_published_defaults_are_never_cut_but_are_counted(self):
        study = make_study()
        default = DefaultTrial(
            params=study.space.defaults()[0].params, source="a paper", converted=False
        )
        queue_defaults(study, [default])
        ours, other = begin(study), begin(study)
        study.report(other.number, 1, 3, 0.9)
        assert study.report(ours.number, 1, 3, 0.0) is Verdict.CONTINUE
        assert study.get_trial(ours.number).user_attrs["rung 3"]["cutoff"] is None
        later = begin(study)
        study.report(later.number, 1, 3, 0.5)
        decision = study.get_trial(later.number).user_attrs["rung 3"]
        assert decision["population"] == 2
        assert decision["cutoff"] == pytest.approx(0.6)

    def test_configurations_from_elsewhere_are_cut_like_any(self):
        study = make_study()
        queue(study, study.space.defaults()[0].params)
        ours, other = begin(study), begin(study)
        study.report(other.number, 1, 3, 0.9)
        assert study.report(ours.number, 1, 3, 0.1) is Verdict.STOP

    def test_without_a_factor_nobody_is_cut(self):
        study = make_study(reduction_factor=None)
        for value in (0.9, 0.5, 0.1):
            assert study.report(begin(study).number, 1, 3, value) is Verdict.CONTINUE
