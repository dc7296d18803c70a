"""Protocols: files of settings, what stands over what, and what runs of earlier versions mean."""

from __future__ import annotations

import dataclasses
import io
import json
import zlib
from pathlib import Path

import optuna
import pytest
import yaml
from rich.console import Console

from ssl_core.data.prepare import prepare
from ssl_core.errors import UserError
from ssl_core.names import ALGORITHM_NAMES
from ssl_core.training.classifier import Classifier
from ssl_core.training.config import TrainingConfig
from tests.tune_ssl.fakes import tiny_images
from tune_ssl import cli
from tune_ssl.comparison import Comparison
from tune_ssl.protocol import FOLDER, PROTOCOL_SETTINGS, protocol_names, protocol_settings
from tune_ssl.run import ADDED_SETTINGS, RunConfig, RunDirectory, added_defaults
from tune_ssl.views.export import EXPORTED_KEYS, records_in
from tune_ssl.warm_start import check_comparable
from tune_ssl.workflows import compare
from tune_ssl.workflows.plan import describe_plan
from tune_ssl.workflows.settings import settings_from
from tune_ssl.workflows.train import train

OLIVER = {"alg": ("vat",), "protocol": "oliver"}


@pytest.fixture
def file(tmp_path):
    """Write a file of settings."""

    def write(content, name="settings.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def oliver(**flags) -> RunConfig:
    return settings_from(None, OLIVER | flags)


class TestTheFiles:
    def test_both_come_with_the_package(self):
        assert protocol_names() == ("default", "oliver")
        declared = (FOLDER.parents[1] / "pyproject.toml").read_text()
        assert '"protocols/*.yaml"' in declared

    def test_the_default_protocol_is_what_a_search_does_without_one(self):
        assert settings_from(None, {"alg": "ict", "protocol": "default"}) == RunConfig(alg=("ict",))

    def test_it_says_everything_that_no_data_set_decides(self):
        said = yaml.safe_load((FOLDER / "default.yaml").read_text())
        by_card = {"labels", "validation", "flip", "model", "max_steps", "batch_size"}
        assert set(said) == set(PROTOCOL_SETTINGS) - by_card
        assert set(PROTOCOL_SETTINGS) <= {field.name for field in dataclasses.fields(RunConfig)}

    def test_oliver_is_the_published_evaluation(self):
        config = oliver(dataset="cifar10")
        expected = {
            "optimizer": "adam",
            "lr_schedule": "step",
            "max_steps": 500_000,
            "batch_size": 50,
            "unlabeled_ratio": 1,
            "model": "wrn-28-2",
            "weight_decay": 0.0,
            "ramp_fraction": 200_000 / 500_000,
            "batch_norm_momentum": 1 - 0.999,
            "evaluate": "student",
            "entropy_min": 0.0,
            "precision": "float32",
            "scheduler": "none",
            "normalisation": "zca",
            "protocol": "oliver",
        }
        found = {name: getattr(config, name) for name in expected}
        assert found == {**expected, "batch_norm_momentum": pytest.approx(0.001)}

    @pytest.mark.parametrize(
        ("dataset", "normalisation"),
        [("svhn", "symmetric"), ("cifar100", "zca"), ("digits", "symmetric")],
    )
    def test_it_normalises_each_data_set_in_its_way(self, dataset, normalisation):
        assert oliver(dataset=dataset).normalisation == normalisation


class TestWhatStandsOverWhat:
    def test_a_flag_over_the_protocol(self):
        config = oliver(max_steps=20_000, optimizer="sgd")
        assert (config.max_steps, config.optimizer, config.evaluate) == (20_000, "sgd", "student")

    def test_a_protocol_given_as_a_flag_over_a_file(self, file):
        path = file({"alg": "ict", "optimizer": "sgd", "labels": 30})
        config = settings_from(path, {"protocol": "oliver"})
        assert (config.optimizer, config.labels, config.protocol) == ("adam", 30, "oliver")

    def test_a_file_over_the_protocol_it_names(self, file):
        path = file({"alg": "ict", "optimizer": "sgd", "protocol": "oliver"})
        config = settings_from(path, {"max_steps": 20_000})
        assert (config.optimizer, config.evaluate, config.max_steps) == ("sgd", "student", 20_000)

    def test_the_data_set_is_a_flag_s_or_the_file_s(self, file):
        path = file({"alg": "ict", "dataset": "cifar10", "protocol": "oliver"})
        assert settings_from(path, {}).normalisation == "zca"
        assert settings_from(path, {"dataset": "svhn"}).normalisation == "symmetric"

    def test_a_run_s_own_settings_are_read_back_though_its_file_is_gone(self, file, tmp_path):
        own = file({"optimizer": "sgd"}, "mine.yaml")
        config = settings_from(None, {"alg": "ict", "protocol": str(own), "max_steps": 90})
        directory = RunDirectory(tmp_path)
        directory.write_config(config)
        own.unlink()
        assert settings_from(directory.config_path, {}) == config
        assert directory.read_config() == config

    def test_an_export_is_searched_as_its_protocol_says(self, file):
        config = oliver(max_steps=20_000)
        drawn = config.space(10).suggest(
            optuna.trial.FixedTrial(config.space(10).defaults()[0].params)
        )
        path = file([{"rank": 1, **config.trial_record(drawn, seed=1)}])
        again = settings_from(path, {})
        kept = [
            name for name in PROTOCOL_SETTINGS if name not in ("labels", "validation", "metric")
        ]
        assert {name: getattr(again, name) for name in kept} == {
            name: getattr(config, name) for name in kept
        }
        assert again.moved_starts() == []


class TestAFileOfOnesOwn:
    def test_what_it_leaves_out_is_as_in_default(self, file):
        path = file({"lr_schedule": "constant", "datasets": {"digits": {"max_steps": 80}}})
        found = protocol_settings(str(path), "digits")
        default = protocol_settings("default", "digits")
        assert found == {
            **default,
            "lr_schedule": "constant",
            "max_steps": 80,
            "protocol": str(path),
        }
        assert "max_steps" not in protocol_settings(str(path), "svhn")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (
                {"optimiser": "adam"},
                "unknown key in protocol .*'optimiser'.*did you mean 'optimizer'",
            ),
            ({"alg": "ict"}, "unknown key in protocol .*'alg'"),
            ({"datasets": {"cifar": {}}}, "unknown data set in protocol .*'cifar'"),
            ({"datasets": {"svhn": {"seed": 1}}}, "unknown key in protocol .*svhn 'seed'"),
            ({"datasets": 3}, "datasets is 3 in protocol"),
            (["adam"], "holds list; allowed: a mapping"),
        ],
    )
    def test_what_it_may_not_hold_is_refused(self, file, content, words):
        with pytest.raises(UserError, match=words):
            protocol_settings(str(file(content)), "digits")

    def test_a_protocol_that_is_none_is_refused_with_those_there_are(self):
        with pytest.raises(
            UserError, match=r"'olivr'; allowed: default, oliver, or the path.*'oliver'\?"
        ):
            oliver(protocol="olivr")


