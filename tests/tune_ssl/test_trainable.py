"""What Tune's actor makes of a report; without a cluster."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tune_ssl.on_ray.trainable import REPORT, TrialTrainable
from tune_ssl.worker import ERROR, RUNG, SliceReport


def actor_with(report: SliceReport) -> TrialTrainable:
    actor = TrialTrainable.__new__(TrialTrainable)
    actor._runner, actor._waiting = SimpleNamespace(slice=lambda: report), None
    return actor


def report(kind: str, reason: str | None = None) -> SliceReport:
    return SliceReport(
        number=0,
        attempt=1,
        step=3,
        kind=kind,
        seconds=1.0,
        reason=reason,
        error=f"Traceback\n{reason}",
    )


@pytest.mark.parametrize("given", [report(RUNG), report(ERROR, "ValueError: no such class")])
def test_a_report_is_handed_on_whole(given):
    assert actor_with(given).step() == {REPORT: given}


def test_a_broken_process_is_left_by_raising_so_that_tune_drops_it():
    broken = report(ERROR, "AcceleratorError: CUDA error: device-side assert triggered")
    with pytest.raises(RuntimeError, match="device-side assert"):
        actor_with(broken).step()
