"""Loss and gradient of every method against its paper's equation, written again in float64.

The reference computes softmax, divergences and ramps itself, takes every target as plain
numbers, and replays the method's draws from a generator with the same seed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_core.algorithms import (
    ALGORITHMS,
    Batch,
    ict,
    mean_teacher,
    mixmatch,
    pi_model,
    pseudo_label,
    vat,
)
from ssl_core.divergences import DIVERGENCES
from ssl_core.mixing import draw_mixing_coefficients

LABELED, UNLABELED, CLASSES, SIDE = 3, 5, 4, 4
SEED = 11
ALL = ("mse", "l1", "kl", "reverse_kl", "js")
OVER_DIVERGENCES = pytest.mark.parametrize("divergence", ALL)
OVER_PROGRESS = pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.9])


class SmallNetwork(nn.Module):
    """A convolution, tanh, a linear layer; float64, smooth, no BatchNorm."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)
        self.linear = nn.Linear(3 * SIDE * SIDE, CLASSES)
        self.double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(0.4 * draw)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(torch.tanh(self.convolution(images)).flatten(1))


def small_batch(labeled_views: int, unlabeled_views: int) -> Batch:
    generator = torch.Generator().manual_seed(5)

    def views(rows: int, count: int) -> tuple[Tensor, ...]:
        shape = (rows, 1, SIDE, SIDE)
        base = torch.randn(shape, generator=generator, dtype=torch.float64)
        noise = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]
        return tuple(base + 0.3 * own for own in noise)

    return Batch(
        labeled=views(LABELED, labeled_views),
        labels=torch.tensor([1, 3, 0]),
        unlabeled=views(UNLABELED, unlabeled_views),
    )


class Case:
    """One method run on the small batch, and what its reference needs."""

    def __init__(self, method: str, progress: float = 0.5, **values) -> None:
        entry = ALGORITHMS[method]
        self.config = entry.Config(**values)
        algorithm = entry.Algorithm(self.config)
        self.student, self.teacher = SmallNetwork(seed=1), SmallNetwork(seed=2)
        self.batch = small_batch(algorithm.labeled_views, algorithm.unlabeled_views)
        self.terms = algorithm(
            self.student,
            self.teacher,
            self.batch,
            torch.tensor(progress, dtype=torch.float64),
            torch.Generator().manual_seed(SEED),
        )
        self.generator = torch.Generator().manual_seed(SEED)

    def constant(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the network's probabilities as plain numbers without a graph."""
        return torch.tensor(softmax(network(images)).tolist(), dtype=torch.float64)

    def assert_terms(
        self, labeled: Tensor, unlabeled: Tensor, total: Tensor, tolerance: float = 1e-9
    ) -> None:
        """Compare the terms, and the gradients of total and of labeled, with the reference's."""
        close = {"rtol": tolerance, "atol": tolerance * 1e-2}
        torch.testing.assert_close(self.terms.labeled, labeled, **close)
        torch.testing.assert_close(self.terms.unlabeled, unlabeled, **close)
        torch.testing.assert_close(self.terms.total, total, **close)
        parameters = list(self.student.parameters())
        for found, wanted in ((self.terms.total, total), (self.terms.labeled, labeled)):
            ours = torch.autograd.grad(found, parameters, retain_graph=True)
            theirs = torch.autograd.grad(wanted, parameters, retain_graph=True)
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other, **close)
        assert all(parameter.grad is None for parameter in self.teacher.parameters())


# The mathematics, written again.


def softmax(logits: Tensor) -> Tensor:
    powers = (logits - logits.detach().amax(dim=1, keepdim=True)).exp()
    return powers / powers.sum(dim=1, keepdim=True)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    picked = torch.stack([softmax(logits)[row, label] for row, label in enumerate(labels)])
    return -picked.log().sum() / len(labels)


def entropy(logits: Tensor) -> Tensor:
    p = softmax(logits)
    return -(p * p.log()).sum() / len(p)


