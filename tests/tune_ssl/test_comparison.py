"""What a comparison is, before it is run, and what its retrainings say: from values alone."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import Run, small_config
from tests.tune_ssl.test_confirmation import opened_at, trials_of
from tune_ssl import comparison as judging
from tune_ssl.comparison import BOUNDLESS, Comparison, Searched
from tune_ssl.retraining import Configuration, Retrainings
from tune_ssl.statistics.crossed import crossed_interval
from tune_ssl.study import SECONDS
from tune_ssl.trial import pack_correct, unpack_correct

VALUES = {"learning_rate": 3e-3, "ema_horizon": 12.0, "weight_decay": 1e-4}
NAMES = ("supervised", "ict / mse", "vat / kl")


def comparison(alg=("supervised", "ict", "vat"), divergence=(), **changes) -> Comparison:
    settings = small_config(alg=alg, divergence=divergence, trials=6, metric="accuracy")
    return Comparison(**{"settings": settings, "seeds": 3, **changes})


def configuration(name: str, repeat: int = 0, several: bool = False) -> Configuration:
    algorithm, _, divergence = name.partition(" / ")
    return Configuration(
        name=f"{name}, search {repeat + 1}" if several else name,
        algorithm=algorithm,
        divergence=divergence or None,
        parameters=VALUES,
        origin={
            "cell": name,
            "validation": 0.9,
            "trials": 6,
            "complete": 3,
            "device_seconds": 10.0 + repeat,
        },
    )


def table_of(plan: Comparison, names=NAMES) -> Retrainings:
    several = plan.repeats > 1
    rows = [
        configuration(name, repeat, several) for repeat in range(plan.repeats) for name in names
    ]
    return judging.table(plan, rows, plan.settings, storage=None, origin="runs/compare")


class TestConditions:
    def test_of_a_balanced_metric_cells_and_lines_have_accuracy_too(self):
        plan = comparison()
        settings = dataclasses.replace(plan.settings, metric="balanced_accuracy", imbalance=4.0)
        plan = dataclasses.replace(plan, settings=settings)
        table = table_of(plan)
        test = opened_at(table, (0.9, 0.7, 0.6))
        lines = {"1-NN": [test.correct[number] for number in (0, 3, 6)]}
        test = dataclasses.replace(test, labels=[0] * 50 + [1] * 10, references=lines)
        trials = trials_of([[0.9, 0.9, 0.9], [0.8, 0.8, 0.8], [0.7, 0.7, 0.7]])
        for trial in trials:
            trial.user_attrs[SECONDS] = 1.0
        found = judging.compared(plan, table, trials, test)
        assert found["conditions"] == {"imbalance": 4.0}
        correct = np.array([unpack_correct(packed) for packed in lines["1-NN"]])
        (line,) = found["references"]
        (supervised,) = (row for row in found["cells"] if row["name"] == "supervised")
        for row in (line, supervised):
            assert row["accuracy"] == pytest.approx(vars(crossed_interval(correct)))
            assert row["test"]["mean"] == pytest.approx(
                (correct[:, :50].mean() + correct[:, 50:].mean()) / 2
            )


class TestCells:
    def test_a_method_with_each_divergence_has_the_same_budget_as_supervised(self):
        cells = comparison(divergence=("mse", "kl")).cells()
        assert [(cell.name, cell.trials) for cell in cells] == [
            ("supervised", 6),
            ("ict / mse", 6),
            ("ict / kl", 6),
            ("vat / mse", 6),
            ("vat / kl", 6),
        ]

    def test_without_divergences_each_method_has_its_paper_s(self):
        assert [cell.name for cell in comparison().cells()] == list(NAMES)

    def test_a_claim_about_methods_gives_each_method_the_same_total_and_one_search(self):
        cells = comparison(divergence=("mse", "kl", "js"), claim="methods").cells()
        assert [(cell.name, cell.divergences, cell.trials) for cell in cells] == [
            ("supervised", (), 18),
            ("ict", ("mse", "kl", "js"), 18),
            ("vat", ("mse", "kl", "js"), 18),
        ]

    def test_all_are_the_notebook_s_and_those_it_left_out(self):
        settings = dataclasses.replace(
            small_config(),
            alg=(
                "supervised",
                "pseudo_label",
                "pi_model",
                "vat",
                "mean_teacher",
                "ict",
                "mixmatch",
            ),
            divergence=("mse", "l1", "kl", "js"),
        )
        cells = Comparison(settings=settings, seeds=3).cells()
        assert len(cells) == 25
        assert len({cell.folder for cell in cells}) == 25

    def test_the_notebook_s_own_divergences_are_cells_by_name(self):
        cells = comparison(alg=("supervised", "ict"), divergence=("kl", "notebook_kl")).cells()
        assert [cell.name for cell in cells] == ["supervised", "ict / kl", "ict / notebook_kl"]

    def test_a_budget_in_device_time_is_shared_out_alike(self):
        cells = comparison(divergence=("mse", "kl"), claim="methods", budget_per_cell=60.0).cells()
        assert {cell.device_seconds for cell in cells} == {120.0}
        assert {cell.trials for cell in cells} == {BOUNDLESS}

    def test_a_search_has_its_cell_alone_and_repeats_another_draw_and_seed(self):
        plan = comparison(divergence=("mse", "kl"), repeats=3)
        cell = plan.cells()[2]
        first, third = (plan.search_settings(cell, repeat) for repeat in (0, 2))
        assert (first.alg, first.divergence, first.trials) == (("ict",), ("kl",), 6)
        assert (first.split_seed, first.seed) == (0, 0)
        assert (third.split_seed, third.seed) == (2, 2)
        assert plan.folder(cell, 2) == "cells/ict-kl-search-3"
        assert comparison().folder(cell, 0) == "cells/ict-kl"

    def test_entropy_minimisation_is_of_all_but_the_control(self):
        plan = comparison(alg=("supervised", "ict"))
        plan = dataclasses.replace(
            plan, settings=dataclasses.replace(plan.settings, entropy_min=0.1)
        )
        found = [plan.search_settings(cell, 0) for cell in plan.cells()]
        assert [one.entropy_min for one in found] == [0.0, 0.1]
        winners = [configuration("supervised"), configuration("ict / mse")]
        table = judging.table(plan, winners, found[0], storage=None, origin="it")
        assert table.settings.entropy_min == 0.1

    def test_it_is_read_back_equal(self):
        plan = comparison(divergence=("mse", "kl"), claim="methods", repeats=3)
        assert Comparison.from_mapping(json.loads(json.dumps(plan.to_mapping()))) == plan


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"claim": "cell"}, "did you mean 'cells'"),
            ({"seeds": 2}, "seeds is 2"),
            ({"repeats": 0}, "repeats is 0"),
            ({"repeats": 2}, "repeats is 2; allowed: 1, or 3 and more"),
            ({"budget_per_cell": 0.0}, "budget-per-cell is 0"),
            ({"alg": ("supervised",)}, "allowed: supervised and one more"),
            ({"alg": ("ict", "vat")}, "allowed: supervised and one more"),
        ],
    )
    def test_what_is_not_legal(self, changes, message):
        with pytest.raises(UserError, match=message):
            comparison(**changes)

    @pytest.mark.parametrize(
        "more",
        [
            {"warm_start": "runs/earlier"},
            {"start_from": ({"algorithm": "ict", "divergence": "mse", "parameters": {}},)},
        ],
    )
    def test_knowledge_that_others_have_not(self, more):
        settings = dataclasses.replace(comparison().settings, **more)
        with pytest.raises(UserError, match="allowed: neither"):
            Comparison(settings=settings, seeds=3)

    def test_an_unknown_key(self):
        with pytest.raises(UserError, match="budget"):
            Comparison.from_mapping(comparison().to_mapping() | {"budget": 3})


class TestTable:
    def test_repeats_are_groups_on_draws_of_their_own(self):
        plan = comparison(repeats=3)
        table = table_of(plan)
        assert (table.groups, table.settings.trials) == (3, 27)
        seen: dict[int, set[int]] = {}
        for number in range(27):
            one, draw = table.at(number)
            seen.setdefault(int(one.name[-1]), set()).add(draw.split_seed)
        assert sorted(len(draws) for draws in seen.values()) == [3, 3, 3]
        assert len(set.union(*seen.values())) == 9
        assert not set.union(*seen.values()) & {0, 1, 2}

    def test_every_configuration_is_on_every_draw_of_its_group_once(self):
        table = table_of(comparison(repeats=3))
        places = [table.place(number) for number in range(27)]
        assert sorted(places) == [(row, column) for row in range(9) for column in range(3)]

    def test_it_is_read_back_equal(self):
        table = table_of(comparison(repeats=3))
        assert Retrainings.from_mapping(json.loads(json.dumps(table.to_mapping()))) == table


class TestWinners:
    @pytest.fixture
    def searches(self, tmp_path):
        plan = comparison(alg=("supervised", "mean_teacher"))
        return [self.searched(plan, cell, tmp_path) for cell in plan.cells()]

    @staticmethod
    def searched(plan, cell, tmp_path) -> Searched:
        settings = plan.search_settings(cell, 0)
        run = Run(tmp_path / cell.folder, settings).finish()
        return Searched(
            cell=cell,
            repeat=0,
            run=f"cells/{cell.folder}",
            settings=settings,
            trials=run.trials(),
            num_classes=10,
        )

    def test_the_best_of_every_search_with_what_it_cost(self, searches):
        chosen = judging.winners(comparison(alg=("supervised", "mean_teacher")), searches, "it")
        assert [one.name for one in chosen] == ["supervised", "mean_teacher / mse"]
        for one, search in zip(chosen, searches, strict=True):
            best = max(t.value for t in search.trials if t.state.name == "COMPLETE")
            assert one.origin["validation"] == best
            assert one.origin["trials"] == 6
            spent = sum(t.user_attrs[SECONDS] for t in search.trials)
            assert one.origin["device_seconds"] == spent > 0

    def test_a_cell_without_a_full_length_is_left_out(self, searches):
        plan = comparison(alg=("supervised", "mean_teacher", "ict"))
        empty = dataclasses.replace(searches[1], cell=plan.cells()[2], trials=[])
        assert judging.left_out([*searches, empty]) == ["ict / mse"]
        assert len(judging.winners(plan, [*searches, empty], "it")) == 2

    def test_without_supervised_there_is_nothing_to_compare_with(self, searches):
        empty = dataclasses.replace(searches[0], trials=[])
        with pytest.raises(UserError, match="no trial of full length has come of supervised"):
            judging.winners(comparison(), [empty, searches[1]], "it")


def judged(plan, values, accuracies, **test):
    table = table_of(plan)
    opened = opened_at(table, accuracies)
    return judging.compared(plan, table, trials_of(values), dataclasses.replace(opened, **test))


class TestFigures:
    VALUES = ((0.7, 0.7, 0.7), (0.9, 0.8, 0.9), (0.8, 0.8, 0.8))

    def test_rows_stand_in_the_order_of_validation_whatever_the_test_says(self):
        result = judged(comparison(), self.VALUES, (0.99, 0.5, 0.7))
        assert [row["name"] for row in result["cells"]] == ["ict / mse", "vat / kl", "supervised"]
        assert result["winner"] == "ict / mse"
        verdicts = {row["name"]: row["verdict"] for row in result["cells"]}
        assert verdicts == {"ict / mse": "worse", "vat / kl": "worse", "supervised": ""}

    def test_cells_that_share_a_letter_are_not_told_apart(self):
        result = judged(comparison(), self.VALUES, (0.5, 0.95, 0.95))
        letters = {row["name"]: set(row["letters"]) for row in result["cells"]}
        assert letters["ict / mse"] & letters["vat / kl"]
        assert not letters["ict / mse"] & letters["supervised"]

    def test_reference_lines_are_part_of_the_table_and_of_its_claims(self):
        packed = [pack_correct(np.arange(60) < 6)] * 3
        result = judged(comparison(), self.VALUES, (0.9, 0.9, 0.9), references={"1-NN": packed})
        (line,) = result["references"]
        assert line["test"]["mean"] == pytest.approx(0.1)
        assert line["verdict"] == "worse"
        alone = judged(comparison(), self.VALUES, (0.9, 0.9, 0.9))
        widths = [
            one["cells"][0]["minus_control"]["high"] - one["cells"][0]["minus_control"]["low"]
            for one in (alone, result)
        ]
        assert widths[0] < widths[1]

    def test_with_one_search_rows_are_retrainings(self):
        plan = comparison()
        table = table_of(plan)
        test = opened_at(table, (0.6, 0.8, 0.9))
        result = judging.compared(plan, table, trials_of(self.VALUES), test)
        own = np.stack([unpack_correct(test.correct[number]) for number in (1, 4, 7)])
        expected = crossed_interval(own)
        assert result["cells"][0]["test"] == dataclasses.asdict(expected)
        assert "conditional on the configuration found by one search" in result["caption"]

    def test_with_repeats_rows_are_searches(self):
        plan = comparison(repeats=3)
        table = table_of(plan)
        values = [[0.7] * 9, [0.9] * 9, [0.8] * 9]
        test = opened_at(table, [0.6, 0.8, 0.9] * 3)
        trials = trials_of(values)
        result = judging.compared(plan, table, trials, test)
        means = np.stack(
            [
                np.mean(
                    [
                        unpack_correct(packed)
                        for number, packed in test.correct.items()
                        if table.place(number)[0] == row
                    ],
                    axis=0,
                )
                for row in (1, 4, 7)
            ]
        )
        assert result["cells"][0]["test"] == dataclasses.asdict(crossed_interval(means))
        assert result["caption"] == "over 3 independent searches; indicative"
        assert result["cells"][0]["device_seconds"] == 10.0 + 11.0 + 12.0
        assert len(result["cells"][0]["searched"]) == 3
        assert len(result["cells"][0]["searched"][2]["retrainings"]) == 3

    def test_reference_lines_of_repeats_are_paired_with_their_draws(self):
        plan = comparison(repeats=3)
        table = table_of(plan)
        hits = [0] * 3 + [30] * 3 + [60] * 3  # of 60 images, on the draws of each search
        packed = [pack_correct(np.arange(60) < count) for count in hits]
        means = [
            own.mean()
            for own in judging._reference_tables(table, packed, opened_at(table, [0.5] * 9), False)
        ]
        assert means == [0.0, 0.5, 1.0]

    def test_what_was_left_out_is_said(self):
        plan = comparison()
        table = table_of(plan, NAMES[:2])
        test = opened_at(table, (0.6, 0.8))
        result = judging.compared(plan, table, trials_of(self.VALUES[:2]), test)
        assert result["left_out"] == ["vat / kl"]

    def test_it_is_plain_values(self):
        result = judged(comparison(), self.VALUES, (0.9, 0.5, 0.7))
        assert json.loads(json.dumps(result)) == result
