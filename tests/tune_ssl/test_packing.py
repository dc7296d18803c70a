"""How many trials share a GPU: the choice, its measurement in real processes, and its memory."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from ssl_core.data.recipe import Whitening
from ssl_core.errors import UserError
from tests.tune_ssl.fakes import small_config, tiny_images
from tune_ssl import packing
from tune_ssl.on_ray import packing as on_ray
from tune_ssl.on_ray.cluster import Cluster
from tune_ssl.packing import (
    Packing,
    PackingError,
    Shapes,
    best_packing,
    measure_packings,
    side_by_side,
    trials_per_device,
)
from tune_ssl.workflows.sharing import with_measured_share

RECORD = {
    "algorithm": "ict",
    "dataset": "digits",
    "model": "wrn-10-1",
    "max_steps": 10**9,
    "batch_size": 4,
    "unlabeled_ratio": 1,
    "optimizer": "adamw",
    "precision": "float32",
    "threads": 1,
    "device": "cpu",
}
SHAPES = Shapes.of(tiny_images())


def measured(rates, megabytes=1000):
    """Return packings of 1, 2, 4, ... trials with these rates."""
    return [
        Packing(trials=2**place, steps_per_second=rate, megabytes=megabytes)
        for place, rate in enumerate(rates)
    ]


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ([100.0], 1),
        ([100.0, 180.0, 300.0], 4),
        ([100.0, 180.0, 181.0], 2),  # four bring nothing that two do not
        ([100.0, 104.0, 104.5], 1),
        ([100.0, 90.0], 1),
    ],
)
def test_the_fewest_trials_that_are_about_as_fast_are_the_best(rates, best):
    assert best_packing(measured(rates)).trials == best
    assert best_packing(measured(rates)[::-1]).trials == best


class Machine:
    """Trainings side by side whose rate saturates and whose memory is limited."""

    def __init__(self, saturates_at=100, fit=100, megabytes=1000):
        self.asked: list[int] = []
        self._saturates_at, self._fit, self._megabytes = saturates_at, fit, megabytes

    def run(self, trials):
        self.asked.append(trials)
        if trials > self._fit:
            return None
        rate = 50.0 * min(trials, self._saturates_at)
        return Packing(trials=trials, steps_per_second=rate, megabytes=self._megabytes)


@pytest.mark.parametrize(
    ("machine", "most", "total", "asked"),
    [
        (Machine(), 8, 1e6, [1, 2, 4, 8]),
        (Machine(), 6, 1e6, [1, 2, 4]),  # more have no cores
        (Machine(saturates_at=2), 64, 1e6, [1, 2, 4]),
        (Machine(fit=2), 64, 1e6, [1, 2, 4]),
        (Machine(megabytes=1000), 64, 8000.0, [1, 2, 4]),  # eight of 1,600 MB would not fit
    ],
)
def test_more_are_tried_as_long_as_it_pays(machine, most, total, asked):
    found = measure_packings(machine.run, most=most, total_megabytes=total)
    assert machine.asked == asked
    assert [one.trials for one in found] == [n for n in asked if n <= machine._fit]


def test_a_training_that_does_not_fit_alone_is_told():
    with pytest.raises(PackingError, match="does not fit"):
        measure_packings(Machine(fit=0).run, most=4, total_megabytes=1e6)


def test_a_failure_of_more_leaves_what_fewer_have_shown():
    machine = Machine()

    def run(trials):
        if trials == 4:
            raise PackingError("CUDA error: launch failed")
        return machine.run(trials)

    found = measure_packings(run, most=8, total_megabytes=1e6)
    assert [one.trials for one in found] == [1, 2]


def test_random_images_have_the_shapes_of_the_search_s():
    shared = tiny_images()
    random = SHAPES.random_images(200)
    assert random.images.shape[1:] == shared.images.shape[1:]
    assert random.num_classes == shared.num_classes
    assert random.augmentation == shared.augmentation
    assert set(random.labels) == set(range(shared.num_classes))


def test_images_that_are_whitened_are_whitened_where_a_packing_is_measured():
    size = int(np.prod(tiny_images().images.shape[1:]))
    whitening = Whitening(mean=np.ones(size, np.float32), matrix=np.ones((size, size), np.float32))
    shapes = Shapes.of(dataclasses.replace(tiny_images(), normalisation=whitening))
    assert shapes.whitens
    found = shapes.random_images(200).normalisation
    assert isinstance(found, Whitening)
    assert found.matrix.shape == whitening.matrix.shape
    assert not SHAPES.whitens


@pytest.mark.parametrize(
    ("given", "names", "kind"),
    [
        (["1"], ["NVIDIA T4", "NVIDIA H100"], "NVIDIA H100"),
        (["GPU-8a56a4bc"], ["NVIDIA T4"], "NVIDIA T4"),
        (["3"], ["NVIDIA T4"], "NVIDIA T4"),  # nvidia-smi counts others
        ([], [], None),
    ],
)
def test_a_packing_is_of_the_gpu_it_was_measured_on(monkeypatch, given, names, kind):
    monkeypatch.setattr(on_ray, "gpu_names", lambda: names)
    monkeypatch.setattr(on_ray.ray, "get_gpu_ids", lambda: given)
    assert on_ray._name_of_the_gpu() == kind


class TestProcesses:
    @pytest.mark.slow
    def test_trainings_run_side_by_side_and_say_their_rate_and_memory(self):
        shapes = dataclasses.replace(SHAPES, megabytes=7)
        found = side_by_side(RECORD, shapes, 2, seconds=0.5)
        assert found.trials == 2
        assert found.steps_per_second > 0
        assert found.megabytes > 100 + 7

    def test_one_that_fails_is_told_by_its_last_line(self):
        with pytest.raises(PackingError, match="unknown algorithm 'nonsense'"):
            side_by_side(RECORD | {"algorithm": "nonsense"}, SHAPES, 1, seconds=0.1)

    def test_one_that_says_nothing_is_not_waited_for_for_ever(self, monkeypatch):
        monkeypatch.setattr(packing, "SECONDS_TO_START", 0.1)
        with pytest.raises(PackingError, match=r"it said nothing for 0\.1 s"):
            side_by_side(RECORD, SHAPES, 1, seconds=0.1)


class TestMemory:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        self.calls: list[int] = []

        def run(record, shapes, trials):
            self.calls.append(trials)
            return Packing(trials=trials, steps_per_second=50.0 * trials, megabytes=500)

        monkeypatch.setattr(packing, "side_by_side", run)

    def ask(self, record=RECORD, shapes=SHAPES, device_name="NVIDIA H100", most=4):
        return trials_per_device([record], shapes, device_name=device_name, most=most)

    def test_the_second_time_nothing_is_measured(self):
        first = self.ask()
        assert first == {"ict": Packing(trials=4, steps_per_second=200.0, megabytes=500)}
        assert self.calls == [1, 2, 4]
        assert self.ask() == first
        assert self.calls == [1, 2, 4]

    @pytest.mark.parametrize(
        "changes",
        [
            {"record": RECORD | {"batch_size": 8}},
            {"record": RECORD | {"model": "wrn-16-2"}},
            {"record": RECORD | {"algorithm": "vat"}},
            {"record": RECORD | {"batch_norm_momentum": 0.001}},
            {"record": RECORD | {"normalisation": "zca"}},
            {"record": RECORD | {"parameters": {"entropy_weight": 0.1}}},
            {"shapes": dataclasses.replace(SHAPES, side=16)},
            {"device_name": "NVIDIA T4"},
            {"most": 2},
        ],
    )
    def test_it_is_of_these_shapes_and_this_kind_of_gpu_only(self, changes):
        self.ask()
        self.calls.clear()
        self.ask(**changes)
        assert self.calls
        self.calls.clear()
        self.ask()  # what was known before is still there
        assert not self.calls

    def test_with_another_service_of_the_gpu_it_is_measured_anew(self, monkeypatch):
        self.ask()
        self.calls.clear()
        monkeypatch.setattr(packing.machine, "mps_runs", lambda: True)
        self.ask()
        assert self.calls

    def test_what_does_not_matter_to_a_step_does_not_count(self):
        self.ask()
        self.calls.clear()
        self.ask(record=RECORD | {"max_steps": 5, "dataset": "cifar10"})
        assert not self.calls

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}'])
    def test_a_damaged_file_is_measured_anew_and_mended(self, content):
        path = packing.memory_path()
        path.parent.mkdir(parents=True)
        path.write_text(content)
        self.ask()
        assert self.calls
        assert "NVIDIA H100" in next(key for key in json.loads(path.read_text()) if "ict" in key)


class TestSearch:
    def share(self, monkeypatch, found, **changes):
        asked = {}

        def measure(records, shapes, **given):
            asked.update(given, records=records)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr("tune_ssl.on_ray.packing.measured_on_a_node", measure)
        config = small_config(gpus_per_trial="auto", device="cuda", **changes)
        cluster = Cluster(address="here", local=True, cpus=16.0, gpus=2.0, dashboard=None)
        text = io.StringIO()
        console = Console(file=text, width=200)
        return with_measured_share(config, cluster, tiny_images(), console), asked, text

    def test_the_method_that_fits_least_often_decides(self, monkeypatch):
        found = dict(zip(("ict", "vat"), measured([10.0, 20.0, 30.0])[1:], strict=True))
        config, asked, text = self.share(monkeypatch, found, alg=("ict", "vat"))
        assert config.gpus_per_trial == 0.5
        assert asked["most"] == 8, "sixteen cores for two GPUs"
        assert [record["algorithm"] for record in asked["records"]] == ["ict", "vat"]
        assert "vat: 4 at once on a GPU, 30 steps/s together, 1000 MB each" in text.getvalue()

    @pytest.mark.parametrize(("asked", "weight"), [("search", 1.0), (0.3, 0.3), (0.0, None)])
    def test_a_pass_for_entropy_is_measured_where_trials_take_one(self, monkeypatch, asked, weight):
        found = {"supervised": measured([10.0])[0], "ict": measured([10.0])[0]}
        asked_for = {"alg": ("supervised", "ict"), "entropy_min": asked}
        _, given, _ = self.share(monkeypatch, found, **asked_for)
        parameters = [record["parameters"].get("entropy_weight") for record in given["records"]]
        assert parameters == [None, weight]

    def test_a_failure_says_what_to_do(self, monkeypatch):
        with pytest.raises(UserError, match=r"auto, and no driver; .*--gpus-per-trial 1"):
            self.share(monkeypatch, PackingError("no driver"))
