"""The command line: every bad input in one line, results on stdout alone, nothing heavy loaded."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ssl_core.names import ALGORITHM_NAMES, DIVERGENCE_NAMES
from tests.tune_ssl.fakes import Run, begin, small_config, tree
from tune_ssl import __version__, cli
from tune_ssl.run import RunConfig, RunDirectory, run_lock
from tune_ssl.views.export import format_records
from tune_ssl.workflows import driving, results
from tune_ssl.workflows import search as search_workflow

pytestmark = pytest.mark.usefixtures("no_fsync")

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch) -> None:
    """Fail where a search gets as far as asking for a cluster."""

    def refuse(*_arguments):
        raise AssertionError("a cluster was asked for")

    monkeypatch.setattr(driving, "connected_for", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Return an empty working folder with an empty folder of runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path


@pytest.fixture
def refused(here, capsys):
    """Run a command line that must be refused; return its one line."""

    def run(*arguments: str) -> str:
        before = tree(here)
        code = cli._run(list(arguments), debug=False)
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("tune-ssl: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert tree(here) == before
        return err

    return run


@pytest.fixture
def exported(tmp_path_factory) -> str:
    """Return an export of several configurations as YAML."""
    run = Run(tmp_path_factory.mktemp("exported") / "run").finish()
    records = results.best_records(run.directory, None)
    assert len(records) > 1
    return format_records(records, "yaml")


FOLDERS = {
    "nothing in it": ({}, "has neither labeled/ nor train/ but no folder at all"),
    "text files": ({"labeled/a/x.txt": "", "labeled/b/y.txt": ""}, "no readable image"),
    "one class": ({"labeled/a/1.png": None, "labeled/a/2.png": None}, "has 1 class;"),
    "a class without images": (
        {"labeled/a/1.png": None, "labeled/a/2.png": None, "labeled/b": None},
        "b",
    ),
}


SEARCH = ("search", "--alg", "ict")


class TestBadSearch:
    @pytest.mark.parametrize("name", FOLDERS)
    def test_a_folder_that_cannot_be_searched_is_refused(self, refused, here, name):
        files, words = FOLDERS[name]
        (here / "photos").mkdir()
        for place, content in files.items():
            path = here / "photos" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                path.write_text(content)
            elif path.suffix:
                pixels = np.random.default_rng(len(place)).integers(256, size=(8, 8, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(path)
            else:
                path.mkdir()
        arguments = ("--dataset", "folder", "--data-dir", "photos", "--image-size", "8")
        assert words in refused(*SEARCH, *arguments)

    @pytest.mark.parametrize(
        ("arguments", "near"),
        [
            (("--alg", "itc"), "'ict'"),
            (("search", "--alg", "itc"), "'ict'"),
            (("--alg=ict,mixmach",), "'mixmatch'"),
            ((*SEARCH, "--divergence", "mes"), "'mse'"),
            ((*SEARCH, "--divergence", "mse,reverse-kll"), "'reverse_kl'"),
            ((*SEARCH, "--dataset", "digit"), "'digits'"),
            ((*SEARCH, "--dataset", "CIFAR10"), "'cifar10'"),
            ((*SEARCH, "--model", "wrn-28"), "'wrn-28-2'"),
            ((*SEARCH, "--model", "wrn-41-4"), "'wrn-40-4'"),
            ((*SEARCH, "--model", "WRN_16_8"), "'wrn-16-8'"),
            ((*SEARCH, "--model", "resnet50"), "'wrn-28-2' or"),
            ((*SEARCH, "--sampler", "tpee"), "'tpe'"),
            ((*SEARCH, "--scheduler", "asah"), "'asha'"),
            ((*SEARCH, "--optimizer", "adamww"), "'adamw'"),
            ((*SEARCH, "--precision", "float23"), "'float32'"),
            ((*SEARCH, "--device", "cudda"), "'cuda'"),
        ],
    )
    def test_a_mistyped_name_is_answered_with_the_near_one(self, refused, arguments, near):
        line = refused(*arguments)
        assert f"did you mean {near}" in line
        assert "allowed:" in line

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("search",), "no --alg was given"),
            ((*SEARCH, "--trials", "0"), "trials is 0"),
            ((*SEARCH, "--trials", "-3"), "trials is -3"),
            ((*SEARCH, "--labels", "2000"), "2000 labels and 400 validation images are more than"),
            ((*SEARCH, "--labels", "5"), "labels is 5, fewer than the 10 classes"),
            ((*SEARCH, "--validation", "5000"), "more than the"),
            ((*SEARCH, "--validation", "0"), "validation is 0"),
            ((*SEARCH, "--max-steps", "3"), "max-steps is 3, too short"),
            ((*SEARCH, "--grace", "450"), "grace is 450"),
            ((*SEARCH, "--reduction-factor", "1"), "reduction-factor is 1"),
            ((*SEARCH, "--time-limit", "soon"), "time-limit is 'soon'"),
            ((*SEARCH, "--time-limit", "0m"), "time-limit is '0m'"),
            ((*SEARCH, "--time-limit", "2h and more"), "time-limit is"),
            ((*SEARCH, "--time-limit", "90"), "time-limit is '90'"),
            ((*SEARCH, "--time-limit", "-2h"), "time-limit is"),
            ((*SEARCH, "--device-hours", "0"), "device-hours is 0"),
            ((*SEARCH, "--device-hours", "nan"), "device-hours is nan"),
            ((*SEARCH, "--entropy-min", "much"), "entropy-min is 'much'"),
            ((*SEARCH, "--alg", "vat"), "--alg was given 2 times; allowed: once"),
            ((*SEARCH, "--divergence=mse", "--divergence", "js"), "--divergence was given 2 times"),
            ((*SEARCH, "--trials", "4", "--trials", "0"), "trials is 0"),
            ((*SEARCH, "--entropy-min", "-1"), "entropy-min is -1"),
            ((*SEARCH, "--cpus-per-trial", "0"), "cpus-per-trial is 0"),
            ((*SEARCH, "--concurrency", "0"), "concurrency is 0"),
            ((*SEARCH, "--seed", "-1"), "seed is -1"),
            ((*SEARCH, "--name", "a/b"), "name is 'a/b'"),
            ((*SEARCH, "--flip"), "flip is on with digits"),
            ((*SEARCH, "--image-size", "32"), "image-size is 32 with digits"),
            ((*SEARCH, "--output", "/proc/here"), "cannot be written"),
            ((*SEARCH, "--gpus-per-trial", "1", "--device", "cuda"), "there are none"),
            ((*SEARCH, "--cpus-per-trial", "9999"), "cpus-per-trial is 9999"),
            ((*SEARCH, "--dataset", "folder"), "needs --data-dir"),
            ((*SEARCH, "--dataset", "folder", "--data-dir", "nowhere"), "is no folder"),
            (("--alg", "supervised", "--divergence", "mse"), "supervised"),
            (("--alg", "pl", "--divergence", "reverse_kl"), "reverse_kl"),
            (("--alg", "supervised", "--entropy-min", "0.1"), "supervised"),
        ],
    )
    def test_a_bad_value_is_named_with_what_is_allowed(self, refused, arguments, words):
        line = refused(*arguments)
        assert words in line
        assert "; allowed" in line

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((*SEARCH, "--trails", "5"), "--trials"),
            ((*SEARCH, "--trials", "five"), "--trials"),
            ((*SEARCH, "--trials"), "--trials"),
            ((*SEARCH, "extra"), "extra"),
            ((*SEARCH, "--format", "xml"), "xml"),
            (("exprot", "ict"), "export"),
            (("statsu", "ict"), "status"),
            (("status",), "RUN"),
        ],
    )
    def test_what_the_parser_refuses_is_one_line_too(self, refused, arguments, words):
        assert words in refused(*arguments)

    def test_a_run_name_that_exists(self, refused, here):
        taken = RunDirectory(here / "runs" / "first")
        taken.create()
        taken.write_json("environment.json", {})
        line = refused(*SEARCH, "--name", "first")
        assert "run 'first' exists" in line
        assert "tune-ssl resume" in line

    @pytest.mark.parametrize("below", ["file", "file/deeper"])
    def test_an_output_folder_that_cannot_be_made(self, refused, here, below):
        (here / "file").write_text("in the way")
        assert "cannot be written" in refused(*SEARCH, "--output", below)


class TestBadSettingsFile:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("alg: [ict]\ntrails: 5\n", "did you mean 'trials'"),
            ("alg: [ict]\nmodle: wrn-10-1\n", "did you mean 'model'"),
            ("alg: [ict\n", "damaged or no YAML"),
            ("\x00\x01", "damaged or no YAML"),
            ("", "holds no configuration"),
            ("5", "holds no configuration"),
            ("alg: [ict]\ntrials: 0\n", "trials is 0"),
            ("alg: [ict]\nmodel: 28\n", "unknown model"),
            ("- algorithm: ict\n  divergence: mse\n  wieght: 1\n", "wieght"),
        ],
    )
    def test_it_is_refused(self, refused, here, content, words):
        (here / "settings.yaml").write_text(content)
        assert words in refused("--config", "settings.yaml")

    def test_one_that_is_not_there(self, refused):
        line = refused(*SEARCH, "--config", "nothing.yaml")
        assert "'nothing.yaml' cannot be read" in line

    def test_one_that_is_a_folder(self, refused):
        assert "'runs' cannot be read" in refused(*SEARCH, "--config", "runs")

    @pytest.mark.parametrize("start", ["5", "best.yaml", "[5]", "[{parameters: {}}]"])
    def test_a_start_that_is_no_configuration(self, refused, here, start):
        (here / "settings.yaml").write_text(f"alg: [ict]\nstart_from: {start}\n")
        assert "start_from" in refused("--config", "settings.yaml")


class TestBadRun:
    @pytest.mark.parametrize("command", ["resume", "status", "export"])
    @pytest.mark.parametrize("given", ["itc", "runs", "runs/ict/config.yaml", "."])
    def test_something_that_is_no_run(self, refused, here, command, given):
        Run(here / "runs" / "ict")
        line = refused(command, given)
        assert f"{given!r} is no run" in line
        assert "(ict)" in line

    @pytest.mark.parametrize("command", ["resume", "status", "export"])
    def test_a_run_whose_settings_are_damaged(self, refused, here, command):
        run = Run(here / "runs" / "ict")
        run.directory.config_path.write_text("alg: [ict")
        assert "config.yaml" in refused(command, "ict")

    @pytest.mark.parametrize("command", ["status", "export"])
    @pytest.mark.parametrize("record", [b'{"op_code', b"[]", b"{}", b'{"op_code": 4}', b"null"])
    def test_a_run_whose_journal_is_damaged(self, refused, here, command, record):
        run = Run(here / "runs" / "ict")
        lines = run.directory.journal_path.read_bytes().splitlines(keepends=True)
        lines[3] = record + b"\n"
        run.directory.journal_path.write_bytes(b"".join(lines))
        assert "study.journal" in refused(command, "ict")

    @pytest.mark.parametrize("command", ["status", "export"])
    def test_a_run_whose_settings_were_edited(self, refused, here, command):
        directory = Run(here / "runs" / "first").finish().directory
        directory.write_config(dataclasses.replace(directory.read_config(), optimizer="sgd"))
        assert "optimizer was 'adamw' and is 'sgd'" in refused(command, "first")

    def test_an_export_before_any_trial_is_complete(self, refused, here):
        run = Run(here / "runs" / "ict")
        begin(run.study)
        line = refused("export", "ict")
        assert "no trial of full length yet (0 of 6 finished)" in line
        assert "tune-ssl resume" in line

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("export", "ict", "--top", "0"), "top is 0"),
            (("export", "ict", "--format", "xml"), "xml"),
            (("export", "ict", "-o", "file/best.yaml"), "cannot be written"),
            (("export", "ict", "-o", "runs"), "cannot be written"),
            (("resume", "ict", "--trials", "0"), "trials is 0"),
            (("resume", "ict", "--format", "csv"), "format is 'csv' with a search; allowed: table"),
            (("resume", "ict", "--concurrency", "0"), "concurrency is 0"),
            (("resume", "ict", "--time-limit", "soon"), "time-limit is 'soon'"),
            (("resume", "ict", "--device-hours", "-1"), "device-hours is -1"),
            (("status", "ict", "--format", "yaml"), "yaml"),
        ],
    )
    def test_bad_options(self, refused, here, arguments, words):
        Run(here / "runs" / "ict").finish()
        (here / "file").write_text("in the way")
        assert words in refused(*arguments)


class TestExportedFile:
    @pytest.mark.parametrize("name", ["best.yaml", "best.json", "best.csv"])
    def test_what_was_written_is_said_and_an_export_may_be_replaced(self, here, capsys, name):
        Run(here / "runs" / "ict").finish()
        for top, words in (("1", "1 configuration"), ("2", "2 configurations")):
            assert cli._run(["export", "ict", "--top", top, "-o", name], debug=False) == 0
            assert capsys.readouterr().err == f"{words} written to {name}\n"

    def test_what_no_export_wrote_is_kept(self, refused, here):
        Run(here / "runs" / "ict").finish()
        for text in ("precious", "rank,name\n1,mine\n", "- rank: 1\n  name: mine\n", "rankings"):
            (here / "notes.yaml").write_text(text)
            line = refused("export", "ict", "-o", "notes.yaml")
            assert "'notes.yaml' is there and is no export" in line
            assert (here / "notes.yaml").read_text() == text

    @pytest.mark.parametrize("command", ["export", "confirm", "report"])
    def test_a_comparison_names_its_cells(self, refused, here, command):
        whole = here / "runs" / "table"
        Run(whole / "cells" / "ict-mse").finish()
        (whole / "compare.yaml").write_text("{}")
        line = refused(command, "table")
        assert "'table' is a comparison; allowed: a search's run" in line
        assert f"({whole / 'cells' / 'ict-mse'}); give one" in line


TRAINING = {
    "algorithm": "pseudo_label",
    "divergence": "kl",
    "parameters": {"threshold": 0.9, "unlabeled_weight": 1.0},
    "max_steps": 2,
}


class TestBadTraining:
    def changed(self, **changes):
        parameters = TRAINING["parameters"] | changes.pop("parameters", {})
        return TRAINING | {"parameters": parameters} | changes

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"parameters": {"threshold": 1.5}}, "threshold is 1.5"),
            ({"parameters": {"unlabeled_weight": -1.0}}, "unlabeled_weight is -1"),
            ({"parameters": {"learning_rate": 0}}, "learning_rate is 0"),
            ({"parameters": {"treshold": 0.5}}, "did you mean 'threshold'"),
            ({"parameters": {"threshold": "high"}}, "threshold is 'high'"),
            ({"algorithm": "pseudolabel"}, "did you mean 'pseudo_label'"),
            ({"divergence": "kll"}, "did you mean 'kl'"),
            ({"dataset": "digit"}, "did you mean 'digits'"),
            ({"model": "wrn-28"}, "did you mean 'wrn-28-2'"),
            ({"num_labels": 5}, "fewer than the 10 classes"),
            ({"max_step": 5}, "did you mean 'max_steps'"),
            ({"max_steps": 0}, "max_steps is 0"),
            ({"seed": -1}, "seed is -1"),
        ],
    )
    def test_a_configuration_with_a_bad_value(self, refused, here, changes, words):
        (here / "one.yaml").write_text(yaml.safe_dump(self.changed(**changes)))
        assert words in refused("train", "one.yaml")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "holds no configuration"),
            ("[]", "holds no configuration"),
            ("just text", "holds no configuration"),
            ("max_steps: 5\n", "no 'algorithm'"),
            ("a: [", "damaged or no YAML"),
        ],
    )
    def test_a_file_without_a_configuration(self, refused, here, content, words):
        (here / "one.yaml").write_text(content)
        assert words in refused("train", "one.yaml")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("nothing.yaml",), "cannot be read"),
            (("one.yaml", "--rank", "2"), "rank 2"),
            (("one.yaml", "--rank", "0"), "rank is 0"),
            (("one.yaml", "--rank", "1", "--recommended"), "rank 1 and --recommended"),
            (("search.yaml",), "settings of a search"),
            (("one.yaml", "--recommended"), "recommended"),
            (("one.yaml", "--rank", "9"), "one of rank 9; ranks there: none"),
            (("one.yaml", "--output", "full"), "'full' exists"),
            (("one.yaml", "--output", "one.yaml"), "'one.yaml' exists"),
            (("one.yaml", "--seed", "-1"), "seed is -1"),
            (("one.yaml", "--split-seed", "-1"), "split_seed is -1"),
        ],
    )
    def test_bad_options(self, refused, here, arguments, words):
        (here / "search.yaml").write_text("alg: [ict]\ntrials: 3\n")
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING))
        (here / "full").mkdir()
        (here / "full" / "something").write_text("")
        assert words in refused("train", *arguments)

    def test_an_output_that_cannot_be_made_is_refused_before_training(self, refused, here):
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING | {"max_steps": 10**9}))
        (here / "file").write_text("")
        assert "cannot be made" in refused("train", "one.yaml", "--output", "file/below")

    @pytest.mark.parametrize("command", [("train",), ("search", "--dry-run", "--config")])
    def test_an_export_that_is_half_written(self, refused, here, exported, command):
        """Cut anywhere inside a record: never trained on what its missing settings default to."""
        lines = exported.splitlines(keepends=True)
        seeds = [place for place, line in enumerate(lines) if line.startswith("  seed:")]
        assert len(seeds) > 1
        for end in {seeds[0] - 1, seeds[0], seeds[1] - 12, seeds[1]}:
            (here / "half.yaml").write_text("".join(lines[:end]))
            assert "half.yaml' is half written: the configuration of rank" in refused(
                *command, "half.yaml"
            )

    @pytest.mark.parametrize("device", ["cuda:7", "mps"])
    def test_a_device_that_is_not_there(self, refused, here, device):
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING))
        assert f"device is {device}" in refused("train", "one.yaml", "--device", device)

    def test_a_training_that_is_not_finite_leaves_nothing(self, refused, here):
        diverging = TRAINING["parameters"] | {"learning_rate": 1e30}
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING | {"parameters": diverging}))
        assert "not finite by step" in refused("train", "one.yaml")


class TestTraining:
    def test_one_configuration_is_trained_and_its_metrics_are_printed_as_json(self, here, capsys):
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING))
        assert cli._run(["train", "one.yaml", "--format", "json"], debug=False) == 0
        out, err = capsys.readouterr()
        metrics = json.loads(out)
        assert err == ""
        assert metrics["steps"] == 2
        assert 0.0 <= metrics["validation_accuracy"] <= 1.0
        assert "exported_validation_accuracy" not in metrics
        assert {path.name for path in (here / "trained").iterdir()} == {
            "config.yaml",
            "metrics.json",
            "weights.safetensors",
        }
        written = json.loads((here / "trained" / "metrics.json").read_text())
        assert written == {key: value for key, value in metrics.items() if key != "folder"}

    def test_what_it_wrote_down_trains_to_the_same_weights(self, here, capsys):
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING | {"seed": 9}))
        for arguments in (("one.yaml", "--output", "a"), ("a/config.yaml", "--output", "b")):
            assert cli._run(["train", *arguments], debug=False) == 0
        for name in ("weights.safetensors", "config.yaml", "metrics.json"):
            assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()
        assert "validation accuracy" in capsys.readouterr().out

    def test_a_profile_changes_no_number_and_tells_where_a_step_goes(self, here, capsys):
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING | {"max_steps": 18}))
        for arguments in (("--output", "a"), ("--output", "b", "--profile")):
            assert cli._run(["train", "one.yaml", *arguments], debug=False) == 0
        out = capsys.readouterr().out
        for name in ("weights.safetensors", "config.yaml", "metrics.json"):
            assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()
        assert json.loads((here / "b" / "trace.json").read_text())["traceEvents"]
        told = [line.split()[0] for line in out.splitlines() if line.strip()]
        for part in ("batch", "backward", "aten::convolution_backward"):
            assert told.count(part) == 1

    def test_a_training_too_short_for_a_profile_is_refused(self, here, capsys):
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING))
        assert cli._run(["train", "one.yaml", "--profile"], debug=False) == 2
        assert "allowed: 15 or more" in capsys.readouterr().err
        assert not (here / "trained").exists()

    @pytest.mark.parametrize("option", ["--seed", "--split-seed"])
    def test_another_seed_gives_another_training(self, here, option):
        (here / "one.yaml").write_text(yaml.safe_dump(TRAINING))
        cli._run(["train", "one.yaml", "--output", "a"], debug=False)
        cli._run(["train", "one.yaml", "--output", "b", option, "1"], debug=False)
        weights = [(here / name / "weights.safetensors").read_bytes() for name in "ab"]
        assert weights[0] != weights[1]


class TestDryRun:
    def test_it_says_what_would_be_done_and_writes_nothing(self, here, capsys):
        before = tree(here)
        code = cli._run(["--alg", "ict,vat", "--trials", "9", "--dry-run"], debug=False)
        out, err = capsys.readouterr()
        assert code == 0
        assert "methods: ict / mse, vat / kl\n" in out
        assert "rungs: 113, 225; full length 450\n" in out
        assert "trials: 9, the first 2 with published defaults\n" in out
        assert "at most 4050\n" in out
        assert "20 labeled + 777 unlabeled to train on, 400 to choose on" in err.replace("\n", " ")
        assert tree(here) == before

    def test_as_json_it_is_one_object(self, here, capsys):
        assert cli._run([*SEARCH, "--dry-run", "--format", "json"], debug=False) == 0
        assert json.loads(capsys.readouterr().out)["methods"] == "ict / mse"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--device", "cuda"), "there are none"),
            (("--cpus-per-trial", "4096"), "cpus-per-trial is 4096"),
        ],
    )
    def test_it_checks_this_machine(self, refused, monkeypatch, arguments, words):
        monkeypatch.setattr("tune_ssl.machine.gpu_names", lambda: [])
        assert words in refused(*SEARCH, "--dry-run", *arguments)

    def test_it_checks_as_a_search_would(self, refused, here):
        taken = RunDirectory(here / "runs" / "first")
        taken.create()
        taken.write_json("environment.json", {})
        assert "exists" in refused(*SEARCH, "--dry-run", "--name", "first")
        assert "labels is 5" in refused(*SEARCH, "--dry-run", "--labels", "5")
        assert "time-limit is" in refused(*SEARCH, "--dry-run", "--time-limit", "soon")


class TestTimeLimits:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("90s", 90),
            ("30m", 1800),
            ("2h", 7200),
            ("1d", 86400),
            ("1h30m", 5400),
            (" 1.5H ", 5400),
        ],
    )
    def test_a_duration_is_read_in_seconds(self, text, seconds):
        assert cli._seconds(text) == seconds

    def test_none_is_no_limit(self):
        assert cli._seconds(None) is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a folder with ``runs/joint``, a finished search over several methods."""
    folder = tmp_path_factory.mktemp("finished")
    config = small_config(alg=("supervised", "mean_teacher", "ict"), trials=8, seed=1)
    Run(folder / "runs" / "joint", config).finish()
    return folder


