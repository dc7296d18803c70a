"""Whether a step under protocol oliver is the one the papers describe, on real images.

    python -m benchmarks.protocol_oliver --images DIR --record

``DIR/train/<class>/*`` are CIFAR-10's images as files. At steps of the ramp and after the drop of the rate,
one step of ours (float32) is compared with the same step written again from the papers in float64: global
contrast normalisation, whitening, flip, shift and noise image by image, the losses of ``REFERENCES``, and
the running BatchNorm statistics. Both begin with the same weights and are given the same random numbers.
The whitening's matrix M is checked by what defines it: M (C + .1 I) M = I.

The equations are compared in float64 on the same views too (``equations``), because float32 has an end of
its own: a leaky ReLU whose input is nearly 0 falls on its other side, and the gradient jumps.

What this shows is agreement of steps; it is no accuracy after 500,000 of them.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from optuna.trial import FixedTrial
from torch import Tensor, nn

from benchmarks.plain_loop import PlainWideResNet
from benchmarks.records import write_record
from ssl_core.algorithms import Batch
from ssl_core.data.folder import load_training_images
from ssl_core.data.images import LabeledImages
from ssl_core.data.prepare import SplitImages, split_images
from ssl_core.data.recipe import Whitening
from ssl_core.mixing import draw_mixing_coefficients
from ssl_core.names import parse_model_name
from ssl_core.training.config import TrainingConfig
from ssl_core.training.loop import Training
from ssl_core.training.seeds import generator_for
from tune_ssl.workflows.settings import settings_from

RECORD = Path(__file__).with_suffix(".json")
METHODS = ("supervised", "pi_model", "mean_teacher", "vat", "mixmatch")
STEPS = (0, 1, 150_000, 450_000)
"""The first two, one of the ramp, and one after the rate's drop."""

PER_CLASS = 400
LABELS, VALIDATION, SEED = 1000, 500, 5


def main() -> None:
    """Compare every method's steps and print, or record, how far they agree."""
    options = _options()
    source = some_images(load_training_images(Path(options.images), 32), PER_CLASS)
    shared = oliver_images(source, LABELS, VALIDATION)
    figures: dict[str, Any] = {
        "images": f"CIFAR-10, re-encoded as JPEG: {PER_CLASS} of each class, {len(shared.unlabeled)} trained on",
        "model": options.model,
        "steps": list(STEPS),
        "whitening_residual": whitening_residual(shared),
        "errors": {},
    }
    for method in METHODS:
        row = agreement(method, shared, options.model, STEPS)
        figures["errors"][method] = row
        print(f"{method:<13}", ", ".join(f"{k} {v:.1e}" for k, v in row.items()), flush=True)
    print("M (C + .1 I) M - I, largest entry:", figures["whitening_residual"])
    if options.record:
        write_record(RECORD, figures)


def some_images(source: LabeledImages, per_class: int) -> LabeledImages:
    """Return the first images of each class."""
    rows = [
        np.flatnonzero(source.labels == label)[:per_class] for label in range(source.num_classes)
    ]
    kept = np.sort(np.concatenate(rows))
    return LabeledImages(
        images=source.images[kept], labels=source.labels[kept], class_names=source.class_names
    )


def oliver_images(source: LabeledImages, labels: int, validation: int) -> SplitImages:
    """Return the images drawn and whitened as protocol oliver does with CIFAR-10."""
    given = {"protocol": "oliver", "dataset": "cifar10", "labels": labels, "validation": validation}
    return split_images(settings_from(None, {"alg": "supervised", **given}).data(), source)


def training_of(method: str, shared: SplitImages, model: str) -> Training:
    """Return a training of a method's published default under protocol oliver."""
    settings = settings_from(
        None, {"alg": method, "protocol": "oliver", "dataset": "cifar10", "model": model}
    )
    space = settings.space(shared.num_classes)
    published = space.suggest(FixedTrial(space.defaults()[0].params))
    record = settings.trial_record(published, SEED) | {"threads": 1, "device": "cpu"}
    return Training(TrainingConfig.from_record(record), shared, capture=None)


