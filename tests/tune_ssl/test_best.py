"""Ranks, ties by a paired test, and what is recommended."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy.stats import binomtest, fisher_exact

from tests.tune_ssl.fakes import IMAGES, begin, make_study, queue_defaults
from tune_ssl.best import best_trial, fisher_p_value, mcnemar_p_value, rank_trials
from tune_ssl.trial import DIVISION, pack_correct, unpack_correct


def vector(number_correct: int, *, start: int = 0, length: int = IMAGES):
    """Return a vector with so many images correct, from one on, around the end."""
    correct = np.zeros(length, dtype=np.bool_)
    correct[(start + np.arange(number_correct)) % length] = True
    return correct


def study_with(*trials, divisions=()):
    """Return a study with complete trials, given as (correct, seconds, published default).

    ``divisions`` of the labels are one for each trial, or none.
    """
    study = make_study(trials=12)
    default = study.space.defaults()[0]
    defaults = [number for number, (_, _, is_default) in enumerate(trials) if is_default]
    assert defaults == list(range(len(defaults))), "defaults come first"
    queue_defaults(study, [default] * len(defaults))
    for correct, seconds, _ in trials:
        number = begin(study).number
        study.add_seconds(number, seconds)
        accuracy = float(correct.mean())
        result = {
            "accuracy": accuracy,
            "balanced_accuracy": accuracy,
            "standard_error": float(np.sqrt(accuracy * (1 - accuracy) / len(correct))),
            "correct": pack_correct(correct),
        }
        if divisions:
            result[DIVISION] = divisions[number]
        study.complete(number, 1, accuracy, result)
    return study


def test_trials_on_images_of_their_own_are_compared_without_pairs():
    """85 % and 90 % of 200: eleven images that only one has are told apart, 200 and 200 others are not."""
    trials = [(vector(180), 1.0, False), (vector(169), 1.0, False)]
    paired, same, own = (
        rank_trials(study_with(*trials, divisions=divisions).get_trials())
        for divisions in ((), (7, 7), (7, 8))
    )
    assert paired[0].tied_with == same[0].tied_with == ()
    assert own[0].tied_with == (1,)
    assert own[1].tied_with == (0,)


def ranked(*trials):
    return rank_trials(study_with(*trials).get_trials())


def proportions(first, of, second, other):
    """Return two vectors with so many correct of so many."""
    return np.arange(of) < first, np.arange(other) < second


class TestFisher:
    @pytest.mark.parametrize(
        ("first", "of", "second", "other"),
        [
            (8, 20, 14, 20),
            (14, 20, 8, 20),
            (0, 20, 20, 20),
            (5, 30, 9, 12),
            (350, 400, 371, 400),
            (7, 7, 7, 7),
        ],
    )
    def test_it_is_twice_the_smaller_tail_of_the_hypergeometric(self, first, of, second, other):
        table = [[first, of - first], [second, other - second]]
        tails = [fisher_exact(table, side).pvalue for side in ("less", "greater")]
        found = fisher_p_value(*proportions(first, of, second, other))
        assert found == pytest.approx(min(1.0, 2 * min(tails)), rel=1e-9)

    def test_who_is_first_does_not_matter(self):
        one, other = proportions(12, 20, 17, 25)
        assert fisher_p_value(one, other) == fisher_p_value(other, one)


class TestMcNemar:
    @pytest.mark.parametrize(
        ("first_only", "second_only"),
        [(0, 1), (1, 0), (1, 1), (0, 5), (0, 6), (3, 9), (9, 3), (20, 40), (50, 50), (7, 100)],
    )
    def test_it_is_the_exact_binomial_test_of_the_images_that_differ(self, first_only, second_only):
        first = np.array([True] * first_only + [False] * second_only + [True] * 30 + [False] * 20)
        second = np.array([False] * first_only + [True] * second_only + [True] * 30 + [False] * 20)
        differing = first_only + second_only
        expected = binomtest(min(first_only, second_only), differing, 0.5).pvalue
        assert mcnemar_p_value(first, second) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("seed", range(5))
    def test_random_vectors(self, seed):
        random = np.random.RandomState(seed)
        first, second = random.uniform(size=(2, 500)) < np.array([[0.8], [0.75]])
        differing = int((first != second).sum())
        better = int((first & ~second).sum())
        expected = binomtest(better, differing, 0.5).pvalue
        assert mcnemar_p_value(first, second) == pytest.approx(expected, rel=1e-9)

    def test_it_is_symmetric_and_one_where_nothing_differs(self):
        first, second = vector(150), vector(140, start=30)
        assert mcnemar_p_value(first, second) == mcnemar_p_value(second, first)
        assert mcnemar_p_value(first, first) == 1.0
        assert mcnemar_p_value(vector(0), vector(0)) == 1.0

    def test_thousands_of_differing_images_neither_overflow_nor_round_to_nonsense(self):
        first, second = vector(4000, length=8000), vector(4100, start=4000, length=8000)
        differing = int((first != second).sum())
        better = int((first & ~second).sum())
        assert differing > 7000
        expected = binomtest(better, differing, 0.5).pvalue
        assert mcnemar_p_value(first, second) == pytest.approx(expected, rel=1e-6)


class TestPacking:
    @pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 400, 7326])
    def test_a_vector_comes_back_bit_for_bit(self, length):
        correct = np.random.RandomState(length).uniform(size=length) < 0.7
        packed = pack_correct(correct)
        assert isinstance(packed, str)
        found = unpack_correct(packed)
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, correct)


class TestRanks:
    def test_they_follow_the_value_and_among_equals_the_number(self):
        found = ranked(
            (vector(100), 1.0, False),
            (vector(180), 1.0, False),
            (vector(100, start=50), 1.0, False),
            (vector(140), 1.0, False),
        )
        assert [trial.number for trial in found] == [1, 3, 0, 2]
        assert [trial.rank for trial in found] == [1, 2, 3, 4]
        assert [trial.value for trial in found] == [0.9, 0.7, 0.5, 0.5]

    def test_only_complete_trials_have_one(self):
        study = study_with((vector(100), 1.0, False), (vector(50), 1.0, False))
        cut, nan, failed, waiting, _running = (begin(study).number for _ in range(5))
        study.report(0, 1, 3, 0.9)
        study._storage.set_trial_intermediate_value(cut, 3, 0.99)
        study.prune_without_value(nan, 1, "nan")
        study.prune_without_value(cut, 1, "cut")
        study.fail(failed, 1, "broken")
        study.interrupt(waiting, 1, "lost")
        assert [trial.number for trial in rank_trials(study.get_trials())] == [0, 1]

    def test_a_trial_that_was_cut_has_none_though_its_value_is_the_highest(self):
        study = study_with((vector(100), 1.0, False), (vector(50), 1.0, False))
        ahead, cut = (begin(study).number for _ in range(2))
        study.report(ahead, 1, 3, 0.99)
        study.report(cut, 1, 3, 0.95)
        trial = study.get_trial(cut)
        assert (trial.state, trial.value) == (TrialState.PRUNED, 0.95)
        assert [trial.number for trial in rank_trials(study.get_trials())] == [0, 1]
        assert best_trial(study.get_trials()).number == 0

    def test_there_is_none_without_a_complete_trial(self):
        study = make_study()
        begin(study)
        assert rank_trials(study.get_trials()) == []
        assert rank_trials([]) == []

    def test_what_a_trial_cost_and_scored_is_told(self):
        (trial,) = ranked((vector(150), 12.5, True))
        assert (trial.seconds, trial.is_default) == (12.5, True)
        assert trial.standard_error == pytest.approx(np.sqrt(0.75 * 0.25 / IMAGES))
        assert trial.result["accuracy"] == 0.75
        assert "learning_rate" in trial.params


class TestTies:
    def test_rank_one_names_those_a_paired_test_does_not_separate_from_it(self):
        # All errors of the first are errors of the others: 5 differing images give p = .0625,
        # 6 give p = .03125.
        found = ranked(
            (vector(180), 1.0, False), (vector(175), 1.0, False), (vector(174), 1.0, False)
        )
        assert [trial.tied_with for trial in found] == [(1,), (0,), ()]

    def test_the_test_is_paired_the_same_accuracies_may_tie_or_not(self):
        near = ranked((vector(120), 1.0, False), (vector(110), 1.0, False))
        far = ranked((vector(120), 1.0, False), (vector(110, start=80), 1.0, False))
        assert [trial.value for trial in near] == [trial.value for trial in far]
        assert near[0].tied_with == ()
        assert far[0].tied_with == (1,)

    def test_a_tie_is_with_rank_one_not_with_each_other(self):
        found = ranked(
            (vector(180), 1.0, False), (vector(178), 1.0, False), (vector(177), 1.0, False)
        )
        assert found[0].tied_with == (1, 2)
        assert found[1].tied_with == found[2].tied_with == (0,)


class TestRecommended:
    def chosen(self, *trials) -> int:
        found = [trial.number for trial in ranked(*trials) if trial.recommended]
        assert len(found) == 1
        return found[0]

    def test_alone_it_is_rank_one(self):
        assert self.chosen((vector(100), 1.0, False), (vector(180), 9.0, False)) == 1

    def test_a_tied_published_default_stands_before_all(self):
        assert (
            self.chosen(
                (vector(176), 99.0, True), (vector(180), 5.0, False), (vector(178), 1.0, False)
            )
            == 0
        )

    def test_of_several_tied_defaults_the_best_one(self):
        assert (
            self.chosen(
                (vector(176), 1.0, True), (vector(178), 50.0, True), (vector(180), 1.0, False)
            )
            == 1
        )

    def test_a_default_that_is_separated_is_not_recommended(self):
        assert self.chosen((vector(100), 1.0, True), (vector(180), 9.0, False)) == 1

    def test_without_a_default_the_cheapest_tie(self):
        assert (
            self.chosen(
                (vector(180), 9.0, False), (vector(178), 2.0, False), (vector(177), 3.0, False)
            )
            == 1
        )

    def test_a_cheaper_one_that_is_not_tied_is_not(self):
        assert self.chosen((vector(180), 9.0, False), (vector(100), 1.0, False)) == 0

    def test_among_the_equally_cheap_the_earlier(self):
        assert self.chosen((vector(178), 2.0, False), (vector(180), 2.0, False)) == 0