@pytest.fixture
def with_run(finished, monkeypatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


class TestResults:
    def test_status_as_json_is_json_and_nothing_else(self, with_run, capsys):
        assert cli._run(["status", "joint", "--format", "json"], debug=False) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert json.loads(out)["counts"]["finished"] == 8
        assert json.loads(out)["best"]["rank"] == 1

    def test_status_says_who_drives_the_run(self, with_run, capsys):
        with run_lock(RunDirectory(with_run / "runs" / "joint")):
            cli._run(["status", "joint", "--format", "json"], debug=False)
            assert str(os.getpid()) in json.loads(capsys.readouterr().out)["driver"]
        cli._run(["status", "joint", "--format", "json"], debug=False)
        assert json.loads(capsys.readouterr().out)["driver"] is None

    def test_status_as_a_table(self, with_run, capsys):
        assert cli._run(["status", "runs/joint"], debug=False) == 0
        assert capsys.readouterr().out.startswith("joint: 8 of 8 finished")

    def test_export_in_every_form(self, with_run, capsys):
        found = {}
        for form, parse in (
            ("json", json.loads),
            ("yaml", yaml.safe_load),
            ("csv", lambda text: list(csv.DictReader(io.StringIO(text)))),
        ):
            assert cli._run(["export", "joint", "--top", "2", "--format", form], debug=False) == 0
            out, err = capsys.readouterr()
            assert err == ""
            found[form] = parse(out)
        assert found["json"] == found["yaml"]
        assert [int(row["trial"]) for row in found["csv"]] == [r["trial"] for r in found["json"]]
        assert len(found["json"]) == 2

    @pytest.mark.parametrize("ending", ["json", "csv", "yaml", "txt"])
    def test_a_file_s_ending_says_its_form(self, with_run, tmp_path, ending):
        written = tmp_path / f"best.{ending}"
        assert cli._run(["export", "joint", "-o", str(written)], debug=False) == 0
        form = "yaml" if ending == "txt" else ending
        records = results.best_records(RunDirectory(with_run / "runs" / "joint"), None)
        assert written.read_text() == format_records(records, form)

    def test_export_into_a_file_puts_nothing_on_stdout(self, with_run, tmp_path, capsys):
        path = tmp_path / "new" / "best.json"
        arguments = ["export", "joint", "--format", "json", "-o", str(path)]
        assert cli._run(arguments, debug=False) == 0
        assert capsys.readouterr() == ("", f"3 configurations written to {path}\n")
        cli._run(["export", "joint", "--format", "json"], debug=False)
        assert path.read_text() == capsys.readouterr().out

    def test_looking_changes_nothing(self, with_run, capsys):
        before = tree(with_run)
        for arguments in (["status", "joint"], ["export", "joint"], ["algorithms"]):
            assert cli._run(arguments, debug=False) == 0
        assert tree(with_run) == before

    def test_algorithms_as_json(self, capsys):
        assert cli._run(["algorithms", "--format", "json"], debug=False) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert [method["algorithm"] for method in json.loads(out)] == list(ALGORITHM_NAMES)

    def test_version(self, capsys):
        assert cli._run(["--version"], debug=False) == 0
        assert capsys.readouterr().out == f"tune-ssl {__version__}\n"

    def test_help_shows_the_defaults_a_search_has(self, capsys, monkeypatch):
        monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 300)
        assert cli._run(["search", "--help"], debug=False) == 0
        out = capsys.readouterr().out
        config = RunConfig(alg=("ict",))
        fixed = (bool, int, float, str)
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if isinstance(value, fixed):
                flag = "--" + field.name.replace("_", "-")
                (line,) = (row for row in out.splitlines() if f" {flag} " in row)
                shown = f"{value:g}" if isinstance(value, float) else value
                assert f"[default: {shown}]" in line

    def test_no_arguments_show_help(self, capsys):
        cli._run([], debug=False)
        out, err = capsys.readouterr()
        assert "Usage" in out + err


