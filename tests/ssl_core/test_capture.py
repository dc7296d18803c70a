"""A captured step does what a step done anew does, shown on any machine.

A CUDA graph repeats the operators of one step on the memory they had then. ``Recording`` does the
same on the CPU: it notes each operator with its arguments and results, and a replay executes them
again into the same memory, without the Python in between. What a step takes from Python (a
schedule's value, a count) would stay as it was, and the weights would differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssl_core.data.prepare import prepare
from ssl_core.data.store import ImageStore
from ssl_core.names import ALGORITHM_NAMES
from ssl_core.training.config import TrainingConfig
from ssl_core.training.loop import Training

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
    """Return all tensors a training's step changes and the next one needs."""
    training: Training = step.__self__  # type: ignore[attr-defined]
    return _tensors(training.state_dict())


def training(algorithm: str, capture: Any, **changes: Any) -> Training:
    record = {"algorithm": algorithm, "max_steps": 24, "batch_size": 8, "seed": 3} | changes
    config = TrainingConfig.from_record(record)
    shared = prepare(config.data)
    return Training(config, shared, TorchStore(shared.images), capture=capture)


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


@pytest.mark.parametrize("algorithm", ["supervised", "ict", "mixmatch"])
def test_scalars_on_the_device_change_nothing_but_the_rounding(algorithm):
    captured, usual = training(algorithm, anew), training(algorithm, None)
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
