"""The real work of a trial: a training behind the calls a runner makes."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from ssl_core.data.config import DataConfig
from ssl_core.data.prepare import SplitImages, prepare, split_images
from ssl_core.data.sources import load_training_images
from ssl_core.errors import UserError
from ssl_core.training import evaluate
from ssl_core.training.config import TrainingConfig
from tune_ssl.storage import RunStorage
from tune_ssl.trial import DIVISION, DrawsFactory, TrainingFactory, unpack_correct
from tune_ssl.worker import END, RUNG, SLICE, Lengths, Task, TrialRunner

RECORD = {
    "algorithm": "mean_teacher",
    "divergence": "mse",
    "parameters": {"unlabeled_weight": 8.0},
    "max_steps": 6,
    "batch_size": 10,
    "num_labels": 20,
    "num_validation": 100,
    "seed": 5,
}


@pytest.fixture(scope="module")
def shared() -> SplitImages:
    return prepare(DataConfig(num_labels=20, num_validation=100))


@pytest.fixture(scope="module")
def record() -> dict:
    return TrainingConfig.from_record(RECORD).to_record()


@pytest.fixture(scope="module")
def whole(shared, record):
    """Return a training that was run to its end without a stop, and measured as the end is."""
    work = TrainingFactory(shared)(record)
    work.run(6)
    work.measure()
    return work


def test_it_uses_the_threads_it_was_given_and_the_next_one_its_own(shared, record):
    before = torch.get_num_threads()
    factory = TrainingFactory(shared)
    try:
        for threads in (2, 1):
            work = factory(record | {"threads": threads})
            work.run(1)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_memory_it_is_told_to_take_is_not_that_of_the_trial_before(shared, record):
    factory = TrainingFactory(shared)
    first = factory(record)
    ballast = np.ones(200 * 2**20, dtype=np.uint8)
    first.run(1)
    with_ballast = first.measure().details["memory_megabytes"]
    del ballast
    second = factory(record)
    second.run(1)
    alone = second.measure().details["memory_megabytes"]
    assert alone < with_ballast - 150
    assert alone > 50  # torch alone takes more


def test_it_is_measured_on_the_validation_images(shared, record):
    work = TrainingFactory(shared)(record)
    work.run(3)
    measured = work.measure()
    correct = unpack_correct(measured.details["correct"])
    assert len(correct) == 100
    assert measured.finite
    assert measured.value == measured.details["accuracy"] == pytest.approx(correct.mean())
    assert measured.details["standard_error"] == pytest.approx(
        np.sqrt(measured.value * (1 - measured.value) / 100)
    )
    assert 0.0 <= measured.details["balanced_accuracy"] <= 1.0
    assert {"total", "labeled", "unlabeled"} <= measured.details["terms"].keys()
    assert work.measure().value == measured.value


@pytest.mark.parametrize(
    "division", [{"division_seed": 3}, {"division_seed": 3, "folds": 5, "fold": 2}]
)
def test_a_record_divides_the_labels_anew(shared, record, division):
    """As the images prepared for its configuration are, which ``train`` takes."""
    own = record | division
    work = TrainingFactory(shared)(own)
    alone = prepare(TrainingConfig.from_record(own).data)
    assert alone.fingerprint != shared.fingerprint
    direct = TrainingFactory(shared)(record)._training.__class__(
        TrainingConfig.from_record(own), alone
    )
    work.run(2)
    direct.run(2)
    measured = work.measure()
    assert measured.value == direct.report().evaluated.accuracy
    assert len(unpack_correct(measured.details["correct"])) == len(alone.validation)
    assert measured.details[DIVISION] == 3


def test_where_nothing_divides_them_nothing_is_said_of_it(whole):
    assert DIVISION not in whole.measure().details


def test_measured_in_parts_it_gives_what_it_gives_at_once(shared, record, whole, monkeypatch):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 30)
    work = TrainingFactory(shared)(record)
    work.run(6)
    parts = [work.measure(seconds=0.0)]
    while parts[-1] is None:
        parts.append(work.measure(seconds=0.0))
    assert len(parts) == 2 * 4 + 1  # two networks, four batches each
    assert parts[-1] == whole.measure()._replace(details=parts[-1].details)
    assert parts[-1].details["correct"] == whole.measure().details["correct"]
    assert work.weights() == whole.weights()


def test_training_on_begins_the_measuring_anew(shared, record, monkeypatch):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 30)
    work, straight = (TrainingFactory(shared)(record) for _ in range(2))
    work.run(3)
    for _ in range(6):  # the average is measured, the student half
        assert work.measure(seconds=0.0) is None
    work.run(6)
    straight.run(6)
    assert work.measure().details["correct"] == straight.measure().details["correct"]
    assert work.weights() == straight.weights()


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stored_and_continued_it_ends_bit_for_bit_where_the_uninterrupted_one_does(
    shared, record, whole, stop
):
    first = TrainingFactory(shared)(record)
    first.run(stop)
    data = first.to_bytes()
    second = TrainingFactory(shared)(record)
    second.load_bytes(data, hashlib.sha256(data).hexdigest(), "checkpoint")
    assert (second.step, second.finite) == (stop, True)
    second.run(6)
    assert second.measure().value == whole.measure().value
    assert second.weights() == whole.weights()


def test_a_checkpoint_that_is_not_the_one_that_was_stored_is_refused(shared, record):
    work = TrainingFactory(shared)(record)
    data = work.to_bytes()
    with pytest.raises(UserError, match=r"step-1\.pt is damaged"):
        work.load_bytes(data[:-1], hashlib.sha256(data).hexdigest(), "step-1.pt")


def test_weights_are_safetensors_of_the_evaluated_network(shared, record):
    tensors = {}
    for evaluated in ("ema", "student"):
        work = TrainingFactory(shared)(record | {"evaluate": evaluated})
        work.run(3)
        tensors[evaluated] = load(work.weights())
    assert tensors["ema"].keys() == tensors["student"].keys()
    assert all(np.isfinite(tensor).all() for tensor in tensors["ema"].values())
    assert any(
        not np.array_equal(tensors["ema"][name], tensors["student"][name])
        for name in tensors["ema"]
    )


def test_images_changed_in_memory_are_noticed(record):
    shared = prepare(DataConfig(num_labels=20, num_validation=100))
    factory = TrainingFactory(shared)
    factory.verify()
    work = factory(record)
    work.verify()
    images = shared.images
    images.setflags(write=True)
    images[0, 0, 0, 0] ^= 1
    with pytest.raises(RuntimeError, match="images in memory changed"):
        work.verify()
    with pytest.raises(RuntimeError, match="images in memory changed"):
        factory.verify()
    images[0, 0, 0, 0] ^= 1
    work.verify()


def test_retrainings_on_many_draws_are_those_on_each_alone(record):
    config = DataConfig(num_labels=20, num_validation=100)
    source = load_training_images("digits", None, None)
    draws = {
        seed: split_images(dataclasses.replace(config, split_seed=seed), source) for seed in (3, 4)
    }
    factory = pickle.loads(pickle.dumps(DrawsFactory(draws)))
    factory.verify()
    ended = []
    for seed in (3, 4):
        own = record | {"split_seed": seed}
        alone = TrainingFactory(prepare(dataclasses.replace(config, split_seed=seed)))(own)
        together = factory(own)
        for work in (alone, together):
            work.run(6)
            work.measure()
        assert together.weights() == alone.weights()
        ended.append(together.weights())
    assert ended[0] != ended[1]


def test_draws_on_their_way_to_a_worker_hold_the_images_once(record):
    config = DataConfig(num_labels=20, num_validation=100)
    source = load_training_images("digits", None, None)
    draws = {seed: split_images(config, source) for seed in range(5)}
    one, five = (
        len(pickle.dumps(DrawsFactory({seed: draws[seed] for seed in range(count)})))
        for count in (1, 5)
    )
    assert five - one < source.images.nbytes


def test_a_runner_takes_it_from_rung_to_rung_and_another_continues_it(
    shared, record, whole, tmp_path
):
    storage = RunStorage(str(tmp_path))

    def runner():
        return TrialRunner(
            TrainingFactory(shared), storage, (2, 6), lengths=Lengths(slice_seconds=1000.0)
        )

    first = runner()
    first.begin(Task(number=0, attempt=1, record=record, storage=""))
    rung = first.slice()
    assert (rung.kind, rung.step) == (RUNG, 2)
    second = runner()
    second.begin(Task(number=0, attempt=2, record=record, storage="", checkpoint=rung.checkpoint))
    again, end = second.slice(), second.slice()
    assert (again.kind, again.value) == (RUNG, rung.value)
    assert (end.kind, end.value) == (END, whole.measure().value)
    assert storage.read(end.weights) == whole.weights()


def test_a_drain_right_after_a_rung_leaves_the_rung_s_checkpoint_as_it_was(
    shared, record, tmp_path
):
    storage = RunStorage(str(tmp_path))
    runner = TrialRunner(TrainingFactory(shared), storage, (2, 6))
    runner.begin(Task(number=0, attempt=1, record=record, storage=""))
    while (report := runner.slice()).kind == SLICE:
        pass
    named = report.checkpoint
    runner.store_checkpoint()
    assert hashlib.sha256(storage.read(named.path)).hexdigest() == named.sha256
