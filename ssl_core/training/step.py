"""One training step, with all it reads and writes on the device; no schedule, no order of images.

Done anew it is ordinary eager code. Captured (``capture.py``) it is repeated without Python, so that
everything it reads must lie where it lay when it was recorded: the weights, the optimiser's moments and
the sums, what changes from step to step (``inputs.StepInputs``), and the hyperparameters. A captured
step can therefore serve one training after another: ``begin_again`` writes the next one's weights and
numbers into the same places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ssl_core.algorithms import ALGORITHMS, Algorithm, Batch, LossTerms
from ssl_core.algorithms.common import Network, numbers_of
from ssl_core.data.augment import PreprocessingTensors, augmented_view
from ssl_core.data.prepare import SplitImages
from ssl_core.data.recipe import Preprocessing, Whitening
from ssl_core.data.store import ImageStore
from ssl_core.models.batch_norm import batch_norms, update_statistics
from ssl_core.models.ema import EMA, decay_from_horizon
from ssl_core.models.wide_resnet import build_model
from ssl_core.training.capture import WARM_UP_STEPS, Capture, side_stream
from ssl_core.training.compiled import compiled
from ssl_core.training.config import TrainingConfig
from ssl_core.training.device import forget_peak
from ssl_core.training.inputs import StepInputs
from ssl_core.training.seeds import generator_for

STEP_PARTS = ("batch", "losses", "backward", "optimizer", "ema", "sums")
"""What a step consists of, as a profiler names it."""
DRAWN_ON_DEVICE = (
    "labeled_augmentation",
    "further_labeled_views",
    "unlabeled_augmentation",
    "method",
)
"""Streams of randomness that a step draws from."""
WRITTEN_ANEW = ("method", "learning_rate", "weight_decay", "ema_horizon", "seed")
"""Fields of a configuration that ``begin_again`` writes, the method's real numbers among them."""
UNKNOWN_TO_A_STEP = ("data", "max_steps", "lr_schedule", "metric", "protocol")


def step_key(config: TrainingConfig, shared: SplitImages, store: ImageStore) -> Hashable:
    """Return what a captured step depends on, beside the numbers that ``begin_again`` writes anew."""
    method = config.method
    numbers = numbers_of(method)
    settings = [
        field.name
        for field in dataclasses.fields(config)
        if field.name not in (*WRITTEN_ANEW, *UNKNOWN_TO_A_STEP)
    ]
    structure = [field.name for field in dataclasses.fields(method) if field.name not in numbers]
    whitens = isinstance(shared.normalisation, Whitening)
    return (
        tuple((name, getattr(config, name)) for name in settings),
        tuple((name, getattr(method, name)) for name in structure),
        # A number may switch a term off, or a pass.
        tuple(value > 0 for value in numbers.values()),
        (shared.num_classes, shared.augmentation, whitens, store),
    )


