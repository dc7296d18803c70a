"""What Tune's actor makes of a report; without a cluster."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.tune_ssl.fakes import bare_report
from tune_ssl.on_ray import trainable
from tune_ssl.on_ray.trainable import REPORT, TASK, TrialTrainable
from tune_ssl.worker import DEVICE_FAILED, ERROR, RUNG, UNWRITABLE, SliceReport, Task


@pytest.fixture
def actor_with(monkeypatch):
    """Make an actor whose runner reports so much, on node a."""
    context = SimpleNamespace(
        get_node_id=lambda: "a", get_accelerator_ids=lambda: {"GPU": ["0", "3"]}
    )
    monkeypatch.setattr(trainable.ray, "get_runtime_context", lambda: context)

    def make(report: SliceReport) -> TrialTrainable:
        actor = TrialTrainable.__new__(TrialTrainable)
        actor._runner, actor._waiting = SimpleNamespace(slice=lambda: report), None
        actor._ended = None
        return actor

    return make


def task(number: int, storage: str) -> Task:
    return Task(number=number, attempt=1, record={}, storage=storage)


@pytest.mark.parametrize(
    "given", [bare_report(RUNG), bare_report(ERROR, "ValueError: no such class")]
)
def test_a_report_says_on_which_node_it_was_made_and_the_actor_goes_on(actor_with, given):
    actor = actor_with(given)
    for _ in range(2):
        handed_on = actor.step()[REPORT]
        assert (handed_on.node, handed_on.gpus) == ("a", "0,3")
        assert (handed_on.kind, handed_on.reason) == (given.kind, given.reason)


@pytest.mark.parametrize(
    "given",
    [
        bare_report(DEVICE_FAILED, "AcceleratorError: CUDA error: device-side assert triggered"),
        bare_report(UNWRITABLE, "step-000003.pt cannot be written: No space left on device"),
    ],
)
def test_after_what_ends_a_worker_it_raises_so_that_tune_drops_it(actor_with, given):
    actor = actor_with(given)
    assert actor.step()[REPORT].kind == given.kind
    with pytest.raises(RuntimeError, match="device"):
        actor.step()


def test_one_that_is_retired_raises_at_its_next_step(actor_with):
    actor = actor_with(bare_report(RUNG))
    actor.step()
    actor.retire()
    with pytest.raises(RuntimeError, match="its node gets no more trials"):
        actor.step()


def test_trials_of_several_runs_share_what_is_fetched_and_have_their_own_storage(
    actor_with, monkeypatch, tmp_path
):
    fetched, runners = [], []

    class Runner:
        def __init__(self, factory, storage, rungs, *, lengths):
            self.factory, self.storage, self.begun = factory, storage.root, []
            runners.append(self)

        def begin(self, task):
            self.begun.append(task.number)

        def slice(self):
            return bare_report(RUNG)

    monkeypatch.setattr(trainable.ray, "get", lambda reference: fetched.append(reference) or "it")
    monkeypatch.setattr(trainable, "TrialRunner", Runner)
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    actor = actor_with(bare_report(RUNG))
    actor.setup({TASK: [task(0, one)]}, factory=["reference"], rungs=(3, 9))
    for following in (task(1, one), task(0, other), task(1, other)):
        actor.step()
        actor.reset_config({TASK: [following]})
    actor.step()
    assert fetched == ["reference"]
    assert [(runner.storage, runner.begun) for runner in runners] == [
        (one, [0, 1]),
        (other, [0, 1]),
    ]
