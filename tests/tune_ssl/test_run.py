"""A run's settings and its folder: what is legal, what is refused and how it is said."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import threading

import pytest
import yaml

from search_spaces.joint import Suggestion
from ssl_core.errors import UserError
from ssl_core.names import ALGORITHM_NAMES
from tests.tune_ssl.fakes import small_config, tree
from tune_ssl.run import (
    RunConfig,
    RunDirectory,
    division_seed,
    new_run,
    read_yaml,
    run_lock,
    trial_seed,
    write_yaml,
)

EVERYTHING = {
    "alg": ["ict", "vat"],
    "divergence": ["mse", "kl"],
    "trials": 7,
    "dataset": "cifar10",
    "data_dir": "images",
    "image_size": 48,
    "labels": 250,
    "validation": 500,
    "split_seed": 3,
    "reshuffle_validation": True,
    "flip": False,
    "model": "wrn-16-4",
    "max_steps": 900,
    "batch_size": 32,
    "unlabeled_ratio": 7,
    "optimizer": "sgd",
    "lr_schedule": "step",
    "entropy_min": "search",
    "evaluate": "student",
    "metric": "balanced_accuracy",
    "precision": "bfloat16",
    "compile": True,
    "seed": 11,
    "sampler": "tpe",
    "scheduler": "asha",
    "reduction_factor": 4,
    "grace": 10,
    "device": "cuda",
    "cpus_per_trial": 2.5,
    "gpus_per_trial": 0.25,
    "threads": 2,
    "concurrency": 8,
    "storage": "s3://bucket/runs",
    "start_from": [{"algorithm": "ict", "divergence": "mse", "parameters": {"weight_decay": 0.1}}],
    "warm_start": "runs/earlier",
    "unlabeled": 20_000,
    "labeled_classes": "bird,cat,dog",
    "class_mismatch": 50.0,
    "imbalance": 10.0,
    "protocol": "oliver",
    "normalisation": "zca",
    "batch_norm_momentum": 1.0,
    "weight_decay": 1e-3,
    "ramp_fraction": 0.01,
    "published_from": "oliver",
}


class TestRoundTrip:
    def test_every_setting_has_another_value_here_than_by_default(self):
        fields = dataclasses.fields(RunConfig)
        assert set(EVERYTHING) == {field.name for field in fields}
        same = [f.name for f in fields if f.default == EVERYTHING[f.name]]
        # Without these two, the rungs' settings and the warm start mean nothing.
        assert same == ["sampler", "scheduler"]

    @pytest.mark.parametrize("given", [{"alg": "ict"}, {"alg": ["supervised"]}, EVERYTHING])
    def test_settings_come_back_equal_from_their_mapping(self, given):
        config = RunConfig.from_mapping(given)
        assert RunConfig.from_mapping(config.to_mapping()) == config

    @pytest.mark.parametrize("given", [{"alg": "ict"}, EVERYTHING])
    def test_and_from_a_run_s_file_and_from_json(self, tmp_path, given):
        directory = RunDirectory(tmp_path / "run")
        directory.create()
        config = RunConfig.from_mapping(given)
        directory.write_config(config)
        assert directory.read_config() == config
        assert RunConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config

    def test_the_mapping_holds_what_was_given(self):
        assert RunConfig.from_mapping(EVERYTHING).to_mapping() == EVERYTHING

    def test_reading_does_not_change_what_was_given(self):
        given = {"alg": ["PI", "ICT"], "start_from": []}
        RunConfig.from_mapping(given)
        assert given == {"alg": ["PI", "ICT"], "start_from": []}


class TestNames:
    @pytest.mark.parametrize(
        ("given", "canonical"),
        [
            ("ict", ("ict",)),
            (["ICT"], ("ict",)),
            (["pi", "PL", "mt", "MM", "Vat", "sup"], None),
            (["ict", "ICT", "vat", "ict"], ("ict", "vat")),
            (("mean-teacher",), ("mean_teacher",)),
            ("ict, vat,ict", ("ict", "vat")),
            ("any", ALGORITHM_NAMES),
            (["ALL"], ALGORITHM_NAMES),
            ("vat,any", ("vat", *(name for name in ALGORITHM_NAMES if name != "vat"))),
        ],
    )
    def test_methods_are_written_in_full_each_once_in_the_order_given(self, given, canonical):
        expected = canonical or (
            "pi_model",
            "pseudo_label",
            "mean_teacher",
            "mixmatch",
            "vat",
            "supervised",
        )
        assert RunConfig.from_mapping({"alg": given}).alg == expected

    def test_divergences_too(self):
        config = RunConfig.from_mapping({"alg": "ict", "divergence": ["MSE", "Js", "mse"]})
        assert config.divergence == ("mse", "js")
        config = RunConfig.from_mapping({"alg": "ict", "divergence": "any"})
        assert config.divergence == ("mse", "l1", "kl", "js")

    @pytest.mark.parametrize("given", [None, [], "", (), ","])
    def test_a_method_must_be_named(self, given):
        with pytest.raises(UserError, match="no --alg was given"):
            RunConfig.from_mapping({"alg": given})
        with pytest.raises(UserError, match="no --alg was given"):
            RunConfig.from_mapping({})

    @pytest.mark.parametrize(
        ("key", "given", "near"),
        [
            ("alg", "mean_techer", "mean_teacher"),
            ("alg", ["ict", "mixmach"], "mixmatch"),
            ("alg", "any,mixmach", "mixmatch"),
            ("divergence", ["kll"], "kl"),
            ("dataset", "cifar01", "cifar10"),
            ("optimizer", "adamww", "adamw"),
            ("lr_schedule", "cosin", "cosine"),
            ("evaluate", "emma", "ema"),
            ("metric", "acuracy", "accuracy"),
            ("precision", "float23", "float32"),
            ("sampler", "tpee", "tpe"),
            ("scheduler", "ahsa", "asha"),
            ("device", "cudda", "cuda"),
        ],
    )
    def test_a_mistyped_name_is_answered_with_the_near_one(self, key, given, near):
        with pytest.raises(UserError, match=f"did you mean '{near}'") as caught:
            RunConfig.from_mapping({"alg": "ict"} | {key: given})
        assert "allowed:" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "near"),
        [("trails", "trials"), ("max-steps", "max_steps"), ("modle", "model"), ("epochs", None)],
    )
    def test_an_unknown_key_is_refused_with_the_near_one(self, key, near):
        with pytest.raises(
            UserError, match=f"unknown key in the search's settings '{key}'"
        ) as caught:
            RunConfig.from_mapping({"alg": "ict", key: 5})
        if near:
            assert f"did you mean '{near}'?" in str(caught.value)


ILLEGAL = [
    ("trials", [0, -1, 1.5, "5", True, None]),
    ("dataset", ["mnist", "", None, 5, ["digits"]]),
    ("labels", [0, -1, 2.5, "20", True]),
    ("validation", [0, -1, 2.5, "20", True]),
    ("split_seed", [-1, 2**32, 1.5, "0", None, True]),
    ("flip", [True]),  # of digits
    ("model", ["wrn-28", "wrn-11-2", "wrn-10-0", "resnet18", ""]),
    ("max_steps", [0, -1, 3, 10.5, "450", True]),
    ("batch_size", [0, 1, -5, 2.5, "50", True]),
    ("unlabeled_ratio", [0, -1, 1.5, "1", None, True]),
    ("optimizer", ["rmsprop", None, 1]),
    ("lr_schedule", ["linear", None, 1]),
    ("entropy_min", [-0.1, math.nan, math.inf, "much", None, True]),
    ("evaluate", ["teacher", None]),
    ("metric", ["loss", None]),
    ("precision", ["float16", None, 32]),
    ("compile", [None, 1, "true"]),
    ("seed", [-1, 2**32, 1.5, "0", None, True]),
    ("sampler", ["grid", None]),
    ("scheduler", ["hyperband", None]),
    ("reduction_factor", [1, 0, -3, 2.5, "3", None, True]),
    ("grace", [0, -1, 450, 1000, 2.5, "50", True]),
    ("device", ["gpu", "cuda:0", None]),
    ("cpus_per_trial", [0, 0.0, -1, math.nan, math.inf, "1", None, True]),
    ("gpus_per_trial", [-0.5, math.nan, math.inf, "1", True]),
    ("threads", [0, -1, 1.5, "1", True]),
    ("concurrency", [0, -1, 1.5, "1", True]),
    ("unlabeled", [0, -1, 1.5, "20", True]),
    ("labeled_classes", ["", 5, ["cat", "dog"], True]),
    ("class_mismatch", [-1, 101, math.nan, "50", True, 50]),
    ("imbalance", [0, 0.99, math.nan, math.inf, "10", True]),
]


class TestIllegalValues:
    @pytest.mark.parametrize(
        ("key", "value"), [(key, value) for key, values in ILLEGAL for value in values]
    )
    def test_each_is_refused_in_one_line_that_says_what_is_allowed(self, key, value):
        with pytest.raises(UserError) as caught:
            RunConfig.from_mapping({"alg": "ict", key: value})
        message = str(caught.value)
        assert "\n" not in message
        assert "allowed:" in message

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("model", 28),
            ("model", ["wrn-28-2"]),
            ("flip", "no"),
            ("data_dir", 5),
            ("storage", 5),
            ("storage", ["a"]),
            ("start_from", 5),
            ("start_from", "best.yaml"),
            ("start_from", [5]),
            ("start_from", [{"parameters": {}}]),
            ("alg", {"ict": 1}),
            ("alg", 5),
            ("divergence", {"mse": 1}),
        ],
    )
    def test_so_is_a_value_of_another_kind_from_a_settings_file(self, key, value):
        given = {"alg": "ict", "dataset": "cifar10"} | {key: value}
        with pytest.raises(UserError):
            RunConfig.from_mapping(given)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"alg": ["pseudo_label"], "divergence": ["reverse_kl"]}, "reverse_kl"),
            ({"alg": ["supervised"], "divergence": ["mse"]}, "supervised"),
            ({"alg": ["supervised"], "entropy_min": 0.1}, "entropy"),
            ({"alg": ["supervised"], "entropy_min": "search"}, "entropy"),
            ({"alg": ["ict"], "max_steps": 3}, "too short"),
        ],
    )
    def test_so_are_settings_that_do_not_go_together(self, given, words):
        with pytest.raises(UserError, match=words):
            RunConfig.from_mapping(given)

    def test_short_trainings_are_legal_without_rungs(self):
        config = RunConfig.from_mapping({"alg": "ict", "max_steps": 3, "scheduler": "none"})
        assert config.rungs() == (3,)


class TestConditions:
    def test_a_run_of_an_older_version_has_none(self):
        older = RunConfig(alg=("ict",)).to_mapping()
        for name in ("unlabeled", "labeled_classes", "class_mismatch", "imbalance"):
            assert older.pop(name) is None, "a resume compares it with what is not there"
        assert RunConfig.from_mapping(older) == RunConfig(alg=("ict",))
        assert RunConfig(alg=("ict",)).conditions() == {}

    def test_those_that_are_given_are_told_by_their_flags(self):
        assert RunConfig.from_mapping(EVERYTHING).conditions() == {
            "unlabeled": 20_000,
            "labeled-classes": "bird,cat,dog",
            "class-mismatch": 50.0,
            "imbalance": 10.0,
        }


class TestResolved:
    def test_what_is_not_given_is_as_the_data_set_s_card_says(self):
        config = RunConfig(alg=("ict",))
        assert (config.steps, config.resolved_model, config.resolved_batch_size) == (
            450,
            "wrn-10-1",
            50,
        )
        assert config.rungs() == (113, 225, 450)
        data = config.data()
        assert (data.num_labels, data.num_validation) == (20, 400)

    def test_what_is_given_stands_over_the_card(self):
        config = RunConfig.from_mapping(EVERYTHING)
        assert (config.steps, config.resolved_model, config.resolved_batch_size) == (
            900,
            "wrn-16-4",
            32,
        )
        assert config.rungs() == (10, 40, 160, 640, 900)
        data = config.data()
        assert (data.num_labels, data.num_validation, data.split_seed) == (250, 500, 3)
        assert data.flip is False

    def test_the_space_knows_the_rungs_and_the_card(self):
        space = RunConfig(alg=("vat",), dataset="svhn", max_steps=900).space(10)
        assert space.first_rung == pytest.approx(1 / 4)
        assert (space.max_steps, space.setting, space.num_classes) == (900, "svhn", 10)
        assert RunConfig(alg=("ict",), entropy_min="search").space(10).entropy_weight is None
        assert RunConfig(alg=("ict",), entropy_min=0.5).space(10).entropy_weight == 0.5

    def test_a_trial_s_record_holds_all_that_its_training_depends_on(self):
        suggestion = Suggestion(algorithm="ict", divergence="kl", parameters={"weight_decay": 0.1})
        record = RunConfig.from_mapping(EVERYTHING).trial_record(suggestion, 99)
        assert record == {
            "algorithm": "ict",
            "divergence": "kl",
            "parameters": {"weight_decay": 0.1},
            "dataset": "cifar10",
            "data_dir": "images",
            "image_size": 48,
            "num_labels": 250,
            "num_validation": 500,
            "split_seed": 3,
            "flip": False,
            "num_unlabeled": 20_000,
            "labeled_classes": "bird,cat,dog",
            "class_mismatch": 50.0,
            "imbalance": 10.0,
            "model": "wrn-16-4",
            "max_steps": 900,
            "batch_size": 32,
            "unlabeled_ratio": 7,
            "optimizer": "sgd",
            "lr_schedule": "step",
            "evaluate": "student",
            "metric": "balanced_accuracy",
            "precision": "bfloat16",
            "compile": True,
            "threads": 2,
            "device": "cuda",
            "seed": 99,
            "normalisation": "zca",
            "batch_norm_momentum": 1.0,
            "protocol": "oliver",
        }

    def test_a_reshuffled_search_names_the_division_of_every_trial(self):
        fixed = RunConfig(alg=("supervised",), seed=3)
        reshuffled = dataclasses.replace(fixed, reshuffle_validation=True)
        suggestion = Suggestion(algorithm="supervised", divergence=None, parameters={})
        for number in range(5):
            before = fixed.search_record(number, suggestion)
            assert before == fixed.trial_record(suggestion, trial_seed(3, number))
            assert "division_seed" not in before
            assert reshuffled.search_record(number, suggestion) == before | {
                "division_seed": division_seed(3, number)
            }
        seeds = {division_seed(3, number) for number in range(1000)}
        assert len(seeds) == 1000
        assert not seeds & {trial_seed(3, number) for number in range(1000)}

    @pytest.mark.parametrize("now", [False, True])
    def test_a_run_of_an_earlier_version_did_not_reshuffle(self, tmp_path, now):
        directory = RunDirectory(tmp_path / "run")
        settings = RunConfig(alg=("ict",), reshuffle_validation=now).fixed_settings()
        before = {k: v for k, v in settings.items() if k != "reshuffle_validation"}
        if not now:
            directory.check_settings(before, settings)
            return
        with pytest.raises(UserError, match=r"reshuffle_validation was .* and is True"):
            directory.check_settings(before, settings)

    def test_trial_seeds_are_a_function_of_search_and_number_and_do_not_collide(self):
        seeds = {trial_seed(search, number) for search in range(20) for number in range(100)}
        assert len(seeds) == 2000
        assert trial_seed(3, 4) == trial_seed(3, 4)
        assert all(0 <= seed < 2**32 for seed in seeds)


class TestOpening:
    @pytest.fixture
    def run(self, tmp_path):
        directory = RunDirectory(tmp_path / "runs" / "ict")
        directory.create()
        directory.write_config(small_config())
        directory.journal_path.touch()
        return directory

    def test_by_its_name_below_the_output_folder_or_by_its_path(self, run, tmp_path, monkeypatch):
        output = str(run.path.parent)
        for given in ("ict", str(run.path), f"{run.path}/"):
            assert RunDirectory.open(given, output).path == run.path
        monkeypatch.chdir(run.path)
        assert RunDirectory.open(".", "runs").name == "ict"
        monkeypatch.chdir(tmp_path)
        opened = RunDirectory.open("ict", "runs")
        assert opened.path.is_absolute()
        assert opened.name == "ict"

    def test_below_the_same_home_as_a_new_run(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert new_run("new", "~/runs", small_config()).path == tmp_path / "runs" / "new"
        assert RunDirectory.open("ict", "~/runs").path == run.path

    @pytest.mark.parametrize("given", ["itc", "runs", ".", "..", "/", "", "ict/trials"])
    def test_something_that_is_no_run_is_refused_with_the_runs_there_are(
        self, run, tmp_path, monkeypatch, given
    ):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=r"is no run; allowed: .*\(ict\)") as caught:
            RunDirectory.open(given, "runs")
        assert repr(given) in str(caught.value)

    def test_an_output_folder_that_is_not_there_or_empty_is_said_to_be(self, tmp_path):
        with pytest.raises(UserError, match="does not exist"):
            RunDirectory.open("ict", str(tmp_path / "nothing"))
        with pytest.raises(UserError, match="holds no run"):
            RunDirectory.open("ict", str(tmp_path))

    def test_without_its_settings_it_is_none(self, run):
        (run.path / "config.yaml").unlink()
        with pytest.raises(UserError, match="is no run"):
            RunDirectory.open("ict", str(run.path.parent))


class TestNewRun:
    @pytest.mark.parametrize("name", ["ict", "7", "a.b-c_d", "A" * 100])
    def test_a_legal_name_is_a_folder_below_the_output_not_made_yet(self, tmp_path, name):
        directory = new_run(name, str(tmp_path / "runs"), small_config())
        assert directory.path == tmp_path / "runs" / name
        assert tree(tmp_path) == {}

    @pytest.mark.parametrize(
        "name",
        ["", ".", "..", "-x", ".hidden", "a/b", "../x", "a b", "a\n", "a*", "[x]", "_a", "a" * 101],
    )
    def test_an_illegal_name_is_refused(self, tmp_path, name):
        with pytest.raises(UserError, match="name is"):
            new_run(name, str(tmp_path), small_config())

    def test_one_is_made_from_methods_data_set_and_time(self, tmp_path):
        one = new_run(None, str(tmp_path), small_config(alg=("ict",)))
        assert one.name.startswith("ict-digits-2")
        two = new_run(None, str(tmp_path), small_config(alg=("ict", "vat")))
        assert two.name.startswith("ict-vat-digits-2")
        all_of_them = new_run(None, str(tmp_path), small_config(alg=ALGORITHM_NAMES))
        assert all_of_them.name.startswith("7-methods-digits-2")

    def test_a_name_that_is_taken_is_refused_with_the_way_to_continue_it(self, tmp_path):
        RunDirectory(tmp_path / "ict").create()
        RunDirectory(tmp_path / "ict").write_json("environment.json", {})
        before = tree(tmp_path)
        with pytest.raises(UserError, match=r"'ict' exists .*tune-ssl resume .*/ict"):
            new_run("ict", str(tmp_path), small_config())
        with pytest.raises(UserError, match="'ict' exists"):
            RunDirectory(tmp_path / "ict").create()
        assert tree(tmp_path) == before

    def test_an_empty_folder_is_taken_over(self, tmp_path):
        """A driver that was killed before it wrote anything leaves one."""
        RunDirectory(tmp_path / "ict").create()
        new_run("ict", str(tmp_path), small_config()).create()
        (tmp_path / "ict" / "lock").write_text("")
        (tmp_path / "ict" / ".config.yaml.17.tmp").write_text("alg: [i")
        new_run("ict", str(tmp_path), small_config()).create()

    def test_so_is_one_taken_by_a_file_or_a_dangling_link(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        with pytest.raises(UserError, match="'file' exists"):
            new_run("file", str(tmp_path), small_config())
        for name in ("file", "link"):
            with pytest.raises(UserError, match=f"'{name}' exists"):
                RunDirectory(tmp_path / name).create()

    @pytest.mark.parametrize("below", ["file", "file/deeper/still"])
    def test_an_output_folder_below_a_file_is_refused(self, tmp_path, below):
        (tmp_path / "file").write_text("in the way")
        output = str(tmp_path / below)
        with pytest.raises(UserError, match="cannot be written"):
            new_run("ict", output, small_config())

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_an_output_folder_that_may_not_be_written_is_refused(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="cannot be written"):
            new_run("ict", str(tmp_path / "runs"), small_config())
        tmp_path.chmod(0o700)

    def test_making_it_makes_the_output_folder_too(self, tmp_path):
        directory = new_run("ict", str(tmp_path / "a" / "b"), small_config())
        directory.create()
        assert directory.path.is_dir()


class TestFiles:
    @pytest.mark.parametrize(
        "content",
        [
            b"alg: [ict",
            b"alg: ict\n\t- x",
            b"\xff\xfe\x00\x80",
            b"key: *nothing",
            b"a: b: c",
            b"!!python/object/apply:os.system ['true']",
            b"\x00\x01",
        ],
        ids=repr,
    )
    def test_damaged_yaml_is_refused_in_one_line_by_its_path(self, tmp_path, content):
        path = tmp_path / "config.yaml"
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged or no YAML") as caught:
            read_yaml(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("content", ["", "5", "[1, 2]", "text", "null", "~"])
    def test_settings_that_are_no_mapping_are_refused(self, tmp_path, content):
        directory = RunDirectory(tmp_path)
        directory.config_path.write_text(content)
        with pytest.raises(UserError, match="a mapping of names"):
            directory.read_config()

    def test_settings_with_an_unknown_key_are_refused(self, tmp_path):
        directory = RunDirectory(tmp_path)
        directory.config_path.write_text("alg: [ict]\ntrails: 5\n")
        with pytest.raises(UserError, match="did you mean 'trials'"):
            directory.read_config()

    @pytest.mark.parametrize("what", ["missing", "folder"])
    def test_a_file_that_cannot_be_read_is_refused(self, tmp_path, what):
        path = tmp_path / "config.yaml"
        if what == "folder":
            path.mkdir()
        with pytest.raises(UserError, match="cannot be read"):
            read_yaml(path)

    def test_yaml_keeps_order_text_and_numbers(self, tmp_path):
        value = {"z": 1e-05, "a": "é", "n": None, "l": [1, 2.5], "t": True, "s": "1e5", "o": "on"}
        path = tmp_path / "deep" / "value.yaml"
        write_yaml(path, value)
        assert yaml.safe_load(path.read_text()) == value
        assert list(yaml.safe_load(path.read_text())) == list(value)
        assert "é" in path.read_text()
        assert [file.name for file in path.parent.iterdir()] == ["value.yaml"]

    def test_events_are_a_line_of_json_each(self, tmp_path):
        directory = RunDirectory(tmp_path)
        directory.log_event("started", trial=1)
        directory.log_event("ended", reason="two\nlines")
        lines = (tmp_path / "events.jsonl").read_text().splitlines()
        assert [json.loads(line)["event"] for line in lines] == ["started", "ended"]
        assert json.loads(lines[1])["reason"] == "two\nlines"

    def test_trials_have_folders_by_number(self, tmp_path):
        directory = RunDirectory(tmp_path)
        assert directory.trial_path(7) == tmp_path / "trials" / "0007"
        assert directory.trial_path(12345) == tmp_path / "trials" / "12345"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5e08d2b350684768", "5e08d2b350684768"),
        ("1e3.png", "1e3.png"),
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        ("-2e-3", -2e-3),
        ("1.5e-3", 1.5e-3),
    ],
)
def test_numbers_are_read_as_people_write_them(tmp_path, text, number):
    path = tmp_path / "settings.yaml"
    path.write_text(f"value: {text}\nname: e3\nversion: 1e\n")
    assert read_yaml(path) == {"value": number, "name": "e3", "version": "1e"}


class TestLock:
    def test_somebody_who_asks_for_a_moment_who_has_it_is_waited_for(self, tmp_path):
        with run_lock(RunDirectory(tmp_path)):
            pass
        asking = open(tmp_path / "lock")  # noqa: SIM115  # another thread closes it
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.2, asking.close).start()
        with run_lock(RunDirectory(tmp_path)):
            assert RunDirectory(tmp_path).driver()

    def test_another_driver_is_not(self, tmp_path):
        with (
            run_lock(RunDirectory(tmp_path)),
            pytest.raises(UserError, match="held by another driver"),
            run_lock(RunDirectory(tmp_path)),
        ):
            pass
