"""A suggestion is a function of seed, trial number and history, however often a search is stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import TrialState
from scipy import stats

from ssl_core.names import ALGORITHM_NAMES
from tests.tune_ssl.fakes import begin, make_study, quality, records_of, small_space, study_on
from tune_ssl.sampler import History, _ShownTPESampler, make_sampler
from tune_ssl.study import Verdict

pytestmark = pytest.mark.usefixtures("no_fsync")

SPACES = {
    "single": small_space(),
    "joint": small_space(ALGORITHM_NAMES),
    "divergences": small_space(("ict", "vat"), ("mse", "kl", "js")),
}
SAMPLERS = ("tpe", "random")
TRIALS = 13  # the first ten of tpe are start-up points

CREATE, SET_PARAMETER = 4, 5
"""Optuna's operation codes of a new trial and of one of its parameters."""

every_space = pytest.mark.parametrize("space", SPACES)
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def options(space: str, sampler: str, **changes):
    return {"space": SPACES[space], "sampler": sampler, "trials": TRIALS, "seed": 3} | changes


def values_of(suggestion) -> tuple[float, float, float]:
    """Return values at the three rungs that depend on the suggestion alone."""
    best = quality(suggestion.parameters)
    return (0.3 * best, 0.6 * best, best)


def finish(study, assignment) -> None:
    """Run one trial to its end, wherever it stands."""
    number, attempt = assignment.number, assignment.attempt
    first, second, last = values_of(assignment.suggestion)
    for step, value in ((3, first), (9, second)):
        if study.report(number, attempt, step, value) is Verdict.STOP:
            return
    study.complete(number, attempt, last, {})


def run_to_the_end(study) -> list[dict]:
    """Run a search one trial at a time; return every trial's parameters."""
    study.recover("killed")
    while (assignment := study.next()) is not None:
        study.start(assignment.number, assignment.attempt)
        finish(study, assignment)
    return [trial.params for trial in study.get_trials()]


def uninterrupted(path: Path, **settings) -> list[dict]:
    return run_to_the_end(study_on(path, **settings))


@every_space
@every_sampler
def test_a_search_reopened_before_every_trial_suggests_what_the_uninterrupted_one_does(
    tmp_path, space, sampler
):
    settings = options(space, sampler)
    expected = uninterrupted(tmp_path / "whole", **settings)
    for _ in range(TRIALS):
        study = study_on(tmp_path / "parts", **settings)
        finish(study, begin(study))
    found = [trial.params for trial in study_on(tmp_path / "parts", **settings).get_trials()]
    assert found == expected
    assert len(expected) == TRIALS


@every_space
@every_sampler
def test_nor_does_it_matter_where_in_a_trial_it_is_reopened(tmp_path, space, sampler):
    settings = options(space, sampler)
    expected = uninterrupted(tmp_path / "whole", **settings)
    path = tmp_path / "parts"
    for number in range(TRIALS):
        study = study_on(path, **settings)
        assignment = begin(study)
        assert assignment.number == number
        if number % 2:
            study.report(number, 1, 3, values_of(assignment.suggestion)[0])
        study = study_on(path, **settings)
        study.recover("killed")
        if study.get_trial(number).state.is_finished():
            continue
        finish(study, begin(study))
    assert [trial.params for trial in study_on(path, **settings).get_trials()] == expected


def stopped_at_every_record(tmp_path: Path, number: int, settings, *, suggesting: bool):
    """Yield (records there, parameters of what follows, those of the uninterrupted search).

    The journal is cut after every record of one trial, and the search is continued for one more;
    ``suggesting`` chooses the cuts between two parameters of a suggestion, or all others.
    """
    path = tmp_path / "whole"
    expected = uninterrupted(path, **settings)
    records, lines = records_of(path), path.read_bytes().splitlines(keepends=True)
    begins, ends = [place for place, record in enumerate(records) if record["op_code"] == CREATE][
        number : number + 2
    ]
    for place in range(begins, ends):
        between = (
            place + 1 < len(records)
            and records[place + 1]["op_code"] == SET_PARAMETER
            and records[place]["op_code"] == SET_PARAMETER
        )
        if between is not suggesting:
            continue
        cut = tmp_path / f"cut-{place}"
        cut.write_bytes(b"".join(lines[: place + 1]))
        study = study_on(cut, **settings | {"trials": number + 2})
        yield place, run_to_the_end(study), expected[: number + 2]