def times_log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return a log(a/b), and 0 with no gradient where a is 0."""
    positive = a > 0
    safe = torch.where(positive, a, torch.ones_like(a))
    return torch.where(positive, safe * (safe / b).log(), torch.zeros_like(a))


def divergence_rows(name: str, t: Tensor, q: Tensor) -> Tensor:
    middle = (t + q) / 2
    table = {
        "mse": lambda: ((t - q) ** 2).sum(1) / CLASSES,
        "l1": lambda: (t - q).abs().sum(1) / CLASSES,
        "kl": lambda: times_log_ratio(t, q).sum(1),
        "reverse_kl": lambda: (q * (q / t.clamp(min=1e-7)).log()).sum(1),
        "js": lambda: (times_log_ratio(t, middle) + q * (q / middle).log()).sum(1) / 2,
    }
    return table[name]()


def gaussian_ramp(progress: float, fraction: float) -> float:
    done = min(1.0, progress / fraction) if fraction else 1.0
    return math.exp(-5.0 * (1.0 - done) ** 2)


# Supervised.


def test_supervised_is_the_mean_cross_entropy():
    case = Case("supervised")
    expected = cross_entropy(case.student(case.batch.labeled[0]), case.batch.labels)
    case.assert_terms(expected, torch.zeros((), dtype=torch.float64), expected)


# Pseudo-Label.


@pytest.mark.parametrize("divergence", ["mse", "l1", "kl", "js"])
@pytest.mark.parametrize("threshold", [0.0, 0.9])
@OVER_PROGRESS
def test_pseudo_label_is_a_masked_mean_over_all_unlabeled_images(progress, threshold, divergence):
    case = Case(
        "pseudo_label",
        progress,
        unlabeled_weight=3.0,
        threshold=threshold,
        ramp_fraction=0.4,
        divergence=divergence,
    )
    labeled = cross_entropy(case.student(case.batch.labeled[0]), case.batch.labels)
    logits = case.student(case.batch.unlabeled[0])
    guesses = case.constant(case.student, case.batch.unlabeled[0])
    kept, unlabeled = 0, torch.zeros((), dtype=torch.float64)
    for row in range(UNLABELED):
        if guesses[row].max() >= threshold:
            kept += 1
            target = torch.eye(CLASSES, dtype=torch.float64)[[int(guesses[row].argmax())]]
            q = softmax(logits[[row]])
            unlabeled = unlabeled + divergence_rows(divergence, target, q)[0] / UNLABELED
    assert kept == UNLABELED if threshold == 0 else 0 < kept < UNLABELED
    weight = 3.0 * gaussian_ramp(progress, 0.4)
    case.assert_terms(labeled, unlabeled, labeled + weight * unlabeled)
    assert case.terms.diagnostics["mask_rate"].item() == pytest.approx(kept / UNLABELED)
    assert case.terms.diagnostics["unlabeled_weight"].item() == pytest.approx(weight)


def test_pseudo_label_with_kl_is_lees_cross_entropy_with_the_predicted_class():
    case = Case("pseudo_label", unlabeled_weight=1.0, threshold=0.0, ramp_fraction=0.0)
    logits = case.student(case.batch.unlabeled[0])
    labeled = cross_entropy(case.student(case.batch.labeled[0]), case.batch.labels)
    unlabeled = cross_entropy(logits, logits.argmax(dim=1))
    case.assert_terms(labeled, unlabeled, labeled + unlabeled)


# Pi-Model and Mean Teacher.


@OVER_DIVERGENCES
@OVER_PROGRESS
@pytest.mark.parametrize("on_labeled", [False, True])
def test_pi_model_compares_two_views(on_labeled, progress, divergence):
    case = Case(
        "pi_model",
        progress,
        unlabeled_weight=20.0,
        ramp_fraction=0.4,
        consistency_on_labeled=on_labeled,
        divergence=divergence,
    )
    batch, student = case.batch, case.student
    labeled = cross_entropy(student(batch.labeled[0]), batch.labels)
    target = case.constant(student, batch.unlabeled[0])
    rows = divergence_rows(divergence, target, softmax(student(batch.unlabeled[1])))
    if on_labeled:
        target = case.constant(student, batch.labeled[0])
        own = divergence_rows(divergence, target, softmax(student(batch.labeled[1])))
        rows = torch.cat([rows, own])
    assert len(rows) == UNLABELED + LABELED * on_labeled
    unlabeled = rows.sum() / len(rows)
    weight = 20.0 * gaussian_ramp(progress, 0.4)
    case.assert_terms(labeled, unlabeled, labeled + weight * unlabeled)


@OVER_DIVERGENCES
@OVER_PROGRESS
@pytest.mark.parametrize("on_labeled", [False, True])
def test_mean_teacher_compares_the_student_with_the_teacher(on_labeled, progress, divergence):
    case = Case(
        "mean_teacher",
        progress,
        unlabeled_weight=8.0,
        ramp_fraction=0.4,
        consistency_on_labeled=on_labeled,
        divergence=divergence,
    )
    batch, student, teacher = case.batch, case.student, case.teacher
    labeled = cross_entropy(student(batch.labeled[0]), batch.labels)
    target = case.constant(teacher, batch.unlabeled[0])
    rows = divergence_rows(divergence, target, softmax(student(batch.unlabeled[1])))
    if on_labeled:
        target = case.constant(teacher, batch.labeled[1])
        own = divergence_rows(divergence, target, softmax(student(batch.labeled[0])))
        rows = torch.cat([rows, own])
    unlabeled = rows.sum() / (UNLABELED + LABELED * on_labeled)
    weight = 8.0 * gaussian_ramp(progress, 0.4)
    case.assert_terms(labeled, unlabeled, labeled + weight * unlabeled)


# VAT.


def row_units(rows: Tensor) -> Tensor:
    lengths = rows.reshape(len(rows), -1).pow(2).sum(1).sqrt()
    return rows / lengths.reshape(-1, 1, 1, 1)


@OVER_DIVERGENCES
@pytest.mark.parametrize("eps_relative", [0.02, 0.5])
def test_vat_perturbs_along_the_direction_one_power_iteration_finds(eps_relative, divergence):
    case = Case(
        "vat",
        progress=0.1,
        unlabeled_weight=0.7,
        eps_relative=eps_relative,
        ramp_fraction=0.2,
        divergence=divergence,
    )
    batch, student, images = case.batch, case.student, case.batch.unlabeled[0]
    root = math.sqrt(SIDE * SIDE)
    clean = case.constant(student, images)
    start = torch.randn(images.shape, generator=case.generator, dtype=torch.float64)
    probe = (1e-3 * root * row_units(start)).requires_grad_()
    change = divergence_rows(divergence, clean, softmax(student(images + probe))).sum()
    (direction,) = torch.autograd.grad(change, probe)
    perturbation = eps_relative * root * row_units(direction)

    labeled = cross_entropy(student(batch.labeled[0]), batch.labels)
    moved = softmax(student(images + perturbation))
    unlabeled = divergence_rows(divergence, clean, moved).sum() / UNLABELED
    weight = 0.7 * gaussian_ramp(0.1, 0.2)
    # The gradient that gives the direction is a difference of nearly equal numbers.
    case.assert_terms(labeled, unlabeled, labeled + weight * unlabeled, tolerance=1e-7)


def test_the_adversarial_direction_is_the_curvature_times_the_random_one():
    """For logits W x the Hessian of KL at 0 is W' (diag p - p p') W (Miyato et al., eq. 10)."""
    random = np.random.RandomState(0)
    weights, images = random.randn(CLASSES, 6), random.randn(3, 6)
    logits = images @ weights.T
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    start = random.randn(3, 6)
    expected = []
    for row in range(3):
        curvature = weights.T @ (np.diag(p[row]) - np.outer(p[row], p[row])) @ weights
        pushed = curvature @ start[row]
        expected.append(2.5 * pushed / np.linalg.norm(pushed))

    found = vat.adversarial_perturbation(
        DIVERGENCES["kl"],
        lambda x: x @ torch.from_numpy(weights.T),
        torch.from_numpy(images),
        torch.from_numpy(p),
        eps=2.5,
        xi=1e-6,
        directions=torch.from_numpy(start),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10)])
def test_the_perturbation_of_an_image_has_root_mean_square_eps_relative(shape):
    network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), CLASSES)).double()
    seen: list[Tensor] = []

    def student(images: Tensor) -> Tensor:
        seen.append(images.detach().clone())
        return network(images)

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    batch = Batch(labeled=(images,), labels=torch.zeros(6).long(), unlabeled=(images,))
    algorithm = ALGORITHMS["vat"].Algorithm(vat.Config(eps_relative=0.144))
    algorithm(student, student, batch, torch.tensor(0.5), generator)
    probing, perturbed = ((other - images).flatten(1) for other in seen[-2:])
    root = math.sqrt(math.prod(shape))
    assert perturbed.norm(dim=1).tolist() == pytest.approx([0.144 * root] * 6)
    assert probing.norm(dim=1).tolist() == pytest.approx([1e-3 * root] * 6)


def test_unit_rows_have_length_one_and_keep_their_direction():
    rows = torch.tensor([[[3.0, 4.0]], [[0.0, -2.0]]], dtype=torch.float64)
    expected = torch.tensor([[[0.6, 0.8]], [[0.0, -1.0]]], dtype=torch.float64)
    torch.testing.assert_close(vat.unit_rows(rows), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_unit_rows_leave_a_zero_row_zero(dtype):
    assert torch.equal(vat.unit_rows(torch.zeros(2, 3, dtype=dtype)), torch.zeros(2, 3).to(dtype))


@pytest.mark.parametrize("size", [1e-10, 1e-19, 1e-21, 1e-23, 1e-27, 1e-35, 1e10, 1e25])
def test_unit_rows_of_float32_have_length_one_whatever_their_size(size):
    """The square of 1e-23 is 0 in float32: its root must not be what a row is divided by."""
    rows = size * torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    assert vat.unit_rows(rows).norm(dim=1).item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("margin", [10.0, 30.0, 45.0, 60.0, 75.0])
def test_vat_never_moves_a_confidently_classified_image_further_than_eps(margin):
    """The gradient falls as exp(-margin), and its square leaves float32 long before it does."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 1, 8, 8, generator=generator)
    weights = 0.1 * torch.randn(3, 64, generator=generator)
    logits = torch.tensor([margin, 0.0, 0.0])
    perturbation = vat.adversarial_perturbation(
        DIVERGENCES["kl"],
        lambda x: x.flatten(1) @ weights.T + logits,
        images,
        torch.softmax(images.flatten(1) @ weights.T + logits, dim=1),
        eps=1.152,
        xi=8e-3,
        directions=torch.randn(4, 1, 8, 8, generator=generator),
    )
    assert perturbation.flatten(1).norm(dim=1).max().item() <= 1.152 * 1.001


