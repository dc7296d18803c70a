"""How property tests run: the same examples each time, and no clock."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

EXAMPLES = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
