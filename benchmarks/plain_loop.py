"""The training loop a user writes today: the opponent of ``step_time``. Correct, and not tuned.

Float32, eager, the default memory layout; a ``DataLoader`` that decodes and augments image by image;
one model call over labeled and unlabeled images together wherever predictions are needed, as
widely copied SSL scripts do it; the average of the weights parameter by parameter. In evaluation
mode, where a batch's composition does not matter, its losses equal ours (tests/benchmarks).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from tune_ssl.machine import usable_cpus

WORKERS = 2
"""Of each DataLoader on a CPU: with none, loading would stand in the step's way. A GPU's two share all cores."""


class PlainBlock(nn.Module):
    """A pre-activation block of a Wide ResNet."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before, eps=1e-3)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after, eps=1e-3)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = None
        if before != after:
            self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        out = F.leaky_relu(self.bn1(x), 0.1)
        kept = x if self.shortcut is None else self.shortcut(out)
        return kept + self.conv2(F.leaky_relu(self.bn2(self.conv1(out)), 0.1))


class PlainWideResNet(nn.Module):
    """A Wide ResNet of a depth and width."""

    def __init__(self, depth: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        blocks, before = [], 16
        for group, after in enumerate((16 * width, 32 * width, 64 * width)):
            for position in range((depth - 4) // 6):
                stride = 2 if group > 0 and position == 0 else 1
                blocks.append(PlainBlock(before, after, stride))
                before = after
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(before, eps=1e-3)
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        out = F.leaky_relu(self.bn(self.blocks(self.stem(x))), 0.1)
        return self.fc(F.adaptive_avg_pool2d(out, 1).flatten(1))


class Views(Dataset[Any]):
    """Images with their labels; each access draws ``count`` augmented views of one image."""

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        transform: Callable[[Any], Tensor],
        count: int,
    ) -> None:
        self.images, self.labels = images, labels
        self.transform, self.count = transform, count

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        views = [self.transform(self.images[index]) for _ in range(self.count)]
        return views, int(self.labels[index])


def augmentation(size: int, shift: int, flip: bool, noise: float, mean: Any, std: Any) -> Any:
    """Return the transform of one image (height, width, channels) uint8."""
    steps: list[Any] = [transforms.ToPILImage()]
    if flip:
        steps.append(transforms.RandomHorizontalFlip())
    steps += [
        transforms.RandomCrop(size, padding=shift, padding_mode="reflect"),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    if noise:
        steps.append(transforms.Lambda(lambda x: x + noise * torch.randn_like(x)))
    return transforms.Compose(steps)


def endless(
    dataset: Views, batch_size: int, device: torch.device
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Yield batches for ever, made on the CPU; for a GPU in pinned memory."""
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=RandomSampler(dataset, replacement=True, num_samples=10**9),
        num_workers=max(WORKERS, usable_cpus() // 2) if on_gpu else WORKERS,
        pin_memory=on_gpu,
    )
    return iter(loader)


# Each method: (student, teacher, labeled, labels, views of the unlabeled images, draws) -> both losses.
# ``draws`` holds what is random in it, so that a test can give the same to both loops.


def supervised(
    student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, u: list[Tensor], draws: Any
) -> tuple[Tensor, Tensor]:
    """Cross-entropy on labeled images alone."""
    return F.cross_entropy(student(x), y), torch.zeros(())


def pseudo_label(
    student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, u: list[Tensor], draws: Any
) -> tuple[Tensor, Tensor]:
    """Cross-entropy with the model's own labels where it is confident."""
    images = torch.cat([x, u[0]])
    with torch.no_grad():
        guess = F.softmax(student(images), dim=1)[len(x) :]
    confidence, label = guess.max(dim=1)
    logits = student(images)
    losses = F.cross_entropy(logits[len(x) :], label, reduction="none")
    return F.cross_entropy(logits[: len(x)], y), ((confidence >= 0.95) * losses).mean()


def pi_model(
    student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, u: list[Tensor], draws: Any
) -> tuple[Tensor, Tensor]:
    """Two views are to be predicted alike."""
    first = student(torch.cat([x, u[0]]))
    second = student(torch.cat([x, u[1]]))
    target = F.softmax(first[len(x) :], dim=1).detach()
    return F.cross_entropy(first[: len(x)], y), F.mse_loss(
        F.softmax(second[len(x) :], dim=1), target
    )


def vat(
    student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, u: list[Tensor], draws: Any
) -> tuple[Tensor, Tensor]:
    """The worst small perturbation is not to change predictions."""
    images = torch.cat([x, u[0]])
    root = math.sqrt(x[0].numel())
    logits = student(images)
    target = F.softmax(logits[len(x) :], dim=1).detach()
    direction = _unit(draws["directions"]).requires_grad_()
    probe = student(torch.cat([x, u[0] + 1e-3 * root * direction]))[len(x) :]
    distance = F.kl_div(F.log_softmax(probe, dim=1), target, reduction="batchmean")
    (gradient,) = torch.autograd.grad(distance, direction)
    worst = 0.144 * root * _unit(gradient)
    perturbed = student(torch.cat([x, u[0] + worst]))[len(x) :]
    distance = F.kl_div(F.log_softmax(perturbed, dim=1), target, reduction="batchmean")
    return F.cross_entropy(logits[: len(x)], y), distance


def mean_teacher(
    student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, u: list[Tensor], draws: Any
) -> tuple[Tensor, Tensor]:
    """The student is to predict as its average does."""
    with torch.no_grad():
        target = F.softmax(teacher(torch.cat([x, u[0]]))[len(x) :], dim=1)
    logits = student(torch.cat([x, u[1]]))
    unlabeled = F.mse_loss(F.softmax(logits[len(x) :], dim=1), target)
    return F.cross_entropy(logits[: len(x)], y), unlabeled


def ict(
    student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, u: list[Tensor], draws: Any
) -> tuple[Tensor, Tensor]:
    """Mixed images are to be predicted as the mixed predictions of the average."""
    images = torch.cat([x, u[0]])
    logits = student(images)
    with torch.no_grad():
        target = F.softmax(teacher(images)[len(x) :], dim=1)
    order, share = draws["order"], draws["share"]
    mixed = share.view(-1, 1, 1, 1) * u[0] + (1 - share).view(-1, 1, 1, 1) * u[0][order]
    target = share[:, None] * target + (1 - share)[:, None] * target[order]
    prediction = F.softmax(student(torch.cat([x, mixed]))[len(x) :], dim=1)
    return F.cross_entropy(logits[: len(x)], y), F.mse_loss(prediction, target)


def mixmatch(
    student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, u: list[Tensor], draws: Any
) -> tuple[Tensor, Tensor]:
    """Guesses from two views, sharpened; everything mixed with everything."""
    with torch.no_grad():
        guesses = [F.softmax(student(torch.cat([x, view]))[len(x) :], dim=1) for view in u]
        sharpened = (sum(guesses) / len(guesses)) ** 2
        guess = sharpened / sharpened.sum(dim=1, keepdim=True)
    images = torch.cat([x, *u])
    targets = torch.cat([F.one_hot(y, guess.shape[1]).float(), *[guess] * len(u)])
    order, share = draws["order"], torch.maximum(draws["share"], 1 - draws["share"])
    mixed = share.view(-1, 1, 1, 1) * images + (1 - share).view(-1, 1, 1, 1) * images[order]
    targets = share[:, None] * targets + (1 - share)[:, None] * targets[order]
    logits = student(mixed)
    labeled = F.cross_entropy(logits[: len(x)], targets[: len(x)])
    return labeled, F.mse_loss(F.softmax(logits[len(x) :], dim=1), targets[len(x) :])


METHODS: Mapping[str, tuple[Callable[..., tuple[Tensor, Tensor]], int]] = {
    "supervised": (supervised, 0),
    "pseudo_label": (pseudo_label, 1),
    "pi_model": (pi_model, 2),
    "vat": (vat, 1),
    "mean_teacher": (mean_teacher, 2),
    "ict": (ict, 1),
    "mixmatch": (mixmatch, 2),
}
"""The loss of each method, and how many views of the unlabeled images it takes."""


class PlainLoop:
    """One training.

    Args:
        labeled, unlabeled: images (N, height, width, channels) uint8, and their labels.
    """

    def __init__(
        self,
        method: str,
        network: nn.Module,
        labeled: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]],
        unlabeled: npt.NDArray[np.uint8],
        transform: Any,
        batch_size: int,
        weight: float,
        learning_rate: float,
        device: str = "cpu",
    ) -> None:
        self._losses, views = METHODS[method]
        self._device = torch.device(device)
        network = network.to(self._device)
        self.student, self._teacher = network, copy.deepcopy(network)
        for parameter in self._teacher.parameters():
            parameter.requires_grad_(False)
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
        self._weight = weight
        self._labeled: Iterator[Any] = endless(
            Views(*labeled, transform, 1), batch_size, self._device
        )
        self._unlabeled: Iterator[Any] = itertools.repeat(([], None))
        if views:
            none = np.zeros(len(unlabeled), np.int64)
            self._unlabeled = endless(
                Views(unlabeled, none, transform, views), batch_size, self._device
            )

    def batches(self, count: int) -> list[Tensor]:
        """Return the next labeled batches, augmented."""
        return [next(self._labeled)[0][0].to(self._device) for _ in range(count)]

    def loaded_before(self, count: int) -> PlainLoop:
        """Take the next batches over and over from now on, which lie on the device; return the loop."""
        labeled = [next(self._labeled) for _ in range(count)]
        unlabeled = [next(self._unlabeled) for _ in range(count)]
        self._labeled = itertools.cycle([([self._moved(x)], self._moved(y)) for [x], y in labeled])
        self._unlabeled = itertools.cycle(
            [([self._moved(view) for view in views], None) for views, _ in unlabeled]
        )
        return self

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def step(self) -> float:
        """Take one step and return its loss."""
        [x], y = next(self._labeled)
        u, _ = next(self._unlabeled)
        x, y = self._moved(x), self._moved(y)
        u = [self._moved(view) for view in u]
        labeled, unlabeled = self._losses(self.student, self._teacher, x, y, u, _draw(x, u))
        loss = labeled + self._weight * unlabeled
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            for mean, new in zip(
                self._teacher.parameters(), self.student.parameters(), strict=True
            ):
                mean.mul_(0.99).add_(new, alpha=0.01)
        return loss.item()


def begin_alike(plain: nn.Module, ours: nn.Module) -> None:
    """Give the plain network the weights and statistics of ours."""
    for theirs, own in zip(in_order(plain), in_order(ours), strict=True):
        theirs.load_state_dict(own.state_dict())


def in_order(network: nn.Module) -> list[nn.Module]:
    """Return the modules with weights, kind by kind, in the order of their definition."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    return [own for kind in kinds for own in network.modules() if isinstance(own, kind)]


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> float:
    """Return the share of normalised images (N, channels, height, width) that a network classifies right."""
    network.eval()
    with torch.no_grad():
        right = sum(
            int((network(x).argmax(1) == y).sum())
            for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        )
    network.train()
    return right / len(labels)


def _draw(x: Tensor, u: list[Tensor]) -> dict[str, Tensor]:
    """Return what any of the methods draws."""
    if not u:
        return {}
    count = len(u[0]) if len(u) == 1 else len(x) + sum(map(len, u))
    return {
        "directions": torch.randn_like(u[0]),
        "order": torch.randperm(count, device=x.device),
        "share": torch.distributions.Beta(1.0, 1.0).sample((count,)).to(x.device),
    }


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.flatten(1), dim=1, eps=1e-30).view_as(rows)