# ICT.


@OVER_DIVERGENCES
@pytest.mark.parametrize("mix_logits", [False, True])
@pytest.mark.parametrize("supervised_mixup", [False, True])
def test_ict_predicts_mixtures_as_mixtures_of_predictions(supervised_mixup, mix_logits, divergence):
    case = Case(
        "ict",
        progress=0.1,
        unlabeled_weight=100.0,
        mixup_alpha=0.7,
        ramp_fraction=0.25,
        mix_logits=mix_logits,
        supervised_mixup=supervised_mixup,
        divergence=divergence,
    )
    batch, student, teacher = case.batch, case.student, case.teacher
    images = batch.unlabeled[0]
    partner, share = drawn_pairs(case, UNLABELED, alpha=0.7)
    inputs, targets = [], []
    for i, (j, part) in enumerate(zip(partner, share, strict=True)):
        inputs.append(part * images[i] + (1 - part) * images[j])
        if mix_logits:
            logits = teacher(images[[i, j]]).detach()
            targets.append(softmax((part * logits[0] + (1 - part) * logits[1])[None])[0])
        else:
            own, other = case.constant(teacher, images[[i, j]])
            targets.append(part * own + (1 - part) * other)
    rows = divergence_rows(divergence, torch.stack(targets), softmax(student(torch.stack(inputs))))
    unlabeled = rows.sum() / UNLABELED

    labeled = cross_entropy(student(batch.labeled[0]), batch.labels)
    if supervised_mixup:
        partner, share = drawn_pairs(case, LABELED, alpha=0.7)
        losses = []
        for i, (j, part) in enumerate(zip(partner, share, strict=True)):
            mixture = part * batch.labeled[0][i] + (1 - part) * batch.labeled[0][j]
            log_p = softmax(student(mixture[None])).log()[0]
            losses.append(-part * log_p[batch.labels[i]] - (1 - part) * log_p[batch.labels[j]])
        labeled = torch.stack(losses).sum() / LABELED
    total = labeled + 100.0 * gaussian_ramp(0.1, 0.25) * unlabeled
    case.assert_terms(labeled, unlabeled, total, tolerance=1e-6 if supervised_mixup else 1e-9)


