"""The training loop: device, optimiser, schedules, evaluation, checkpoint; no method's mathematics."""

from __future__ import annotations

import copy
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ssl_core.algorithms import ALGORITHMS, Algorithm, Batch, LossTerms
from ssl_core.data.augment import augmented_view
from ssl_core.data.batches import ShuffledPasses
from ssl_core.data.prepare import SplitImages
from ssl_core.data.store import ImageStore
from ssl_core.models.batch_norm import recompute_statistics, update_statistics
from ssl_core.models.ema import EMA, decay_from_horizon
from ssl_core.models.wide_resnet import build_model
from ssl_core.schedules import LEARNING_RATE_SCHEDULES
from ssl_core.training.capture import WARM_UP_STEPS, Capture, cuda_graph, side_stream
from ssl_core.training.config import TrainingConfig
from ssl_core.training.evaluate import Evaluation, evaluate_in_parts
from ssl_core.training.inputs import StepInputs
from ssl_core.training.seeds import generator_for

STATISTICS_BATCHES = 8
STEPS_AHEAD = 8
"""So many may be handed to a GPU before the first is done, where the time is watched."""
STEP_PARTS = ("batch", "losses", "backward", "optimizer", "ema", "sums")
"""What a step consists of, as a profiler names it."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Both networks at one step, and the terms of the loss since the last report.

    ``evaluated`` is the network the study measures; ``other`` is logged, never selected on.
    """

    step: int
    evaluated: Evaluation
    other: Evaluation
    terms: dict[str, float]


