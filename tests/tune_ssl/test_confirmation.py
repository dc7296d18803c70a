"""What retrainings say, from trials and test results alone."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState

from ssl_core.errors import UserError
from tests.tune_ssl.test_retraining import table_of
from tune_ssl.confirmation import OpenedTest, confirmation, name_winner
from tune_ssl.driver import TOO_LITTLE_MEMORY
from tune_ssl.statistics.crossed import crossed_interval, paired_difference
from tune_ssl.study import REASON, RESULT
from tune_ssl.trial import pack_correct, unpack_correct

IMAGES = 60
NAMES = ("rank 1", "published default")


def trial_of(number, value, *, state=TrialState.COMPLETE, reason=None) -> FrozenTrial:
    correct = np.arange(20) < round(20 * (value or 0.0))
    complete = state == TrialState.COMPLETE
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=value if complete else None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={REASON: reason} if reason else {},
        system_attrs={RESULT: {"correct": pack_correct(correct)}} if complete else {},
        intermediate_values={},
    )


def trials_of(values) -> list[FrozenTrial]:
    """Return trials of a (K, S) list of validation values, in the order of the study."""
    columns = list(zip(*values, strict=True))
    return [trial_of(n, v) for n, v in enumerate(v for column in columns for v in column)]


def opened_at(table, accuracies, opening=1, seed=0) -> OpenedTest:
    """Return random test results; ``accuracies`` by row of the table."""
    random = np.random.default_rng(seed)
    correct = {
        number: pack_correct(random.random(IMAGES) < accuracies[table.place(number)[0]])
        for number in range(table.settings.trials)
    }
    return OpenedTest(
        sha256="f" * 64,
        opening=opening,
        labels=[image % 3 for image in range(IMAGES)],
        class_names=["a", "b", "c"],
        correct=correct,
    )


def yardsticks(draws=4):
    """Return a table with the search's best, which showed .95, and the default, which showed .8."""
    table = table_of(NAMES, draws=draws)
    best, default = table.configurations
    origins = (
        {"rank": 1, "validation": 0.95, "published_default": False},
        {"rank": 7, "validation": 0.80, "published_default": True},
    )
    for configuration, origin in zip((best, default), origins, strict=True):
        configuration.origin.clear()
        configuration.origin.update(origin)
    return table


class TestWinner:
    def test_it_has_the_best_mean_validation(self):
        order = name_winner(table_of(), trials_of([[0.9, 0.5, 0.5], [0.7, 0.7, 0.7]]))
        assert [(one.name, round(one.validation, 9)) for one in order] == [
            ("rank 2", 0.7),
            ("rank 1", round(1.9 / 3, 9)),
        ]

    def test_among_equals_it_is_the_earlier(self):
        order = name_winner(table_of(), trials_of([[0.6, 0.7, 0.8], [0.8, 0.7, 0.6]]))
        assert [one.name for one in order] == ["rank 1", "rank 2"]

    @pytest.mark.parametrize(
        "reason", ["the loss was not finite by step 9", "the final value is nan"]
    )
    def test_a_retraining_that_diverged_counts_as_all_wrong(self, reason):
        trials = trials_of([[0.9, 0.9, 0.9], [0.7, 0.7, 0.7]])
        trials[2] = trial_of(2, None, state=TrialState.PRUNED, reason=reason)
        order = name_winner(table_of(), trials)
        assert [(one.name, round(one.validation, 9), one.diverged) for one in order] == [
            ("rank 2", 0.7, 0),
            ("rank 1", 0.6, 1),
        ]

    @pytest.mark.parametrize(
        ("state", "reason"),
        [
            (TrialState.FAIL, "RuntimeError: the work broke"),
            (TrialState.PRUNED, f"{TOO_LITTLE_MEMORY} at step 3"),
        ],
    )
    def test_one_that_failed_leaves_a_hole_and_no_winner(self, state, reason):
        trials = trials_of([[0.9, 0.9, 0.9], [0.7, 0.7, 0.7]])
        trials[3] = trial_of(3, None, state=state, reason=reason)
        with pytest.raises(
            UserError, match=rf"1 of 6 retrainings gave no result \(trial 3: {reason}"
        ):
            name_winner(table_of(), trials)


