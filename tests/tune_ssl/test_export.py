"""Exported configurations: what is in them, in which forms, and who reads them back."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import yaml

from search_spaces.joint import Suggestion
from ssl_core.data.config import CONDITIONS
from ssl_core.errors import UserError
from tests.tune_ssl.fakes import NUM_CLASSES, Run, begin, small_config
from tune_ssl.run import RunConfig
from tune_ssl.study import SearchStudy
from tune_ssl.views.export import (
    FORMATS,
    RESULT_KEYS,
    configuration_of,
    export_records,
    format_records,
    records_in,
)
from tune_ssl.workflows.results import best_records
from tune_ssl.workflows.settings import settings_from
from tune_ssl.workflows.train import choose

JOINT = small_config(
    alg=("supervised", "mean_teacher", "ict"), divergence=("mse", "kl"), trials=14, seed=4
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("runs") / "joint", JOINT).finish()


@pytest.fixture(scope="module")
def records(run):
    return best_records(run.directory, None)


@pytest.fixture(scope="module")
def files(records, tmp_path_factory):
    """Return the export in each form, as files by form."""
    folder = tmp_path_factory.mktemp("exports")
    paths = {form: folder / f"best.{form}" for form in FORMATS}
    for form, path in paths.items():
        path.write_text(format_records(records, form))
    return paths


class TestRecords:
    def test_each_says_at_least_this(self, records):
        promised = {
            "rank",
            "trial",
            "algorithm",
            "divergence",
            "parameters",
            "validation_accuracy",
            "validation_standard_error",
            "steps",
            "dataset",
            "num_labels",
            "seed",
            "split_seed",
            "recommended",
            "tied_with",
        }
        assert len(records) >= 4
        for record in records:
            assert promised <= record.keys()
            assert set(RESULT_KEYS) <= record.keys()

    def test_they_are_the_complete_trials_best_first(self, run, records):
        complete = [trial for trial in run.trials() if trial.state.name == "COMPLETE"]
        complete.sort(key=lambda trial: (-trial.value, trial.number))
        assert [record["trial"] for record in records] == [trial.number for trial in complete]
        assert [record["rank"] for record in records] == list(range(1, len(complete) + 1))
        assert [record["validation_accuracy"] for record in records] == [
            trial.value for trial in complete
        ]
        assert sum(record["recommended"] for record in records) == 1
        assert {record["steps"] for record in records} == {27}

    @pytest.mark.parametrize("top", [1, 2, 100, None])
    def test_no_more_than_asked_for(self, run, records, top):
        assert best_records(run.directory, top) == records[:top]

    def test_each_configuration_is_the_one_its_trial_was_trained_with(self, run, records):
        for record in records:
            trained = run.file(f"trials/{record['trial']:04d}/config.yaml").read_text()
            assert configuration_of(record) == yaml.safe_load(trained)

    def test_methods_come_with_their_own_parameters(self, records):
        for record in records:
            has_weight = "unlabeled_weight" in record["parameters"]
            assert has_weight == (record["algorithm"] != "supervised")
            assert ("mixup_alpha" in record["parameters"]) == (record["algorithm"] == "ict")
            assert (record["divergence"] is None) == (record["algorithm"] == "supervised")
        assert {record["algorithm"] for record in records} >= {"supervised", "ict"}

    def test_only_the_ten_best_have_weights(self, tmp_path):
        config = small_config(trials=13, scheduler="none")
        records = best_records(Run(tmp_path / "run", config).finish().directory, None)
        kept = [record["rank"] for record in records if record["weights"] is not None]
        assert len(records) == 13
        assert kept == [record["rank"] for record in records if record["rank"] <= 10]

    def test_each_names_weights_that_are_there(self, run, records):
        for record in records[:10]:
            assert run.file(record["weights"]).read_bytes().startswith(b"weights of state")

    def test_without_a_complete_trial_there_is_none(self, tmp_path):
        run = Run(tmp_path / "run", small_config())
        begin(run.study)
        assert export_records(run.config, run.trials(), NUM_CLASSES) == []

    def test_every_one_is_a_configuration_that_can_be_trained(self, records):
        from ssl_core.training.config import TrainingConfig

        for record in records:
            # A search writes these two down once it knows the machine.
            known = {"threads": 1, "precision": "float32", "device": "cpu", "metric": "accuracy"}
            config = TrainingConfig.from_record(configuration_of(record) | known)
            assert config.algorithm == record["algorithm"]
            assert config.divergence == record["divergence"]
            assert config.seed == record["seed"]
            assert config.max_steps == 27


class TestOlderVersions:
    def test_an_export_without_the_conditions_is_read_and_trained_as_then(self, records):
        from ssl_core.training.config import TrainingConfig

        older = [
            {key: value for key, value in record.items() if key not in CONDITIONS}
            for record in records
        ]
        assert len(older[0]) == len(records[0]) - 4
        assert records_in(older, "best.yaml") == older
        known = {"threads": 1, "precision": "float32", "device": "cpu", "metric": "accuracy"}
        then, now = (
            TrainingConfig.from_record(configuration_of(record[0]) | known)
            for record in (older, records)
        )
        assert then == now

    def test_an_export_s_conditions_become_the_search_s(self, records, tmp_path):
        given = {
            "num_unlabeled": 90,
            "labeled_classes": "1,2",
            "class_mismatch": 5.0,
            "imbalance": 2,
        }
        path = tmp_path / "best.json"
        path.write_text(json.dumps([record | given for record in records]))
        assert settings_from(path, {}).conditions() == {
            "unlabeled": 90,
            "labeled-classes": "1,2",
            "class-mismatch": 5.0,
            "imbalance": 2,
        }


class TestForms:
    def test_json_is_a_list_and_nothing_else(self, records):
        text = format_records(records, "json")
        assert json.loads(text) == records
        assert text.endswith("]\n")

    def test_json_is_strict(self, records):
        def refuse(constant):
            raise AssertionError(constant)

        json.loads(format_records(records, "json"), parse_constant=refuse)

    def test_yaml_says_the_same_in_the_same_order(self, records):
        text = format_records(records, "yaml")
        assert yaml.safe_load(text) == records
        assert text.startswith("- rank: 1\n")
        assert "!!" not in text

    def test_csv_has_a_row_each_and_a_column_for_every_parameter(self, records):
        rows = list(csv.DictReader(io.StringIO(format_records(records, "csv"))))
        assert len(rows) == len(records)
        for row, record in zip(rows, records, strict=True):
            assert float(row["validation_accuracy"]) == record["validation_accuracy"]
            assert (row["algorithm"], row["trial"]) == (record["algorithm"], str(record["trial"]))
            assert row["tied_with"].split() == [str(number) for number in record["tied_with"]]
            for name in ("learning_rate", "mixup_alpha"):
                value = record["parameters"].get(name)
                assert row[f"parameters.{name}"] == ("" if value is None else repr(value))
        assert "parameters" not in rows[0]

    def test_no_records_are_an_empty_list_in_every_form(self):
        assert json.loads(format_records([], "json")) == []
        assert yaml.safe_load(format_records([], "yaml")) == []
        assert list(csv.DictReader(io.StringIO(format_records([], "csv")))) == []


class TestRecordsIn:
    def test_one_mapping_or_a_list_of_them(self):
        assert records_in({"algorithm": "ict"}, "x") == [{"algorithm": "ict"}]
        assert records_in([{"a": 1}, {"b": 2}], "x") == [{"a": 1}, {"b": 2}]

    @pytest.mark.parametrize("content", [None, [], "text", 5, [1, 2], [{"a": 1}, "b"], [None]])
    def test_anything_else_is_refused(self, content):
        with pytest.raises(UserError, match=r"best\.yaml.* holds no configuration"):
            records_in(content, "'best.yaml'")


class TestTrainReadsItBack:
    @pytest.mark.parametrize("form", ["yaml", "json"])
    def test_the_first_one_unless_told_otherwise(self, files, records, form):
        assert choose(files[form]) == records[0]
        for rank in range(1, len(records) + 1):
            assert choose(files[form], rank=rank) == records[rank - 1]
        recommended = next(record for record in records if record["recommended"])
        assert choose(files[form], recommended=True) == recommended

    def test_a_rank_is_found_wherever_it_stands(self, tmp_path, records):
        path = tmp_path / "reversed.yaml"
        path.write_text(format_records(records[::-1], "yaml"))
        assert choose(path, rank=2) == records[1]
        assert choose(path) == records[-1]

    def test_one_that_is_not_there_is_refused(self, files, records):
        with pytest.raises(UserError, match=f"rank {len(records) + 1}"):
            choose(files["yaml"], rank=len(records) + 1)

    def test_an_export_without_the_recommended_one_says_so(self, tmp_path, records):
        path = tmp_path / "some.yaml"
        others = [record for record in records if not record["recommended"]]
        path.write_text(format_records(others, "yaml"))
        with pytest.raises(UserError, match="a recommended one"):
            choose(path, recommended=True)

    @pytest.mark.parametrize("rank", [0, -1])
    def test_ranks_begin_at_one(self, files, rank):
        with pytest.raises(UserError, match=f"rank is {rank}"):
            choose(files["yaml"], rank=rank)

    def test_a_bare_configuration_will_do(self, tmp_path, records):
        path = tmp_path / "one.yaml"
        path.write_text(yaml.safe_dump(configuration_of(records[1])))
        assert choose(path) == configuration_of(records[1])


class TestSearchReadsItBack:
    def queued(self, config: RunConfig) -> tuple[int, list[Suggestion]]:
        """Return how many published defaults a search tries first, and all it tries unasked."""
        from tests.tune_ssl.fakes import make_study
        from tune_ssl.workflows.opening import _first_trials

        study: SearchStudy = make_study(
            space=config.space(NUM_CLASSES), trials=config.trials, rungs=config.rungs()
        )
        first = _first_trials(config, study.space)
        study.enqueue_first(first)
        defaults = min(len(list(study.space.cells())), max(1, config.trials // 2))
        return defaults, [begin(study).suggestion for _ in first]

    def place(self, record: dict[str, Any], tried: list[Suggestion]) -> int:
        """Return where a configuration is tried."""
        (place,) = (
            place
            for place, suggestion in enumerate(tried)
            if (suggestion.algorithm, suggestion.divergence)
            == (record["algorithm"], record["divergence"])
            and suggestion.parameters == pytest.approx(record["parameters"], rel=1e-5)
        )
        return place

    @pytest.mark.parametrize("form", ["yaml", "json"])
    def test_the_exported_configurations_follow_the_published_defaults(self, files, records, form):
        defaults, tried = self.queued(settings_from(files[form], {"trials": 40}))
        places = [self.place(record, tried) for record in records]
        assert [place for place in places if place >= defaults] == list(range(defaults, len(tried)))
        assert len(tried) > defaults

    def test_the_search_has_the_settings_of_the_exported_trainings(self, run, files, records):
        config = settings_from(files["yaml"], {"reduction_factor": 3})
        assert set(config.alg) == {record["algorithm"] for record in records}
        assert set(config.divergence) == {r["divergence"] for r in records} - {None}
        assert config.steps == 27
        assert config.rungs() == run.config.rungs()
        for name in ("dataset", "split_seed", "optimizer", "lr_schedule", "evaluate", "flip"):
            assert getattr(config, name) == getattr(run.config, name)
        assert (config.labels, config.validation) == (20, 400)

    def test_flags_stand_over_it(self, files):
        config = settings_from(files["yaml"], {"max_steps": 81, "seed": 9, "labels": 50})
        assert (config.steps, config.seed, config.labels) == (81, 9, 50)

    @pytest.mark.parametrize("entropy", [0.25, "search"])
    def test_entropy_minimisation_is_part_of_what_is_read_back(self, tmp_path, entropy):
        config = small_config(trials=4, entropy_min=entropy)
        run = Run(tmp_path / "run", config).finish()
        records = best_records(run.directory, 1)
        assert records[0]["parameters"]["entropy_weight"] > 0
        path = tmp_path / "best.yaml"
        path.write_text(format_records(records, "yaml"))
        assert self.place(records[0], self.queued(settings_from(path, {}))[1]) >= 0
