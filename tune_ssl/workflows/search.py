"""``search`` and ``resume``: from settings to a finished study, on a cluster."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState
from rich.console import Console

from search_spaces.joint import Suggestion
from ssl_core.data.images import checksum
from ssl_core.data.prepare import SplitImages, prepare
from ssl_core.errors import check_integer
from tune_ssl import machine
from tune_ssl.best import WEIGHTS_KEPT
from tune_ssl.driver import SearchDriver
from tune_ssl.run import AUTO, RunConfig, RunDirectory, new_run, write_yaml
from tune_ssl.storage import RunStorage
from tune_ssl.study import REASON, SearchStudy
from tune_ssl.text import method_text
from tune_ssl.trial import DrawsFactory, TrainingFactory, WorkFactory
from tune_ssl.views.export import export_records
from tune_ssl.views.live import best_so_far
from tune_ssl.workflows.driving import ALL_FAILED, DONE, Invocation, how_it_ended, run_job
from tune_ssl.workflows.opening import open_study
from tune_ssl.workflows.plan import (
    describe_data,
    describe_starts,
    on_cluster,
    on_this_host,
    placed,
    with_data,
    with_own_places,
    with_precision,
)
from tune_ssl.workflows.sharing import with_measured_share

if TYPE_CHECKING:
    from tune_ssl.on_ray.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a search ended: its exit code, its run, and its best configurations."""

    exit_code: int
    directory: RunDirectory
    records: list[dict[str, Any]]
    message: str
    notes: list[str] = field(default_factory=list)


def search(
    config: RunConfig,
    invocation: Invocation,
    console: Console,
    *,
    name: str | None,
    output: str,
) -> Outcome:
    """Run a new search.

    Raises:
        UserError: something given cannot be used; nothing was written.
    """
    directory = new_run(name, output, config)
    if invocation.address is None:  # Ray would take seconds to say the same
        on_this_host(config)
    config = with_own_places(config, directory.name)
    shared = prepare(config.data())
    config = with_data(config, shared)
    return _searched(config, directory, shared, invocation, console, fresh=True)


def resume(
    directory: RunDirectory,
    invocation: Invocation,
    console: Console,
    *,
    trials: int | None,
    concurrency: int | None,
    data_dir: str | None = None,
) -> Outcome:
    """Continue a run, or extend it to more trials.

    Raises:
        UserError: the run is held by another driver, its images have changed, or more trials
            are finished than it shall have.
    """
    config = directory.read_config()
    if trials is not None:
        check_integer("trials", trials, 1)
        config = dataclasses.replace(config, trials=trials)
    config = placed(config, concurrency=concurrency, data_dir=data_dir)
    shared = prepare(config.data())
    return _searched(config, directory, shared, invocation, console, fresh=False)


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """A search's trials over one draw of labels; see ``Job``.

    Args:
        draws: of all searches that are driven with it, by split_seed; None where it is alone.
        quiet: what it is trained on has been said.
    """

    settings: RunConfig
    shared: SplitImages
    draws: Mapping[int, SplitImages] | None = None
    quiet: bool = False
    weights_kept: int | None = WEIGHTS_KEPT

    @property
    def image_bytes(self) -> int:
        """See ``Job``."""
        return self.shared.images.nbytes

    def on_cluster(self, cluster: Cluster, console: Console) -> SearchJob:
        """See ``Job``."""
        settings = on_cluster(self.settings, cluster.cpus, cluster.gpus)
        settings = with_precision(settings, self.shared)
        if settings.gpus_per_trial == AUTO:
            settings = with_measured_share(settings, cluster, self.shared, console)
        return dataclasses.replace(self, settings=settings)

    def begin(self, directory: RunDirectory, console: Console) -> None:
        """See ``Job``."""
        describe_starts(self.settings, self.shared, console)
        directory.write_config(self.settings)

    def describe(self, console: Console) -> None:
        """See ``Job``."""
        if not self.quiet:
            describe_data(self.settings, self.shared, console)

    def describe_origin(self, directory: RunDirectory) -> None:
        """See ``Job``."""
        if (directory.path / "split.json").exists():
            return
        shared = self.shared
        directory.write_json("environment.json", machine.describe())
        directory.write_json(
            "split.json",
            {
                "split_seed": self.settings.split_seed,
                "reshuffled": self.settings.reshuffle_validation,
                "sha256": shared.fingerprint,
                "images_crc32": f"{checksum(shared.images):08x}",
                "classes": list(shared.class_names),
                "labeled": shared.labeled.tolist(),
                "validation": shared.validation.tolist(),
                "unlabeled": len(shared.unlabeled) - len(shared.labeled),
                "skipped": list(shared.skipped),
            },
        )

    def open_study(
        self, directory: RunDirectory, storage: RunStorage, console: Console
    ) -> SearchStudy:
        """See ``Job``."""
        return open_study(self.settings, directory, self.shared, storage, console)

    def factory(self) -> WorkFactory:
        """See ``Job``."""
        share = self.settings.gpu_share
        if self.draws is not None:
            return DrawsFactory(self.draws, gpu_share=share)
        return TrainingFactory(self.shared, gpu_share=share)

    def record(self, number: int, suggestion: Suggestion) -> dict[str, Any]:
        """See ``Job``."""
        return self.settings.search_record(number, suggestion)

    def headline(self, trials: Sequence[FrozenTrial]) -> str:
        """See ``Job``."""
        return best_so_far(trials, self.settings.metric)