class Step:
    """The step of one training, or of several one after the other.

    Args:
        capture: records the step; None to do every step anew.

    Attributes:
        evaluated: the network the configuration says is measured and exported.
        beginnings: how many trainings it has served, this one included.
        whole: False while a step is taken or a state loaded, and ever after where that failed.
    """

    def __init__(
        self,
        config: TrainingConfig,
        shared: SplitImages,
        store: ImageStore,
        capture: Capture | None,
    ) -> None:
        self.beginnings = 1
        self.whole = True
        self._config = config
        self._store = store
        self._capture = capture
        self._numbers_on_device = capture is not None
        self._device = torch.device(config.device)
        self._augmentation = shared.augmentation
        self._preprocessing: Preprocessing | PreprocessingTensors = shared.normalisation
        if self._numbers_on_device:
            self._preprocessing = PreprocessingTensors(shared.normalisation, self._device)
        self.student: nn.Module = _initial_network(config, shared).to(self._device)
        self.ema = EMA(self.student, decay_from_horizon(config.ema_horizon))
        self._student_pass: Network = self.student
        self._teacher_pass: Network = self.ema.network
        if config.compile:
            self._student_pass = compiled(self.student, config.threads)
            self._teacher_pass = compiled(self.ema.network, config.threads)
        self.algorithm: Algorithm = ALGORITHMS[config.algorithm].Algorithm(config.method)
        # Running statistics see unlabeled images for every method, supervised included.
        self._unlabeled_views = max(
            self.algorithm.unlabeled_views, 0 if config.batch_norm_momentum is None else 1
        )
        self._generators = {
            stream: generator_for(config.seed, stream, self._device) for stream in DRAWN_ON_DEVICE
        }
        self._inputs = StepInputs(config.batch_size, self.num_unlabeled, self._device)
        self._numbers: dict[str, Tensor] = {}
        if self._numbers_on_device:
            self._numbers = {
                name: torch.tensor(value, device=self._device)
                for name, value in _numbers(config).items()
            }
            self.algorithm.numbers = SimpleNamespace(**self._numbers)
        self.evaluated = self.ema.network if config.evaluate == "ema" else self.student
        self._norms = batch_norms(self.evaluated)
        self._optimizer = _make_optimizer(
            config, self.student, numbers_on_device=self._numbers_on_device
        )
        self._kernels: list[Tensor] = self._optimizer.param_groups[0]["params"]
        if self._numbers_on_device:
            self._set_rate(self._inputs.rate)
        self._ema_weight = 0.0
        self.finite = torch.ones((), dtype=torch.bool, device=self._device)
        self._term_sums: dict[str, Tensor] = {}
        self._term_count = 0
        self._watched = False
        self._replay: Callable[[], None] | None = None
        self._steps_before_capture = WARM_UP_STEPS

    @property
    def num_unlabeled(self) -> int:
        """Unlabeled images of a step: none where neither the method nor statistics use them."""
        if not self._unlabeled_views:
            return 0
        return self._config.batch_size * self._config.unlabeled_ratio

    def begin_again(self, config: TrainingConfig, shared: SplitImages) -> None:
        """Go back to the beginning, for another training of the same ``step_key``.

        Everything is written where it was, so that what was recorded serves on.
        """
        self.beginnings += 1
        self._config = config
        self.algorithm.config = config.method
        assert isinstance(self._preprocessing, PreprocessingTensors)
        self._preprocessing.write(shared.normalisation)
        initial = _initial_network(config, shared).state_dict()
        self.student.load_state_dict(initial)
        self.ema.network.load_state_dict(initial)
        self.ema.updates = 0
        self.ema.decay = decay_from_horizon(config.ema_horizon)
        for stream, generator in self._generators.items():
            fresh = generator_for(config.seed, stream, self._device)
            generator.set_state(fresh.get_state())
        for name, value in _numbers(config).items():
            self._numbers[name].fill_(value)
        for moments in self._optimizer.state.values():
            for moment in moments.values():
                moment.zero_()
        self.finite.fill_(value=True)
        self._clear_terms()

    def give(
        self,
        labeled: Tensor,
        labels: Tensor,
        unlabeled: Tensor,
        *,
        progress: float,
        rate: float,
    ) -> None:
        """Say what the next step is made of; waits for no device.

        Args:
            labeled: (B,) int64 rows of the store, as all of these on the CPU.
            labels: (B,) int64, their classes.
            unlabeled: (mu B,) int64 rows of the store, or none.
            progress: part of the budget done, in [0, 1].
            rate: the learning rate.
        """
        self._ema_weight = self.ema.next_weight()
        if not self._numbers_on_device:
            self._set_rate(rate)
        self._inputs.give(
            labeled,
            labels,
            unlabeled,
            progress=progress,
            rate=rate,
            ema_weight=self._ema_weight,
        )

    def take(self) -> None:
        """Train on what was given."""
        self.whole = False
        if self._capture is None or self._watched:
            self._step()
        elif self._replay is not None:
            self._replay()
        elif self._steps_before_capture > 0:
            with side_stream(self._device):
                self._step()
            self._steps_before_capture -= 1
        else:
            self._replay = self._capture(self._step, self._generators.values())
            self._replay()
        self._term_count += 1
        self.whole = True

    def take_mean_terms(self) -> dict[str, float]:
        """Return the terms' means since the last call, and begin anew. Waits for the device."""
        count = max(self._term_count, 1)
        means = {name: float(value) / count for name, value in self._term_sums.items()}
        self._clear_terms()
        return means

    def _clear_terms(self) -> None:
        for value in self._term_sums.values():
            value.zero_()
        self._term_count = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all the next steps depend on, as tensors and plain values."""
        return {
            "student": self.student.state_dict(),
            "ema": self.ema.network.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self._optimizer.state_dict(),
            "generators": {
                stream: generator.get_state() for stream, generator in self._generators.items()
            },
            "finite": self.finite,
            "term_sums": self._term_sums,
            "term_count": self._term_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, which is taken over and not copied; other keys are left alone."""
        self.whole = False
        self._forget_capture()
        self.student.load_state_dict(state["student"])
        self.ema.network.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        self._load_optimizer(state["optimizer"])
        for stream, generator in self._generators.items():
            generator.set_state(state["generators"][stream])
        self.finite = state["finite"].to(self._device)
        self._term_sums = {name: term.to(self._device) for name, term in state["term_sums"].items()}
        self._term_count = state["term_count"]
        self.whole = True

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Take over moments and rate; the decay depends on who does it, here or there."""
        own = self._optimizer.state_dict()["param_groups"]
        groups = [
            group | {"lr": theirs["lr"]}
            for group, theirs in zip(own, state["param_groups"], strict=True)
        ]
        self._optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
        if self._numbers_on_device:
            self._set_rate(self._inputs.rate)

    @contextmanager
    def uncaptured(self) -> Iterator[None]:
        """Do steps anew within the context; what was recorded goes on after it."""
        self._watched = True
        try:
            yield
        finally:
            self._watched = False

    def _forget_capture(self) -> None:
        """What was recorded reads and writes where the state was before."""
        self._replay = None
        self._steps_before_capture = WARM_UP_STEPS

    def _set_rate(self, rate: float | Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _step(self) -> None:
        """Take a step from ``_inputs``. No number in it may come from Python: a graph repeats it."""
        with record_function("batch"):
            batch = self.batch()
        with record_function("losses"), self._autocast():
            terms = self.algorithm(
                self._student_pass,
                self._teacher_pass,
                batch,
                self._inputs.progress,
                self._generators["method"],
            )
        with record_function("backward"):
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(terms.total)
        if self._config.batch_norm_momentum is not None:
            self._move_statistics(batch, self._config.batch_norm_momentum)
        with record_function("optimizer"):
            if self._numbers_on_device:
                self._decay_weights()
            self._optimizer.step()
        with record_function("ema"):
            weight = self._inputs.ema_weight if self._numbers_on_device else self._ema_weight
            self.ema.move(weight)
        with record_function("sums"):
            self._record(terms)

    def batch(self) -> Batch:
        """Draw the views of the images given."""
        inputs = self._inputs
        labeled = self._store.take(inputs.labeled)
        unlabeled_views: tuple[Tensor, ...] = ()
        if self._unlabeled_views:
            unlabeled_views = self._views(
                self._store.take(inputs.unlabeled),
                self._unlabeled_views,
                "unlabeled_augmentation",
            )
        # The first view is the same for every method: further ones draw from another stream.
        return Batch(
            labeled=self._views(labeled, 1, "labeled_augmentation")
            + self._views(labeled, self.algorithm.labeled_views - 1, "further_labeled_views"),
            labels=inputs.labels.clone(),  # the batch stays what it is when the next one comes
            unlabeled=unlabeled_views,
        )

    def _views(self, images: Tensor, count: int, stream: str) -> tuple[Tensor, ...]:
        generator = self._generators[stream]
        return tuple(
            augmented_view(images, self._augmentation, self._preprocessing, generator)
            for _ in range(count)
        )

    def _move_statistics(self, batch: Batch, momentum: float) -> None:
        """Feed the evaluated network's BatchNorm with the step's images, labeled and unlabeled together.

        In float32 and before the optimiser's step, as all statistics and as Oliver et al. 2018: there
        the one clean pass over the whole batch does it, here that pass is of its own.
        """
        with record_function("statistics"):
            images = torch.cat([batch.labeled[0], batch.unlabeled[0]])
            update_statistics(self.evaluated, self._norms, images, momentum)

    @torch.no_grad()
    def _decay_weights(self) -> None:
        """Do the optimiser's weight decay by a number on the device: its own would be recorded."""
        decay = self._numbers["weight_decay"]
        if self._config.optimizer == "adamw":
            torch._foreach_mul_(self._kernels, 1.0 - self._inputs.rate * decay)
        else:
            gradients = [_gradient(kernel) for kernel in self._kernels]
            torch._foreach_add_(gradients, list(torch._foreach_mul(self._kernels, decay)))

    def _record(self, terms: LossTerms) -> None:
        """Add a step's terms to the sums; nothing is read from the device here."""
        named = {
            "total": terms.total.detach(),
            "labeled": terms.labeled.detach(),
            "unlabeled": terms.unlabeled.detach(),
            **terms.diagnostics,
        }
        self.finite &= torch.isfinite(named["total"])
        for name, value in named.items():
            if name not in self._term_sums:
                self._term_sums[name] = torch.zeros((), device=self._device)
            self._term_sums[name] += value

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self._device.type,
            dtype=torch.bfloat16,
            enabled=self._config.precision == "bfloat16",
        )


