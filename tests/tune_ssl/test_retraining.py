"""The table of retrainings: which trial is which, and that nothing but method and draw differs."""

from __future__ import annotations

import dataclasses

import pytest
from optuna.trial import FixedTrial

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import RUNGS, small_config
from tune_ssl.retraining import (
    Configuration,
    Draw,
    Retrainings,
    fold_draws,
    fresh_draws,
    holds_retrainings,
    read_retrainings,
    retrain_settings,
    write_retrainings,
)
from tune_ssl.run import RunDirectory

VALUES = {"learning_rate": 3e-3, "ema_horizon": 12.0, "weight_decay": 1e-4}


def table_of(names=("rank 1", "rank 2"), draws=3, **changes) -> Retrainings:
    settings = retrain_settings(
        small_config(**{"metric": "accuracy", **changes}),
        configurations=len(names),
        draws=draws,
        storage=None,
    )
    return Retrainings(
        settings=settings,
        configurations=tuple(
            Configuration(
                name=name,
                algorithm="mean_teacher",
                divergence="mse",
                parameters=VALUES | {"learning_rate": 3e-3 / place},
                origin={"rank": place},
            )
            for place, name in enumerate(names, 1)
        ),
        draws=fresh_draws(draws, seen={0}),
        origin="runs/search",
        id="table",
    )


class TestDraws:
    def test_they_are_the_same_for_all_and_none_is_the_search_s(self):
        assert fresh_draws(3, seen={0}) == (Draw(1000, 1000), Draw(1001, 1001), Draw(1002, 1002))
        assert [draw.split_seed for draw in fresh_draws(3, seen={1001, 5})] == [1000, 1002, 1003]

    def test_more_of_them_begin_with_the_fewer(self):
        assert fresh_draws(20, seen={1003})[:7] == fresh_draws(7, seen={1003})


class TestFolds:
    def test_every_fold_of_every_repeat_is_a_column_with_a_seed_of_its_own(self):
        draws = fold_draws(7, folds=3, repeats=2)
        assert [(d.split_seed, d.division_seed, d.folds, d.fold) for d in draws] == [
            *[(7, 1000, 3, fold) for fold in (1, 2, 3)],
            *[(7, 1001, 3, fold) for fold in (1, 2, 3)],
        ]
        assert len({draw.seed for draw in draws}) == len({draw.label for draw in draws}) == 6

    def test_a_fresh_draw_is_written_as_it_always_was(self):
        assert Draw(1000, 1000).to_mapping() == {"split_seed": 1000, "seed": 1000}
        assert Draw(1000, 1000).label == 1000

    def test_records_name_the_fold_and_are_read_back(self, tmp_path):
        table = dataclasses.replace(table_of(draws=4), draws=fold_draws(0, folds=2, repeats=2))
        configuration, draw = table.at(2)
        record = table.record(2, configuration.suggestion)
        division = {"division_seed": 1000, "folds": 2, "fold": 2}
        assert draw.division == division
        assert record.items() >= (division | {"split_seed": 0, "seed": 1001}).items()
        directory = RunDirectory(tmp_path / "table")
        directory.create()
        write_retrainings(directory, table)
        assert read_retrainings(directory) == table
        assert table.folds == 2
        assert table_of().folds is None