def _searched(
    config: RunConfig,
    directory: RunDirectory,
    shared: SplitImages,
    invocation: Invocation,
    console: Console,
    *,
    fresh: bool,
) -> Outcome:
    job = SearchJob(settings=config, shared=shared)
    driver = run_job(job, directory, invocation, console, fresh=fresh)
    return outcome_of(driver, directory, shared)


def outcome_of(driver: SearchDriver, directory: RunDirectory, shared: SplitImages) -> Outcome:
    """Return how a search ended whose driver is closed, and write its best configurations."""
    config = driver.config
    records = export_records(config, driver.study.get_trials(), shared.num_classes)
    if records:
        write_yaml(directory.best_path, records)
    code, message = how_it_ended(driver, directory)
    if code == DONE and not records:
        code, message = ALL_FAILED, f"no trial ended well; most often: {_usual_reason(driver)}"
    directory.log_event("finished", exit_code=code, message=message)
    return Outcome(
        exit_code=code,
        directory=directory,
        records=records,
        message=message,
        notes=_notes(driver, records, len(shared.validation)),
    )


def _usual_reason(driver: SearchDriver) -> str:
    reasons = Counter(str(t.user_attrs.get(REASON, "")) for t in driver.study.get_trials())
    return reasons.most_common(1)[0][0]


def _notes(driver: SearchDriver, records: list[dict[str, Any]], validation: int) -> list[str]:
    """Return what the ranking does not show: where trials went, and whether it means anything."""
    notes = []
    space, trials = driver.study.space, driver.study.get_trials()
    if len(list(space.cells())) > 1:
        methods = [
            (space.suggest(FixedTrial(trial.params)), trial)
            for trial in trials
            if trial.state.is_finished()
        ]
        told = []
        for algorithm, divergence in space.cells():
            own = [t for s, t in methods if (s.algorithm, s.divergence) == (algorithm, divergence)]
            complete = sum(trial.state == TrialState.COMPLETE for trial in own)
            told.append(f"{method_text(algorithm, divergence)} {len(own)} ({complete})")
        notes.append("trials (of full length): " + ", ".join(told))
    if len(records) > 2 and len(records[0]["tied_with"]) == len(records) - 1:
        notes.append(
            f"The {validation} validation images tell none of the {len(records)} configurations of full "
            "length from the first: label more to choose on, or take the recommended one."
        )
    return notes