class KeptStep:
    """The captured step of whoever trains one configuration after another, one at a time."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._step: Step | None = None

    def taken_for(
        self,
        config: TrainingConfig,
        shared: SplitImages,
        store: ImageStore,
        capture: Capture | None,
    ) -> Step:
        """Return a training's step, at its beginning: the kept one where that is the same, or a new one.

        What is not captured is made anew and not kept, and so is what was left by an error.
        """
        key = None if capture is None else step_key(config, shared, store)
        step, self._step = self._step, None
        if step is not None and not (step.whole and self._key == key):
            step = None  # before another is made, or the memory of both would be needed
        forget_peak(config.device)
        if step is None:
            step = Step(config, shared, store, capture)
        else:
            step.begin_again(config, shared)
        if capture is not None:
            self._key, self._step = key, step
        return step


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def _initial_network(config: TrainingConfig, shared: SplitImages) -> nn.Module:
    return build_model(
        config.model,
        in_channels=shared.images.shape[1],
        num_classes=shared.num_classes,
        generator=generator_for(config.seed, "weights"),
    )


def _numbers(config: TrainingConfig) -> dict[str, float]:
    """Return the hyperparameters that a captured step reads from the device, by name."""
    return numbers_of(config.method) | {"weight_decay": config.weight_decay}


def _make_optimizer(
    config: TrainingConfig, network: nn.Module, *, numbers_on_device: bool
) -> torch.optim.Optimizer:
    """Return the optimiser; weight decay acts on kernels, not on BatchNorm or biases.

    A step whose numbers are on the device decays them itself.
    """
    kernels = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [
        {"params": kernels, "weight_decay": 0.0 if numbers_on_device else config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True
        )
    make = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return make(groups, lr=config.learning_rate, fused=True, capturable=numbers_on_device)
