"""One trial's work behind a few calls, for whoever runs it: a Ray worker, or ``train`` here.

``Work`` is what a runner needs of a trial; ``TrainingWork`` is the real one. Tests run others.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ssl_core.data.images import checksum
from tune_ssl import machine
from tune_ssl.packing import PROCESS_MEGABYTES

if TYPE_CHECKING:
    from ssl_core.data.prepare import SplitImages
    from ssl_core.training.loop import TrainingReport
    from ssl_core.training.profile import StepProfile


DIVISION = "division_seed"
"""In what was measured: the division of the labels it was measured on, where that is the trial's own.

Two vectors of correctness are of the same images where it is equal.
"""


class Measured(NamedTuple):
    """The value a trial is judged by at a step, and everything else that was measured."""

    value: float
    finite: bool
    details: dict[str, Any]


class Work(Protocol):
    """A trial that can be advanced, measured, stored and continued."""

    @property
    def step(self) -> int:
        """Steps done."""

    @property
    def finite(self) -> bool:
        """Whether every loss so far was finite."""

    def run(self, until_step: int, seconds: float | None = None) -> None:
        """Advance to a step, or for at least one step until the seconds have passed."""

    def measure(self, seconds: float | None = None) -> Measured | None:
        """Return the value at the present step, without changing what follows.

        None where the seconds have passed before: asked again, it goes on measuring.
        """

    def to_bytes(self) -> bytes:
        """Return the whole state."""

    def load_bytes(self, data: bytes, sha256: str, name: str) -> None:
        """Continue from a state that ``to_bytes`` gave."""

    def weights(self) -> bytes:
        """Return the evaluated network as a file for ``ssl_core.training.classifier``."""

    def verify(self) -> None:
        """Raise where what all trials share was changed."""


class WorkFactory(Protocol):
    """Makes the work of one trial from its configuration; lives on the worker for all its trials."""

    def __call__(self, record: Mapping[str, Any]) -> Work:
        """Return new work."""

    def verify(self) -> None:
        """Raise where what all trials share did not arrive as it was sent."""


class TrainingFactory:
    """Makes trainings over one data set, whose images it keeps for all of them.

    Args:
        gpu_share: of the GPU that each may use; more is an out-of-memory error of that one alone.
    """

    def __init__(self, shared: SplitImages, *, gpu_share: float = 1.0) -> None:
        self._shared = shared
        self._gpu_share = gpu_share
        self._checksum = checksum(shared.images)
        self._stores: dict[str, Any] = {}
        self._kept: Any = None  # a captured step; torch is loaded later

    def __call__(self, record: Mapping[str, Any]) -> TrainingWork:
        """Return the training a flat configuration describes."""
        return self.on_draw(self._shared, record)

    def on_draw(self, drawn: SplitImages, record: Mapping[str, Any]) -> TrainingWork:
        """Return the same on another draw of labels from the images that are kept.

        Args:
            drawn: as its split_seed draws it; the record may divide its labels anew.
        """
        from ssl_core.data.prepare import divided
        from ssl_core.data.store import ImageStore
        from ssl_core.training.config import TrainingConfig
        from ssl_core.training.device import limit_memory
        from ssl_core.training.step import KeptStep

        assert drawn.images is self._shared.images
        config = TrainingConfig.from_record(record)
        store = self._stores.get(config.device)
        if store is None:
            self.verify()
            limit_memory(config.device, self._gpu_share or 1.0, PROCESS_MEGABYTES * 2**20)
            store = self._stores[config.device] = ImageStore(self._shared.images, config.device)
        self._kept = self._kept or KeptStep()
        return TrainingWork(
            config, divided(drawn, config.data), store, self._checksum, kept=self._kept
        )

    def verify(self) -> None:
        """Raise RuntimeError where the images are not those the search began with."""
        _verify(checksum(self._shared.images), self._checksum)


class DrawsFactory:
    """Makes trainings over several draws of labels from the same images, which are kept once.

    Each draw holds its own labels only: those of the others, and of the unlabeled images, are no
    part of it.

    Args:
        draws: by split_seed; their ``images`` are one and the same array, which a pickle keeps so.
    """

    def __init__(self, draws: Mapping[int, SplitImages], *, gpu_share: float = 1.0) -> None:
        self._draws = dict(draws)
        first = next(iter(self._draws.values()))
        self._trainings = TrainingFactory(first, gpu_share=gpu_share)

    def __call__(self, record: Mapping[str, Any]) -> TrainingWork:
        """Return the training a flat configuration describes, on the draw its split_seed names."""
        return self._trainings.on_draw(self._draws[record["split_seed"]], record)

    def verify(self) -> None:
        """See ``TrainingFactory``."""
        self._trainings.verify()


class TrainingWork:
    """A training, measured on its validation images.

    Args:
        kept: the step that is kept from training to training; see ``Training``.
    """

    def __init__(
        self,
        config: Any,
        shared: SplitImages,
        store: Any,
        checksum: int,
        *,
        kept: Any = None,
    ) -> None:
        from ssl_core.training.device import set_up_process
        from ssl_core.training.loop import Training

        set_up_process(config.threads)
        machine.forget_peak_resident()
        self._metric = config.metric
        self._model = config.model
        self._shared = shared
        self._training = Training(config, shared, store, kept=kept)
        self._store = store
        self._checksum = checksum
        self._measuring: Iterator[TrainingReport | None] | None = None

    @property
    def step(self) -> int:
        """See ``Work``."""
        return self._training.step

    @property
    def finite(self) -> bool:
        """See ``Work``."""
        return self._training.finite

    def run(self, until_step: int, seconds: float | None = None) -> None:
        """See ``Work``."""
        self._measuring = None
        self._training.run(until_step, seconds)

    def measure(self, seconds: float | None = None) -> Measured | None:
        """See ``Work``."""
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._measuring = self._measuring or self._training.report_in_parts()
        for report in self._measuring:
            if report is not None:
                self._measuring = None
                return self._measured(report)
            if time.monotonic() >= deadline:
                break
        return None

    def _measured(self, report: TrainingReport) -> Measured:
        from ssl_core.training.device import peak_device_bytes

        evaluated, other = report.evaluated, report.other
        details = {
            "standard_error": evaluated.standard_error(self._metric),
            "accuracy": evaluated.accuracy,
            "balanced_accuracy": evaluated.balanced_accuracy,
            "other_network": other.value(self._metric),
            "terms": report.terms,
            "correct": pack_correct(evaluated.correct),
            "memory_megabytes": machine.peak_resident_bytes() // 2**20,
        }
        of_gpu = peak_device_bytes(self._training.config.device)
        if of_gpu:
            details["gpu_megabytes"] = of_gpu // 2**20
        division = self._training.config.data.division_seed
        if division is not None:
            details[DIVISION] = division
        return Measured(evaluated.value(self._metric), evaluated.finite, details)

    def profile(self) -> StepProfile:
        """Train some steps and return where their time goes; the training itself is not changed."""
        from ssl_core.training.profile import profile_steps

        return profile_steps(self._training)

    def to_bytes(self) -> bytes:
        """See ``Work``."""
        from ssl_core.training.checkpoint import to_bytes

        return to_bytes(self._training.state_dict())

    def load_bytes(self, data: bytes, sha256: str, name: str) -> None:
        """See ``Work``."""
        from ssl_core.training.checkpoint import from_bytes

        self._training.load_state_dict(from_bytes(data, sha256=sha256, name=name))

    def weights(self) -> bytes:
        """See ``Work``."""
        from ssl_core.training.classifier import Card, weights_to_bytes

        shared = self._shared
        card = Card(
            model=self._model,
            class_names=shared.class_names,
            channels=shared.images.shape[1],
            image_size=shared.images.shape[2],
            normalisation=shared.normalisation,
        )
        return weights_to_bytes(self._training.evaluated_network, card)

    def verify(self) -> None:
        """See ``Work``."""
        _verify(self._store.checksum(), self._checksum)


def pack_correct(correct: npt.NDArray[np.bool_]) -> str:
    """Return a vector of yes and no as text: its length, a colon, its bits in base 64."""
    return f"{len(correct)}:{base64.b64encode(np.packbits(correct).tobytes()).decode()}"


def unpack_correct(text: str) -> npt.NDArray[np.bool_]:
    """Return the vector that ``pack_correct`` packed."""
    length, bits = text.split(":", 1)
    packed = np.frombuffer(base64.b64decode(bits), dtype=np.uint8)
    return np.unpackbits(packed)[: int(length)].astype(np.bool_)


def _verify(found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(
            f"the images in memory changed (CRC-32 {found:08x}, at the start {expected:08x})"
        )
