"""The hyperparameters each method was published with, in our units: trial 0 of every search.

Nothing heavy is imported. Our units: the labeled term is a mean over labeled images, the
unlabeled term a mean over unlabeled ones, mse a mean over classes; eps is relative to the square
root of the number of inputs; an average's decay is given as its horizon in steps, 1/(1 - decay).

Oliver et al. divide both terms by the whole batch of 50 + 50, which halves both and cancels.
For a divergence nobody published, the weight is converted (``weight_relative_to_mse``) and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

OLIVER = "Oliver et al. 2018 (arXiv 1804.09170), lib/hparams.py"

PREFERRED = {"oliver": OLIVER}
"""Sources whose values can be preferred where a method was published by several."""

EMA_FOR_EVALUATION = 1000.0
"""Horizon of decay .999, with which MixMatch and FixMatch evaluate; the older papers evaluate the
student, and we evaluate the average for every method alike."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row of the table.

    Args:
        setting: the data the values were chosen on, ``cifar10`` or ``svhn``; None for both.
        divergence: the one the authors used; None where the method has none.
        as_published: the values in the source's own terms.
        conversion: what was done to bring them into our units.
        parameters: Config fields of the algorithm and of the training; the rate is Adam's, the
            weight decay decoupled, as AdamW's is.
        with_sgd: what replaces them with SGD, its weight decay an L2 term; empty where nobody
            published such values.
    """

    algorithm: str
    setting: str | None
    divergence: str | None
    source: str
    as_published: str
    conversion: str
    parameters: dict[str, float]
    with_sgd: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PublishedDefault:
    """The published values for one method and divergence, and where they come from."""

    parameters: dict[str, float]
    source: str
    note: str


ICT_WITH_SGD = {"learning_rate": 0.1, "weight_decay": 1e-4}

PUBLISHED: tuple[Published, ...] = (
    Published(
        algorithm="supervised",
        setting=None,
        divergence=None,
        source=OLIVER,
        as_published="Adam 3e-3, no weight decay",
        conversion="weight decay 0 taken as the smallest of the range",
        parameters={
            "learning_rate": 3e-3,
            "weight_decay": 0.0,
            "ema_horizon": EMA_FOR_EVALUATION,
        },
    ),
    Published(
        algorithm="pseudo_label",
        setting=None,
        divergence="kl",
        source=OLIVER,
        as_published="Adam 3e-4, weight 1, threshold .95, ramp 200k of 500k",
        conversion="cross-entropy is kl against a one-hot target",
        parameters={
            "learning_rate": 3e-4,
            "weight_decay": 0.0,
            "ema_horizon": EMA_FOR_EVALUATION,
            "unlabeled_weight": 1.0,
            "threshold": 0.95,
            "ramp_fraction": 0.4,
        },
    ),
    Published(
        algorithm="pi_model",
        setting=None,
        divergence="mse",
        source=OLIVER,
        as_published="Adam 3e-4, weight 20, ramp 200k of 500k",
        conversion="none",
        parameters={
            "learning_rate": 3e-4,
            "weight_decay": 0.0,
            "ema_horizon": EMA_FOR_EVALUATION,
            "unlabeled_weight": 20.0,
            "ramp_fraction": 0.4,
        },
    ),
    Published(
        algorithm="vat",
        setting="cifar10",
        divergence="kl",
        source="Miyato et al. 2018 (arXiv 1704.03976), takerum/vat_tf",
        as_published="Adam 1e-3, weight 1, eps 8 on 3 x 32 x 32 with augmentation, no ramp",
        conversion="eps / sqrt(3072) = .144",
        parameters={
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "ema_horizon": EMA_FOR_EVALUATION,
            "unlabeled_weight": 1.0,
            "eps_relative": 0.144,
            "ramp_fraction": 0.0,
        },
    ),
    Published(
        algorithm="vat",
        setting="svhn",
        divergence="kl",
        source="Miyato et al. 2018 (arXiv 1704.03976), takerum/vat_tf",
        as_published="Adam 1e-3, weight 1, eps 3.5 on 3 x 32 x 32 with augmentation, no ramp",
        conversion="eps / sqrt(3072) = .063",
        parameters={
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "ema_horizon": EMA_FOR_EVALUATION,
            "unlabeled_weight": 1.0,
            "eps_relative": 0.063,
            "ramp_fraction": 0.0,
        },
    ),
    Published(
        algorithm="vat",
        setting="cifar10",
        divergence="reverse_kl",
        source=OLIVER,
        as_published="Adam 3e-3, weight .3, eps 6 on 3 x 32 x 32, KL(perturbed || clean), ramp 200k of 500k",
        conversion="eps / sqrt(3072) = .108",
        parameters={
            "learning_rate": 3e-3,
            "weight_decay": 0.0,
            "ema_horizon": EMA_FOR_EVALUATION,
            "unlabeled_weight": 0.3,
            "eps_relative": 0.108,
            "ramp_fraction": 0.4,
        },
    ),
    Published(
        algorithm="vat",
        setting="svhn",
        divergence="reverse_kl",
        source=OLIVER,
        as_published="Adam 3e-3, weight .3, eps 1 on 3 x 32 x 32 in [-1, 1], KL(perturbed || clean)",
        conversion="eps / sqrt(3072) = .018, as a share of inputs that span [-1, 1]",
        parameters={
            "learning_rate": 3e-3,
            "weight_decay": 0.0,
            "ema_horizon": EMA_FOR_EVALUATION,
            "unlabeled_weight": 0.3,
            "eps_relative": 0.018,
            "ramp_fraction": 0.4,
        },
    ),
    Published(
        algorithm="mean_teacher",
        setting=None,
        divergence="mse",
        source=OLIVER,
        as_published="Adam 4e-4, weight 8, decay .95, ramp 200k of 500k",
        conversion="decay .95 is a horizon of 20 steps",
        parameters={
            "learning_rate": 4e-4,
            "weight_decay": 0.0,
            "ema_horizon": 20.0,
            "unlabeled_weight": 8.0,
            "ramp_fraction": 0.4,
        },
    ),
    Published(
        algorithm="ict",
        setting="cifar10",
        divergence="mse",
        source="Verma et al. 2019 (arXiv 1903.03825); learning rate and decay: google-research/mixmatch, ict.py",
        as_published="SGD .1, L2 1e-4, weight 100, alpha 1.0, decay .999, ramp 1/4 of training",
        conversion="for AdamW the rate 2e-3 and decoupled decay .02 of the MixMatch authors' ICT",
        parameters={
            "learning_rate": 2e-3,
            "weight_decay": 0.02,
            "ema_horizon": 1000.0,
            "unlabeled_weight": 100.0,
            "mixup_alpha": 1.0,
            "ramp_fraction": 0.25,
        },
        with_sgd=ICT_WITH_SGD,
    ),
    Published(
        algorithm="ict",
        setting="svhn",
        divergence="mse",
        source="Verma et al. 2019 (arXiv 1903.03825); learning rate and decay: google-research/mixmatch, ict.py",
        as_published="SGD .1, L2 1e-4, weight 100, alpha .1, decay .999, ramp 1/4 of training",
        conversion="for AdamW the rate 2e-3 and decoupled decay .02 of the MixMatch authors' ICT",
        parameters={
            "learning_rate": 2e-3,
            "weight_decay": 0.02,
            "ema_horizon": 1000.0,
            "unlabeled_weight": 100.0,
            "mixup_alpha": 0.1,
            "ramp_fraction": 0.25,
        },
        with_sgd=ICT_WITH_SGD,
    ),
    Published(
        algorithm="mixmatch",
        setting="cifar10",
        divergence="mse",
        source="Berthelot et al. 2019 (arXiv 1905.02249), google-research/mixmatch",
        as_published="Adam 2e-3, decay .02 lr, weight 75, alpha .75, T .5, K 2, decay .999, ramp 16,384 of 2^20 steps",
        conversion="decoupled weight decay .02 as in AdamW",
        parameters={
            "learning_rate": 2e-3,
            "weight_decay": 0.02,
            "ema_horizon": 1000.0,
            "unlabeled_weight": 75.0,
            "mixup_alpha": 0.75,
            "temperature": 0.5,
            "ramp_fraction": 0.016,
        },
    ),
    Published(
        algorithm="mixmatch",
        setting="svhn",
        divergence="mse",
        source="Berthelot et al. 2019 (arXiv 1905.02249), google-research/mixmatch",
        as_published="Adam 2e-3, decay .02 lr, weight 250, alpha .75, T .5, K 2, decay .999, ramp 16,384 of 2^20 steps",
        conversion="decoupled weight decay .02 as in AdamW",
        parameters={
            "learning_rate": 2e-3,
            "weight_decay": 0.02,
            "ema_horizon": 1000.0,
            "unlabeled_weight": 250.0,
            "mixup_alpha": 0.75,
            "temperature": 0.5,
            "ramp_fraction": 0.016,
        },
    ),
)

SGD_LEARNING_RATE = 0.03
"""FixMatch's rate for SGD with Nesterov momentum .9 (Sohn et al. 2020), for methods that nobody
published with SGD."""


SUMMED_BY_NOTEBOOK = frozenset({"ict"})
"""Methods whose loss the seed notebook summed over classes; elsewhere it took the mean, as ours does."""


def weight_relative_to_mse(divergence: str, num_classes: int) -> float:
    """Return by what MSE's weight is multiplied to give this divergence's.

    l1 .3; kl and reverse_kl .5 / C, js 2.5 / C: the scales of their gradients near agreement.
    The notebook's two 1: it put one number before all its columns.
    """
    factors = {
        "mse": 1.0,
        "l1": 0.3,
        "kl": 0.5 / num_classes,
        "reverse_kl": 0.5 / num_classes,
        "js": 2.5 / num_classes,
        "notebook_kl": 1.0,
        "notebook_js": 1.0,
    }
    return factors[divergence]


def longest_horizon(max_steps: int) -> float:
    """Return the longest horizon an average can use: a tenth of the budget, 20 to 10,000 steps.

    A longer memory would still hold the first, random weights at the end; published horizons
    are brought down to it.
    """
    return float(max(20.0, min(10_000.0, max_steps / 10)))


def published_divergence(algorithm: str, prefer: str | None = None) -> str | None:
    """Return the divergence a method's paper uses, or that of a source of ``PREFERRED``; None for supervised."""
    return _rows(algorithm, prefer)[0].divergence


