"""The algorithms, one file per paper, and the one dict that lists them."""

from __future__ import annotations

from typing import Any, NamedTuple

from ssl_core.algorithms import (
    ict,
    mean_teacher,
    mixmatch,
    pi_model,
    pseudo_label,
    supervised,
    vat,
)
from ssl_core.algorithms.common import Algorithm, Batch, LossTerms, Network


class Entry(NamedTuple):
    """How an algorithm is made: its Config class, and the class that takes such a Config."""

    Config: Any
    Algorithm: Any


ALGORITHMS: dict[str, Entry] = {
    "supervised": Entry(supervised.Config, supervised.Supervised),
    "pseudo_label": Entry(pseudo_label.Config, pseudo_label.PseudoLabel),
    "pi_model": Entry(pi_model.Config, pi_model.PiModel),
    "vat": Entry(vat.Config, vat.VAT),
    "mean_teacher": Entry(mean_teacher.Config, mean_teacher.MeanTeacher),
    "ict": Entry(ict.Config, ict.ICT),
    "mixmatch": Entry(mixmatch.Config, mixmatch.MixMatch),
}

__all__ = ["ALGORITHMS", "Algorithm", "Batch", "Entry", "LossTerms", "Network"]
