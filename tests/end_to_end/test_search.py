"""The main job: search, look, export, train again; with a real Ray on this host."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from tests.end_to_end.command import FAULTS, SMALL, outcome_of, run, trials_of
from tests.marks import needs_a_compiler

pytestmark = pytest.mark.slow

RECORD_KEYS = {
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """Run one search over two methods with the dashboard on; return its folder and its output."""
    cwd = tmp_path_factory.mktemp("search")
    ended = run(
        *("--alg", "ict,supervised", "--divergence", "mse,kl", "--max-steps", "18"),
        *("--trials", "8", "--name", "main", "--format", "json"),
        cwd=cwd,
    )
    assert ended.returncode == 0, ended.stderr
    return cwd, ended


def test_stdout_is_json_and_nothing_else(finished):
    _, ended = finished
    records = json.loads(ended.stdout)
    assert records
    assert all(set(record) >= RECORD_KEYS for record in records)
    assert [record["rank"] for record in records] == list(range(1, len(records) + 1))


def test_messages_name_the_run_the_dashboard_and_how_to_get_past_its_token(finished):
    _, ended = finished
    for text in (
        "run: ",
        "dashboard: http://127.0.0.1:",
        "get-auth-token",
        "8 trials finished",
    ):
        assert text in ended.stderr


def test_every_trial_is_finished_once_and_the_first_are_the_published_defaults(finished):
    cwd, _ = finished
    trials = trials_of(cwd / "runs" / "main")
    assert [trial.number for trial in trials] == list(range(8))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    defaults = [trial for trial in trials if "published default" in trial.user_attrs]
    assert [trial.number for trial in defaults] == [0, 1, 2]
    assert all(trial.state == TrialState.COMPLETE for trial in defaults)


def test_a_cut_trial_keeps_the_report_that_stopped_it_and_the_numbers_of_the_decision(finished):
    cwd, _ = finished
    cut = [t for t in trials_of(cwd / "runs" / "main") if t.state == TrialState.PRUNED]
    assert cut
    for trial in cut:
        step = trial.last_step
        decision = trial.user_attrs[f"rung {step}"]
        assert decision["value"] == trial.value == trial.intermediate_values[step]
        assert not decision["kept"]
        assert decision["value"] < decision["cutoff"]


def test_the_run_folder_holds_what_a_reader_expects(finished):
    cwd, _ = finished
    folder = cwd / "runs" / "main"
    names = {entry.name for entry in folder.iterdir()}
    expected = {"config.yaml", "environment.json", "split.json", "study.journal", "events.jsonl"}
    assert names >= expected | {"best.yaml", "trials"}
    described = json.loads((folder / "environment.json").read_text())
    assert set(described) >= {"processor", "cores", "versions"}
    assert len(json.loads((folder / "split.json").read_text())["labeled"]) == 20
    assert not list(folder.glob("trials/*/attempt-*")), "checkpoints outlive their trials"
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert settings["labels"] == 20
    assert settings["device"] == "cpu"


def test_train_reproduces_the_exported_accuracy_exactly(finished):
    cwd, _ = finished
    ended = run("train", "runs/main/best.yaml", "--format", "json", cwd=cwd)
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads(ended.stdout)
    assert metrics["validation_accuracy"] == metrics["exported_validation_accuracy"]
    weights = cwd / "trained" / "weights.safetensors"
    best = yaml.safe_load((cwd / "runs/main/best.yaml").read_text())[0]
    assert weights.read_bytes() == (cwd / "runs/main" / best["weights"]).read_bytes()


def test_status_and_export_agree_with_the_search(finished):
    cwd, ended = finished
    told = json.loads(run("status", "main", "--format", "json", cwd=cwd).stdout)
    assert told["counts"]["finished"] == 8
    exported = run("export", "main", "--format", "json", "--top", "2", cwd=cwd)
    assert json.loads(exported.stdout) == json.loads(ended.stdout)[:2]


def test_a_new_search_starts_from_an_export(finished):
    cwd, _ = finished
    ended = run(
        *("--config", "runs/main/best.yaml", "--trials", "4", "--name", "again"),
        *("--no-dashboard", "--format", "json"),
        cwd=cwd,
    )
    assert ended.returncode == 0, ended.stderr
    best = yaml.safe_load((cwd / "runs/main/best.yaml").read_text())
    tried = [trial for trial in trials_of(cwd / "runs" / "again") if trial.params]
    assert len(tried) == 4  # more may be queued
    assert "published default" in tried[0].user_attrs
    given = [trial for trial in tried if trial.user_attrs.get("started from") == "--config"]
    rates = {round(record["parameters"]["learning_rate"], 6) for record in best}
    assert given
    assert {round(trial.params["learning_rate"], 6) for trial in given} <= rates


def test_with_one_trial_at_a_time_a_search_is_reproducible(tmp_path: Path):
    for name in ("one", "two"):
        ended = run(
            *SMALL,
            "--trials",
            "6",
            "--concurrency",
            "1",
            "--name",
            name,
            "--seed",
            "3",
            cwd=tmp_path,
        )
        assert ended.returncode == 0, ended.stderr
    assert outcome_of(tmp_path / "runs/one") == outcome_of(tmp_path / "runs/two")


@needs_a_compiler
def test_compiled_it_trains_goes_on_and_is_trained_again_where_there_is_a_compiler(tmp_path: Path):
    small = (*SMALL, "--compile", "--name", "compiled")
    refused = run(*small, "--trials", "2", cwd=tmp_path, CXX="no-such-compiler")
    assert refused.returncode == 2
    assert "this host has no C++ compiler (no-such-compiler)" in refused.stderr
    assert not (tmp_path / "runs").exists()
    ended = run(*small, "--trials", "2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    refused = run("resume", "compiled", "--trials", "3", cwd=tmp_path, CXX="no-such-compiler")
    assert refused.returncode == 2
    assert len(trials_of(tmp_path / "runs/compiled")) == 2
    assert run("resume", "compiled", "--trials", "3", cwd=tmp_path).returncode == 0
    states = [trial.state.name for trial in trials_of(tmp_path / "runs/compiled")]
    assert len(states) == 3
    assert "FAIL" not in states
    trained = run("train", "runs/compiled/best.yaml", "--format", "json", cwd=tmp_path)
    metrics = json.loads(trained.stdout)
    assert metrics["validation_accuracy"] == metrics["exported_validation_accuracy"]
    elsewhere = ("train", "runs/compiled/best.yaml", "--output", "elsewhere")
    assert run(*elsewhere, cwd=tmp_path, CXX="no-such-compiler").returncode == 2
    assert run(*elsewhere, "--no-compile", cwd=tmp_path, CXX="no-such-compiler").returncode == 0


def test_gpus_that_are_not_there_are_refused_and_nothing_is_written(tmp_path: Path):
    ended = run(*SMALL, "--gpus-per-trial", "0.5", "--device", "cuda", cwd=tmp_path)
    if ended.returncode == 0:
        pytest.skip("this host has a GPU")
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert "there are none" in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_a_time_limit_ends_the_search_with_its_own_code_and_leaves_nothing_running(tmp_path: Path):
    began = time.monotonic()
    assert run(*SMALL, "--trials", "1", "--name", "quick", cwd=tmp_path).returncode == 0
    limit = time.monotonic() - began + 5.0  # by then Ray has started, and a trial of minutes runs
    ended = run(
        *("--alg", "ict", "--max-steps", "100000", "--trials", "50", "--no-dashboard"),
        *("--time-limit", f"{limit:.0f}s", "--name", "short"),
        cwd=tmp_path,
        PYTHONPATH=FAULTS,
        TUNE_SSL_SLICE="0.5",
    )
    assert ended.returncode == 3, ended.stderr
    assert "resume" in ended.stderr
    trials = trials_of(tmp_path / "runs/short")
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    stored = [trial for trial in trials if "tune_ssl:checkpoint" in trial.system_attrs]
    assert stored, "no trial was running when the time was over"
    assert all(trial.state == TrialState.WAITING for trial in stored)
