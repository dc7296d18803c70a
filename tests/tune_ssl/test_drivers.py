"""Several searches on the same workers: who begins when, who ends whom, and that none disturbs another."""

from __future__ import annotations

import pytest

from tests.tune_ssl.fakes import FakeFactory, Fault, Run, SharedWorkers, outcome, small_config
from tune_ssl.driver import Limits
from tune_ssl.drivers import Drivers
from tune_ssl.study import SECONDS, Verdict

pytestmark = pytest.mark.usefixtures("no_fsync")


class Together:
    """Three searches of four trials, opened one after the other as ``Drivers`` ask for them."""

    def __init__(self, folder, *, slots: int, limits=None, faults=None) -> None:
        self.runs: list[Run] = []
        self.ended: list[str] = []
        self.under_way: list[set[str]] = []
        self.clock = FakeFactory().clock
        self._folder, self._limits = folder, limits
        self.drivers = Drivers(self._coming(), count=3, ended=self._end)
        self.workers = SharedWorkers(
            self.drivers, FakeFactory(clock=self.clock, faults=faults), slots=slots
        )

    def _coming(self):
        for name in "abc":
            config = small_config(trials=4, sampler="random", seed=ord(name))
            run = Run(self._folder / name, config, clock=self.clock, limits=self._limits)
            self.runs.append(run)
            yield run.driver

    def _end(self, driver) -> None:
        self.ended.append(driver.name)

    def turn(self) -> None:
        self.drivers.tend()
        self.workers.fill()
        self.under_way.append({task.storage[-1] for task, _ in self.workers.busy.values()})
        self.workers.turn()

    def run(self) -> Together:
        for _ in range(500):
            if self.drivers.finished() and not self.workers.busy:
                self.drivers.close("the test is over")
                return self
            self.turn()
        raise AssertionError("the searches do not end")


@pytest.fixture
def together(tmp_path):
    return lambda **options: Together(tmp_path, **options)


class TestOrder:
    def test_one_slot_has_one_search_after_the_other(self, together):
        it = together(slots=1).run()
        assert all(len(under_way) <= 1 for under_way in it.under_way)
        assert it.ended == ["a", "b", "c"]
        assert [run.states().count("WAITING") for run in it.runs] == [0, 0, 0]

    def test_a_free_slot_waits_for_no_other_search(self, together):
        it = together(slots=6)
        it.turn()
        assert len(it.workers.busy) >= 5, "a's four trials and b's first ones"
        assert it.under_way[0] == {"a", "b"}
        it.run()
        assert any("c" in under_way and len(under_way) > 1 for under_way in it.under_way)
        assert sorted(it.ended) == ["a", "b", "c"]
        assert all(len(run.trials()) == 4 for run in it.runs)

    def test_a_search_is_opened_when_a_worker_is_free_for_it(self, together):
        it = together(slots=2)
        assert it.runs == []
        it.turn()
        assert [run.directory.name for run in it.runs] == ["a"]

    def test_each_ends_when_its_own_trials_have(self, together):
        it = together(slots=1)
        while not it.ended:
            it.turn()
        assert it.ended == ["a"]
        assert it.drivers.done == 1
        assert not it.drivers.finished()

    def test_with_one_slot_each_finds_what_it_finds_alone(self, together, tmp_path):
        for run in together(slots=1).run().runs:
            alone = Run(tmp_path / "alone" / run.directory.name, run.config).finish()
            assert outcome(alone.trials()) == outcome(run.trials())