class TestWhatOliverRefuses:
    def test_a_short_training_in_one_sentence_that_says_why(self):
        with pytest.raises(
            UserError, match=r"max-steps is 9999 .* 10000 or more, because a shorter"
        ):
            oliver(max_steps=9999)
        assert oliver(max_steps=10_000).steps == 10_000

    @pytest.mark.parametrize(
        ("given", "allowed"),
        [
            ({"max_steps": 20_000, "grace": 9999}, 10_000),
            ({"max_steps": 50_000, "grace": 19_999}, 20_000),
        ],
    )
    def test_a_first_rung_before_ramp_or_statistics_are_there(self, given, allowed):
        with pytest.raises(UserError, match=rf"at step {given['grace']} .* give --grace {allowed}"):
            oliver(scheduler="asha", **given)
        assert oliver(scheduler="asha", **given | {"grace": allowed}).rungs()[0] == allowed

    @pytest.mark.parametrize(
        "values", [{"weight_decay": -1.0}, {"ramp_fraction": 1.5}, {"published_from": "me"}]
    )
    def test_values_that_are_not_legal(self, file, values):
        path = file(values)
        with pytest.raises(UserError, match=next(iter(values))):
            settings_from(None, {"alg": "ict", "protocol": str(path)})


class TestWhatIsSearched:
    @pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
    def test_ramp_and_weight_decay_are_fixed_and_the_rest_is_searched(self, algorithm):
        config = oliver(alg=(algorithm,))
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        trial = study.ask()
        drawn = config.space(10).suggest(trial).parameters
        assert drawn["weight_decay"] == 0.0
        assert drawn.get("ramp_fraction", 0.4) == 0.4
        assert {"weight_decay", "ramp_fraction"}.isdisjoint(trial.params)
        assert "learning_rate" in trial.params
        record = config.trial_record(config.space(10).suggest(trial), seed=1)
        assert TrainingConfig.from_record(
            record | {"threads": 1, "device": "cpu", "metric": "accuracy"}
        )

    @pytest.mark.parametrize(("dataset", "eps"), [("cifar10", 6.0), ("svhn", 1.0)])
    def test_vat_begins_with_their_values_and_their_direction(self, dataset, eps):
        space = oliver(dataset=dataset).space(10)
        (default,) = space.defaults()
        drawn = space.suggest(optuna.trial.FixedTrial(default.params))
        assert list(space.cells()) == [("vat", "reverse_kl")]
        assert not default.converted
        assert drawn.parameters["learning_rate"] == 3e-3
        assert drawn.parameters["unlabeled_weight"] == pytest.approx(0.3, rel=1e-4)
        assert drawn.parameters["eps_relative"] * 3072**0.5 == pytest.approx(eps, rel=3e-3)
        assert "ramp_fraction" not in default.source

    def test_without_it_vat_is_its_paper_s(self):
        assert list(RunConfig(alg=("vat",)).space(10).cells()) == [("vat", "kl")]

    def test_a_comparison_compares_their_vat(self):
        settings = dataclasses.replace(oliver(), alg=("supervised", "vat"))
        names = [cell.name for cell in Comparison(settings=settings, seeds=3).cells()]
        assert names == ["supervised", "vat / reverse_kl"]