def drawn_pairs(case: Case, count: int, alpha: float) -> tuple[list[int], list[float]]:
    """Replay the order of partners and the coefficients of ``count`` pairs."""
    order = torch.randperm(count, generator=case.generator)
    return order.tolist(), draw_mixing_coefficients(alpha, count, case.generator).tolist()


# MixMatch.


@OVER_DIVERGENCES
@pytest.mark.parametrize("num_guesses", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_mixmatch_guesses_sharpens_and_mixes(temperature, num_guesses, divergence):
    case = Case(
        "mixmatch",
        progress=0.01,
        unlabeled_weight=75.0,
        mixup_alpha=0.75,
        temperature=temperature,
        num_guesses=num_guesses,
        ramp_fraction=0.016,
        divergence=divergence,
    )
    batch, student = case.batch, case.student
    average = sum(case.constant(student, view) for view in batch.unlabeled) / num_guesses
    powers = average ** (1 / temperature)
    guesses = powers / powers.sum(dim=1, keepdim=True)

    # Labeled images first, then view after view of the unlabeled ones, each with its guess.
    images, targets = list(batch.labeled[0]), list(torch.eye(CLASSES).double()[batch.labels])
    for view in batch.unlabeled:
        images += list(view)
        targets += list(guesses)
    partner, share = drawn_pairs(case, len(images), alpha=0.75)
    share = [max(part, float(np.float32(1) - np.float32(part))) for part in share]
    pairs = list(zip(range(len(images)), partner, share, strict=True))
    mixed_images = torch.stack([s * images[i] + (1 - s) * images[j] for i, j, s in pairs])
    mixed_targets = torch.stack([s * targets[i] + (1 - s) * targets[j] for i, j, s in pairs])

    p = softmax(student(mixed_images))
    labeled = -(mixed_targets * p.log())[:LABELED].sum() / LABELED
    rows = divergence_rows(divergence, mixed_targets[LABELED:], p[LABELED:])
    unlabeled = rows.sum() / (num_guesses * UNLABELED)
    total = labeled + 75.0 * (0.01 / 0.016) * unlabeled
    case.assert_terms(labeled, unlabeled, total)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (0.2, 0.5), (0.4, 1.0), (0.9, 1.0)])