class TestEndOfASearch:
    """What is printed when a search is over, wherever it ran."""

    @pytest.fixture
    def ended(self, finished, monkeypatch, capsys):
        def run(*, code=0, message="8 trials finished", arguments=(), records=None):
            directory = RunDirectory(finished / "runs" / "joint")
            found = results.best_records(directory, None) if records is None else records
            outcome = search_workflow.Outcome(
                exit_code=code, directory=directory, records=found, message=message
            )
            monkeypatch.setattr(search_workflow, "search", lambda *a, **o: outcome)
            monkeypatch.setattr(search_workflow, "resume", lambda *a, **o: outcome)
            monkeypatch.chdir(finished)
            found_code = cli._run([*arguments], debug=False)
            return found_code, *capsys.readouterr()

        return run

    @pytest.mark.parametrize("command", [SEARCH, ("resume", "joint")])
    def test_as_json_stdout_is_the_exported_list_and_nothing_else(self, ended, command, finished):
        code, out, err = ended(arguments=(*command, "--format", "json"))
        assert code == 0
        records = results.best_records(RunDirectory(finished / "runs" / "joint"), None)
        assert out == format_records(records, "json")
        assert "8 trials finished" in err
        assert "best.yaml" in err

    def test_as_a_table_it_is_on_stdout_too(self, ended):
        _, out, err = ended(arguments=SEARCH)
        assert re.search(r"learning_rate +[0-9.e-]+", out)
        assert re.search(r"^next: \S*tune-ssl train .*best\.yaml$", err, re.MULTILINE)

    @pytest.mark.parametrize("code", [0, 1, 3, 4, 130])
    def test_the_exit_code_is_the_search_s(self, ended, code):
        assert ended(code=code, arguments=SEARCH)[0] == code

    def test_without_a_complete_trial_json_is_an_empty_list(self, ended):
        code, out, err = ended(code=4, arguments=(*SEARCH, "--format", "json"), records=[])
        assert (code, json.loads(out)) == (4, [])
        assert "best.yaml" not in err

    @pytest.mark.parametrize("message", ["stopped: KeyError: [/x]", "stopped: [bold] is no layer"])
    def test_the_message_is_printed_as_it_is(self, ended, message):
        code, _, err = ended(code=4, message=message, arguments=SEARCH)
        assert code == 4
        assert f"{message}\n" in err


