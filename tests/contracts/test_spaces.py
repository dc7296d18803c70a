"""One contract over every search space: names, draws, published defaults, replay, joint studies."""

from __future__ import annotations

import dataclasses
import math
import warnings

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FixedTrial

from search_spaces import SEARCH_SPACES
from search_spaces.common import (
    GivenTrial,
    SpaceContext,
    position_from_weight,
    threshold_from_gap,
    weight_from_position,
    weight_range,
)
from search_spaces.joint import StudySpace
from ssl_core.algorithms import ALGORITHMS
from ssl_core.errors import UserError
from ssl_core.names import (
    DIVERGENCE_NAMES,
    OPTIMIZER_NAMES,
    SEARCHED_DIVERGENCE_NAMES,
)
from ssl_core.published import published_default, published_divergence
from ssl_core.training.config import TRAINING_PARAMETERS, TrainingConfig

# Parameters searched on another scale than the Config field of their name.
SCALES = {"unlabeled_weight_u": "unlabeled_weight", "threshold_gap": "threshold"}
# Published values that a search moves on purpose: no decay to the smallest one, a long ramp to the
# first rung, a long average to a tenth of the budget.
MOVED = {"weight_decay", "ramp_fraction", "ema_horizon"}

CELLS = [
    (algorithm, divergence)
    for algorithm in ALGORITHMS
    for divergence in (DIVERGENCE_NAMES if published_divergence(algorithm) else (None,))
    if (algorithm, divergence) != ("pseudo_label", "reverse_kl")
]
OVER_CELLS = pytest.mark.parametrize(("algorithm", "divergence"), CELLS)
OVER_METHODS = pytest.mark.parametrize("algorithm", ALGORITHMS)


def context(algorithm, divergence, **values) -> SpaceContext:
    given = {"num_classes": 10, "max_steps": 450, "first_rung": 1 / 9} | values
    return SpaceContext(algorithm=algorithm, divergence=divergence, **given)


def study_space(*algorithms: str, divergences: tuple[str, ...] = (), **values) -> StudySpace:
    given = {"num_classes": 10, "max_steps": 450, "first_rung": 1 / 9} | values
    return StudySpace(algorithms=algorithms, divergences=divergences, **given)


def fields_of(algorithm: str) -> set[str]:
    return {field.name for field in dataclasses.fields(ALGORITHMS[algorithm].Config)}


def random_study(seed: int = 0) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))


def make_config(algorithm, divergence, parameters, **settings) -> TrainingConfig:
    """Return the training that these parameters describe; the method's Config is made from them."""
    method = {name: value for name, value in parameters.items() if name not in TRAINING_PARAMETERS}
    if divergence is not None:
        method["divergence"] = divergence
    config = TrainingConfig.from_record(
        {"algorithm": algorithm, "divergence": divergence, "parameters": parameters, **settings}
    )
    assert config.method == ALGORITHMS[algorithm].Config(**method)
    return config


def test_there_is_a_space_for_every_algorithm():
    assert tuple(SEARCH_SPACES) == tuple(ALGORITHMS)


@OVER_CELLS
def test_a_hundred_random_draws_make_valid_trainings_and_replay(algorithm, divergence):
    study, own = random_study(), context(algorithm, divergence)
    seen = set()
    for _ in range(100):
        trial = study.ask()
        parameters = SEARCH_SPACES[algorithm](trial, own)
        config = make_config(algorithm, divergence, parameters)
        record = config.to_record()
        assert TrainingConfig.from_record(record) == config
        assert {name: record["parameters"][name] for name in parameters} == parameters
        assert SEARCH_SPACES[algorithm](FixedTrial(trial.params), own) == parameters
        seen.add(tuple(parameters.values()))
    assert len(seen) == 100


@pytest.mark.parametrize("optimizer", OPTIMIZER_NAMES)
@pytest.mark.parametrize(
    ("num_classes", "max_steps", "first_rung"),
    [(2, 10, 1.0), (10, 450, 1 / 9), (1000, 10**6, 0.01)],
)
@OVER_METHODS
def test_draws_are_valid_for_small_and_large_studies(
    algorithm, num_classes, max_steps, first_rung, optimizer
):
    own = context(
        algorithm,
        published_divergence(algorithm),
        num_classes=num_classes,
        max_steps=max_steps,
        first_rung=first_rung,
        optimizer=optimizer,
        entropy_weight=0.0 if algorithm == "supervised" else None,
    )
    study = random_study(seed=1)
    for _ in range(10):
        parameters = SEARCH_SPACES[algorithm](study.ask(), own)
        make_config(algorithm, published_divergence(algorithm), parameters, optimizer=optimizer)