def test_mixmatch_ramps_linearly(progress, factor):
    case = Case("mixmatch", progress, unlabeled_weight=75.0, ramp_fraction=0.4)
    assert case.terms.diagnostics["unlabeled_weight"].item() == pytest.approx(75.0 * factor)
    weighted = case.terms.labeled + 75.0 * factor * case.terms.unlabeled
    torch.testing.assert_close(case.terms.total, weighted)


def test_every_image_of_mixmatch_stays_mostly_itself():
    """With lambda' >= 1/2 a mixed target gives its own label at least half."""
    case = Case("mixmatch", mixup_alpha=1.0, temperature=0.01)
    seen: list[Tensor] = []

    def student(images: Tensor) -> Tensor:
        seen.append(images)
        return case.student(images)

    algorithm = ALGORITHMS["mixmatch"].Algorithm(case.config)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        algorithm(student, case.teacher, case.batch, torch.tensor(0.5), generator)
        own = torch.cat([case.batch.labeled[0], *case.batch.unlabeled])
        partner = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))]
        from_own = (seen[-1] - own).flatten(1).norm(dim=1)
        from_partner = (seen[-1] - partner).flatten(1).norm(dim=1)
        assert (from_own <= from_partner + 1e-9).all()


# Entropy minimisation.


ENTROPY_INPUTS = {
    "pseudo_label": lambda batch: batch.unlabeled[0],
    "pi_model": lambda batch: batch.unlabeled[1],
    "vat": lambda batch: batch.unlabeled[0],
    "mean_teacher": lambda batch: batch.unlabeled[1],
    "ict": lambda batch: batch.unlabeled[0],
    "mixmatch": lambda batch: batch.unlabeled[0],
}