class TestEarlierVersions:
    config = RunConfig(alg=("ict",), max_steps=90)

    def earlier(self) -> dict:
        return {k: v for k, v in self.config.to_mapping().items() if k not in ADDED_SETTINGS}

    def test_a_run_s_settings_mean_the_defaults(self, tmp_path):
        assert RunConfig.from_mapping(self.earlier()) == self.config
        directory = RunDirectory(tmp_path)
        directory.check_settings(self.earlier(), self.config.fixed_settings())
        changed = dataclasses.replace(self.config, normalisation="symmetric")
        with pytest.raises(UserError, match="normalisation was 'channels' and is 'symmetric'"):
            directory.check_settings(self.earlier(), changed.fixed_settings())

    def test_an_export_is_whole_without_what_was_added(self):
        assert set(ADDED_SETTINGS).isdisjoint(EXPORTED_KEYS)
        records_in([{"rank": 1, **dict.fromkeys(EXPORTED_KEYS)}], "best.yaml")

    def test_the_same_command_goes_on_with_a_comparison(self):
        settings = RunConfig(alg=("supervised", "ict"), max_steps=90)
        now = Comparison(settings=settings, seeds=3)
        kept = compare._compared_settings(now)
        then = {key: value for key, value in kept.items() if key not in ADDED_SETTINGS}
        text = json.dumps(then, sort_keys=True)
        assert compare._fingerprint(now) == f"{zlib.crc32(text.encode()):08x}"
        other = Comparison(settings=dataclasses.replace(settings, normalisation="zca"), seeds=3)
        assert compare._fingerprint(other) != compare._fingerprint(now)

    def test_trials_of_an_earlier_run_do_not_inform_one_with_other_input(self):
        same = {"images_crc32": "a", "split_sha256": "b", "labels_sha256": "c"}
        then = {**same, "settings": self.earlier()}
        now = {**same, "settings": self.config.to_mapping()}
        check_comparable("first", then, now)
        now["settings"] = now["settings"] | {"normalisation": "symmetric"}
        with pytest.raises(UserError, match="normalisation is 'symmetric' and was 'channels'"):
            check_comparable("first", then, now)

    def test_every_added_setting_has_a_default(self):
        assert set(added_defaults()) == set(ADDED_SETTINGS)