def agreement(
    method: str, shared: SplitImages, model: str, steps: tuple[int, ...]
) -> dict[str, float]:
    """Return the largest errors over steps.

    ``loss``, ``gradient``, ``statistics`` (of BatchNorm) and ``rate`` of our step as it is run, relative;
    ``views`` the largest difference of an input; ``equations`` that of the gradient in float64 on the same
    views, relative.
    """
    training = training_of(method, shared, model)
    drawing = training_of(method, shared, model)  # takes no step: it draws the same images
    reference = Reference(training, shared, model)
    worst: dict[str, float] = {}
    for step in steps:
        training.step = drawing.step = step
        drawing._give_inputs()
        batch = in_float64(drawing._device_step.batch())
        found = {"equations": equations(training, batch, reference)}
        expected = reference.step()
        before = float(training.state_dict()["term_sums"].get("total", 0.0))
        training.run(step + 1)
        state = training.state_dict()
        views = zip((*batch.labeled, *batch.unlabeled), expected.views, strict=True)
        found |= {
            "views": max(float((one - other).abs().max()) for one, other in views),
            "loss": _relative(float(state["term_sums"]["total"]) - before, expected.loss),
            "gradient": _distance(_gradients(training.student), expected.gradient),
            "statistics": _distance(_statistics(training.student), expected.statistics),
            "rate": _relative(state["optimizer"]["param_groups"][0]["lr"], reference.rate(step)),
        }
        worst = {name: max(value, worst.get(name, 0.0)) for name, value in found.items()}
    return worst


def in_float64(batch: Batch) -> Batch:
    """Return a batch with views in float64."""
    return Batch(
        labeled=tuple(view.double() for view in batch.labeled),
        labels=batch.labels,
        unlabeled=tuple(view.double() for view in batch.unlabeled),
    )


def equations(training: Training, batch: Batch, reference: Reference) -> float:
    """Return how far our gradient is from the reference's, both in float64 on the same views."""
    student, teacher = (
        copy.deepcopy(network).double() for network in (training.student, training.ema.network)
    )
    draws = torch.Generator()
    draws.set_state(training.state_dict()["generators"]["method"])
    progress = torch.tensor(training.step / training.config.max_steps, dtype=torch.float64)
    terms = training.algorithm(student, teacher, batch, progress, draws)
    found = list(torch.autograd.grad(terms.total, list(student.parameters())))
    return _distance(found, reference.gradient_of(batch))


def whitening_residual(shared: SplitImages) -> float:
    """Return the largest entry of M (C + .1 I) M - I, with C the covariance of what is trained on."""
    whitening = shared.normalisation
    assert isinstance(whitening, Whitening)
    rows = np.stack([contrast_normalised(image) for image in shared.images[shared.unlabeled]])
    covariance = np.cov(rows, rowvar=False) + 0.1 * np.eye(rows.shape[1])
    matrix = whitening.matrix.astype(np.float64)
    return float(np.abs(matrix @ covariance @ matrix - np.eye(len(matrix))).max())