@every_space
@every_sampler
@pytest.mark.parametrize("number", [2, 11])
def test_a_search_killed_after_any_record_of_a_trial_goes_on_alike(
    tmp_path, space, sampler, number
):
    found = list(
        stopped_at_every_record(tmp_path, number, options(space, sampler), suggesting=False)
    )
    assert len(found) >= 4
    assert [place for place, params, expected in found if params != expected] == []


@every_space
@every_sampler
@pytest.mark.parametrize("number", [2, 11])
def test_a_search_killed_between_two_parameters_of_a_suggestion_goes_on_alike(
    tmp_path, space, sampler, number
):
    found = list(
        stopped_at_every_record(tmp_path, number, options(space, sampler), suggesting=True)
    )
    assert len(found) >= 2
    assert [place for place, params, expected in found if params != expected] == []


@every_space
@every_sampler
def test_two_seeds_differ_in_every_trial(space, sampler):
    one, other = (run_to_the_end(make_study(**options(space, sampler, seed=s))) for s in (0, 1))
    rates = [[trial["learning_rate"] for trial in trials] for trials in (one, other)]
    assert len(set(rates[0])) == len(set(rates[1])) == TRIALS
    assert set(rates[0]).isdisjoint(rates[1])


@every_space
@every_sampler
def test_the_same_seed_gives_the_same_search(space, sampler):
    one, other = (run_to_the_end(make_study(**options(space, sampler))) for _ in range(2))
    assert one == other


@every_sampler
@pytest.mark.parametrize("stop", [1, 4, 9])
def test_start_up_points_are_not_redrawn_after_a_restart(tmp_path, sampler, stop):
    """Optuna's own sampler, made again with the same seed, draws its first points once more."""
    settings = options("single", sampler)
    path = tmp_path / "journal"
    study = study_on(path, **settings)
    for _ in range(stop):
        finish(study, begin(study))
    run_to_the_end(study_on(path, **settings))
    rates = [trial.params["learning_rate"] for trial in study_on(path, **settings).get_trials()]
    assert len(set(rates)) == TRIALS


@every_sampler
def test_with_several_at_a_time_a_replay_in_the_same_order_suggests_the_same(tmp_path, sampler):
    """Three trials at a time; the one that began second always ends first."""

    def search(path, reopen):
        settings = options("joint", sampler)
        study, running = study_on(path, **settings), []
        while True:
            if reopen:
                study = study_on(path, **settings)
            while len(running) < 3 and (assignment := study.next()) is not None:
                study.start(assignment.number, assignment.attempt)
                running.append(assignment)
            if not running:
                return [trial.params for trial in study.get_trials()]
            finish(study, running.pop(min(1, len(running) - 1)))

    assert search(tmp_path / "one", False) == search(tmp_path / "other", True)


@every_space
@every_sampler
def test_trials_suggested_from_the_same_history_differ(space, sampler):
    """Past the start-up points, too: nothing but the number tells them apart there."""
    study = make_study(**options(space, sampler))
    for _ in range(10):
        finish(study, begin(study))
    rates = [begin(study).suggestion.parameters["learning_rate"] for _ in range(3)]
    assert len(set(rates)) == 3


@every_sampler
def test_parameters_sampled_alone_depend_on_their_names_and_not_on_their_order(sampler):
    def draw(*names):
        trial = optuna.create_study(sampler=make_sampler(sampler, 3)).ask()
        return {name: trial.suggest_float(name, 0.0, 1.0) for name in names}

    drawn = draw("x", "y", "z")
    assert len(set(drawn.values())) == 3
    assert draw("z", "y", "x") == drawn
    assert draw("y") == {"y": drawn["y"]}