class TestTrain:
    def record(self, **changes) -> dict:
        """Return an exported configuration with a short training, whitened, on running statistics."""
        config = RunConfig(
            alg=("pi_model",),
            protocol="mine",
            max_steps=20,
            model="wrn-10-1",
            optimizer="adam",
            lr_schedule="step",
            normalisation="zca",
            batch_norm_momentum=0.5,
            weight_decay=0.0,
            ramp_fraction=0.4,
            evaluate="student",
            scheduler="none",
            metric="accuracy",
            precision="float32",
            device="cpu",
            threads=1,
        )
        space = config.space(10)
        drawn = space.suggest(optuna.trial.FixedTrial(space.defaults()[0].params))
        return config.trial_record(drawn, seed=4) | changes

    def test_an_export_is_trained_as_its_protocol_says_and_again_the_same(self, tmp_path):
        quiet = Console(file=io.StringIO())
        first, again = (train(self.record(), tmp_path / name, quiet) for name in ("first", "again"))
        weights = [(one.folder / "weights.safetensors").read_bytes() for one in (first, again)]
        assert weights[0] == weights[1]
        assert first.metrics["normalisation"] == {"whitening": "in weights.safetensors"}
        written = yaml.safe_load((first.folder / "config.yaml").read_text())
        assert written == self.record(parameters=written["parameters"])
        assert written["parameters"].items() >= self.record()["parameters"].items()
        shared = prepare(TrainingConfig.from_record(written).data)
        classifier = Classifier.from_file(first.folder / "weights.safetensors")
        answers = classifier.probabilities(shared.images[shared.validation]).argmax(axis=1)
        accuracy = (answers == shared.validation_labels).mean()
        assert accuracy == first.metrics["validation_accuracy"]

    def test_a_protocol_s_name_alone_is_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"names protocol 'oliver' and has no .*normalisation"):
            train({"algorithm": "ict", "protocol": "oliver"}, tmp_path / "new", Console())
        assert not (tmp_path / "new").exists()


class TestWhatIsSaid:
    def test_a_plan_names_the_protocol_and_every_value(self):
        line = describe_plan(oliver(max_steps=20_000), tiny_images())[0]
        assert line.startswith("protocol: oliver (")
        for said in ("optimizer adam", "max_steps 20000", "ramp_fraction 0.4", "evaluate student"):
            assert said in line

    def test_the_command_refuses_and_shows(self, capsys):
        arguments = ["--alg", "vat", "--protocol", "oliver", "--dry-run", "--max-steps"]
        assert cli._run([*arguments, "9999"], debug=False) == 2
        assert "10000 or more, because" in capsys.readouterr().err
        assert cli._run([*arguments, "10000"], debug=False) == 0
        out = capsys.readouterr().out
        assert "protocol: oliver (" in out
        assert "methods: vat / reverse_kl" in out

    def test_the_shipped_files_give_a_reason_or_a_source_beside_each_line(self):
        text = Path(FOLDER / "oliver.yaml").read_text()
        said = yaml.safe_load(text)
        assert said["datasets"]["cifar10"] == {"normalisation": "zca"}
        assert "Not known" in text