class TestUnexpectedErrors:
    @pytest.fixture
    def broken(self, with_run, monkeypatch, capsys):
        def run(error: BaseException, *, debug=False):
            def fail(*_arguments):
                raise error

            monkeypatch.setattr(results, "status", fail)
            code = cli._run(["status", "joint"], debug=debug)
            out, err = capsys.readouterr()
            assert out == ""
            return code, err

        return run

    @pytest.mark.parametrize(
        "error", [RuntimeError("boom"), KeyError("split"), OSError(28, "No space left on device")]
    )
    def test_an_internal_error_is_one_line_and_exit_one(self, broken, error):
        code, err = broken(error)
        assert code == 1
        assert err.count("\n") == 1
        assert f"internal error: {type(error).__name__}" in err
        assert "--debug" in err

    def test_even_if_its_message_has_several(self, broken):
        code, err = broken(RuntimeError("Error(s) in loading state_dict:\n\tsize mismatch\n"))
        assert code == 1
        assert err.count("\n") == 1
        assert "size mismatch" in err

    def test_debug_adds_the_traceback(self, broken):
        code, err = broken(RuntimeError("boom"), debug=True)
        assert code == 1
        assert "Traceback (most recent call last)" in err
        assert err.splitlines()[-1].startswith("tune-ssl: internal error: RuntimeError: boom")

    def test_an_interrupt_exits_130_without_a_traceback(self, broken):
        code, err = broken(KeyboardInterrupt())
        assert code == 130
        assert err == "tune-ssl: interrupted\n"

    def test_debug_adds_the_traceback_of_a_user_s_error_too(self, here, capsys):
        assert cli._run(["--alg", "itc"], debug=True) == 2
        assert "Traceback" in capsys.readouterr().err


