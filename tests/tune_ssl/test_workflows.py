"""What search and resume do around the cluster: settings, checks, signals, exit codes."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from rich.console import Console

from search_spaces import common
from ssl_core.data.prepare import prepare
from ssl_core.errors import UserError
from tests.tune_ssl.fakes import (
    HERE,
    NUM_CLASSES,
    Fault,
    OutOfMemoryError,
    Run,
    open_study,
    small_config,
    tiny_images,
    tree,
)
from tune_ssl.driver import Limits
from tune_ssl.drivers import Drivers
from tune_ssl.run import RunConfig, RunDirectory
from tune_ssl.storage import RunStorage
from tune_ssl.worker import Lengths
from tune_ssl.workflows import driving, plan, process
from tune_ssl.workflows import search as workflow

pytestmark = pytest.mark.usefixtures("no_fsync")


class TestWithData:
    def test_what_the_images_decide_is_written_into_the_settings(self):
        config = plan.with_data(RunConfig(alg=("ict",)), tiny_images())
        assert (config.labels, config.validation) == (NUM_CLASSES, NUM_CLASSES)
        assert config.metric == "accuracy"
        assert (config.model, config.max_steps, config.batch_size) == ("wrn-10-1", 450, 50)

    @pytest.mark.parametrize(
        ("counts", "metric"),
        [([5, 5], "accuracy"), ([9, 5], "accuracy"), ([10, 5], "balanced_accuracy")],
    )
    def test_a_folder_of_uneven_classes_is_judged_by_balanced_accuracy(self, counts, metric):
        labels = np.repeat([0, 1], counts)
        shared = dataclasses.replace(
            tiny_images(), validation_labels=labels, class_names=("a", "b")
        )
        config = RunConfig(alg=("ict",), dataset="folder", data_dir="x")
        assert plan.with_data(config, shared).metric == metric

    def test_a_metric_that_was_asked_for_stays(self):
        config = RunConfig(alg=("ict",), metric="balanced_accuracy")
        assert plan.with_data(config, tiny_images()).metric == "balanced_accuracy"

    @pytest.mark.parametrize(
        ("imbalance", "metric"),
        [(None, "accuracy"), (1.0, "accuracy"), (1.5, "balanced_accuracy")],
    )
    def test_so_is_any_data_set_with_a_long_tail(self, imbalance, metric):
        config = RunConfig(alg=("ict",), imbalance=imbalance)
        assert plan.with_data(config, tiny_images()).metric == metric

    @pytest.mark.parametrize(
        ("algorithms", "refused"), [(("supervised", "vat"), "vat"), (("supervised",), None)]
    )
    def test_without_unlabeled_images_only_supervised_can_be_searched(self, algorithms, refused):
        images = tiny_images()
        shared = dataclasses.replace(images, unlabeled=images.labeled)
        config = RunConfig(alg=algorithms)
        if refused is None:
            assert plan.with_data(config, shared).labels == NUM_CLASSES
        else:
            with pytest.raises(UserError, match=f"no unlabeled images for {refused}: all 10 are"):
                plan.with_data(config, shared)


class TestOwnPlaces:
    def test_two_runs_of_one_name_share_no_storage(self, tmp_path):
        config = small_config(storage=str(tmp_path / "shared"))
        places = [plan.with_own_places(config, "first").storage for _ in range(2)]
        assert places[0] != places[1]
        for place in places:
            assert Path(place).parent == tmp_path / "shared"
            assert Path(place).name.startswith("first-")

    def test_an_address_stays_an_address(self):
        config = small_config(storage="s3://bucket/folder/")
        assert plan.with_own_places(config, "a").storage.startswith("s3://bucket/folder/a-")
        config = small_config(storage="s3://bucket/folder?region=eu-west-1")
        place = plan.with_own_places(config, "a").storage
        assert re.fullmatch(r"s3://bucket/folder/a-\w{8}\?region=eu-west-1", place)

    def test_places_hold_from_any_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for given, expected in (("images", "images"), ("~/images", "home/images")):
            config = plan.with_own_places(small_config(data_dir=given, dataset="folder"), "a")
            assert config.data_dir == str(tmp_path / expected)
        assert plan.with_own_places(small_config(), "a") == small_config()


class TestStarts:
    def lines(self, *starts, **settings) -> str:
        config = small_config(start_from=starts, **settings)
        console = Console(file=io.StringIO(), width=300)
        plan.describe_starts(config, tiny_images(), console)
        return console.file.getvalue()

    def test_a_value_outside_the_range_is_told_with_what_is_used(self):
        start = {"algorithm": "mean_teacher", "divergence": "mse", "parameters": {}}
        outside = start | {"parameters": {"learning_rate": 2.0, "unlabeled_weight": 8.0}}
        assert self.lines(start, outside) == (
            "warning: configuration 2: learning_rate 2 is outside 3e-05 .. 0.03 and was moved to "
            "0.03\n"
        )

    def test_so_is_one_that_is_not_searched(self):
        start = {
            "algorithm": "mean_teacher",
            "divergence": "mse",
            "parameters": {"entropy_weight": 0.5},
        }
        assert self.lines(start) == (
            "warning: configuration 1: entropy_weight 0.5 is not searched and was set to the "
            "search's 0\n"
        )
        assert self.lines(start, entropy_min="search") == ""

    def test_they_follow_the_published_defaults_each_once(self, tmp_path):
        default = {"algorithm": "mean_teacher", "divergence": "mse", "parameters": {}}
        other = default | {"parameters": {"learning_rate": 1e-3}}
        config = small_config(start_from=(other, default))
        run = Run(tmp_path / "run", config)
        first, second, third = (run.driver.next().record["parameters"] for _ in range(3))
        assert second == first | {"learning_rate": 1e-3}
        assert third != first
        assert "then 2 of --config" in "\n".join(plan.describe_plan(config, tiny_images()))


class TestOnCluster:
    def test_without_gpus_trials_run_on_the_cpu(self):
        config = plan.on_cluster(small_config(), cpus=4, gpus=0)
        assert (config.device, config.gpus_per_trial) == ("cpu", 0.0)
        assert config.threads == 1

    def test_with_gpus_each_trial_has_one(self):
        config = plan.on_cluster(small_config(), cpus=4, gpus=2)
        assert (config.device, config.gpus_per_trial) == ("cuda", 1.0)

    @pytest.mark.parametrize("share", [0.25, 1, 2])
    def test_or_the_share_that_was_asked_for(self, share):
        config = plan.on_cluster(small_config(gpus_per_trial=share), cpus=4, gpus=2)
        assert (config.device, config.gpus_per_trial) == ("cuda", share)

    def test_or_one_that_is_still_to_be_measured(self):
        config = plan.on_cluster(small_config(gpus_per_trial="auto"), cpus=4, gpus=2)
        assert (config.device, config.gpus_per_trial) == ("cuda", "auto")
        config = plan.on_cluster(small_config(gpus_per_trial="auto"), cpus=4, gpus=0)
        assert (config.device, config.gpus_per_trial) == ("cpu", 0.0)

    @pytest.mark.parametrize("changes", [{"gpus_per_trial": 0}, {"device": "cpu"}])
    def test_or_none_where_it_was_not_wanted(self, changes):
        config = plan.on_cluster(small_config(**changes), cpus=4, gpus=2)
        assert (config.device, config.gpus_per_trial) == ("cpu", 0.0)

    @pytest.mark.parametrize(
        ("cpus_per_trial", "threads", "expected"),
        [(1, None, 1), (2.5, None, 2), (0.5, None, 1), (4, 3, 3)],
    )
    def test_a_training_uses_the_threads_it_was_given(self, cpus_per_trial, threads, expected):
        config = small_config(cpus_per_trial=cpus_per_trial, threads=threads)
        assert plan.on_cluster(config, cpus=8, gpus=0).threads == expected

    @pytest.mark.parametrize(
        ("device", "side", "able", "precision"),
        [
            ("cpu", 32, ("cpu",), "bfloat16"),
            ("cpu", 16, ("cpu",), "bfloat16"),
            ("cpu", 8, ("cpu",), "float32"),  # the digits: it would hardly pay
            ("cpu", 32, ("cuda",), "float32"),
            ("cuda", 32, ("cuda",), "bfloat16"),
            ("cuda", 32, ("cpu",), "float32"),
            ("mps", 32, ("cpu", "cuda"), "float32"),
        ],
    )
    def test_the_precision_is_what_the_device_computes_fast_in(
        self, monkeypatch, device, side, able, precision
    ):
        monkeypatch.setattr("tune_ssl.machine.computes_in_bfloat16", lambda: "cpu" in able)
        monkeypatch.setattr("tune_ssl.machine.gpus_compute_in_bfloat16", lambda: "cuda" in able)
        shared = dataclasses.replace(tiny_images(), images=np.zeros((30, 1, side, side), np.uint8))
        config = small_config(device=device, precision="auto")
        assert plan.with_precision(config, shared).precision == precision
        for given in ("float32", "bfloat16"):
            asked = dataclasses.replace(config, precision=given)
            assert plan.with_precision(asked, shared).precision == given

    def test_a_host_without_a_compiler_is_asked_for_none_that_is_not_wanted(self, monkeypatch):
        monkeypatch.setattr("tune_ssl.machine.missing_to_compile", lambda: "no C++ compiler (g++)")
        plan.on_this_host(small_config())
        with pytest.raises(
            UserError, match=r"no C\+\+ compiler \(g\+\+\); allowed: .*--no-compile"
        ):
            plan.on_this_host(small_config(compile=True))
        monkeypatch.setattr("tune_ssl.machine.missing_to_compile", lambda: None)
        assert plan.on_this_host(small_config(compile=True)).compile

    def test_a_plan_says_that_networks_are_compiled(self):
        [_, network, _] = plan.describe_training(small_config(compile=True, precision="bfloat16"))
        assert " in bfloat16, compiled, " in network
        assert "compiled" not in " ".join(plan.describe_training(small_config()))

    def test_a_mac_s_device_is_refused_elsewhere(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "linux")
        with pytest.raises(UserError, match="device is mps and this is no Mac"):
            plan.on_cluster(small_config(device="mps"), cpus=4, gpus=0)
        monkeypatch.setattr(sys, "platform", "darwin")
        assert plan.on_cluster(small_config(device="mps"), cpus=4, gpus=0).device == "mps"

    def test_it_changes_nothing_the_second_time(self):
        once = plan.on_cluster(small_config(), cpus=4, gpus=2)
        assert plan.on_cluster(once, cpus=4, gpus=2) == once

    @pytest.mark.parametrize(
        ("changes", "cpus", "gpus", "words"),
        [
            ({"device": "cuda"}, 4, 0, "there are none"),
            ({"gpus_per_trial": 1}, 4, 0, "there are none"),
            ({"device": "cuda", "gpus_per_trial": 0}, 4, 1, "gpus-per-trial 0"),
            ({"cpus_per_trial": 5}, 4, 0, "cpus-per-trial is 5 and the cluster has 4"),
            ({"gpus_per_trial": 3}, 4, 2, "gpus-per-trial is 3 and the cluster has 2"),
        ],
    )
    def test_more_than_there_is_is_refused(self, changes, cpus, gpus, words):
        with pytest.raises(UserError, match=words):
            plan.on_cluster(small_config(**changes), cpus=cpus, gpus=gpus)


class TestConditions:
    def told(self, **settings) -> str:
        console = Console(file=io.StringIO(), width=400)
        config = RunConfig(alg=("ict",), **settings)
        shared = prepare(config.data())
        plan.describe_data(plan.with_data(config, shared), shared, console)
        return console.file.getvalue()

    def test_the_bill_says_what_the_validation_images_can_tell(self):
        told = self.told()
        assert "The bill in labels: 20 to train + 400 to choose = 420." in told
        assert "400 validation images separate two configurations that differ by 4.6 points" in told
        assert "if they disagree on 10 % of images" in told
        assert "disagree on 37 % of images" in self.told(validation=20)
        few = self.told(validation=5, labeled_classes="1,2", labels=4)
        assert "5 validation images separate no two configurations" in few

    def test_each_condition_is_told_with_its_numbers(self):
        told = self.told(
            unlabeled=80,
            labeled_classes="2,3,4,5,6,7",
            class_mismatch=50.0,
            imbalance=5.0,
            labels=30,
        )
        assert "1197 training images in 6 classes and others; 30 labeled + 50 unlabeled" in told
        assert "The unlabeled pool: 80 images, the 30 labeled among them." in told
        assert "Classes to tell apart: 2, 3, 4, 5, 6, 7;" in told
        assert "Class mismatch: 25 of the 50 unlabeled images, 50 %, are of other classes." in told
        assert "Imbalance 5: from 9 labels of class 2 to 2 of class 7;" in told
        assert "judged by balanced accuracy" in told

    def test_none_is_told_where_none_was_asked_for(self):
        told = self.told()
        for word in ("pool", "tell apart", "mismatch", "Imbalance", "balanced"):
            assert word not in told

    def test_a_plan_has_them_in_a_line(self):
        config = RunConfig(alg=("ict",), unlabeled=100, imbalance=3.0)
        assert plan.describe_plan(config, tiny_images())[-1] == (
            "conditions: unlabeled 100; imbalance 3.0"
        )
        assert "conditions" not in " ".join(
            plan.describe_plan(RunConfig(alg=("ict",)), tiny_images())
        )


class TestPlan:
    def plan(self, **changes) -> dict[str, str]:
        lines = plan.describe_plan(small_config(**changes), tiny_images())
        return dict(line.split(": ", 1) for line in lines)

    def test_it_names_cells_rungs_and_defaults(self):
        told = self.plan(alg=("supervised", "ict"), divergence=("mse", "kl"), trials=10)
        assert told["methods"] == "supervised, ict / mse, ict / kl"
        assert told["rungs"] == "3, 9; full length 27"
        assert told["trials"] == "10, the first 3 with published defaults"
        assert told["network"].startswith("wrn-10-1, 27 steps of 50 labeled and 50 unlabeled")

    def test_steps_lie_between_those_of_halving_and_those_of_full_training(self):
        # 27 trials to step 3, 9 of them to 9, 3 of them to 27.
        assert self.plan(trials=27)["steps in all"] == (
            "about 189 if trials are cut as planned, at most 729"
        )

    def test_without_a_scheduler_every_step_is_trained(self):
        told = self.plan(trials=5, scheduler="none")
        assert told["rungs"] == "none; full length 27"
        assert "at most 135" in told["steps in all"]

    @pytest.mark.parametrize(("trials", "defaults"), [(1, 1), (2, 1), (5, 2), (50, 6)])
    def test_as_many_defaults_are_promised_as_are_queued(self, tmp_path, trials, defaults):
        config = small_config(
            alg=("vat", "mean_teacher", "ict"), divergence=("mse", "kl"), trials=trials
        )
        told = dict(line.split(": ", 1) for line in plan.describe_plan(config, tiny_images()))
        assert f"the first {defaults} with" in told["trials"]
        assert len(Run(tmp_path / "run", config).trials()) == defaults


class TestShipping:
    @pytest.mark.parametrize("local", [True, False])
    def test_this_host_needs_a_compiler_where_it_trains(self, monkeypatch, local):
        """A search that is resumed or confirmed here may have begun elsewhere."""
        monkeypatch.setattr("tune_ssl.machine.missing_to_compile", lambda: "no C++ compiler (g++)")
        monkeypatch.setattr("tune_ssl.on_ray.cluster.shared_by_all", lambda value: value)
        asked = []
        guard = SimpleNamespace(prove_all=lambda: None, problems={})
        monkeypatch.setattr(
            "tune_ssl.on_ray.nodes.NodeGuard", lambda needed: asked.append(needed) or guard
        )
        cluster = dataclasses.replace(HERE, local=local)
        shared = driving._Shared(cluster, driving.Invocation(), Console(file=io.StringIO()))
        for compiles in (False, True):
            shared.job = None
            job = SimpleNamespace(settings=small_config(compile=compiles), factory=lambda: None)
            if local and compiles:
                with pytest.raises(UserError, match="this host has no C"):
                    shared.ship(job, RunStorage("/tmp"))
            else:
                shared.ship(job, RunStorage("/tmp"))
        assert [needed.compiles for needed in asked] == ([] if local else [False, True])


class TestOpening:
    def test_a_new_study_knows_its_images_and_its_settings(self, tmp_path):
        run = Run(tmp_path / "run")
        facts = run.study.attributes()
        assert facts["num_classes"] == NUM_CLASSES
        assert facts["split_sha256"] == tiny_images().fingerprint
        assert facts["settings"]["max_steps"] == 27
        assert "trials" not in facts["settings"]

    def test_defaults_of_their_own_paper_come_before_converted_ones(self, tmp_path):
        config = small_config(alg=("vat", "ict"), divergence=("mse", "kl"), trials=20)
        run = Run(tmp_path / "run", config)
        first = [run.driver.next().record for _ in range(4)]
        cells = [(record["algorithm"], record["divergence"]) for record in first]
        assert cells[:2] == [("vat", "kl"), ("ict", "mse")]
        assert set(cells[2:]) == {("vat", "mse"), ("ict", "kl")}

    def test_images_that_changed_are_refused_on_a_resume(self, tmp_path, monkeypatch):
        run = Run(tmp_path / "run")
        other = dataclasses.replace(tiny_images(), images=tiny_images().images + 1)
        monkeypatch.setattr("tests.tune_ssl.fakes.tiny_images", lambda: other)
        before = run.study.attributes(), run.file("config.yaml").read_bytes()
        with pytest.raises(UserError, match=r"pixels: images_crc32 was .* and is"):
            open_study(run.config, run.directory)
        assert (run.study.attributes(), run.file("config.yaml").read_bytes()) == before

    def test_another_draw_too(self, tmp_path, monkeypatch):
        run = Run(tmp_path / "run")
        other = dataclasses.replace(tiny_images(), fingerprint="1" * 64)
        monkeypatch.setattr("tests.tune_ssl.fakes.tiny_images", lambda: other)
        with pytest.raises(
            UserError, match=r"which images are labeled.*: split_sha256 was .* and is 1111"
        ):
            open_study(run.config, run.directory)

    @pytest.mark.parametrize(
        "change",
        [
            {"labels": tiny_images().labels[::-1].copy()},
            {"validation_labels": tiny_images().validation_labels[::-1].copy()},
            {"class_names": tuple(f"other {name}" for name in tiny_images().class_names)},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_and_other_labels_on_the_same_images(self, tmp_path, monkeypatch, change):
        run = Run(tmp_path / "run")
        other = dataclasses.replace(tiny_images(), **change)
        monkeypatch.setattr("tests.tune_ssl.fakes.tiny_images", lambda: other)
        with pytest.raises(UserError, match=r"labels and class names: labels_sha256 was .* and is"):
            open_study(run.config, run.directory)

    def test_what_an_older_driver_did_not_write_down_does_not_switch_the_rest_off(self, tmp_path):
        run = Run(tmp_path / "run").finish()
        kept = [
            line
            for line in run.directory.journal_path.read_bytes().splitlines(keepends=True)
            if b'"labels_sha256"' not in line and b'"space"' not in line
        ]
        run.directory.journal_path.write_bytes(b"".join(kept))
        with pytest.raises(UserError, match="optimizer was 'adamw' and is 'adam'"):
            open_study(dataclasses.replace(run.config, optimizer="adam"), run.directory)
        assert run.directory.journal_path.read_bytes() == b"".join(kept)
        assert "space" in open_study(run.config, run.directory).attributes()

    def test_a_space_that_changed_is_refused_with_the_difference(self, tmp_path, monkeypatch):
        """As a new version of the package may do; stored trials would mean other values."""
        run = Run(tmp_path / "run")
        low, high = common.weight_range(run.study.space.context("mean_teacher", "mse"))
        monkeypatch.setattr(common, "weight_range", lambda context: (low, 10 * high))
        before = f"{low:g}, {(low * high) ** 0.5:g}, {high:g}"
        now = f"{low:g}, {(10 * low * high) ** 0.5:g}, {10 * high:g}"
        words = f"unlabeled_weight of mean_teacher / mse was {before} and is {now}"
        with pytest.raises(UserError, match=re.escape(words)):
            open_study(run.config, run.directory)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"max_steps": 81}, "max_steps was 27 and is 81"),
            ({"seed": 3}, "seed was 0 and is 3"),
            ({"alg": ("ict",)}, "alg was"),
            ({"optimizer": "sgd"}, "optimizer was 'adamw' and is 'sgd'"),
        ],
    )
    def test_settings_that_results_depend_on_may_not_change(self, tmp_path, change, words):
        run = Run(tmp_path / "run")
        with pytest.raises(UserError, match=words):
            open_study(dataclasses.replace(run.config, **change), run.directory)

    def test_goal_and_pace_may_and_are_written_down(self, tmp_path):
        run = Run(tmp_path / "run")
        changed = dataclasses.replace(run.config, trials=9, concurrency=2)
        assert open_study(changed, run.directory).trials == 9
        assert run.directory.read_config() == changed

    def test_settings_that_went_through_a_file_are_the_same(self, tmp_path):
        config = small_config(
            cpus_per_trial=1, entropy_min="search", divergence=("kl",), flip=False
        )
        run = Run(tmp_path / "run", config)
        open_study(run.directory.read_config(), run.directory)

    def test_fewer_trials_than_are_finished_are_refused(self, tmp_path):
        run = Run(tmp_path / "run").finish()
        before = run.directory.journal_path.read_bytes()
        for trials in (1, 5):
            with pytest.raises(UserError, match=f"trials is {trials} and run 'run' has finished 6"):
                open_study(dataclasses.replace(run.config, trials=trials), run.directory)
        assert run.directory.journal_path.read_bytes() == before
        assert open_study(run.config, run.directory).counts().finished == 6

    def test_a_run_with_trials_and_no_journal_is_refused(self, tmp_path):
        run = Run(tmp_path / "run").finish()
        run.directory.journal_path.unlink()
        with pytest.raises(UserError, match=r"has trials and its study\.journal is gone"):
            open_study(run.config, run.directory)
        assert not run.directory.journal_path.exists()

    def test_a_run_whose_folder_was_renamed_goes_on(self, tmp_path):
        run = Run(tmp_path / "run").finish()
        moved = RunDirectory(run.directory.path.rename(tmp_path / "other"))
        study = open_study(dataclasses.replace(run.config, trials=9), moved)
        assert study.counts().finished == 6

    def test_defaults_are_not_queued_again(self, tmp_path):
        Run(tmp_path / "run").finish()
        run = Run(tmp_path / "run", small_config(trials=9)).finish()
        defaults = [t.number for t in run.trials() if "published default" in t.user_attrs]
        assert defaults == [0]

    def test_a_torn_journal_is_mended_and_said_to_be(self, tmp_path):
        run = Run(tmp_path / "run").finish()
        with open(run.directory.journal_path, "ab") as journal:
            journal.write(b'{"op_code":8,"wor')
        console = Console(file=io.StringIO(), width=200)
        study = open_study(run.config, run.directory, console)
        assert (
            "warning: study.journal ended in 17 bytes of a torn record" in console.file.getvalue()
        )
        assert study.counts().finished == 6


def drained_run(path) -> tuple[Run, str]:
    """Return a run with one trial drained past its first rung, and that trial's checkpoint."""
    run = Run(path)
    workers = run.workers()
    workers.fill()
    while "rung 3" not in run.study.get_trial(0).user_attrs:
        workers.turn()
    run.driver.drain("SIGTERM")
    run.driver.close("drained")
    stored = run.study.get_trial(0).system_attrs["tune_ssl:checkpoint"]
    return run, stored["path"]