@OVER_CELLS
def test_names_are_config_fields_or_documented_scales(algorithm, divergence):
    trial = random_study().ask()
    entropy_weight = 0.0 if algorithm == "supervised" else None
    own = context(algorithm, divergence, entropy_weight=entropy_weight)
    parameters = SEARCH_SPACES[algorithm](trial, own)
    allowed = fields_of(algorithm) | set(TRAINING_PARAMETERS)
    assert set(parameters) <= allowed
    assert {SCALES.get(name, name) for name in trial.params} <= allowed
    assert set(TRAINING_PARAMETERS) <= set(parameters)


@OVER_METHODS
def test_every_published_value_is_searched(algorithm):
    parameters = SEARCH_SPACES[algorithm](
        random_study().ask(), context(algorithm, published_divergence(algorithm))
    )
    default = published_default(
        algorithm,
        published_divergence(algorithm),
        num_classes=10,
        setting="cifar10",
        optimizer="adamw",
    )
    assert set(default.parameters) <= set(parameters)


def test_a_name_has_one_range_in_all_spaces():
    ranges: dict[str, FloatDistribution] = {}
    for entropy_weight in (0.0, None):
        for algorithm, divergence in CELLS:
            if algorithm == "supervised" and entropy_weight is None:
                continue
            trial = random_study().ask()
            own = context(algorithm, divergence, entropy_weight=entropy_weight)
            SEARCH_SPACES[algorithm](trial, own)
            for name, distribution in trial.distributions.items():
                assert ranges.setdefault(name, distribution) == distribution, name
    assert {"unlabeled_weight_u", "learning_rate", "mixup_alpha"} <= set(ranges)
    assert ranges["unlabeled_weight_u"] == FloatDistribution(0.0, 1.0)


# Weights and thresholds, on the scales they are searched on.

EXPECTED_RANGES = {
    "mse": (0.5, 300.0),
    "l1": (0.2, 100.0),
    "kl": (0.05, 30.0),
    "reverse_kl": (0.05, 30.0),
    "js": (0.2, 100.0),
}


@pytest.mark.parametrize(("divergence", "expected"), EXPECTED_RANGES.items())
def test_the_weight_range_of_ten_classes(divergence, expected):
    own = context("pi_model", divergence)
    assert weight_range(own) == pytest.approx(expected)
    assert weight_from_position(0.0, own) == pytest.approx(expected[0])
    assert weight_from_position(1.0, own) == pytest.approx(expected[1])
    assert weight_from_position(0.5, own) == pytest.approx(
        math.sqrt(expected[0] * expected[1]), rel=1e-5
    )


def test_the_weight_of_ict_with_mse_reaches_a_hundred_per_class():
    assert weight_range(context("ict", "mse")) == pytest.approx((0.5, 1000.0))


@pytest.mark.parametrize("divergence", ["notebook_kl", "notebook_js"])
@pytest.mark.parametrize(
    ("method", "weight"), [("pi_model", 20), ("mean_teacher", 8), ("ict", 1000)]
)
def test_the_notebook_s_own_weights_lie_in_the_range_of_its_divergences(method, weight, divergence):
    low, high = weight_range(context(method, divergence))
    assert low < weight <= high


@pytest.mark.parametrize("divergence", ["mse", "l1"])
def test_the_weight_of_a_mean_over_classes_scales_with_their_number(divergence):
    ten, hundred = (context("pi_model", divergence, num_classes=c) for c in (10, 100))
    assert weight_range(hundred) == pytest.approx(tuple(10 * end for end in weight_range(ten)))


@OVER_CELLS
def test_a_weight_and_its_position_are_inverse(algorithm, divergence):
    if divergence is None:
        return
    own = context(algorithm, divergence)
    for position in (0.0, 0.123456, 0.5, 1.0):
        weight = weight_from_position(position, own)
        assert position_from_weight(weight, own) == pytest.approx(position, abs=1e-6)
        assert weight_from_position(position_from_weight(weight, own), own) == weight