SEARCH = """
import json, sys
from tests.tune_ssl.test_sampler import make_study, options, run_to_the_end
print(json.dumps(run_to_the_end(make_study(**options(*sys.argv[1:])))))
"""


@every_sampler
def test_another_process_suggests_the_same_whatever_its_string_hashes(sampler):
    expected = run_to_the_end(make_study(**options("joint", sampler)))
    root = Path(__file__).parents[2]
    for hash_seed in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-c", SEARCH, "joint", sampler],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(ended.stdout) == expected


@every_sampler
def test_joint_suggestions_come_from_every_method_and_lie_in_its_space(sampler):
    study = make_study(**options("joint", sampler, trials=60))
    chosen = set()
    while (assignment := study.next()) is not None:
        suggestion = assignment.suggestion
        chosen.add(suggestion.algorithm)
        assert 3e-5 <= suggestion.parameters["learning_rate"] <= 3e-2
        assert ("mixup_alpha" in suggestion.parameters) == (
            suggestion.algorithm in ("ict", "mixmatch")
        )
        study.start(assignment.number, 1)
        finish(study, assignment)
    assert chosen == set(ALGORITHM_NAMES)


# What a sampler is shown.


def history_of(outcomes) -> optuna.Study:
    """Return a study with a trial for each (state, value, values at rungs)."""
    study = optuna.create_study(direction="maximize")
    for state, value, rungs in outcomes:
        trial = optuna.trial.create_trial(
            state=state,
            value=value,
            params={"x": 0.5},
            distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            intermediate_values=rungs,
        )
        study.add_trial(trial)
    return study