class TestCheckpointsOfWaitingTrials:
    def test_a_damaged_one_is_refused_before_anything_is_written(self, tmp_path):
        run = Run(tmp_path / "run")
        workers = run.workers()
        workers.fill()
        while "rung 3" not in run.study.get_trial(0).user_attrs:
            workers.turn()  # then the driver is killed: the trial is left running
        stored = run.file(run.study.get_trial(0).system_attrs["tune_ssl:checkpoint"]["path"])
        stored.write_bytes(stored.read_bytes()[:-1])
        before = run.directory.journal_path.read_bytes()
        with pytest.raises(UserError, match="damaged or half written"):
            open_study(run.config, run.directory)
        assert run.directory.journal_path.read_bytes() == before

    def test_one_that_is_gone_lets_its_trial_begin_anew(self, tmp_path):
        run, stored = drained_run(tmp_path / "run")
        run.file(stored).unlink()
        console = Console(file=io.StringIO(), width=200)
        study = open_study(run.config, run.directory, console)
        assert "trial 0 begins anew" in console.file.getvalue()
        assert study.next().checkpoint is None

    def test_one_that_cannot_be_read_now_is_refused_and_kept(self, tmp_path, monkeypatch):
        run, stored = drained_run(tmp_path / "run")
        before = run.directory.journal_path.read_bytes()

        def read(storage, path):
            raise TimeoutError(110, "Connection timed out")

        with monkeypatch.context() as patched:
            patched.setattr(RunStorage, "read", read)
            with pytest.raises(UserError, match=rf"{stored}.* cannot be read .*timed out"):
                open_study(run.config, run.directory)
        assert run.directory.journal_path.read_bytes() == before
        assert open_study(run.config, run.directory).next().checkpoint.path == stored

    def test_a_trial_that_begins_anew_has_made_progress_at_its_next_checkpoint(self, tmp_path):
        run, stored = drained_run(tmp_path / "run")
        continued = Run(tmp_path / "run")
        continued.workers().fill()  # from step 3
        continued.driver.close("drained")
        assert continued.study.get_trial(0).system_attrs["tune_ssl:began_at"] == 3
        run.file(stored).unlink()

        anew = Run(tmp_path / "run")
        workers = anew.workers(lengths=Lengths(slice_seconds=1.0, checkpoint_seconds=1.0))
        workers.fill()
        while not workers.turn()[0].checkpoint:
            pass
        assert anew.study.get_trial(0).system_attrs["tune_ssl:checkpoint"]["step"] < 3
        anew.driver.lost(0, 3, "gone")
        attributes = anew.study.get_trial(0).system_attrs
        assert attributes["tune_ssl:attempts_without_progress"] == 0

    @pytest.mark.parametrize("data", [b"", b"half"])
    def test_one_that_is_damaged_is_refused_by_its_name(self, tmp_path, data):
        run, stored = drained_run(tmp_path / "run")
        run.file(stored).write_bytes(data)
        with pytest.raises(UserError, match=rf"{stored}.* is damaged or half written"):
            open_study(run.config, run.directory)