FRESH = """
import atexit, sys

@atexit.register
def tell():
    loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "ray"})
    print("LOADED", *loaded, file=sys.stderr)

from tune_ssl.cli import main
sys.argv[0] = "tune-ssl"
main()
"""


def fresh(*arguments: str, cwd: Path, stdout=subprocess.PIPE, **environment: str):
    """Run a command line in a new process; return it and its stderr without what was loaded.

    That is the last line of stderr and must name nothing.
    """
    ended = subprocess.run(
        [sys.executable, "-c", FRESH, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    lines = ended.stderr.splitlines()
    assert lines[-1] == "LOADED", ended.stderr
    return ended, lines[:-1]


class TestFreshProcess:
    """Looking, helping and refusing load neither torch nor ray."""

    @pytest.mark.parametrize("arguments", [("--help",), ("search", "--help"), ("export", "-h")])
    def test_help(self, tmp_path, arguments):
        ended, err = fresh(*arguments, cwd=tmp_path)
        assert (ended.returncode, err) == (0, [])
        assert "Usage" in ended.stdout

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--alg", "itc"), "did you mean 'ict'?"),
            (("search", "--alg", "ict", "--divergence", "mes"), "did you mean 'mse'?"),
            (("exprot", "joint"), "export"),
            (("status", "jiont"), "is no run"),
        ],
    )
    def test_a_mistyped_name(self, finished, arguments, words):
        ended, err = fresh(*arguments, cwd=finished)
        assert ended.returncode == 2
        assert len(err) == 1
        assert words in err[0]
        assert ended.stdout == ""

    def test_status(self, finished):
        ended, err = fresh("status", "joint", "--format", "json", cwd=finished)
        assert (ended.returncode, err) == (0, [])
        assert json.loads(ended.stdout)["counts"]["complete"] >= 1

    def test_export(self, finished):
        ended, err = fresh("export", "joint", "--top", "1", "--format", "json", cwd=finished)
        assert (ended.returncode, err) == (0, [])
        assert [record["rank"] for record in json.loads(ended.stdout)] == [1]

    @pytest.mark.parametrize("command", ["algorithms", "doctor"])
    def test_what_can_be_told_without_training(self, tmp_path, command):
        ended, err = fresh(command, cwd=tmp_path)
        assert (ended.returncode, err) == (0, [])
        assert ended.stdout

    def test_debug_may_stand_anywhere(self, tmp_path):
        for arguments in (("--debug", "--alg", "itc"), ("--alg", "itc", "--debug")):
            ended, err = fresh(*arguments, cwd=tmp_path)
            assert ended.returncode == 2
            assert err[0].startswith("Traceback")
            assert "did you mean 'ict'" in err[-1]

    def test_a_reader_that_has_seen_enough_is_no_error(self, finished):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            ended, err = fresh("export", "joint", cwd=finished, stdout=writing)
        finally:
            os.close(writing)
        assert (ended.returncode, err) == (0, [])


class TestCompletion:
    def complete(self, cwd, line: str) -> list[str]:
        """Return what a shell is offered at the end of a line."""
        words = line.split(" ")
        ended, err = fresh(
            cwd=cwd,
            _TUNE_SSL_COMPLETE="complete_bash",
            COMP_WORDS=line,
            COMP_CWORD=str(len(words) - 1),
        )
        assert (ended.returncode, err) == (0, [])
        return ended.stdout.split()

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("tune-ssl search --alg i", ["ict"]),
            ("tune-ssl --alg i", ["ict"]),
            ("tune-ssl search --alg pi_model,m", ["pi_model,mean_teacher", "pi_model,mixmatch"]),
            ("tune-ssl search --divergence ", [*DIVERGENCE_NAMES, "any"]),
            ("tune-ssl search --dataset cifar", ["cifar10", "cifar100"]),
            ("tune-ssl ex", ["export"]),
            ("tune-ssl search --time", ["--time-limit"]),
        ],
    )
    def test_names_are_offered(self, tmp_path, line, expected):
        assert self.complete(tmp_path, line) == expected
