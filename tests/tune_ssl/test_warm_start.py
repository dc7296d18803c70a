"""What an earlier run gives a new search, and what it does not."""

from __future__ import annotations

import dataclasses
import io
import shutil
import statistics

import pytest
from optuna.trial import FixedTrial
from rich.console import Console

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import Run, open_study, outcome, quality, small_config, tiny_images
from tune_ssl.run import RunConfig, RunDirectory
from tune_ssl.views.export import export_records
from tune_ssl.workflows.opening import describe_warm_start, trials_to_start_from

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Run:
    """Return a finished run of 40 trials."""
    path = tmp_path_factory.mktemp("runs") / "earlier"
    return Run(path, small_config(trials=40, seed=1)).finish()


def following(earlier: Run, **changes) -> RunConfig:
    return small_config(warm_start=str(earlier.directory.path), **changes)


def suggested(run: Run) -> list[float]:
    """Return how good the parameters are that the sampler chose, in order."""
    return [
        quality(run.config.space(10).suggest(FixedTrial(trial.params)).parameters)
        for trial in run.trials()
        if "published default" not in trial.user_attrs
    ]


def test_its_trials_inform_the_first_suggestions(earlier, tmp_path):
    warm = Run(tmp_path / "warm", following(earlier, trials=9)).finish()
    cold = Run(tmp_path / "cold", small_config(trials=9)).finish()
    assert statistics.median(suggested(warm)) > statistics.median(suggested(cold)) + 0.1


def test_they_are_not_trials_of_the_new_search(earlier, tmp_path):
    run = Run(tmp_path / "warm", following(earlier)).finish()
    assert run.study.counts().finished == len(run.trials()) == 6
    assert [trial.number for trial in run.trials()] == list(range(6))
    records = export_records(run.config, run.trials(), 10, None)
    assert {record["trial"] for record in records} <= set(range(6))
    decisions = [t.user_attrs["rung 3"] for t in run.trials() if "rung 3" in t.user_attrs]
    assert [decision["population"] for decision in decisions] == list(range(len(decisions)))


def test_a_resume_needs_the_earlier_run_no_more(earlier, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(earlier.directory.path, copy)
    whole = Run(tmp_path / "whole", following(earlier, trials=12)).finish()
    config = dataclasses.replace(whole.config, warm_start=str(copy), trials=5)
    Run(tmp_path / "parts", config).finish()
    shutil.rmtree(copy)
    parts = Run(tmp_path / "parts", dataclasses.replace(config, trials=12)).finish()
    assert outcome(parts.trials()) == outcome(whole.trials())


def test_what_lies_outside_is_left_out_and_counted(tmp_path):
    several = small_config(alg=("mean_teacher", "ict"), divergence=("mse", "kl"), trials=30)
    first = Run(tmp_path / "first", several).finish()
    taken = trials_to_start_from(following(first, divergence=("kl", "js")), tiny_images())
    cells = [first.config.space(10).suggest(FixedTrial(t.params)) for t in first.trials()]
    agreeing = [
        number
        for number, cell in enumerate(cells)
        if (cell.algorithm, cell.divergence) == ("mean_teacher", "kl")
    ]
    assert [foreign.trial for foreign in taken.trials] == agreeing
    assert taken.left_out == 30 - len(agreeing) > 0
    assert "algorithm" not in taken.trials[0].params
    assert taken.trials[0].params["divergence"] == "kl"
    assert describe_warm_start(taken) == (
        f"warm start: {len(agreeing)} trials of run 'first' inform the sampler, "
        f"{taken.left_out} lie outside what is searched"
    )


def test_a_sampler_sees_them_as_they_ended(earlier):
    taken = trials_to_start_from(following(earlier), tiny_images())
    frozen = taken.frozen(earlier.config.space(10))
    assert [trial.number for trial in frozen] == list(range(-len(frozen), 0))
    own = [t for t in earlier.trials() if t.state.name in ("COMPLETE", "PRUNED")]
    for foreign, trial in zip(frozen, own, strict=True):
        assert (foreign.state, foreign.values) == (trial.state, trial.values)
        assert foreign.params == pytest.approx(trial.params, rel=1e-5)
        assert foreign.distributions == trial.distributions
        assert foreign.intermediate_values == trial.intermediate_values


def test_the_search_says_what_it_took(earlier, tmp_path):
    directory = RunDirectory(tmp_path / "said")
    directory.create()
    console = Console(file=io.StringIO(), width=200)
    config = following(earlier)
    open_study(config, directory, console)
    assert "40 trials of run 'earlier' inform the sampler" in console.file.getvalue()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_steps": 81}, "max_steps is 81 and was 27"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd' and was 'adamw'"),
        ({"split_seed": 1}, "split_seed is 1 and was 0"),
        ({"reshuffle_validation": True}, "reshuffle_validation is True and was False"),
        ({"evaluate": "student"}, "evaluate is 'student' and was 'ema'"),
    ],
)
def test_values_that_do_not_compare_are_refused(earlier, changes, words):
    with pytest.raises(UserError, match=f"do not compare .*{words}"):
        trials_to_start_from(following(earlier, **changes), tiny_images())


def test_so_are_other_labels(earlier):
    other = dataclasses.replace(tiny_images(), labels=tiny_images().labels[::-1].copy())
    with pytest.raises(UserError, match=r"do not compare .*\(labels_sha256\)"):
        trials_to_start_from(following(earlier), other)


def test_so_are_other_images(earlier):
    other = dataclasses.replace(tiny_images(), images=tiny_images().images + 1)
    with pytest.raises(UserError, match=r"do not compare .*\(images_crc32\)"):
        trials_to_start_from(following(earlier), other)


@pytest.mark.parametrize(
    "changes", [{"seed": 9}, {"grace": 5}, {"scheduler": "none"}, {"cpus_per_trial": 2.0}]
)
def test_what_values_do_not_depend_on_may_differ(earlier, changes):
    assert len(trials_to_start_from(following(earlier, **changes), tiny_images()).trials) == 40


def test_a_run_with_nothing_to_give_is_refused(earlier):
    with pytest.raises(UserError, match="no finished trial that lies in what is searched"):
        trials_to_start_from(following(earlier, alg=("ict",)), tiny_images())


def test_so_is_one_whose_values_would_have_to_be_moved(tmp_path):
    searched = small_config(entropy_min="search", trials=8)
    earlier = Run(tmp_path / "earlier", searched).finish()
    with pytest.raises(UserError, match=r"no finished trial .*\(8 lie outside\)"):
        trials_to_start_from(following(earlier), tiny_images())


def test_random_draws_learn_from_nothing(earlier):
    with pytest.raises(UserError, match="warm-start was given with sampler random"):
        following(earlier, sampler="random")


def test_something_that_is_no_run_is_refused():
    with pytest.raises(UserError, match="'nowhere' is no run"):
        trials_to_start_from(small_config(warm_start="nowhere"), tiny_images())