def test_a_threshold_is_one_minus_its_gap():
    assert [threshold_from_gap(gap) for gap in (0.05, 0.01, 0.5)] == [0.95, 0.99, 0.5]


def test_the_longest_average_is_a_tenth_of_the_budget_between_20_and_10_000_steps():
    for max_steps, expected in ((50, 20.0), (450, 45.0), (50_000, 5000.0), (10**6, 10_000.0)):
        trial = random_study().ask()
        SEARCH_SPACES["supervised"](trial, context("supervised", None, max_steps=max_steps))
        assert trial.distributions["ema_horizon"] == FloatDistribution(5.0, expected, log=True)


@pytest.mark.parametrize("first_rung", [0.01, 1 / 27, 0.1, 1 / 9, 1 / 3, 1.0])
@OVER_METHODS
def test_the_longest_ramp_ends_at_or_before_the_first_rung(algorithm, first_rung):
    trial = random_study().ask()
    divergence = published_divergence(algorithm)
    SEARCH_SPACES[algorithm](trial, context(algorithm, divergence, first_rung=first_rung))
    if algorithm != "supervised":
        ramp = trial.distributions["ramp_fraction"]
        assert ramp.low == 0.0
        assert 0.0 < ramp.high <= min(first_rung, 0.1)


# Published defaults, and stored trials.


@pytest.mark.parametrize("setting", ["cifar10", "svhn"])
@pytest.mark.parametrize("optimizer", OPTIMIZER_NAMES)
@OVER_CELLS
def test_the_published_default_lies_in_the_ranges_and_replays(
    algorithm, divergence, optimizer, setting
):
    published = published_default(
        algorithm, divergence, num_classes=10, setting=setting, optimizer=optimizer
    ).parameters
    space = study_space(
        algorithm,
        divergences=(divergence,) if divergence else (),
        optimizer=optimizer,
        setting=setting,
        max_steps=50_000,
        first_rung=0.1,
    )
    (default,) = space.defaults()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # FixedTrial warns of a value outside its range
        replayed = space.suggest(FixedTrial(default.params))
    assert (replayed.algorithm, replayed.divergence) == (algorithm, divergence)
    for name, value in published.items():
        found = replayed.parameters[name]
        if name in MOVED and found != pytest.approx(value, rel=1e-6):
            assert f"{name} moved into the range" in default.source
        else:
            assert found == pytest.approx(value, rel=1e-6), name
    make_config(algorithm, divergence, replayed.parameters, optimizer=optimizer)


def test_a_ramp_longer_than_the_first_rung_is_moved_to_it_and_the_card_says_so():
    (default,) = study_space("pi_model").defaults()
    assert default.params["ramp_fraction"] == 0.1
    assert "ramp_fraction moved into the range (0.1)" in default.source
    assert not default.converted


def test_a_converted_default_says_so():
    (default,) = study_space("pi_model", divergences=("js",)).defaults()
    assert default.converted
    assert "converted from mse" in default.source


@OVER_CELLS
def test_a_configuration_is_found_again_on_the_scales_that_are_searched(algorithm, divergence):
    """The way back: from a training's parameters to a trial's, and to the same parameters."""
    space = study_space(algorithm, divergences=(divergence,) if divergence else ())
    study = random_study(seed=2)
    for _ in range(20):
        drawn = space.suggest(study.ask())
        params = space.params_for(algorithm, divergence, drawn.parameters)
        again = space.suggest(FixedTrial(params))
        assert again.parameters == pytest.approx(drawn.parameters, rel=2e-6)


@pytest.mark.parametrize("weight", [0.0, 1e-9, 1e9])
def test_a_weight_outside_its_range_is_moved_and_that_is_told(weight):
    own = context("pi_model", "mse")
    given = {"learning_rate": 1e-3, "weight_decay": 1e-2, "ema_horizon": 9.0, "ramp_fraction": 0.0}
    trial = GivenTrial(given | {"unlabeled_weight": weight}, own)
    parameters = SEARCH_SPACES["pi_model"](trial, own)
    low, high = weight_range(own)
    assert parameters["unlabeled_weight"] == pytest.approx(low if weight < low else high)
    assert set(trial.moved) == {"unlabeled_weight_u"}


# Joint studies.