def contrast_normalised(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return one image as a row of mean 0 and norm 55."""
    row = image.astype(np.float64).ravel()
    row = row - row.mean()
    normed: npt.NDArray[np.float64] = 55.0 * row / math.sqrt(float(row @ row))
    return normed


class Reference:
    """The step of a training in progress, written again in float64.

    It reads the training's weights, rows and labels; views, losses and statistics are its own.
    """

    def __init__(self, training: Training, shared: SplitImages, model: str) -> None:
        self._training, self._shared = training, shared
        whitening = shared.normalisation
        assert isinstance(whitening, Whitening)
        self._mean = whitening.mean.astype(np.float64)
        self._matrix = whitening.matrix.astype(np.float64)
        config = training.config
        self._config, self._loss = config, REFERENCES[config.algorithm]
        shape = (*parse_model_name(model), shared.images.shape[1], shared.num_classes)
        self._student = PlainWideResNet(*shape).double()
        self._teacher = PlainWideResNet(*shape).double()
        self._generators = {
            name: generator_for(config.seed, name)
            for name in ("labeled_augmentation", "unlabeled_augmentation", "method")
        }
        self._orders = {
            "labeled": (shared.labeled, generator_for(config.seed, "labeled_order")),
            "unlabeled": (shared.unlabeled, generator_for(config.seed, "unlabeled_order")),
        }
        self._pending: dict[str, list[int]] = {"labeled": [], "unlabeled": []}
        classes = zip(shared.labeled, shared.labels, strict=True)
        self._labels = {int(row): int(label) for row, label in classes}
        self._statistics = [start.double() for start in _statistics(training.student)]

    def rate(self, step: int) -> float:
        """Return the learning rate: a fifth from 400,000 of 500,000 steps on."""
        return self._config.learning_rate * (0.2 if step >= 400_000 else 1.0)

    def step(self) -> Expected:
        """Return what the training's next step is to give."""
        rows, others = self._rows("labeled"), self._rows("unlabeled")
        count = VIEWS[self._config.algorithm]
        unlabeled = [self._views(others, "unlabeled_augmentation") for _ in range(count)]
        labeled = self._views(rows, "labeled_augmentation")
        labels = torch.tensor([self._labels[row] for row in rows])
        views = [labeled, *unlabeled]
        draws = self._generators["method"]
        loss, gradient = self._differentiated(views, labels, draws, torch.float32)
        self._move(torch.cat([labeled, unlabeled[0]]))
        return Expected(loss, gradient, views, self._statistics)

    def gradient_of(self, batch: Batch) -> list[Tensor]:
        """Return the gradient on given views, with the draws of the training's next step."""
        draws = torch.Generator()
        draws.set_state(self._generators["method"].get_state())
        views = [*batch.labeled, *batch.unlabeled]
        return self._differentiated(views, batch.labels, draws, torch.float64)[1]

    def _differentiated(
        self, views: list[Tensor], labels: Tensor, draws: torch.Generator, drawn_in: torch.dtype
    ) -> tuple[float, list[Tensor]]:
        _load(self._student, self._training.student)
        _load(self._teacher, self._training.ema.network)
        values, part = self._config.method, min(self._training.step / 200_000, 1.0)
        linear = self._config.algorithm == "mixmatch"
        ramp = part if linear else math.exp(-5.0 * (1.0 - part) ** 2)
        networks = (self._student, self._teacher)
        given = Given(*networks, views[0], labels, views[1:], values, drawn_in)
        one, other = self._loss(given, draws)
        loss = one + getattr(values, "unlabeled_weight", 0.0) * ramp * other
        return loss.item(), list(torch.autograd.grad(loss, list(self._student.parameters())))

    def _rows(self, kind: str) -> list[int]:
        indices, generator = self._orders[kind]
        pending = self._pending[kind]
        while len(pending) < 50:
            pending += torch.randperm(len(indices), generator=generator).tolist()
        taken, self._pending[kind] = pending[:50], pending[50:]
        return [int(indices[position]) for position in taken]

    def _views(self, rows: list[int], stream: str) -> Tensor:
        """Whiten, then mirror, shift and add noise, image by image."""
        generator = self._generators[stream]
        shape = self._shared.images.shape[1:]
        coins = torch.rand(len(rows), generator=generator)
        most = max(1, round(shape[-1] / 16))  # 2 at 32 x 32
        offsets = torch.randint(-most, most + 1, (len(rows), 2), generator=generator)
        noise = torch.randn((len(rows), *shape), generator=generator).double()
        flat = np.stack([contrast_normalised(self._shared.images[row]) for row in rows])
        whitened = ((flat - self._mean) @ self._matrix).reshape(-1, *shape)
        views = []
        for image, coin, (down, right) in zip(whitened, coins, offsets.tolist(), strict=True):
            mirrored = image[:, :, ::-1] if coin < 0.5 else image
            padded = np.pad(mirrored, ((0, 0), (most, most), (most, most)), mode="reflect")
            rows_from, columns_from = most + down, most + right
            height, width = shape[1:]
            shifted = padded[:, rows_from : rows_from + height, columns_from : columns_from + width]
            views.append(torch.from_numpy(shifted.copy()))
        return torch.stack(views) + 0.15 * noise

    def _move(self, images: Tensor) -> None:
        """Move the running statistics by a thousandth towards those of the images."""
        norms = [module for module in self._student.modules() if isinstance(module, nn.BatchNorm2d)]
        seen: list[Tensor] = []

        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.extend(
                [inputs[0].mean(dim=(0, 2, 3)), inputs[0].transpose(0, 1).flatten(1).var(dim=1)]
            )

        handles = [norm.register_forward_pre_hook(note) for norm in norms]
        with torch.no_grad():
            self._student(images)
        for handle in handles:
            handle.remove()
        self._statistics = [
            0.999 * old + 0.001 * new for old, new in zip(self._statistics, seen, strict=True)
        ]


@dataclass(frozen=True)
class Given:
    """What a loss is computed from: networks, views (50, channels, 32, 32), classes and values.

    ``drawn_in`` is the type in which the method draws: another gives other numbers.
    """

    student: nn.Module
    teacher: nn.Module
    labeled: Tensor
    labels: Tensor
    unlabeled: list[Tensor]
    values: Any
    drawn_in: torch.dtype


class Expected(NamedTuple):
    """What a step is to give: views labeled first, and running statistics layer by layer."""

    loss: float
    gradient: list[Tensor]
    views: list[Tensor]
    statistics: list[Tensor]


Loss = Callable[[Given, torch.Generator], tuple[Tensor, Tensor]]


def _softmax(logits: Tensor) -> Tensor:
    powers = (logits - logits.detach().amax(dim=1, keepdim=True)).exp()
    return powers / powers.sum(dim=1, keepdim=True)


def _supervised(given: Given, _: torch.Generator) -> tuple[Tensor, Tensor]:
    p = _softmax(given.student(given.labeled))
    chosen = p[torch.arange(len(p)), given.labels]
    return -chosen.log().mean(), torch.zeros((), dtype=p.dtype)


def _pi_model(given: Given, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    labeled, _ = _supervised(given, draws)
    target = _softmax(given.student(given.unlabeled[0])).detach()
    return labeled, ((_softmax(given.student(given.unlabeled[1])) - target) ** 2).mean()


def _mean_teacher(given: Given, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    labeled, _ = _supervised(given, draws)
    target = _softmax(given.teacher(given.unlabeled[0])).detach()
    return labeled, ((_softmax(given.student(given.unlabeled[1])) - target) ** 2).mean()


def _vat(given: Given, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """KL(perturbed || clean), as Oliver et al.; the direction by the same divergence."""
    labeled, _ = _supervised(given, draws)
    (images,) = given.unlabeled
    clean = _softmax(given.student(images)).detach()
    start = torch.randn(images.shape, generator=draws, dtype=given.drawn_in).double()
    lengths = math.sqrt(images[0].numel())
    probe = (1e-3 * lengths * _unit(start)).requires_grad_()
    (direction,) = torch.autograd.grad(_kl(_softmax(given.student(images + probe)), clean), probe)
    perturbed = images + given.values.eps_relative * lengths * _unit(direction)
    return labeled, _kl(_softmax(given.student(perturbed)), clean)


def _mixmatch(given: Given, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        mean = sum(_softmax(given.student(view)) for view in given.unlabeled) / 2
        powers = mean ** (1 / given.values.temperature)
        guess = powers / powers.sum(dim=1, keepdim=True)
    images = torch.cat([given.labeled, *given.unlabeled])
    exact = torch.eye(guess.shape[1], dtype=guess.dtype)[given.labels]
    targets = torch.cat([exact, guess, guess])
    order = torch.randperm(len(images), generator=draws)
    share = draw_mixing_coefficients(given.values.mixup_alpha, len(images), draws).to(images.dtype)
    share = torch.where(share < 0.5, 1 - share, share)
    wide = share.view(-1, 1, 1, 1)
    p = _softmax(given.student(wide * images + (1 - wide) * images[order]))
    targets = share[:, None] * targets + (1 - share)[:, None] * targets[order]
    count = len(given.labels)
    labeled = -(targets[:count] * p[:count].log()).sum(dim=1).mean()
    return labeled, ((p[count:] - targets[count:]) ** 2).mean()


REFERENCES: dict[str, Loss] = {
    "supervised": _supervised,
    "pi_model": _pi_model,
    "mean_teacher": _mean_teacher,
    "vat": _vat,
    "mixmatch": _mixmatch,
}
VIEWS = {"supervised": 1, "pi_model": 2, "mean_teacher": 2, "vat": 1, "mixmatch": 2}
"""Of the unlabeled images; supervised training only feeds BatchNorm with them."""


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(dim=1).mean()


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows**2).sum(dim=(1, 2, 3), keepdim=True).sqrt()


def _statistics(network: nn.Module) -> list[Tensor]:
    """Return running means and variances, layer by layer."""
    named = network.named_buffers()
    return [buffer.clone() for name, buffer in named if name.endswith(("_mean", "_var"))]


def _load(plain: nn.Module, own: nn.Module) -> None:
    """Give the plain network the weights of ours, whose layers are defined in the same order."""
    with torch.no_grad():
        for theirs, ours in zip(plain.parameters(), own.parameters(), strict=True):
            theirs.copy_(ours)


def _gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def _relative(found: float, wanted: float) -> float:
    return abs(found - wanted) / abs(wanted)


def _distance(found: list[Any], wanted: list[Tensor]) -> float:
    """Return |found - wanted| / |wanted| over all tensors together."""
    pairs = list(zip(found, wanted, strict=True))
    apart = sum(float(((one.double() - other) ** 2).sum()) for one, other in pairs)
    return math.sqrt(apart / sum(float((other**2).sum()) for _, other in pairs))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", required=True, help="a folder with train/<class>/*")
    parser.add_argument("--model", default="wrn-10-1")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
