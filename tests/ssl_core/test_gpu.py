"""The same code on a CUDA device: where images, draws and networks live, and what comes of it."""

from __future__ import annotations

import hashlib
import math
import shutil

import pytest
import torch

from ssl_core.algorithms import vat
from ssl_core.data.prepare import prepare
from ssl_core.data.store import ImageStore
from ssl_core.divergences import DIVERGENCES
from ssl_core.names import ALGORITHM_NAMES
from ssl_core.training.capture import WARM_UP_STEPS
from ssl_core.training.checkpoint import from_bytes, to_bytes
from ssl_core.training.config import TrainingConfig
from ssl_core.training.device import limit_memory
from ssl_core.training.loop import Training
from ssl_core.training.step import KeptStep
from tune_ssl.machine import is_out_of_memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


def training(algorithm: str, capture="auto", **changes) -> Training:
    config = TrainingConfig.from_record(
        {"algorithm": algorithm, "max_steps": 40, "device": "cuda"} | changes
    )
    return Training(config, prepare(config.data), capture=capture)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_every_method_trains_and_is_measured_there(algorithm, precision):
    run = training(algorithm, precision=precision)
    run.run(40)
    report = run.report()
    assert run.finite
    assert all(parameter.is_cuda for parameter in run.student.parameters())
    assert report.evaluated.finite
    assert all(math.isfinite(value) for value in report.terms.values())


@pytest.mark.parametrize("algorithm", ["supervised", "ict", "mixmatch"])
def test_a_training_continues_from_its_checkpoint(algorithm):
    whole = training(algorithm)
    whole.run(20)
    state = whole.state_dict()
    data = to_bytes(state)
    parts = training(algorithm)
    parts.load_state_dict(from_bytes(data, sha256=hashlib.sha256(data).hexdigest(), name="it"))
    for run in (whole, parts):
        run.run(40)
    one, other = whole.report().evaluated.accuracy, parts.report().evaluated.accuracy
    assert one == pytest.approx(other, abs=0.05)  # kernels on a GPU may add in another order


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_a_captured_training_goes_as_one_whose_every_step_is_done_anew(algorithm, optimizer):
    captured = training(algorithm, optimizer=optimizer)
    eager = training(algorithm, capture=None, optimizer=optimizer)
    for run in (captured, eager):
        run.run(8)  # later, kernels that add in another order have drifted apart
    one, other = captured.report().terms, eager.report().terms
    assert one == pytest.approx(other, rel=0.05, abs=0.05)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler, which Triton needs")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_compiled_passes_are_captured_and_go_as_others(algorithm, precision):
    compiled = training(algorithm, compile=True, precision=precision)
    usual = training(algorithm, precision=precision)
    for run in (compiled, usual):
        run.run(8)
    assert compiled._device_step._replay is not None
    one, other = compiled.report().terms, usual.report().terms
    assert one == pytest.approx(other, rel=0.05, abs=0.05)


@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_every_weight_learns_in_bfloat16(algorithm):
    run = training(algorithm, capture=None, precision="bfloat16")
    run.run(1)
    assert all(float(weight.grad.abs().max()) > 0 for weight in run.student.parameters())


@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_no_step_waits_for_the_device(algorithm):
    run = training(algorithm)
    run.run(8)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.run(16)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Worker:
    """Trains one configuration after the other on the same images, with one kept step."""

    def __init__(self) -> None:
        config = TrainingConfig.from_record({"algorithm": "ict", "device": "cuda"})
        self._shared = prepare(config.data)
        self._store = ImageStore(self._shared.images, "cuda")
        self._kept = KeptStep()

    def training(self, algorithm: str, **changes) -> Training:
        record = {"algorithm": algorithm, "max_steps": 40, "device": "cuda"} | changes
        config = TrainingConfig.from_record(record)
        return Training(config, self._shared, self._store, kept=self._kept)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
def test_a_captured_step_serves_the_next_training(algorithm, optimizer):
    worker = Worker()
    worker.training(algorithm, optimizer=optimizer).run(20)
    changes = {"optimizer": optimizer, "seed": 9, "max_steps": 30}
    changes["parameters"] = {"weight_decay": 0.3, "ema_horizon": 7.0, "learning_rate": 5e-3}
    if algorithm != "supervised":
        changes["parameters"] |= {"unlabeled_weight": 3.0, "ramp_fraction": 0.7}
    served, alone = worker.training(algorithm, **changes), training(algorithm, **changes)
    recorded = served._device_step._replay
    assert recorded is not None
    for run in (served, alone):
        run.run(8)
    assert served._device_step._replay is recorded
    one, other = served.report().terms, alone.report().terms
    assert one == pytest.approx(other, rel=0.05, abs=0.05)


