"""What is searched: one define-by-run function per method, and the study over several of them.

Nothing of ray, torch or optuna is imported: a space asks its trial for values, and any object
with ``suggest_float`` serves as one.
"""

from __future__ import annotations

from search_spaces import (
    ict,
    mean_teacher,
    mixmatch,
    pi_model,
    pseudo_label,
    supervised,
    vat,
)
from search_spaces.common import Parameters, Space, SpaceContext, Trial

SEARCH_SPACES: dict[str, Space] = {
    "supervised": supervised.space,
    "pseudo_label": pseudo_label.space,
    "pi_model": pi_model.space,
    "vat": vat.space,
    "mean_teacher": mean_teacher.space,
    "ict": ict.space,
    "mixmatch": mixmatch.space,
}

__all__ = ["SEARCH_SPACES", "Parameters", "Space", "SpaceContext", "Trial"]
