"""Settings from a file with flags over them."""

from __future__ import annotations

import json

import pytest
import yaml

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import small_config
from tune_ssl.run import RunConfig, RunDirectory
from tune_ssl.views.export import EXPORTED_KEYS
from tune_ssl.workflows.settings import settings_from


@pytest.fixture
def file(tmp_path):
    """Write a settings file, as YAML unless it is text already."""

    def write(content, name="settings.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def test_flags_alone_are_settings():
    assert settings_from(None, {"alg": ["ict"], "trials": 5}) == RunConfig(alg=("ict",), trials=5)


def test_a_file_alone_is_too(file):
    path = file({"alg": "ict", "max_steps": 90})
    assert settings_from(path, {}) == RunConfig(alg=("ict",), max_steps=90)


def test_json_is_read_as_well(file):
    path = file(json.dumps({"alg": ["ict"], "trials": 3}), "settings.json")
    assert settings_from(path, {}).trials == 3


def test_a_flag_stands_over_the_file(file):
    path = file({"alg": ["ict", "vat"], "trials": 9, "labels": 40})
    config = settings_from(path, {"alg": ["pi"], "trials": 2})
    assert (config.alg, config.trials, config.labels) == (("pi_model",), 2, 40)


def test_what_a_file_says_of_its_images_is_not_said_of_others(file):
    path = file(
        {"alg": "ict", "dataset": "folder", "data_dir": "photos", "labels": 30, "batch_size": 7}
    )
    told = []
    config = settings_from(path, {"dataset": "digits", "validation": 100}, told.append)
    assert (config.data_dir, config.labels, config.validation) == (None, None, 100)
    assert config.batch_size == 7
    assert told == [f"left out of {path}, which says so of another data set: data_dir, labels."]
    assert settings_from(path, {"dataset": "folder"}).labels == 30


def test_a_run_s_own_settings_are_read_back(tmp_path):
    config = small_config(alg=("ict", "vat"), divergence=("mse", "kl"), labels=30, seed=5)
    directory = RunDirectory(tmp_path)
    directory.write_config(config)
    assert settings_from(directory.config_path, {}) == config


def test_an_export_s_configurations_become_the_start(file):
    exported = [
        {"rank": 1, "algorithm": "ict", "divergence": "mse", "parameters": {"mixup_alpha": 0.5}},
        {"rank": 2, "algorithm": "vat", "divergence": "kl", "parameters": {"eps_relative": 0.1}},
        {"rank": 3, "algorithm": "supervised", "divergence": None, "parameters": {}},
    ]
    whole = dict.fromkeys(EXPORTED_KEYS)
    whole |= {"dataset": "digits", "unlabeled_ratio": 1, "optimizer": "adamw", "split_seed": 0}
    whole |= {"lr_schedule": "cosine", "evaluate": "ema", "metric": "auto", "precision": "auto"}
    whole |= {"device": "cpu"}
    for number, record in enumerate(exported):
        exported[number] = record = whole | record
        record |= {"num_labels": 30, "num_validation": 300, "max_steps": 90, "seed": 77}
        record |= {"threads": 4, "validation_accuracy": 0.5, "tied_with": [], "trial": 6}
    config = settings_from(file(exported), {})
    assert config.alg == ("ict", "vat", "supervised")
    assert config.divergence == ("mse", "kl")
    assert (config.labels, config.validation, config.steps) == (30, 300, 90)
    assert (config.seed, config.threads) == (0, None), "those are of one trial, not of a search"
    assert [start["algorithm"] for start in config.start_from] == ["ict", "vat", "supervised"]
    assert config.start_from[1]["parameters"] == {"eps_relative": 0.1}


def test_one_exported_configuration_will_do(file):
    config = settings_from(file({"algorithm": "ict", "divergence": "mse", "parameters": {}}), {})
    assert (config.alg, len(config.start_from)) == (("ict",), 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("alg: [ict", "damaged or no YAML"),
        ("", "holds no configuration"),
        ("[]", "holds no configuration"),
        ("just text", "holds no configuration"),
        ("[1, 2]", "holds no configuration"),
        ("alg: ict\ntrails: 5", "did you mean 'trials'"),
        ("alg: itc", "did you mean 'ict'"),
        ("trials: 5", "no --alg was given"),
        ("alg: ict\ntrials: 0", "trials is 0"),
        ("- algorithm: ict\n  divergence: mse\n  wieght: 1", "unknown key .*'wieght'"),
        ("- algorithm: itc\n  divergence: mse", "did you mean 'ict'"),
        ("- algorithm: ict\n  divergence: mse\n- divergence: mse", "unknown algorithm"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(file, content, words):
    with pytest.raises(UserError, match=words) as caught:
        settings_from(file(content), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ({"alg": "ict"}, [0, 1]),
        ({"alg": "vat,supervised"}, [2, 3]),
        ({"divergence": "kl"}, [1, 2, 3]),
        ({"divergence": "js"}, [3]),
        ({"alg": "ict", "divergence": "mse"}, [0]),
        ({"alg": "mixmatch"}, []),
    ],
)
def test_of_an_export_a_flag_leaves_what_it_names(file, flags, kept):
    cells = [("ict", "mse"), ("ict", "kl"), ("vat", "kl"), ("supervised", None)]
    records = [{"algorithm": a, "divergence": d, "parameters": {}} for a, d in cells]
    told = []
    config = settings_from(file(records), flags, told.append)
    found = [(start["algorithm"], start["divergence"]) for start in config.start_from]
    assert found == [cells[number] for number in kept]
    assert len(told) == 1
    assert told[0].startswith(f"{4 - len(kept)} of 4 configurations of ")


def test_nothing_is_told_where_nothing_is_left_out(file):
    told = []
    settings_from(
        file([{"algorithm": "ict", "divergence": "mse", "parameters": {}}]), {}, told.append
    )
    assert told == []


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.yaml.* cannot be read"):
        settings_from(tmp_path / "nothing.yaml", {"alg": ["ict"]})


def test_several_settings_in_one_file_are_refused(file):
    with pytest.raises(UserError):
        settings_from(file([{"alg": "ict"}, {"alg": "vat"}]), {})


@pytest.mark.parametrize(
    ("threads", "cpus", "allowed"), [(2, None, "1 to 1"), (3, 2.5, "1 to 2"), (2, 0.5, "1 to 1")]
)
def test_a_trial_uses_no_more_cores_than_it_is_given(threads, cpus, allowed):
    flags = {"alg": "ict", "threads": threads} | ({} if cpus is None else {"cpus_per_trial": cpus})
    with pytest.raises(UserError, match=rf"threads is {threads} with cpus-per-trial .*{allowed},"):
        settings_from(None, flags)
    assert settings_from(None, flags | {"cpus_per_trial": threads}).threads == threads