def test_draws_begin_again_as_they_began():
    worker = Worker()
    views = []
    for _ in range(2):
        run = worker.training("supervised", seed=5)
        run.run(10)
        run._give_inputs()
        views.append(run._device_step.batch().labeled[0].clone())
    assert torch.equal(*views)


@pytest.mark.parametrize("algorithm", ["supervised", "mixmatch"])
def test_a_served_training_waits_for_the_device_at_no_step(algorithm):
    worker = Worker()
    worker.training(algorithm).run(8)
    served = worker.training(algorithm)
    torch.cuda.set_sync_debug_mode("error")
    try:
        served.run(16)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_steps_that_are_recorded_anew_give_the_memory_of_the_old_ones_back():
    worker = Worker()
    reserved = []
    for number in range(6):
        run = worker.training(("ict", "mixmatch")[number % 2])
        run.run(8)
        del run
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[5] <= reserved[1] * 1.1


def test_after_an_out_of_memory_error_the_next_training_is_as_any_other(monkeypatch):
    worker = Worker()
    for _ in range(3):
        failing = worker.training("mean_teacher")
        with monkeypatch.context() as patched:
            patched.setattr(torch.autograd, "backward", _no_memory)
            with pytest.raises(torch.OutOfMemoryError):
                failing.run(1)
        del failing
    served, alone = worker.training("mean_teacher"), training("mean_teacher")
    for run in (served, alone):
        run.run(8)
    assert served.report().terms == pytest.approx(alone.report().terms, rel=0.05, abs=0.05)


def test_memory_that_ends_while_a_step_is_recorded_is_told_as_such(monkeypatch):
    worker = Worker()
    failing = worker.training("mean_teacher")
    failing.run(WARM_UP_STEPS)
    with monkeypatch.context() as patched:
        patched.setattr(torch.autograd, "backward", _too_much_memory)
        with pytest.raises(RuntimeError) as caught:
            failing.run(WARM_UP_STEPS + 1)
    assert is_out_of_memory(caught.value)
    del failing, caught
    served, alone = worker.training("mean_teacher"), training("mean_teacher")
    for run in (served, alone):
        run.run(8)
    assert served.report().terms == pytest.approx(alone.report().terms, rel=0.05, abs=0.05)


def _too_much_memory(*args, **kwargs) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.empty(2 * total, dtype=torch.uint8, device="cuda")


def _no_memory(*args, **kwargs) -> None:
    raise torch.OutOfMemoryError("out of memory")


def test_a_profiler_watches_steps_done_anew_and_the_graph_goes_on_after_it():
    watched, alone = training("ict"), training("ict")
    watched.run(6)
    with watched.uncaptured():
        watched.run(8)
    for run in (watched, alone):
        run.run(10)
    assert watched.report().terms == pytest.approx(alone.report().terms, rel=0.05, abs=0.05)


def test_a_trial_that_exceeds_its_share_ends_and_the_next_one_runs():
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    limit_memory("cuda", 0.05, reserved=0)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(total // 10, dtype=torch.uint8, device="cuda")
        training("supervised").run(8)
    finally:
        limit_memory("cuda", 0.999, reserved=0)


def test_the_adversarial_direction_is_that_of_float64():
    run = training("vat", capture=None)
    run.run(20)
    images = torch.randn(50, 1, 8, 8, device="cuda", generator=torch.Generator("cuda"))
    found = []
    for dtype in (torch.float32, torch.float64):
        run.student.to(dtype)
        generator = torch.Generator("cuda").manual_seed(0)
        directions = torch.randn(images.shape, device="cuda", generator=generator).to(dtype)
        with vat._whole_float32(images.device):
            target = run.student(images.to(dtype)).softmax(1).detach()
            found.append(
                vat.adversarial_perturbation(
                    DIVERGENCES["kl"],
                    run.student,
                    images.to(dtype),
                    target,
                    1.0,
                    vat.XI_RELATIVE * 8,
                    directions,
                )
            )
    cosine = (found[0].double() * found[1]).flatten(1).sum(1)
    assert float(cosine.mean()) > 0.99