def joint(**values) -> StudySpace:
    return study_space(*ALGORITHMS, divergences=SEARCHED_DIVERGENCE_NAMES, **values)


def test_the_cells_of_a_joint_study():
    cells = list(joint().cells())
    assert len(cells) == len(set(cells)) == 1 + 4 * (len(ALGORITHMS) - 1)
    assert ("supervised", None) in cells
    assert len(joint().defaults()) == len(cells)


def test_every_default_of_a_joint_study_replays_to_its_cell():
    space = joint()
    for cell, default in zip(space.cells(), space.defaults(), strict=True):
        suggestion = space.suggest(FixedTrial(default.params))
        assert (suggestion.algorithm, suggestion.divergence) == cell


def test_methods_and_divergences_are_parameters_only_where_there_is_a_choice():
    names = []
    for space in (
        study_space("ict"),
        study_space("ict", divergences=("mse", "js")),
        study_space("ict", "vat"),
    ):
        trial = random_study().ask()
        space.suggest(trial)
        names.append({"algorithm", "divergence"} & set(trial.params))
    assert names == [set(), {"divergence"}, {"algorithm"}]


def test_tpe_models_every_parameter_of_the_joint_study_in_groups(monkeypatch):
    """Optuna says so where it falls back to independent sampling, as it does if bounds vary."""
    space = joint()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=0, multivariate=True, group=True, n_startup_trials=20
        )
    independent: list[str] = []
    sample_independent = sampler.sample_independent

    def watched(study, trial, name, distribution):
        if trial.number >= 60:
            independent.append(name)
        return sample_independent(study, trial, name, distribution)

    monkeypatch.setattr(sampler, "sample_independent", watched)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for default in space.defaults():
        study.enqueue_trial(default.params)
    cells = set()
    for _ in range(140):
        trial = study.ask()
        suggestion = space.suggest(trial)
        make_config(suggestion.algorithm, suggestion.divergence, suggestion.parameters)
        cells.add((suggestion.algorithm, suggestion.divergence))
        better = suggestion.algorithm == "ict"
        study.tell(trial, better - abs(math.log10(suggestion.parameters["learning_rate"]) + 3) / 10)
    assert cells == set(space.cells())
    assert independent == []
    late = [trial.params["algorithm"] for trial in study.trials[100:]]
    assert late.count("ict") > len(late) / 3


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (lambda: study_space("pseudo_label", "ict", divergences=("mse", "reverse_kl")), "one-hot"),
        (lambda: study_space("supervised", divergences=("mse",)), "compares no two predictions"),
        (lambda: study_space("supervised", entropy_weight=0.1), "would use the unlabeled images"),
        (lambda: study_space("supervised", entropy_weight=None), "unlabeled images"),
    ],
)
def test_a_study_that_cannot_be_is_refused_with_the_reason(space, message):
    with pytest.raises(UserError, match=message):
        space()


@pytest.mark.parametrize("weight", [0.1, None])
def test_of_several_methods_supervised_alone_has_no_entropy_minimisation(weight):
    space = study_space("supervised", "vat", entropy_weight=weight)
    study, seen = random_study(), {}
    for _ in range(20):
        suggestion = space.suggest(study.ask())
        seen.setdefault(suggestion.algorithm, []).append(suggestion.parameters)
        TrainingConfig.from_record({**vars(suggestion), "num_labels": 20, "max_steps": 450})
    assert not any("entropy_weight" in own for own in seen["supervised"])
    assert all(own["entropy_weight"] > 0 for own in seen["vat"])
    for default in space.defaults():
        space.suggest(FixedTrial(default.params))


def test_a_configuration_that_names_only_some_values_takes_the_published_rest():
    space = study_space("ict")
    given = {"mixup_alpha": 0.3}
    params = space.params_for("ict", "mse", given)
    whole = space.suggest(FixedTrial(params)).parameters
    published = space.suggest(FixedTrial(space.defaults()[0].params)).parameters
    assert whole == published | given


def test_a_configuration_of_another_cell_is_refused():
    space = study_space("ict", "supervised", divergences=("mse",))
    for algorithm, divergence in (("vat", "mse"), ("ict", "kl"), ("supervised", "mse")):
        with pytest.raises(UserError, match="is not part of the search"):
            space.params_for(algorithm, divergence, {})