class TestRouting:
    def test_a_report_reaches_the_search_its_trial_is_of(self, together):
        it = together(slots=6)
        it.turn()
        tasks = [task for task, _ in it.workers.busy.values()]
        first = [task for task in tasks if task.number == 0]
        assert len({task.storage for task in first}) == len(first) == 2
        it.drivers.lost(first[1], "its worker is gone")
        assert it.runs[0].states()[0] == "RUNNING"
        assert it.runs[1].states()[0] == "WAITING"
        again = it.drivers.next()
        assert (again.storage, again.number, again.attempt) == (first[1].storage, 0, 2)

    def test_of_a_search_that_is_over_nothing_is_taken(self, together):
        it = together(slots=1)
        it.turn()
        (task, runner) = it.workers.busy[0]
        it.run()
        before = it.runs[0].states()
        report = runner.slice()
        assert it.drivers.handle(task, report) is Verdict.STALE
        it.drivers.lost(task, "late")
        it.drivers.take_back(task)
        it.drivers.store_and_interrupt(task, None)
        it.drivers.started(task)
        assert it.runs[0].states() == before
        assert not it.drivers.drains(task)
        assert it.drivers.drain_seconds(task) == 0.0
        it.drivers.drain("SIGTERM")
        assert it.drivers.drain_seconds(task) == float("inf"), "nobody waits for its worker"

    def test_silence_is_told_of_each(self, together):
        it = together(slots=6)
        it.turn()
        it.clock.advance(10_000.0)
        running = {(task.storage, task.number) for task, _ in it.workers.busy.values()}
        assert set(it.drivers.silent(300.0)) == running


class TestEnding:
    def test_a_signal_drains_all_and_opens_none(self, together):
        it = together(slots=6)
        it.turn()
        it.drivers.drain("SIGTERM")
        assert it.drivers.next() is None
        it.run()
        assert [run.directory.name for run in it.runs] == ["a", "b"]
        assert it.drivers.draining == "SIGTERM"
        assert all("RUNNING" not in run.states() for run in it.runs)
        assert sorted(it.ended) == ["a", "b"]

    def test_device_time_of_its_own_ends_a_search_alone(self, together):
        it = together(slots=1, limits=Limits(device_seconds=20.0)).run()
        assert it.drivers.draining is None
        assert it.ended == ["a", "b", "c"]
        for run in it.runs:
            spent = sum(trial.user_attrs.get(SECONDS, 0.0) for trial in run.trials())
            assert 20.0 <= spent < 30.0
            assert run.driver.limit_reached

    def test_a_time_limit_ends_all(self, together):
        it = together(slots=1, limits=Limits(seconds=20.0)).run()
        assert [run.directory.name for run in it.runs] == ["a"]
        assert it.drivers.draining == "time limit reached"

    def test_so_does_a_search_without_hope(self, together):
        fault = Fault(where="run", error=ValueError("no such class"))
        it = together(slots=1, faults={None: fault}).run()
        assert [run.directory.name for run in it.runs] == ["a"]
        assert "3 trials failed alike" in it.drivers.draining

    def test_a_signal_that_comes_while_the_next_is_opened_drains_that_too(self, together):
        it = together(slots=1)
        coming = it.drivers._coming

        def signalled():
            for driver in coming:
                if driver.name == "b":
                    it.drivers.drain("SIGTERM")
                yield driver

        it.drivers._coming = signalled()
        it.run()
        assert [run.directory.name for run in it.runs] == ["a", "b"]
        assert it.runs[1].driver.draining == "SIGTERM"
        assert it.runs[1].states() == ["WAITING"], "its default is queued and was not handed out"

    def test_closing_ends_each_whatever_the_others_raise(self, together):
        it = together(slots=6)
        it.turn()

        def broken(reason):
            raise OSError("the disk is full")

        it.runs[0].driver.close = broken
        with pytest.raises(OSError, match="the disk is full"):
            it.drivers.close("the driver ended")
        assert it.drivers.open == []
        assert sorted(it.ended) == ["a", "b"], "their locks are released"
        assert "RUNNING" not in it.runs[1].states()


def test_device_time_is_of_all_that_were_opened(together):
    it = together(slots=2).run()
    spent = [sum(trial.user_attrs.get(SECONDS, 0.0) for trial in run.trials()) for run in it.runs]
    assert it.drivers.device_seconds() == pytest.approx(sum(spent))
