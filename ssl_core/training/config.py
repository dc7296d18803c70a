"""All that one training depends on, as a checked value that can be written down and read back.

In a file a configuration is one flat mapping, its tuned hyperparameters under ``parameters``::

    algorithm: ict
    divergence: mse
    parameters: {unlabeled_weight: 20.0, mixup_alpha: 0.5, learning_rate: 0.002, ...}
    dataset: digits
    num_labels: 20
    seed: 7
    ...

What is missing is taken from the data set's card and from the published defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl_core.algorithms import ALGORITHMS
from ssl_core.data.catalogue import DATASET_CARDS
from ssl_core.data.config import DataConfig
from ssl_core.errors import (
    UserError,
    check_choice,
    check_flag,
    check_integer,
    check_keys,
    check_number,
    check_text,
)
from ssl_core.names import (
    EVALUATED_NETWORKS,
    LR_SCHEDULE_NAMES,
    METRIC_NAMES,
    OPTIMIZER_NAMES,
    PRECISIONS,
    algorithm_name,
    check_device,
    divergence_name,
    parse_model_name,
)
from ssl_core.parameters import check_batch_norm_momentum
from ssl_core.published import longest_horizon, published_default, published_divergence

TRAINING_PARAMETERS = ("learning_rate", "weight_decay", "ema_horizon")
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training of one method.

    Args:
        method: Config of the algorithm, its divergence included.
        ema_horizon: steps the average looks back, 1/(1 - decay) >= 1.
        batch_size: labeled images per step; unlabeled_ratio times as many unlabeled ones.
        batch_norm_momentum: of running BatchNorm statistics, in (0, 1], with which the evaluated
            network is measured; None to recompute them before each evaluation.
        evaluate: the network that is measured and exported, never the better of two.
        metric: what it is measured by; balanced_accuracy weighs every class alike.
        compile: the method's passes by torch's compiler, see ``compiled.py``; other bits.
        threads: CPU threads; results are bit-equal only at the same number.
        seed: weights, batches, augmentation and the method's own randomness.
        protocol: whose settings these are, for people; no training depends on it.
    """

    algorithm: str
    method: Any
    data: DataConfig
    learning_rate: float
    weight_decay: float
    ema_horizon: float
    model: str
    max_steps: int
    batch_size: int
    unlabeled_ratio: int = 1
    optimizer: str = "adamw"
    lr_schedule: str = "cosine"
    evaluate: str = "ema"
    metric: str = "accuracy"
    precision: str = "float32"
    compile: bool = False
    threads: int = 1
    device: str = "cpu"
    seed: int = 0
    batch_norm_momentum: float | None = None
    protocol: str = "default"

    def __post_init__(self) -> None:
        check_number("learning_rate", self.learning_rate, 0.0, low_open=True)
        check_number("weight_decay", self.weight_decay, 0.0)
        check_number("ema_horizon", self.ema_horizon, 1.0)
        parse_model_name(self.model)
        check_integer("max_steps", self.max_steps, 1)
        check_integer("batch_size", self.batch_size, 2)
        check_integer("unlabeled_ratio", self.unlabeled_ratio, 1)
        check_choice("optimizer", self.optimizer, OPTIMIZER_NAMES)
        check_choice("lr_schedule", self.lr_schedule, LR_SCHEDULE_NAMES)
        check_choice("evaluate", self.evaluate, EVALUATED_NETWORKS)
        check_choice("metric", self.metric, METRIC_NAMES)
        check_choice("precision", self.precision, PRECISIONS)
        check_flag("compile", self.compile)
        check_integer("threads", self.threads, 1)
        check_device(self.device)
        check_integer("seed", self.seed, 0, LARGEST_SEED)
        check_batch_norm_momentum(self.batch_norm_momentum, self.max_steps)
        check_text("protocol", self.protocol)

    @property
    def divergence(self) -> str | None:
        """The method's divergence; None for supervised."""
        return getattr(self.method, "divergence", None)

    def to_record(self) -> dict[str, Any]:
        """Return the flat mapping that ``from_record`` reads back to an equal configuration."""
        method = dataclasses.asdict(self.method)
        method.pop("divergence", None)
        parameters = method | {name: getattr(self, name) for name in TRAINING_PARAMETERS}
        record = {
            "algorithm": self.algorithm,
            "divergence": self.divergence,
            "parameters": parameters,
        }
        record |= self.data.to_record()
        record |= {name: getattr(self, name) for name in _SETTINGS}
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TrainingConfig:
        """Return the configuration a flat mapping describes; what is missing takes its default.

        Raises:
            UserError: a key or name is unknown, or a value is not legal.
        """
        check_keys("the configuration", record, (*_NAMES, *_DATA, *_SETTINGS))
        if "algorithm" not in record:
            raise UserError("the configuration has no 'algorithm'; name one, such as 'ict'.")
        algorithm = algorithm_name(str(record["algorithm"]))
        data = DataConfig(**{key: record[key] for key in _DATA if key in record})
        card = DATASET_CARDS[data.dataset]
        data = dataclasses.replace(
            data,
            num_labels=record.get("num_labels", card.num_labels),
            num_validation=record.get("num_validation", card.num_validation),
        )
        settings: dict[str, Any] = {
            "model": card.model,
            "max_steps": card.max_steps,
            "batch_size": card.batch_size,
        } | {key: record[key] for key in _SETTINGS if record.get(key) is not None}
        method, training = _parameters(record, algorithm, card.published_setting, settings)
        return cls(algorithm=algorithm, method=method, data=data, **training, **settings)


def _parameters(
    record: Mapping[str, Any], algorithm: str, setting: str, settings: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the method's Config and the training's parameters that a record describes."""
    config_class = ALGORITHMS[algorithm].Config
    allowed = tuple(field.name for field in dataclasses.fields(config_class))
    given = record.get("parameters") or {}
    if not isinstance(given, Mapping):
        raise UserError(
            f"parameters is {given!r}; allowed: a mapping of names to numbers; write one."
        )
    names = tuple(name for name in allowed if name != "divergence")
    check_keys(f"parameters of {algorithm}", given, (*names, *TRAINING_PARAMETERS))
    divergence = _divergence(record.get("divergence"), algorithm)
    default = published_default(
        algorithm,
        divergence,
        num_classes=None,
        setting=setting,
        optimizer=settings.get("optimizer", "adamw"),
    )
    values = default.parameters | dict(given)
    if "ema_horizon" not in given:
        values["ema_horizon"] = min(values["ema_horizon"], longest_horizon(settings["max_steps"]))
    if "unlabeled_weight" in names and "unlabeled_weight" not in values:
        raise UserError(
            f"parameters has no unlabeled_weight; allowed: a number >= 0, because nobody published one "
            f"for {algorithm} with {divergence}; write it."
        )
    method = {name: value for name, value in values.items() if name in allowed}
    if divergence is not None:
        method["divergence"] = divergence
    training = {name: values[name] for name in TRAINING_PARAMETERS}
    return config_class(**method), training


def _divergence(given: object, algorithm: str) -> str | None:
    published = published_divergence(algorithm)
    if given is None or published is None:
        if given is not None:
            raise UserError(
                f"divergence is {given!r} with supervised; allowed: none, it compares no two predictions; "
                "leave it out."
            )
        return published
    return divergence_name(str(given))


_NAMES = ("algorithm", "divergence", "parameters")
_DATA = tuple(field.name for field in dataclasses.fields(DataConfig))
_SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(TrainingConfig)
    if field.name not in ("algorithm", "method", "data", *TRAINING_PARAMETERS)
)