class TestTable:
    def test_every_configuration_meets_every_draw_once(self):
        table = table_of(("a", "b"), draws=3)
        met = [(one.name, draw.seed) for one, draw in map(table.at, range(6))]
        assert met == [(name, seed) for seed in (1000, 1001, 1002) for name in ("a", "b")]

    def test_what_is_queued_is_what_is_suggested(self):
        table = table_of()
        for number, first in enumerate(table.first_trials()):
            configuration, draw = table.at(number)
            assert table.suggest(FixedTrial(first.params)) == configuration.suggestion
            assert first.params == {"configuration": configuration.name, "draw": draw.split_seed}

    def test_records_of_one_configuration_differ_in_the_draw_alone(self):
        table = table_of(labels=20, threads=2)
        records = [table.record(n, table.at(n)[0].suggestion) for n in range(6)]
        differing = {key for key in records[0] if records[0][key] != records[2][key]}
        assert differing == {"split_seed", "seed"}
        assert (records[2]["split_seed"], records[2]["seed"]) == (1001, 1001)

    def test_and_those_of_one_draw_in_the_configuration_alone(self):
        table = table_of()
        first, second = (table.record(n, table.at(n)[0].suggestion) for n in (0, 1))
        assert {key for key in first if first[key] != second[key]} == {"parameters"}
        assert first["parameters"] == table.configurations[0].parameters

    def test_a_record_is_that_of_the_search_but_for_the_draw(self):
        config = small_config(labels=20, batch_size=8, threads=1, device="cpu", metric="accuracy")
        table = table_of(labels=20, batch_size=8, threads=1, device="cpu")
        suggestion = table.configurations[0].suggestion
        searched = config.trial_record(suggestion, 7)
        retrained = table.record(0, suggestion)
        assert retrained == searched | {"split_seed": 1000, "seed": 1000}

    def test_all_are_trained_to_the_full_length(self):
        settings = table_of(scheduler="asha", start_from=(), concurrency=1).settings
        assert settings.rungs() == (RUNGS[-1],)
        assert (settings.trials, settings.concurrency) == (6, None)

    def test_two_of_one_name_are_our_mistake(self):
        with pytest.raises(AssertionError):
            table_of(("a", "a"))


class TestKept:
    def test_it_is_read_as_it_was_written(self, tmp_path):
        directory = RunDirectory(tmp_path)
        write_retrainings(directory, table_of(labels=20))
        assert holds_retrainings(directory)
        assert read_retrainings(directory) == table_of(labels=20)

    def test_a_search_holds_none_and_refuses_to_be_read_as_one(self, tmp_path):
        directory = RunDirectory(tmp_path)
        directory.write_config(small_config())
        assert not holds_retrainings(directory)
        write_retrainings(directory, table_of())
        with pytest.raises(UserError, match="holds retrainings; allowed: a search's run; give"):
            directory.read_config()

    def test_a_damaged_one_is_refused(self, tmp_path):
        directory = RunDirectory(tmp_path)
        given = table_of().to_mapping()
        del given["draws"]
        directory.config_path.write_text(str(given))
        with pytest.raises(UserError, match=r"has no draws; allowed"):
            read_retrainings(directory)

    def test_tables_agree_whatever_they_are_called(self):
        one = table_of()
        assert dataclasses.replace(one, id="other").table() == one.table()
        assert table_of(draws=4).table() != one.table()


class TestGroups:
    @pytest.fixture
    def grouped(self) -> Retrainings:
        """Return two configurations in the first group and two in the second, on three draws each."""
        whole = table_of(("a", "b", "c", "d"), draws=6)
        settings = dataclasses.replace(whole.settings, trials=12)
        return dataclasses.replace(whole, settings=settings, groups=2)

    def test_each_has_draws_of_its_own(self, grouped):
        drawn: dict[str, list[int]] = {}
        for number in range(12):
            configuration, draw = grouped.at(number)
            drawn.setdefault(configuration.name, []).append(draw.split_seed)
        first, second = [1000, 1001, 1002], [1003, 1004, 1005]
        assert drawn == {"a": first, "b": first, "c": second, "d": second}

    def test_columns_are_counted_in_each(self, grouped):
        assert [grouped.place(number) for number in (0, 1, 4, 6, 11)] == [
            (0, 0),
            (1, 0),
            (0, 2),
            (2, 0),
            (3, 2),
        ]

    def test_what_is_queued_is_what_is_trained(self, grouped):
        for number, first in enumerate(grouped.first_trials()):
            configuration, draw = grouped.at(number)
            assert first.params == {"configuration": configuration.name, "draw": draw.split_seed}

    def test_they_are_read_back_and_a_plain_table_does_not_speak_of_them(self, grouped):
        assert Retrainings.from_mapping(grouped.to_mapping()) == grouped
        assert "groups" not in table_of().to_mapping()