@pytest.mark.parametrize("method", ENTROPY_INPUTS)
def test_entropy_minimisation_adds_the_mean_entropy_without_a_ramp(method):
    values = {"unlabeled_weight": 2.0, "ramp_fraction": 0.5}
    plain = Case(method, progress=0.05, **values)
    case = Case(method, progress=0.05, entropy_weight=0.3, **values)
    expected = entropy(case.student(ENTROPY_INPUTS[method](case.batch)))
    parameters = list(case.student.parameters())
    entropy_gradient = torch.autograd.grad(expected, parameters)
    with_it = torch.autograd.grad(case.terms.total, parameters)
    without = torch.autograd.grad(plain.terms.total, list(plain.student.parameters()))
    torch.testing.assert_close(case.terms.diagnostics["entropy"], expected.detach())
    torch.testing.assert_close(case.terms.total, plain.terms.total + 0.3 * expected)
    for found, base, added in zip(with_it, without, entropy_gradient, strict=True):
        torch.testing.assert_close(found, base + 0.3 * added)


def test_every_semi_supervised_method_is_covered_by_the_test_of_entropy_minimisation():
    assert set(ENTROPY_INPUTS) == set(ALGORITHMS) - {"supervised"}


# Where gradients stop.


@pytest.mark.parametrize("module", [pi_model, mean_teacher, vat, ict], ids=lambda m: m.__name__)
@OVER_DIVERGENCES
def test_the_gradient_of_a_loss_reaches_the_prediction_and_not_the_target(module, divergence):
    generator = torch.Generator().manual_seed(3)
    sides = torch.randn(2, 5, CLASSES, generator=generator, dtype=torch.float64)
    target, logits = (side.clone().requires_grad_() for side in sides)
    given = target.softmax(dim=1) if module is ict else target
    value = module.loss(DIVERGENCES[divergence], given, logits)
    assert torch.autograd.grad(value, target, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(value, logits)[0].abs().amax(dim=1).min() > 1e-6


@OVER_DIVERGENCES
def test_the_gradient_of_mixmatch_reaches_the_prediction_and_not_the_guess(divergence):
    generator = torch.Generator().manual_seed(3)
    views = torch.randn(2, 5, CLASSES, generator=generator, dtype=torch.float64).requires_grad_()
    assert not mixmatch.guess_labels(list(views), 0.5).requires_grad

    logits, targets = (view.clone().detach().requires_grad_() for view in views)
    terms = mixmatch.loss(DIVERGENCES[divergence], logits, targets.softmax(dim=1), num_labeled=2)
    for term, rows in zip(terms, (slice(0, 2), slice(2, 5)), strict=True):
        reached = torch.autograd.grad(term, logits, retain_graph=True)[0].abs().amax(dim=1)
        assert reached[rows].min() > 1e-6
        assert reached.count_nonzero() == len(range(5)[rows])
        assert torch.autograd.grad(term, targets, retain_graph=True, allow_unused=True) == (None,)


@pytest.mark.parametrize("divergence", ["mse", "l1", "kl", "js"])
def test_the_gradient_of_pseudo_label_is_zero_below_the_threshold_and_not_above(divergence):
    logits = torch.tensor([[4.0, 0.0, 0.0], [0.5, 0.4, 0.3]], requires_grad=True)
    value, kept = pseudo_label.loss(DIVERGENCES[divergence], logits, threshold=0.9)
    (gradient,) = torch.autograd.grad(value, logits)
    assert kept.item() == 0.5
    assert gradient[0].abs().max() > 1e-4
    assert gradient[1].abs().max() == 0.0


# Precision.


@pytest.mark.parametrize("module", [pi_model, mean_teacher, vat], ids=lambda m: m.__name__)
@OVER_DIVERGENCES
def test_losses_of_bfloat16_logits_are_computed_in_float32(module, divergence):
    """Autocast would do so for softmax; outside it the loss has to."""
    sides = 5 * torch.randn(2, 5, CLASSES, generator=torch.Generator().manual_seed(0))
    given = [side.bfloat16() for side in sides]
    value = module.loss(DIVERGENCES[divergence], *given)
    expected = module.loss(DIVERGENCES[divergence], *(side.float() for side in given))
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


# Agreement costs nothing.


@pytest.mark.parametrize("module", [pi_model, mean_teacher, vat], ids=lambda m: m.__name__)
@OVER_DIVERGENCES
def test_equal_predictions_cost_nothing(module, divergence):
    logits = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(0)).double()
    value = module.loss(DIVERGENCES[divergence], logits, logits.clone())
    assert abs(value.item()) < 1e-15