class Training:
    """One training in progress. State lives here between steps; everything else is a function of it.

    The same configuration, images, machine type and number of threads give the same numbers, and
    a training continued from ``state_dict`` ends bit for bit where the uninterrupted one does.

    Args:
        store: of the images, on the configuration's device; None to make one.
        capture: records the step, to be repeated without Python; None for every step anew. Left
            out, a CUDA device captures and others do not.
    """

    def __init__(
        self,
        config: TrainingConfig,
        shared: SplitImages,
        store: ImageStore | None = None,
        *,
        capture: Capture | Literal["auto"] | None = "auto",
    ) -> None:
        self.config = config
        self.step = 0
        self._shared = shared
        self._device = torch.device(config.device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._store = store or ImageStore(shared.images, self._device)
        self._labels = torch.from_numpy(shared.labels.copy())
        if capture == "auto":
            on_gpu = self._device.type == "cuda"
            capture = functools.partial(cuda_graph, device=self._device) if on_gpu else None
        self._capture: Capture | None = capture
        self._replay: Callable[[], None] | None = None
        self.student: nn.Module = build_model(
            config.model,
            in_channels=shared.images.shape[1],
            num_classes=shared.num_classes,
            generator=generator_for(config.seed, "weights"),
        ).to(self._device)
        self.ema = EMA(self.student, decay_from_horizon(config.ema_horizon))
        self.algorithm: Algorithm = ALGORITHMS[config.algorithm].Algorithm(config.method)
        # Running statistics see unlabeled images for every method, supervised included.
        self._unlabeled_views = max(
            self.algorithm.unlabeled_views, 0 if config.batch_norm_momentum is None else 1
        )
        self._optimizer = _make_optimizer(config, self.student, capturable=capture is not None)
        self._schedule = LEARNING_RATE_SCHEDULES[config.lr_schedule]
        self._labeled_order = ShuffledPasses(
            len(shared.labeled), config.batch_size, generator_for(config.seed, "labeled_order")
        )
        self._unlabeled_order = ShuffledPasses(
            len(shared.unlabeled),
            config.batch_size * config.unlabeled_ratio,
            generator_for(config.seed, "unlabeled_order"),
        )
        self._generators = {
            stream: generator_for(config.seed, stream, self._device)
            for stream in (
                "labeled_augmentation",
                "further_labeled_views",
                "unlabeled_augmentation",
                "method",
            )
        }
        self._inputs = StepInputs(config.batch_size, self._num_unlabeled(), self._device)
        self._prepare_capture()
        self._finite = torch.ones((), dtype=torch.bool, device=self._device)
        self._term_sums: dict[str, Tensor] = {}
        self._term_count = 0

    @property
    def evaluated_network(self) -> nn.Module:
        """The network the configuration says is measured and exported."""
        return self.ema.network if self.config.evaluate == "ema" else self.student

    @property
    def finite(self) -> bool:
        """Whether every loss so far was finite. Waits for the device."""
        return bool(self._finite)

    def run(self, until_step: int, seconds: float | None = None) -> None:
        """Train up to a step, or for at least one step until ``seconds`` have passed."""
        self.student.train()
        self.ema.network.train()
        deadline = None if seconds is None else time.monotonic() + seconds
        keep_up = _keeping_up(self._device)
        while self.step < until_step:
            self._train_step()
            if deadline is None:
                continue
            keep_up()
            if time.monotonic() >= deadline:
                return

    def report(self) -> TrainingReport:
        """Measure both networks on the validation images; the training itself is not changed."""
        return next(report for report in self.report_in_parts() if report is not None)

    def report_in_parts(self) -> Iterator[TrainingReport | None]:
        """Yield None after each part of the measuring, at last the report; no step in between."""
        shared = self._shared
        evaluations = {}
        for name, network in (("ema", self.ema.network), ("student", self.student)):
            if self.config.batch_norm_momentum is None or network is not self.evaluated_network:
                recompute_statistics(network, self._statistics_batches())
            evaluations[name] = yield from evaluate_in_parts(
                network,
                self._store,
                shared.validation,
                shared.validation_labels,
                shared.normalisation,
                self._device,
            )
        evaluated = self.config.evaluate
        other = "student" if evaluated == "ema" else "ema"
        yield TrainingReport(
            step=self.step,
            evaluated=evaluations[evaluated],
            other=evaluations[other],
            terms=self._take_mean_terms(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything the remaining steps depend on, as tensors and plain values."""
        return {
            "step": self.step,
            "student": self.student.state_dict(),
            "ema": self.ema.network.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self._optimizer.state_dict(),
            "labeled_order": self._labeled_order.state_dict(),
            "unlabeled_order": self._unlabeled_order.state_dict(),
            "generators": {
                stream: generator.get_state() for stream, generator in self._generators.items()
            },
            "finite": self._finite,
            "term_sums": self._term_sums,
            "term_count": self._term_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken, with the same configuration and images."""
        state = copy.deepcopy(state)  # training on must not change what the caller keeps
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.ema.network.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._labeled_order.load_state_dict(state["labeled_order"])
        self._unlabeled_order.load_state_dict(state["unlabeled_order"])
        for stream, generator in self._generators.items():
            generator.set_state(state["generators"][stream])
        self._finite = state["finite"].to(self._device)
        self._term_sums = {name: term.to(self._device) for name, term in state["term_sums"].items()}
        self._term_count = state["term_count"]
        self._prepare_capture()

    def stop_capturing(self) -> None:
        """Do every further step anew, so that a profiler sees its parts."""
        self._capture = None
        self._replay = None

    def _prepare_capture(self) -> None:
        """Forget a captured step: it reads and writes where the state was before."""
        self._replay = None
        self._steps_before_capture = WARM_UP_STEPS
        if self._capture is not None:
            self._set_rate(self._inputs.rate)

    def _train_step(self) -> None:
        self._give_inputs()
        if self._capture is None:
            self._step()
        elif self._replay is not None:
            self._replay()
        elif self._steps_before_capture > 0:
            self._steps_before_capture -= 1
            with side_stream(self._device):
                self._step()
        else:
            self._replay = self._capture(self._step, self._generators.values())
            self._replay()
        self._term_count += 1
        self.step += 1

    def _give_inputs(self) -> None:
        """Draw the next batch's images and set what changes from step to step."""
        shared = self._shared
        progress = self.step / self.config.max_steps
        rate = self.config.learning_rate * float(self._schedule(torch.tensor(progress)))
        self._ema_weight = self.ema.next_weight()
        if self._capture is None:
            self._set_rate(rate)
        positions = self._labeled_order.next()
        unlabeled = torch.empty(0, dtype=torch.int64)
        if self._num_unlabeled():
            unlabeled = torch.from_numpy(shared.unlabeled[self._unlabeled_order.next().numpy()])
        self._inputs.give(
            torch.from_numpy(shared.labeled[positions.numpy()]),
            self._labels[positions],
            unlabeled,
            progress=progress,
            rate=rate,
            ema_weight=self._ema_weight,
        )

    def _num_unlabeled(self) -> int:
        if not self._unlabeled_views:
            return 0
        return self.config.batch_size * self.config.unlabeled_ratio

    def _step(self) -> None:
        """Take a step from ``_inputs``. No number in it may come from Python: a graph repeats it."""
        with record_function("batch"):
            batch = self._batch()
        with record_function("losses"), self._autocast():
            terms = self.algorithm(
                self.student,
                self.ema.network,
                batch,
                self._inputs.progress,
                self._generators["method"],
            )
        with record_function("backward"):
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(terms.total)
        if self.config.batch_norm_momentum is not None:
            self._move_statistics(batch, self.config.batch_norm_momentum)
        with record_function("optimizer"):
            self._optimizer.step()
        with record_function("ema"):
            captured = self._capture is not None
            self.ema.move(self.student, self._inputs.ema_weight if captured else self._ema_weight)
        with record_function("sums"):
            self._record(terms)

    def _batch(self) -> Batch:
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

    def _move_statistics(self, batch: Batch, momentum: float) -> None:
        """Feed the evaluated network's BatchNorm with the step's images, labeled and unlabeled together.

        In float32 and before the optimiser's step, as all statistics and as Oliver et al. 2018: there
        the one clean pass over the whole batch does it, here that pass is of its own.
        """
        with record_function("statistics"):
            images = torch.cat([batch.labeled[0], batch.unlabeled[0]])
            update_statistics(self.evaluated_network, images, momentum)

    def _set_rate(self, rate: float | Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _views(self, images: Tensor, count: int, stream: str) -> tuple[Tensor, ...]:
        generator = self._generators[stream]
        return tuple(self._view(images, generator) for _ in range(count))

    def _view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        shared = self._shared
        return augmented_view(images, shared.augmentation, shared.normalisation, generator)

    def _statistics_batches(self) -> list[Tensor]:
        """Return the batches that feed BatchNorm before an evaluation.

        Unlabeled images, augmented as in training, for every method, supervised included: on
        the same weights unlabeled images gave .759 where labeled ones gave .739, a gain that is
        no method's. Their draw depends on seed and step alone, so evaluating changes nothing.
        """
        seed, shared = self.config.seed, self._shared
        size = self.config.batch_size * self.config.unlabeled_ratio
        order = ShuffledPasses(
            len(shared.unlabeled), size, generator_for(seed, "statistics", step=2 * self.step)
        )
        generator = generator_for(seed, "statistics", self._device, step=2 * self.step + 1)
        batches = []
        for _ in range(STATISTICS_BATCHES):
            chosen = torch.from_numpy(shared.unlabeled[order.next().numpy()])
            batches.append(self._view(self._store.take(chosen), generator))
        return batches

    def _record(self, terms: LossTerms) -> None:
        """Add a step's terms to the sums; nothing is read from the device here."""
        named = {
            "total": terms.total.detach(),
            "labeled": terms.labeled.detach(),
            "unlabeled": terms.unlabeled.detach(),
            **terms.diagnostics,
        }
        self._finite &= torch.isfinite(named["total"])
        for name, value in named.items():
            if name not in self._term_sums:
                self._term_sums[name] = torch.zeros((), device=self._device)
            self._term_sums[name] += value

    def _take_mean_terms(self) -> dict[str, float]:
        count = max(self._term_count, 1)
        means = {name: float(value) / count for name, value in self._term_sums.items()}
        for value in self._term_sums.values():
            value.zero_()
        self._term_count = 0
        return means

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self._device.type,
            dtype=torch.bfloat16,
            enabled=self.config.precision == "bfloat16",
        )


def _make_optimizer(
    config: TrainingConfig, network: nn.Module, *, capturable: bool
) -> torch.optim.Optimizer:
    """Return the optimiser; weight decay acts on kernels, not on BatchNorm or biases."""
    kernels = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [
        {"params": kernels, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True
        )
    make = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return make(groups, lr=config.learning_rate, fused=True, capturable=capturable)


def set_threads(threads: int) -> None:
    """Use that many CPU threads in this process; another number gives other bits."""
    torch.set_num_threads(threads)


def _keeping_up(device: torch.device) -> Callable[[], None]:
    """Return what waits, called after each step, until the device has done all but the last few."""
    if device.type != "cuda":
        return lambda: None
    ahead: deque[torch.cuda.Event] = deque()

    def wait() -> None:
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(device))
        ahead.append(done)
        if len(ahead) > STEPS_AHEAD:
            ahead.popleft().synchronize()

    return wait