class TestOutcome:
    def outcome(self, run: Run) -> workflow.Outcome:
        return workflow.outcome_of(run.driver, run.directory, tiny_images())

    def test_a_finished_search_is_done_and_its_best_are_written(self, tmp_path):
        run = Run(tmp_path / "run").finish()
        outcome = self.outcome(run)
        assert (outcome.exit_code, outcome.message) == (0, "6 trials finished")
        assert yaml.safe_load(run.directory.best_path.read_text()) == outcome.records
        assert outcome.records[0]["rank"] == 1

    def test_a_search_that_found_nothing_says_so(self, tmp_path):
        run = Run(tmp_path / "run")
        fault = Fault(where="run", error=OutOfMemoryError("out"))
        run.finish(factory=run.factory(faults={None: fault}))
        assert run.states() == ["PRUNED"] * 6
        outcome = self.outcome(run)
        assert outcome.exit_code == 4
        assert "no trial ended well; most often: the device had too little" in outcome.message

    def test_of_a_joint_search_it_says_where_the_trials_went(self, tmp_path):
        config = small_config(alg=("mean_teacher", "ict"), trials=8)
        run = Run(tmp_path / "run", config).finish()
        methods = [record["algorithm"] for record in self.outcome(run).records]
        drawn = [trial.params["algorithm"] for trial in run.trials()]
        assert self.outcome(run).notes[0] == (
            "trials (of full length): "
            f"mean_teacher / mse {drawn.count('mean_teacher')} ({methods.count('mean_teacher')}), "
            f"ict / mse {drawn.count('ict')} ({methods.count('ict')})"
        )

    @pytest.mark.parametrize(("tied", "told"), [(1, False), (2, True)])
    def test_a_ranking_that_means_nothing_is_said_to(self, tmp_path, tied, told):
        driver = Run(tmp_path / "run").driver
        records = [{"tied_with": list(range(tied))}, {}, {}]
        notes = workflow._notes(driver, records, 20)
        assert bool(notes) == told
        assert not told or "20 validation images tell none of the 3" in notes[0]

    def test_a_limit_is_three_and_resumable(self, tmp_path):
        run = Run(tmp_path / "run", limits=Limits(seconds=50.0)).finish()
        outcome = self.outcome(run)
        assert outcome.exit_code == 3
        assert "time limit reached" in outcome.message
        assert f"resume {run.directory.path}" in outcome.message

    @pytest.mark.parametrize("limit", ["seconds", "device_seconds"])
    def test_a_limit_reached_when_all_is_done_is_no_limit(self, tmp_path, limit):
        whole = Run(tmp_path / "whole").finish()
        limits = Limits(**{limit: whole.driver.device_seconds()})
        run = Run(tmp_path / "run", limits=limits).finish()
        assert run.driver.counts().finished == 6
        assert self.outcome(run).exit_code == 0

    def test_a_signal_is_130_and_resumable(self, tmp_path):
        run = Run(tmp_path / "run")
        run.driver.drain("SIGTERM")
        run.finish()
        outcome = self.outcome(run)
        assert outcome.exit_code == 130
        assert "SIGTERM" in outcome.message
        assert "resume" in outcome.message
        assert not run.directory.best_path.exists()

    def test_a_hopeless_search_is_four(self, tmp_path):
        run = Run(tmp_path / "run", small_config(trials=20))
        run.finish(factory=run.factory(faults={None: Fault(where="run")}))
        outcome = self.outcome(run)
        assert outcome.exit_code == 4
        assert "the work broke" in outcome.message

    def test_so_is_one_in_which_every_trial_failed_in_its_own_way(self, tmp_path):
        run = Run(tmp_path / "run", small_config(trials=2))
        faults = {n: Fault(where="run", error=ValueError(str(n))) for n in range(2)}
        run.finish(factory=run.factory(faults=faults))
        assert self.outcome(run).exit_code == 4

    def test_one_that_ended_without_a_reason_is_one(self, tmp_path):
        run = Run(tmp_path / "run")
        run.driver.close("Ray was lost")
        outcome = self.outcome(run)
        assert outcome.exit_code == 1
        assert "resume" in outcome.message

    def test_the_end_is_an_event(self, tmp_path):
        run = Run(tmp_path / "run").finish()
        self.outcome(run)
        last = yaml.safe_load(run.file("events.jsonl").read_text().splitlines()[-1])
        assert (last["event"], last["exit_code"]) == ("finished", 0)


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_drains_and_the_second_stops_at_once(self, tmp_path, number):
        drivers = Drivers.of(Run(tmp_path / "run").driver)
        reached = []
        with process.draining_signals(drivers):
            os.kill(os.getpid(), number)
            assert drivers.draining == signal.Signals(number).name
            reached.append("after the first")
            os.kill(os.getpid(), number)
            reached.append("after the second")
        assert reached == ["after the first"]

    def test_afterwards_they_mean_what_they_meant_before(self, tmp_path):
        drivers = Drivers.of(Run(tmp_path / "run").driver)
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with pytest.raises(ValueError, match="in the body"), process.draining_signals(drivers):
            raise ValueError("in the body")
        after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        assert before == after

    def test_before_there_is_a_search_sigterm_interrupts_as_ctrl_c_does(self):
        before = signal.getsignal(signal.SIGTERM)
        try:
            process.let_sigterm_interrupt()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)


class TestStdout:
    script = """
import os
from tune_ssl.workflows.process import stdout_to_stderr
print("before")
with stdout_to_stderr():
    os.write(1, b"noise of a library\\n")
    print("noise of ours")
print("a result")
"""

    def test_what_is_printed_during_a_run_goes_to_stderr(self):
        root = Path(__file__).parents[2]
        ended = subprocess.run(
            [sys.executable, "-c", self.script],
            env=os.environ | {"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout == "before\na result\n"
        assert ended.stderr == "noise of a library\nnoise of ours\n"


class TestUnusable:
    def test_a_new_run_that_cannot_begin_leaves_nothing(self, tmp_path):
        directory = Run(tmp_path / "run").directory
        with pytest.raises(UserError), driving.removed_if_unusable(directory):
            raise UserError("the storage cannot be written")
        assert tree(tmp_path) == {}

    def test_one_that_ends_for_another_reason_stays(self, tmp_path):
        directory = Run(tmp_path / "run").directory
        with pytest.raises(KeyboardInterrupt), driving.removed_if_unusable(directory):
            raise KeyboardInterrupt
        assert directory.config_path.exists()