class TestFigures:
    def result(self, table=None, test=None, values=((0.9, 0.8, 0.85), (0.7, 0.75, 0.7))):
        table = table or table_of()
        test = test or opened_at(table, (0.9, 0.6))
        return confirmation(table, trials_of(values), test)

    def test_rows_stand_in_the_order_of_validation_whatever_the_test_says(self):
        table = table_of()
        result = self.result(table, opened_at(table, (0.5, 0.9)))
        assert result["winner"] == "rank 1"
        first, second = result["configurations"]
        assert (first["name"], second["name"]) == ("rank 1", "rank 2")
        assert first["test"]["mean"] < second["test"]["mean"]
        assert second["minus_winner"]["low"] > 0
        assert second["verdict"] == "better"

    def test_every_figure_can_be_computed_again_from_what_is_printed(self):
        printed = json.loads(json.dumps(self.result()))
        tables = {
            row["name"]: np.array(
                [unpack_correct(one["test_correct"]) for one in row["retrainings"]]
            )
            for row in printed["configurations"]
        }
        for row in printed["configurations"]:
            own = crossed_interval(tables[row["name"]])
            assert row["test"] == pytest.approx(vars(own))
            values = [one["validation"] for one in row["retrainings"]]
            correct = [unpack_correct(one["validation_correct"]) for one in row["retrainings"]]
            assert row["validation"] == pytest.approx(np.mean(values))
            assert values == pytest.approx([own.mean() for own in correct])
        loser = printed["configurations"][1]
        difference = paired_difference(tables[loser["name"]], tables[printed["winner"]])
        assert loser["minus_winner"] == pytest.approx(vars(difference))

    def test_a_pair_is_of_one_draw(self):
        """Retrainings of a configuration come in the order of the draws, whatever the trials' order."""
        result = self.result()
        for row in result["configurations"]:
            assert [one["split_seed"] for one in row["retrainings"]] == [1000, 1001, 1002]
            assert len({one["trial"] for one in row["retrainings"]}) == 3

    def test_of_a_balanced_metric_accuracy_stands_beside_it(self):
        assert "accuracy" not in self.result()["configurations"][0]
        table = table_of()
        settings = dataclasses.replace(table.settings, metric="balanced_accuracy", imbalance=9.0)
        table = dataclasses.replace(table, settings=settings)
        test = opened_at(table, (0.9, 0.6))
        uneven = [0] * 50 + [1] * 10
        result = self.result(table, dataclasses.replace(test, labels=uneven))
        assert result["conditions"] == {"imbalance": 9.0}
        for row in result["configurations"]:
            correct = np.array([unpack_correct(one["test_correct"]) for one in row["retrainings"]])
            balanced = (correct[:, :50].mean() + correct[:, 50:].mean()) / 2
            assert row["test"]["mean"] == pytest.approx(balanced)
            assert row["accuracy"] == pytest.approx(vars(crossed_interval(correct)))
            assert row["accuracy"]["mean"] != pytest.approx(balanced)

    def test_equal_configurations_are_not_distinguishable(self):
        table = table_of()
        test = opened_at(table, (0.8, 0.8))
        test = OpenedTest.from_mapping(test.to_mapping())
        test.correct.update({n + 1: test.correct[n] for n in (0, 2, 4)})
        assert self.result(table, test)["configurations"][1]["verdict"] == "not distinguishable"

    def test_a_diverged_retraining_classifies_no_image(self):
        table = table_of()
        test = opened_at(table, (0.9, 0.6))
        del test.correct[0]
        trials = trials_of([[0.9, 0.9, 0.9], [0.2, 0.2, 0.2]])
        trials[0] = trial_of(0, None, state=TrialState.PRUNED, reason="the loss was not finite")
        result = confirmation(table, trials, test)
        row = result["configurations"][0]
        rest = [unpack_correct(test.correct[n]).mean() for n in (2, 4)]
        assert row["test"]["mean"] == pytest.approx(sum(rest) / 3)
        assert (row["diverged"], row["retrainings"][0]["test_correct"]) == (1, None)

    def test_uneven_classes_are_weighed_alike(self):
        table = table_of(metric="balanced_accuracy")
        test = opened_at(table, (0.9, 0.6))
        test.labels[:] = [0] * 40 + [1] * 20
        row = self.result(table, test)["configurations"][0]
        own = [unpack_correct(test.correct[number]) for number in (0, 2, 4)]
        expected = np.mean([(one[:40].mean() + one[40:].mean()) / 2 for one in own])
        assert row["test"]["mean"] == pytest.approx(expected)

    def test_few_draws_are_marked(self):
        assert self.result()["indicative"]
        assert "indicative" in self.result()["caption"]

    def test_a_single_configuration_has_its_interval_and_no_difference(self):
        table = table_of(("rank 1",))
        result = confirmation(table, trials_of([[0.9, 0.8, 0.7]]), opened_at(table, (0.9,)))
        (row,) = result["configurations"]
        assert row["minus_winner"] is None
        assert 0 < row["test"]["low"] < row["test"]["mean"] < row["test"]["high"]


class TestOptimism:
    VALUES = ((0.85, 0.80, 0.83, 0.84), (0.79, 0.78, 0.80, 0.79))

    def test_it_is_the_best_s_excess_minus_the_default_s(self):
        table = yardsticks()
        result = confirmation(table, trials_of(self.VALUES), opened_at(table, (0.8, 0.7)))
        found = result["optimism"]
        means = [np.mean(own) for own in self.VALUES]
        assert found["excess"]["mean"] == pytest.approx((0.95 - means[0]) - (0.80 - means[1]))
        assert found["excess"]["low"] < found["excess"]["mean"] < found["excess"]["high"]
        assert (found["of"], found["beside"]) == NAMES
        assert found["bootstrap"] is None

    def test_the_bootstrap_chooses_among_all_that_was_searched(self):
        table, random = yardsticks(), np.random.default_rng(0)
        searched = [
            {"trial": n, "validation": None, "correct": pack_correct(random.random(100) < 0.7)}
            for n in range(30)
        ]
        test = opened_at(table, (0.8, 0.7))
        found = confirmation(table, trials_of(self.VALUES), test, searched)["optimism"]
        assert found["bootstrap"]["excess"] > 0.02  # all are alike: what the best shows is luck

    def test_where_the_best_is_the_default_nothing_was_promised(self):
        table = yardsticks()
        table.configurations[0].origin["rank"] = 2
        table.configurations[1].origin["rank"] = 1
        result = confirmation(table, trials_of(self.VALUES), opened_at(table, (0.8, 0.7)))
        assert result["optimism"] is None


def test_test_results_are_kept_as_they_are():
    test = opened_at(table_of(), (0.9, 0.6), opening=4)
    kept = json.loads(json.dumps(copy.deepcopy(test.to_mapping())))
    assert OpenedTest.from_mapping(kept) == test
