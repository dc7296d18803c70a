"""Compiled passes are those of the network, made once for all trainings of a process."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from ssl_core.algorithms.common import probabilities
from ssl_core.algorithms.vat import XI_RELATIVE, adversarial_perturbation
from ssl_core.data.prepare import prepare
from ssl_core.divergences import DIVERGENCES
from ssl_core.names import ALGORITHM_NAMES
from ssl_core.training.compiled import compiled
from ssl_core.training.config import TrainingConfig
from ssl_core.training.loop import Training
from tests.marks import needs_a_compiler

STEPS = 3


def training(algorithm: str, **changes) -> Training:
    record = {"algorithm": algorithm, "max_steps": 24, "batch_size": 8, "seed": 3, "compile": True}
    config = TrainingConfig.from_record(record | changes)
    return Training(config, prepare(config.data))


def weights(run: Training) -> list[torch.Tensor]:
    networks = (run.student, run.ema.network)
    return [weight.detach() for network in networks for weight in network.parameters()]


def graphs() -> int:
    """Return how many graphs this process has compiled."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.fixture
def passes(monkeypatch):
    """Compile nothing; return the networks that compiled passes were made through, one entry each."""
    made = []

    def compile_nothing(network, *, dynamic, fullgraph):
        assert (dynamic, fullgraph) == (False, True)

        def whole(images):
            made.append(network)
            return network(images)

        return whole

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return made


class TestPasses:
    @pytest.mark.parametrize(
        ("algorithm", "student", "teacher"),
        [
            ("supervised", 1, 0),
            ("pseudo_label", 2, 0),
            ("pi_model", 3, 0),
            ("vat", 3, 0),  # labeled, clean and perturbed; the probing one is made as it is
            ("mean_teacher", 2, 1),
            ("ict", 2, 1),
            ("mixmatch", 3, 0),
        ],
    )
    def test_all_of_a_step_are_compiled_but_those_that_probe(
        self, passes, algorithm, student, teacher
    ):
        run = training(algorithm)
        run.run(1)
        assert passes.count(run.student) == student
        assert passes.count(run.ema.network) == teacher
        assert len(passes) == student + teacher

    def test_measuring_is_not_compiled(self, passes):
        run = training("supervised")
        run.report()
        assert passes == []

    def test_without_the_setting_none_is(self, passes):
        training("mean_teacher", compile=False).run(1)
        assert passes == []

    @pytest.mark.parametrize("algorithm", ALGORITHM_NAMES)
    def test_the_passes_alone_change_no_number(self, passes, algorithm):
        one, other = training(algorithm), training(algorithm, compile=False)
        for run in (one, other):
            run.run(STEPS)
        assert all(map(torch.equal, weights(one), weights(other)))

    def test_as_many_threads_compile_as_the_training_has(self, passes):
        training("supervised", threads=2)
        assert torch._inductor.config.compile_threads == 2
        training("supervised", threads=1)
        assert torch._inductor.config.compile_threads == 1


@needs_a_compiler
@pytest.mark.slow
class TestCompiler:
    def test_more_sizes_are_compiled_than_torch_would_by_itself(self):
        linear = torch.nn.Linear(2, 2)
        passes = compiled(linear, threads=1)
        before = graphs()
        for size in range(2, 14):
            images = torch.ones(size, 2)
            assert torch.allclose(passes(images), linear(images))
        assert graphs() == before + 12

    def test_losses_and_weights_are_those_of_the_network(self):
        for algorithm in ALGORITHM_NAMES:
            one, other = training(algorithm), training(algorithm, compile=False)
            for run in (one, other):
                run.run(STEPS)
            found, expected = (run.report().terms for run in (one, other))
            assert found == pytest.approx(expected, rel=1e-2, abs=1e-5), algorithm
            # Adam's first steps are as long for a tiny gradient as for a large one, so weights are compared as a whole.
            apart = sum(
                float((a - b).abs().sum())
                for a, b in zip(weights(one), weights(other), strict=True)
            )
            length = sum(float(a.abs().sum()) for a in weights(other))
            assert 0 < apart < 1e-2 * length, algorithm

    def test_vat_finds_the_direction_it_finds_in_double_precision(self):
        """Its clean pass is compiled and its probing pass is not: that differs by less than what is probed."""
        run = training("vat")
        run.run(20)
        images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(5))
        directions = torch.randn(images.shape, generator=torch.Generator().manual_seed(6))
        exact = copy.deepcopy(run.student).double()
        one = self.direction(compiled(run.student, threads=1), images, directions)
        other = self.direction(exact, images.double(), directions.double())
        assert F.cosine_similarity(one.double(), other).min() > 0.999

    @staticmethod
    def direction(network, images, directions):
        with torch.no_grad():
            target = probabilities(network(images))
        xi = XI_RELATIVE * math.sqrt(images[0].numel())
        given = {"eps": 1.0, "xi": xi, "directions": directions}
        found = adversarial_perturbation(DIVERGENCES["kl"], network, images, target, **given)
        return found.flatten(1)

    def test_a_later_training_compiles_nothing(self):
        training("mean_teacher").run(1)
        before = graphs()
        assert before > 0
        later = training("mean_teacher", seed=4, parameters={"learning_rate": 1e-4})
        later.run(STEPS)
        training("ict").run(1)  # whose passes are of the same sizes
        assert graphs() == before

    def test_another_batch_or_precision_is_compiled_for_itself_and_right(self):
        training("supervised").run(1)
        for changes in ({"batch_size": 10}, {"precision": "bfloat16"}):
            before = graphs()
            training("supervised", **changes).run(1)
            assert graphs() == before + 1

    def test_continued_it_ends_where_it_would_have_ended(self):
        whole = training("ict")
        whole.run(4)
        state = whole.state_dict()
        later = training("ict")
        later.load_state_dict(state)
        for run in (whole, later):
            run.run(8)
        assert all(map(torch.equal, weights(whole), weights(later)))