def random_outcomes(count: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        values = dict(zip((3, 9), generator.random(2).tolist(), strict=True))
        kind = generator.integers(5)
        if kind == 0:
            yield TrialState.COMPLETE, float(generator.random()), values
        elif kind == 1:
            yield TrialState.FAIL, None, values
        elif kind == 2:
            yield TrialState.PRUNED, values[9], values
        elif kind == 3:
            yield TrialState.PRUNED, values[3], {3: values[3]}
        else:
            yield TrialState.PRUNED, None, {3: values[3]}


def test_a_short_history_is_shown_whole_but_for_failures():
    study = history_of(random_outcomes(200))
    shown = [trial.number for trial in History().of(study)]
    assert shown == [t.number for t in study.trials if t.state != TrialState.FAIL]


@pytest.mark.parametrize("best", [1, 10, 60, 100])
def test_of_a_long_one_the_best_by_tpes_own_order_are_shown_and_a_sample(best):
    study = history_of(random_outcomes(400))
    rest = History().of(study)
    below, _ = _split_trials(study, rest, best)
    sampled = {trial.number for trial in History(best=0, others=30).of(study)}
    assert len(sampled) == 30
    shown = [trial.number for trial in History(best=best, others=30).of(study)]
    assert shown == sorted({trial.number for trial in below} | sampled)


def test_every_trial_is_as_likely_to_be_in_the_sample():
    """Of tenths of a long study, each has its tenth of the sample, whatever became of its trials."""
    study = history_of([(TrialState.COMPLETE, float(number), {}) for number in range(5000)])
    sampled = [trial.number for trial in History(best=0, others=1000).of(study)]
    tenths = np.bincount(np.array(sampled) // 500, minlength=10)
    assert stats.chisquare(tenths).pvalue > 0.01


def test_what_diverged_after_a_rung_is_worse_than_what_was_cut_before_it():
    diverged = (TrialState.PRUNED, None, {3: 0.9, 9: 0.9})
    cut = (TrialState.PRUNED, 0.1, {3: 0.1})
    study = history_of([diverged, cut])
    assert [trial.number for trial in _split_trials(study, study.trials, 1)[0]] == [0]
    assert [trial.number for trial in _split_trials(study, History().of(study), 1)[0]] == [1]
    assert study.trials[0].intermediate_values == {3: 0.9, 9: 0.9}


def test_it_does_not_matter_when_the_history_was_looked_at():
    outcomes = list(random_outcomes(300, seed=1))
    looking, study = History(best=20, others=10), history_of([])
    order = np.random.default_rng(2).permutation(len(outcomes)).tolist()
    running = [study.ask() for _ in outcomes]
    for place, number in enumerate(order):
        state, value, rungs = outcomes[number]
        for step, at_rung in rungs.items():
            running[number].report(at_rung, step)
        if value is None and state == TrialState.PRUNED:
            study._storage.set_trial_state_values(running[number]._trial_id, state)
        else:
            study.tell(running[number], value if state == TrialState.COMPLETE else None, state)
        if place % 7 == 0:
            looking.of(study)
    assert looking.of(study) == History(best=20, others=10).of(study)


class OptunasOwn(TPESampler):
    """Optuna's TPE, which remembers what it chose between."""

    def _compute_acquisition_func(self, samples, *densities):
        self.candidates = samples
        self.gains = super()._compute_acquisition_func(samples, *densities)
        return self.gains


class Finished:
    """A study as Optuna's TPE sees it, but for failures and trials that still run."""

    def __init__(self, shown) -> None:
        self.shown = shown

    def __getattr__(self, name):
        return getattr(self.shown, name)

    def _get_trials(self, deepcopy=True, states=None, use_cache=False):
        trials = self.shown._study._get_trials(deepcopy=False, use_cache=True)
        allowed = states or (TrialState.COMPLETE, TrialState.PRUNED)
        return [trial for trial in trials if trial.state in allowed]


@every_space
def test_what_is_suggested_is_what_optunas_own_sampler_suggests(monkeypatch, space):
    """Its trials are other objects, with the numbers worked out once; TPE makes the same of them.

    But for rounding (test_parzen.py), which decides between candidates that are equally good.
    """
    ours, compared = _ShownTPESampler._sample, []

    def both(sampler, shown, trial, search_space):
        other = OptunasOwn(multivariate=False)
        other._rng.rng.set_state(sampler._rng.rng.get_state())
        found = ours(sampler, shown, trial, search_space)
        theirs = TPESampler._sample(other, Finished(shown), trial, search_space)
        ((name, distribution),) = search_space.items()
        place = distribution.to_internal_repr(found[name])
        nearest = np.argmin(np.abs(other.candidates[name] - place))
        assert other.candidates[name][nearest] == pytest.approx(place, rel=1e-6)
        assert other.gains[nearest] == pytest.approx(other.gains.max(), abs=1e-9)
        other_place = distribution.to_internal_repr(theirs[name])
        compared.append(place == pytest.approx(other_place, rel=1e-6))
        return found

    monkeypatch.setattr(_ShownTPESampler, "_sample", both)
    run_to_the_end(make_study(**options(space, "tpe", trials=40)))
    assert len(compared) > 100
    assert np.mean(compared) > 0.95


def test_a_sampler_that_is_seeded_draws_as_one_that_was_made_with_the_seed():
    seeded, made = _ShownTPESampler(seed=1), TPESampler(seed=5)
    seeded._rng.rng.normal()
    seeded.seed(5)
    for one, other in ((seeded, made), (seeded._random_sampler, made._random_sampler)):
        assert one._rng.rng.normal() == other._rng.rng.normal()


def test_a_suggestion_of_tpe_rests_on_what_is_shown(monkeypatch):
    def twenty_first():
        study = make_study(trials=30)
        for _ in range(20):
            finish(study, begin(study))
        return begin(study).suggestion

    informed = twenty_first()
    assert twenty_first() == informed
    monkeypatch.setattr("tune_ssl.sampler.History.of", lambda self, study: [])
    assert twenty_first() != informed
