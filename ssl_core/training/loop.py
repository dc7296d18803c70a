"""The training loop: order of images, schedules, evaluation, checkpoint; ``step.py`` has the step."""

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

from ssl_core.algorithms import Algorithm
from ssl_core.data.augment import augmented_view
from ssl_core.data.batches import ShuffledPasses
from ssl_core.data.prepare import SplitImages
from ssl_core.data.store import ImageStore
from ssl_core.models.batch_norm import recompute_statistics
from ssl_core.models.ema import EMA
from ssl_core.schedules import LEARNING_RATE_SCHEDULES
from ssl_core.training.capture import Capture, cuda_graph
from ssl_core.training.config import TrainingConfig
from ssl_core.training.evaluate import Evaluation, evaluate_in_parts
from ssl_core.training.seeds import generator_for
from ssl_core.training.step import KeptStep, Step

STATISTICS_BATCHES = 8
STEPS_AHEAD = 8
"""So many may be handed to a GPU before the first is done, where the time is watched."""


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
        kept: where whoever trains one configuration after the other keeps their captured step. A training
            that takes it over ends the one before.
    """

    def __init__(
        self,
        config: TrainingConfig,
        shared: SplitImages,
        store: ImageStore | None = None,
        *,
        capture: Capture | Literal["auto"] | None = "auto",
        kept: KeptStep | None = None,
    ) -> None:
        self.config = config
        self.step = 0
        self._shared = shared
        self._device = torch.device(config.device)
        self._store = store or ImageStore(shared.images, self._device)
        self._labels = torch.from_numpy(shared.labels.copy())
        if capture == "auto":
            on_gpu = self._device.type == "cuda"
            capture = functools.partial(cuda_graph, device=self._device) if on_gpu else None
        self._shared_step = (kept or KeptStep()).taken_for(config, shared, self._store, capture)
        self._beginning = self._shared_step.beginnings
        self._schedule = LEARNING_RATE_SCHEDULES[config.lr_schedule]
        self._labeled_order = ShuffledPasses(
            len(shared.labeled), config.batch_size, generator_for(config.seed, "labeled_order")
        )
        self._unlabeled_order = ShuffledPasses(
            len(shared.unlabeled),
            config.batch_size * config.unlabeled_ratio,
            generator_for(config.seed, "unlabeled_order"),
        )

    @property
    def _device_step(self) -> Step:
        if self._shared_step.beginnings != self._beginning:
            raise RuntimeError("this training has ended: a later one has taken over its step")
        return self._shared_step

    @property
    def student(self) -> nn.Module:
        """The network that is trained."""
        return self._device_step.student

    @property
    def ema(self) -> EMA:
        """The student's moving average."""
        return self._device_step.ema

    @property
    def algorithm(self) -> Algorithm:
        """The method."""
        return self._device_step.algorithm

    @property
    def evaluated_network(self) -> nn.Module:
        """The network the configuration says is measured and exported."""
        return self._device_step.evaluated

    @property
    def finite(self) -> bool:
        """Whether every loss so far was finite. Waits for the device."""
        return bool(self._device_step.finite)

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
            terms=self._device_step.take_mean_terms(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything the remaining steps depend on, as tensors and plain values."""
        return {
            "step": self.step,
            "labeled_order": self._labeled_order.state_dict(),
            "unlabeled_order": self._unlabeled_order.state_dict(),
        } | self._device_step.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken, with the same configuration and images."""
        state = copy.deepcopy(state)  # training on must not change what the caller keeps
        self.step = state["step"]
        self._labeled_order.load_state_dict(state["labeled_order"])
        self._unlabeled_order.load_state_dict(state["unlabeled_order"])
        self._device_step.load_state_dict(state)

    def uncaptured(self) -> AbstractContextManager[None]:
        """Do steps anew within the context, so that a profiler sees their parts."""
        return self._device_step.uncaptured()

    def _train_step(self) -> None:
        self._give_inputs()
        self._device_step.take()
        self.step += 1

    def _give_inputs(self) -> None:
        """Draw the next step's images, and ask the schedules what it shall be trained with."""
        shared = self._shared
        progress = self.step / self.config.max_steps
        positions = self._labeled_order.next()
        unlabeled = torch.empty(0, dtype=torch.int64)
        if self._device_step.num_unlabeled:
            unlabeled = torch.from_numpy(shared.unlabeled[self._unlabeled_order.next().numpy()])
        self._device_step.give(
            torch.from_numpy(shared.labeled[positions.numpy()]),
            self._labels[positions],
            unlabeled,
            progress=progress,
            rate=self.config.learning_rate * float(self._schedule(torch.tensor(progress))),
        )

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
            images = self._store.take(chosen)
            batches.append(
                augmented_view(images, shared.augmentation, shared.normalisation, generator)
            )
        return batches


def _keeping_up(device: torch.device) -> Callable[[], None]:
    """Return what waits, called after each step, until the device has done all but the last few."""
    if device.type != "cuda":
        return lambda: None
    ahead: deque[torch.cuda.Event] = deque()

    def wait() -> None:
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # cores are shared
        done.record(torch.cuda.current_stream(device))
        ahead.append(done)
        if len(ahead) > STEPS_AHEAD:
            ahead.popleft().synchronize()

    return wait