def _rows(algorithm: str, prefer: str | None) -> list[Published]:
    """Return the rows of a method in their order, those of a preferred source first."""
    rows = [row for row in PUBLISHED if row.algorithm == algorithm]
    source = None if prefer is None else PREFERRED[prefer]
    return sorted(rows, key=lambda row: row.source != source)


def published_default(
    algorithm: str,
    divergence: str | None,
    *,
    num_classes: int | None,
    setting: str,
    optimizer: str,
    prefer: str | None = None,
) -> PublishedDefault:
    """Return the published values of a method, converted where its divergence was not published.

    Args:
        num_classes: for the conversion; None leaves a weight that needs one out.
        setting: ``cifar10`` or ``svhn``, the column of the data set's card.
        optimizer: ``adamw``, ``adam`` or ``sgd``. Decoupled weight decay is used with adamw only: as
            an L2 term it would be another quantity.
        prefer: a source of ``PREFERRED``, where it published the method, before others.
    """
    rows = [row for row in _rows(algorithm, prefer) if row.setting in (None, setting)]
    exact = [row for row in rows if row.divergence == divergence]
    row = (exact or rows)[0]
    parameters = dict(row.parameters)
    notes = [] if exact else [f"weight converted from {row.divergence}"]
    if not exact:
        assert row.divergence is not None
        assert divergence is not None
        weight = parameters.pop("unlabeled_weight")
        if num_classes is not None:
            theirs = weight_relative_to_mse(row.divergence, num_classes)
            ours = weight_relative_to_mse(divergence, num_classes)
            if divergence.startswith("notebook_") and algorithm in SUMMED_BY_NOTEBOOK:
                ours *= num_classes
            parameters["unlabeled_weight"] = float(f"{weight * ours / theirs:.6g}")
    theirs_with, more_notes = _with_optimizer(row, optimizer)
    parameters |= theirs_with
    notes += more_notes
    return PublishedDefault(parameters=parameters, source=row.source, note="; ".join(notes))


def _with_optimizer(row: Published, optimizer: str) -> tuple[dict[str, float], list[str]]:
    """Return the values of a row that differ with this optimiser, and what is to be said of them."""
    if optimizer == "adamw":
        return {}, []
    if optimizer == "sgd" and row.with_sgd:
        return row.with_sgd, ["learning rate and weight decay as published with SGD"]
    values, notes = {}, []
    if optimizer == "sgd":
        values["learning_rate"] = SGD_LEARNING_RATE
        notes.append("learning rate of FixMatch for SGD")
    if row.parameters["weight_decay"] > 0:
        values["weight_decay"] = 0.0
        notes.append(
            f"no L2 weight decay published with {optimizer}, taken as the smallest of the range"
        )
    return values, notes
