"""A captured step does what a step done anew does, shown on any machine.

A CUDA graph repeats the operators of one step on the memory they had then. ``Recording`` does the
same on the CPU: it notes each operator with its arguments and results, and a replay executes them
again into the same memory, without the Python in between. What a step takes from Python (a
schedule's value, a count) would stay as it was, and the weights would differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssl_core.algorithms import ALGORITHMS
from ssl_core.algorithms.common import numbers_of
from ssl_core.data.config import DataConfig
from ssl_core.data.prepare import divided, prepare
from ssl_core.data.store import ImageStore
from ssl_core.names import ALGORITHM_NAMES
from ssl_core.training.config import TRAINING_PARAMETERS, TrainingConfig
from ssl_core.training.loop import Training
from ssl_core.training.step import KeptStep, Step

FROM_THE_DEVICE = torch.ops.aten._local_scalar_dense.default
"""The operator behind item(), float() and bool() of a tensor: the CPU waits for the device."""


class Recording(TorchDispatchMode):
    """Notes the operators that run while it is active, and repeats them on the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self,
        operator: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        assert operator is not FROM_THE_DEVICE, "a captured step may not wait for the device"
        results = operator(*args, **(kwargs or {}))
        self._calls.append((operator, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def replay(self) -> None:
        for operator, args, kwargs, results in self._calls:
            given = {_memory(leaf) for leaf in _tensors((args, kwargs))}
            again = operator(*args, **kwargs)
            for then, now in zip(_tensors(results), _tensors(again), strict=True):
                if _memory(then) not in given:
                    then.copy_(now)


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class TorchStore(ImageStore):
    """Takes rows by an operator of torch, as on a GPU; on the CPU it is NumPy that does it."""

    def take(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(self._array)[indices]


captures: list[Recording] = []


def recording(
    step: Callable[[], None], generators: Iterable[torch.Generator]
) -> Callable[[], None]:
    """Record a step as ``ssl_core.training.capture.cuda_graph`` does: without its effects."""
    tensors = _state_of(step)
    before = [tensor.clone() for tensor in tensors]
    states = [generator.get_state() for generator in generators]
    recorded = Recording()
    with recorded:
        step()
    with torch.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    captures.append(recorded)
    return recorded.replay


def _state_of(step: Callable[[], None]) -> list[Tensor]:
    """Return all tensors a step changes and the next one needs."""
    owner: Step = step.__self__  # type: ignore[attr-defined]
    return _tensors(owner.state_dict())


def training(algorithm: str, capture: Any, **changes: Any) -> Training:
    record = {"algorithm": algorithm, "max_steps": 24, "batch_size": 8, "seed": 3} | changes
    config = TrainingConfig.from_record(record)
    shared = prepare(config.data)
    return Training(config, shared, TorchStore(shared.images), capture=capture)


class Worker:
    """Trains one configuration after the other on the same images, with one kept step."""

    def __init__(self) -> None:
        self._shared = prepare(DataConfig(dataset="digits", num_labels=20, num_validation=400))
        self._store = TorchStore(self._shared.images)
        self._kept = KeptStep()

    def training(self, algorithm: str, **changes: Any) -> Training:
        record = {"algorithm": algorithm, "max_steps": 24, "batch_size": 8, "seed": 3} | changes
        config = TrainingConfig.from_record(record)
        shared = divided(self._shared, config.data)
        return Training(config, shared, self._store, capture=recording, kept=self._kept)


def anew(step: Callable[[], None], generators: Iterable[torch.Generator]) -> Callable[[], None]:
    """Keep the scalars on the device as a capture does, and do every step anew."""
    return step


def same(one: Training, other: Training) -> bool:
    pairs = zip(_tensors(one.state_dict()), _tensors(other.state_dict()), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_a_replayed_training_ends_where_one_done_anew_ends_bit_for_bit(algorithm, precision):
    replayed = training(algorithm, recording, precision=precision)
    done_anew = training(algorithm, anew, precision=precision)
    for until in (10, 24):
        replayed.run(until)
        done_anew.run(until)
        assert same(replayed, done_anew)
        assert replayed.report().terms == done_anew.report().terms


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_rates_reach_a_replayed_step(optimizer, schedule):
    settings = {"optimizer": optimizer, "lr_schedule": schedule}
    replayed, done_anew = (
        training("mean_teacher", capture, **settings) for capture in (recording, anew)
    )
    for run in (replayed, done_anew):
        run.run(24)
    assert same(replayed, done_anew)


@pytest.mark.parametrize("algorithm", ["supervised", "vat", "mixmatch"])
def test_whitening_and_running_statistics_are_part_of_a_replayed_step(algorithm):
    settings = {"batch_norm_momentum": 0.5, "evaluate": "student", "normalisation": "zca"}
    replayed, done_anew = (
        training(algorithm, capture, **settings, optimizer="adam", lr_schedule="step")
        for capture in (recording, anew)
    )
    for run in (replayed, done_anew):
        run.run(24)
    assert same(replayed, done_anew)
    assert replayed.report().evaluated.accuracy == done_anew.report().evaluated.accuracy


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("algorithm", ["supervised", "ict", "mixmatch"])
def test_scalars_on_the_device_change_nothing_but_the_rounding(algorithm, optimizer):
    settings = {"optimizer": optimizer, "parameters": {"weight_decay": 0.3, "learning_rate": 1e-3}}
    captured, usual = (training(algorithm, capture, **settings) for capture in (anew, None))
    for run in (captured, usual):
        run.run(12)
    for one, other in zip(captured.student.parameters(), usual.student.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_step_is_captured_once_and_a_report_or_a_checkpoint_does_not_lose_it():
    captures.clear()
    run = training("ict", recording)
    run.run(12)
    run.report()
    run.state_dict()
    run.run(24)
    assert len(captures) == 1


OTHER_NUMBERS = {
    "unlabeled_weight": 3.0,
    "ramp_fraction": 0.7,
    "threshold": 0.3,
    "eps_relative": 0.3,
    "mixup_alpha": 0.2,
    "temperature": 0.9,
    "entropy_weight": 0.5,
    "weight_decay": 0.3,
    "ema_horizon": 7.0,
    "learning_rate": 5e-3,
}
SOME_NUMBERS = {
    "unlabeled_weight": 8.0,
    "ramp_fraction": 0.4,
    "entropy_weight": 0.1,
    "weight_decay": 0.0,
}


def of_its_own(numbers: dict[str, float], algorithm: str) -> dict[str, float]:
    """Return those numbers that a method has."""
    config = ALGORITHMS[algorithm].Config()
    own = {*numbers_of(config), *TRAINING_PARAMETERS}
    if algorithm == "supervised":
        own -= {"entropy_weight"}
    return {name: value for name, value in numbers.items() if name in own}


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_a_captured_step_serves_another_training_with_all_numbers_other(algorithm, optimizer):
    captures.clear()
    worker = Worker()
    first = worker.training(
        algorithm, optimizer=optimizer, parameters=of_its_own(SOME_NUMBERS, algorithm)
    )
    first.run(16)
    first.report()
    changes = {"optimizer": optimizer, "parameters": of_its_own(OTHER_NUMBERS, algorithm)}
    changes |= {"seed": 9, "max_steps": 20, "lr_schedule": "step"}
    second = worker.training(algorithm, **changes)
    alone = training(algorithm, anew, **changes)
    for until in (1, 10, 20):
        for run in (second, alone):
            run.run(until)
        assert same(second, alone)
    assert second.report().terms == alone.report().terms
    assert len(captures) == 1


def test_every_number_of_every_method_is_other_in_that_test():
    names = {name for entry in ALGORITHMS.values() for name in numbers_of(entry.Config())}
    assert names | set(TRAINING_PARAMETERS) == set(OTHER_NUMBERS)


@pytest.mark.parametrize("algorithm", ["supervised", "vat", "mixmatch"])
def test_ramps_of_any_length_are_read_anew_and_none_is_a_step_of_its_own(algorithm):
    captures.clear()
    worker = Worker()
    for ramp in (0.4, 1.0, 0.0):
        parameters = {} if algorithm == "supervised" else {"ramp_fraction": ramp}
        served = worker.training(algorithm, parameters=parameters)
        alone = training(algorithm, anew, parameters=parameters)
        for run in (served, alone):
            run.run(8)
        assert same(served, alone)
    assert len(captures) == (1 if algorithm == "supervised" else 2)


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("vat", {}),
        ("ict", {"divergence": "l1", "parameters": {"unlabeled_weight": 1.0}}),
        ("ict", {"batch_size": 10}),
        ("ict", {"unlabeled_ratio": 2}),
        ("ict", {"model": "wrn-10-2"}),
        ("ict", {"optimizer": "sgd"}),
        ("ict", {"precision": "bfloat16"}),
        ("ict", {"parameters": {"entropy_weight": 0.1}}),
        ("ict", {"parameters": {"mix_logits": True}}),
        ("ict", {"batch_norm_momentum": 0.5}),
    ],
)
def test_a_step_that_is_made_of_something_else_is_recorded_anew(algorithm, changes):
    captures.clear()
    worker = Worker()
    worker.training("ict").run(8)
    served = worker.training(algorithm, **changes)
    alone = training(algorithm, anew, **changes)
    for run in (served, alone):
        run.run(8)
    assert same(served, alone)
    assert len(captures) == 2
    worker.training("ict").run(8)
    assert len(captures) == 3  # one is kept, no more: it holds a network and a step's memory


def test_a_training_that_ended_badly_leaves_a_step_that_serves_the_next():
    captures.clear()
    worker = Worker()
    bad = worker.training("ict", parameters={"learning_rate": 1e6}, optimizer="sgd")
    bad.run(24)
    assert not bad.finite
    served = worker.training("ict", optimizer="sgd")
    alone = training("ict", anew, optimizer="sgd")
    for run in (served, alone):
        run.run(12)
    assert served.finite
    assert same(served, alone)
    assert len(captures) == 1


def assert_the_next_is_as_any_other(worker: Worker, algorithm: str, **changes: Any) -> None:
    """Assert that a worker's next training ends bit for bit where one with a step of its own does."""
    served, alone = worker.training(algorithm, **changes), training(algorithm, anew, **changes)
    for run in (served, alone):
        run.run(12)
    assert same(served, alone)


def fails(*args: Any, **kwargs: Any) -> None:
    raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize("after", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_trials_that_run_out_of_memory_leave_nothing_to_the_next(monkeypatch, optimizer, after):
    worker = Worker()
    for _ in range(3):
        failing = worker.training("mean_teacher", optimizer=optimizer)
        failing.run(after)
        with monkeypatch.context() as patched:
            patched.setattr(torch.autograd, "backward", fails)
            patched.setattr(failing._device_step, "_replay", fails if after > 3 else None)
            with pytest.raises(torch.OutOfMemoryError):
                failing.run(12)
    assert_the_next_is_as_any_other(worker, "mean_teacher", optimizer=optimizer)


def test_so_does_one_whose_optimiser_has_no_memory_for_half_of_its_moments(monkeypatch):
    worker = Worker()
    failing = worker.training("mean_teacher")
    zeros, made = torch.zeros_like, []

    def some(*args: Any, **kwargs: Any) -> Tensor:
        if len(made) == 3:
            fails()
        made.append(zeros(*args, **kwargs))
        return made[-1]

    with monkeypatch.context() as patched:
        patched.setattr(torch, "zeros_like", some)
        with pytest.raises(torch.OutOfMemoryError):
            failing.run(1)
    assert len(made) == 3
    assert_the_next_is_as_any_other(worker, "mean_teacher")


def test_so_does_one_that_could_not_be_continued():
    worker = Worker()
    first = worker.training("mean_teacher")
    first.run(8)
    state = first.state_dict()
    state["finite"] = None
    with pytest.raises(AttributeError):
        first.load_state_dict(state)
    assert_the_next_is_as_any_other(worker, "mean_teacher")


def test_a_training_whose_step_serves_another_has_ended():
    worker = Worker()
    first = worker.training("ict")
    first.run(8)
    second = worker.training("ict", seed=4)
    for use in (
        lambda: first.run(9),
        lambda: first.report(),
        lambda: first.state_dict(),
        lambda: first.evaluated_network,
        lambda: first.finite,
    ):
        with pytest.raises(RuntimeError, match="a later one has taken over its step"):
            use()
    second.run(9)


def test_a_served_training_is_of_its_own_configuration():
    worker = Worker()
    worker.training("ict").run(8)
    served = worker.training("ict", parameters={"unlabeled_weight": 3.0})
    assert served.algorithm.config.unlabeled_weight == 3.0


@pytest.mark.parametrize("normalisation", ["channels", "zca"])
def test_a_step_serves_other_images_labels_and_what_they_are_normalised_by(normalisation):
    captures.clear()
    worker = Worker()
    changes = {"normalisation": normalisation, "division_seed": 1}
    if normalisation == "zca":
        changes["evaluate"] = "student"
    worker.training("ict", **changes).run(8)
    first = worker.training("ict", **changes)
    changes["division_seed"] = 2
    served, alone = worker.training("ict", **changes), training("ict", anew, **changes)
    assert served._shared.normalisation != first._shared.normalisation
    for run in (served, alone):
        run.run(12)
    assert same(served, alone)
    assert len(captures) == 1


def test_a_state_loaded_where_a_profiler_watches_is_gone_on_with():
    watched, plain = training("ict", recording), training("ict", anew)
    for run in (watched, plain):
        run.run(8)
    state = copy.deepcopy(plain.state_dict())
    with watched.uncaptured():
        watched.load_state_dict(state)
        watched.run(10)
    watched.run(16)
    plain.run(16)
    assert same(watched, plain)


def test_one_that_ended_before_its_step_was_captured_leaves_nothing_behind():
    worker = Worker()
    worker.training("mean_teacher").run(2)
    assert_the_next_is_as_any_other(worker, "mean_teacher")


def test_a_continued_training_leaves_a_step_that_serves_the_next():
    captures.clear()
    worker = Worker()
    stored = training("mixmatch", anew, seed=5)
    stored.run(10)
    continued = worker.training("mixmatch", seed=5)
    continued.load_state_dict(stored.state_dict())
    continued.run(20)
    stored.run(20)
    assert same(continued, stored)
    assert_the_next_is_as_any_other(worker, "mixmatch")
    assert len(captures) == 1


def test_without_a_capture_no_step_is_kept():
    kept = KeptStep()
    config = TrainingConfig.from_record({"algorithm": "ict", "batch_size": 8})
    shared = prepare(config.data)
    first, second = (Training(config, shared, capture=None, kept=kept) for _ in range(2))
    first.run(1)
    assert first.student is not second.student


@pytest.mark.parametrize("before", [0, 8])
def test_steps_that_a_profiler_watches_are_done_anew_and_the_captured_one_goes_on(before):
    captures.clear()
    watched = training("ict", recording, parameters={"weight_decay": 0.3})
    alone = training("ict", anew, parameters={"weight_decay": 0.3})
    watched.run(before)
    replays = count_replays(watched)
    with watched.uncaptured():
        watched.run(12)
    assert replays == []
    watched.run(24)
    alone.run(24)
    assert same(watched, alone)
    assert len(captures) == 1


def count_replays(run: Training) -> list[int]:
    """Note each replay of a training's step, if it is captured already."""
    step, replays = run._device_step, []
    recorded = step._replay
    if recorded is not None:

        def noted() -> None:
            replays.append(run.step)
            recorded()

        step._replay = noted
    return replays


def test_a_training_continued_from_a_checkpoint_captures_its_own_step():
    captures.clear()
    whole = training("ict", recording)
    whole.run(12)
    state = whole.state_dict()
    rest = training("ict", recording)
    rest.run(6)
    rest.load_state_dict(state)
    for run in (whole, rest):
        run.run(24)
    assert same(whole, rest)
    assert len(captures) == 3


def test_the_recording_would_tell_a_number_that_stays_as_it_was():
    total, counts = torch.zeros(()), iter(range(1, 100))

    def step() -> None:
        total.add_(next(counts))

    recorded = Recording()
    with recorded:
        step()
    recorded.replay()
    assert total.item() == 1 + 1  # not 1 + 2


def test_a_step_that_waits_for_the_device_is_refused():
    with Recording(), pytest.raises(AssertionError, match="wait for the device"):
        float(torch.ones(()))
