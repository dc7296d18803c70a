"""Retraining a table of configurations and draws, and opening the test set when all is trained.

What ``confirm`` and ``compare`` do when they know what to retrain; a cross-validation ends with the
training, because its folds are the judges. Everything goes by the
engine of a search: kills, drains, lost nodes, checkpoints, several machines. Then, in this order:
the winner is named from the validation images and written down; the ledger is told; the test
images are opened, in processes of their own; what they gave is written down.

::

    RUN/confirm/NAME/config.yaml  the table: configurations and draws, and the settings of all
        draws.json        which images each draw labels and validates on
        search.json       which validation images the search's complete trials classified
        study.journal     what happened to every retraining; trials/0007/ as in a search
        winner.json       who won by validation, written before the test set is opened
        test.json         which test images every retraining classified
        result.json       every figure, and all it is made of
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from search_spaces.joint import Suggestion
from ssl_core.data.images import checksum
from ssl_core.data.prepare import SplitImages, prepare_draws
from ssl_core.errors import StoppedError, UserError
from ssl_core.files import write_atomically
from tune_ssl import machine
from tune_ssl.confirmation import (
    Named,
    OpenedTest,
    check_whole,
    confirmation,
    name_winner,
    unfinished_reasons,
)
from tune_ssl.cross_validation import cross_validation
from tune_ssl.journal import RunJournal
from tune_ssl.ledger import count_opening, openings_of_others
from tune_ssl.retraining import Retrainings, write_retrainings
from tune_ssl.run import AUTO, RunConfig, RunDirectory, run_lock, whole_of
from tune_ssl.sealed import SealedImages, SealedTest, StoredWeights, sealed_test
from tune_ssl.storage import RunStorage
from tune_ssl.study import RESULT, SearchStudy, read_trials
from tune_ssl.text import percent, times
from tune_ssl.trial import DrawsFactory
from tune_ssl.views.messages import say
from tune_ssl.workflows.driving import DONE, Invocation, how_it_ended, run_job
from tune_ssl.workflows.opening import (
    PreparedStudy,
    check_same_data,
    labels_sha256,
    open_prepared,
    study_of,
)
from tune_ssl.workflows.plan import (
    check_unlabeled,
    describe_conditions,
    describe_skipped,
    on_cluster,
)
from tune_ssl.workflows.process import stdout_to_stderr
from tune_ssl.workflows.sharing import with_measured_share

if TYPE_CHECKING:
    from tune_ssl.on_ray.cluster import Cluster

MOST_PROCESSES = 8
"""That test at once: each holds torch and all test images."""

WINNER, TEST, RESULTS, SEARCHED = "winner.json", "test.json", "result.json", "search.json"


Trials = Sequence[FrozenTrial]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is made of retrainings that are finished.

    Args:
        order: returns what competes by validation, the winner first.
        figures: returns every figure, of the test too; the last argument are ``searched``.
    """

    order: Callable[[Retrainings, Trials], Sequence[Named]]
    figures: Callable[
        [Retrainings, Trials, OpenedTest, Sequence[Mapping[str, Any]]], dict[str, Any]
    ]


CONFIRMATION = Judgement(order=name_winner, figures=confirmation)


@dataclass(frozen=True, kw_only=True)
class RetrainingJob:
    """Retrainings over their draws; see ``Job``.

    Args:
        searched: complete trials of the search, see ``confirmation``; a new run keeps them.
        references: names of the reference lines that are fitted on the same draws.
    """

    retrainings: Retrainings
    draws: Mapping[int, SplitImages]
    searched: Sequence[Mapping[str, Any]] = ()
    references: Sequence[str] = ()

    @property
    def weights_kept(self) -> int | None:
        """See ``Job``: the test needs all, cross-validation none."""
        return None if self.retrainings.folds is None else 0

    @property
    def settings(self) -> RunConfig:
        """See ``Job``."""
        return self.retrainings.settings

    @property
    def image_bytes(self) -> int:
        """See ``Job``."""
        return self._first_draw.images.nbytes

    def on_cluster(self, cluster: Cluster, console: Console) -> RetrainingJob:
        """See ``Job``."""
        settings = on_cluster(self.settings, cluster.cpus, cluster.gpus)
        if settings.gpus_per_trial == AUTO:
            settings = with_measured_share(settings, cluster, self._first_draw, console)
        retrainings = dataclasses.replace(self.retrainings, settings=settings)
        return dataclasses.replace(self, retrainings=retrainings)

    def begin(self, directory: RunDirectory, console: Console) -> None:
        """See ``Job``."""
        write_retrainings(directory, self.retrainings)

    def describe(self, console: Console) -> None:
        """See ``Job``."""
        drawn, count = self._first_draw, len(self.draws)
        unlabeled = len(drawn.unlabeled) - len(drawn.labeled)
        folds = self.retrainings.folds
        if folds is not None:
            say(
                console,
                f"{self.settings.dataset}: {len(drawn.labeled) + len(drawn.validation)} labels in {folds} folds.",
            )
            return
        say(
            console,
            f"{self.settings.dataset}: {count} draws of {len(drawn.labeled)} labeled + {unlabeled} unlabeled "
            f"images to train on, {len(drawn.validation)} to choose on.",
        )
        for line in describe_conditions(self.settings, drawn):
            say(console, line)
        describe_skipped(drawn.skipped, console, None)

    def describe_origin(self, directory: RunDirectory) -> None:
        """See ``Job``."""
        if self.searched and not (directory.path / SEARCHED).exists():
            directory.write_json(SEARCHED, list(self.searched))
        if (directory.path / "draws.json").exists():
            return
        directory.write_json("environment.json", machine.describe())
        directory.write_json(
            "draws.json",
            {
                "images_crc32": f"{checksum(self._first_draw.images):08x}",
                "classes": list(self._first_draw.class_names),
                "draws": [
                    {
                        "split_seed": split_seed,
                        "sha256": drawn.fingerprint,
                        "labeled": drawn.labeled.tolist(),
                        "validation": drawn.validation.tolist(),
                    }
                    for split_seed, drawn in self.draws.items()
                ],
            },
        )

    def open_study(
        self, directory: RunDirectory, storage: RunStorage, console: Console
    ) -> SearchStudy:
        """See ``Job``."""
        retrainings, settings = self.retrainings, self.settings

        def make(journal: RunJournal) -> SearchStudy:
            return study_of(settings, retrainings, journal, directory.name, all_needed=True)

        prepared = PreparedStudy(
            make=make,
            first=retrainings.first_trials,
            facts=self._facts(),
            check=_check_table,
            write=lambda: write_retrainings(directory, retrainings),
        )
        return open_prepared(prepared, directory, storage, console)

    def factory(self) -> DrawsFactory:
        """See ``Job``."""
        return DrawsFactory(self.draws, gpu_share=self.settings.gpu_share)

    def record(self, number: int, suggestion: Suggestion) -> dict[str, Any]:
        """See ``Job``."""
        return self.retrainings.record(number, suggestion)

    def headline(self, trials: Sequence[FrozenTrial]) -> str:
        """See ``Job``."""
        values: dict[str, list[float]] = {}
        for trial in trials:
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                configuration, _ = self.retrainings.at(trial.number)
                values.setdefault(configuration.name, []).append(trial.value)
        told = [f"{name} {percent(sum(own) / len(own))}" for name, own in values.items()]
        return f"mean validation so far: {', '.join(told) or 'none is trained yet'}"

    @property
    def only_draw(self) -> SplitImages:
        """The draw whose labels a cross-validation divides."""
        (drawn,) = self.draws.values()
        return drawn

    @property
    def _first_draw(self) -> SplitImages:
        return next(iter(self.draws.values()))

    def data_facts(self) -> dict[str, Any]:
        """Return what of their data the values of all draws depend on, see ``opening.DATA_FACTS``."""
        draws = self.draws.values()
        return {
            "images_crc32": f"{checksum(self._first_draw.images):08x}",
            "split_sha256": _sha256([drawn.fingerprint for drawn in draws]),
            "labels_sha256": _sha256([labels_sha256(drawn) for drawn in draws]),
        }

    def _facts(self) -> dict[str, Any]:
        return {
            **self.data_facts(),
            "num_classes": self._first_draw.num_classes,
            "settings": self.settings.fixed_settings(),
            "table": self.retrainings.table(),
        }


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """How retrainings ended: exit code, message, and every figure where they got so far."""

    exit_code: int
    directory: RunDirectory
    message: str
    result: dict[str, Any] | None = None


def draw_images(retrainings: Retrainings) -> dict[int, SplitImages]:
    """Read the training images once, and draw the labels and validation images of every draw.

    Raises:
        UserError: the images cannot be read, or are too few.
    """
    settings = retrainings.settings
    draws = prepare_draws(settings.data(), (draw.split_seed for draw in retrainings.draws))
    algorithms = [configuration.algorithm for configuration in retrainings.configurations]
    check_unlabeled(settings.dataset, algorithms, next(iter(draws.values())))
    return draws


def retrain(
    job: RetrainingJob,
    directory: RunDirectory,
    ledger: Path,
    invocation: Invocation,
    console: Console,
    *,
    fresh: bool,
    judgement: Judgement = CONFIRMATION,
    cluster: Cluster | None = None,
) -> Retrained:
    """Train what is not trained yet, name the winner, and test what is not tested yet.

    Args:
        cluster: see ``run_job``.

    Raises:
        UserError: something given cannot be used, or an older version gave a retraining up.
        StoppedError: a file could not be written.
    """
    if not fresh:
        _refuse_holes(job, directory, judgement)
        check_job_data(job, directory)
    if fresh or not all_finished(directory, job.settings.trials):
        driver = run_job(job, directory, invocation, console, fresh=fresh, cluster=cluster)
        code, message = how_it_ended(driver, directory)
        if code != DONE:
            return Retrained(exit_code=code, directory=directory, message=message)
    with run_lock(directory, steal=invocation.steal_lock):
        trials = _trials(directory)
        if job.retrainings.folds is not None:
            tested = "judged on labels held out"
            result = cross_validation(job.retrainings, trials, job.only_draw)
        else:
            tested = "tested"
            order = judgement.order(job.retrainings, trials)
            _write_winner(directory, order, console)
            test = _tested(job, directory, ledger, trials, console)
            result = judgement.figures(job.retrainings, trials, test, _searched(directory))
        directory.write_json(RESULTS, result)
    return Retrained(
        exit_code=DONE,
        directory=directory,
        message=f"{len(trials)} retrainings finished and {tested}",
        result=result,
    )


def _refuse_holes(job: RetrainingJob, directory: RunDirectory, judgement: Judgement) -> None:
    """Refuse a table in which an older version gave a retraining up, before the others are trained.

    Raises:
        UserError: a retraining failed.
    """
    trials = _trials(directory) if directory.has_trials() else []
    if not unfinished_reasons(trials):
        return
    if job.retrainings.folds is not None:
        check_whole(trials)
    judgement.order(job.retrainings, trials)


def kept_result(directory: RunDirectory, error: UserError) -> Retrained:
    """Return the figures of what was finished before, where its images are gone or others by now.

    Raises:
        UserError: the given one, where it was not finished.
    """
    path = directory.path / RESULTS
    if not path.exists():
        raise error
    return Retrained(
        exit_code=DONE,
        directory=directory,
        message=f"warning: these figures are told as they were kept, because {error}",
        result=json.loads(path.read_text()),
    )


def check_job_data(job: RetrainingJob, directory: RunDirectory) -> None:
    """Refuse to test what was trained on other images, also where nothing is left to train.

    Raises:
        UserError: the data have changed.
    """
    if directory.has_trials():
        check_same_data(read_trials(directory.journal_path)[1], job.data_facts(), directory)


def _check_table(
    before: Mapping[str, Any], now: Mapping[str, Any], directory: RunDirectory
) -> None:
    """Refuse to go on with other configurations or draws than the study was begun with."""
    if before["table"] != now["table"]:
        raise UserError(
            f"the configurations or draws of {directory.name!r} have changed; allowed: those it began with; "
            f"restore its config.yaml, or {_anew(directory)}."
        )


def _anew(directory: RunDirectory) -> str:
    """Return how retrainings are begun anew: a confirmation's, or those of a comparison."""
    whole = whole_of(directory)
    if whole is directory:
        return "confirm under another --name"
    return f"remove {directory.path} and resume {whole.path}, whose searches are kept"


def _sha256(texts: Sequence[str]) -> str:
    return hashlib.sha256("|".join(texts).encode()).hexdigest()


def all_finished(directory: RunDirectory, asked: int) -> bool:
    """Return whether nothing is left to train, so that no cluster is needed."""
    if not directory.has_trials():
        return False
    trials = _trials(directory)
    return len(trials) == asked and all(trial.state.is_finished() for trial in trials)


def _searched(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return the search's complete trials as they were when this began; none where nothing was kept."""
    path = directory.path / SEARCHED
    kept: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return kept


def _trials(directory: RunDirectory) -> list[FrozenTrial]:
    return read_trials(directory.journal_path)[0]


def _write_winner(directory: RunDirectory, order: Sequence[Named], console: Console) -> None:
    """Write down who won before the test set is opened, and say so."""
    winner = {"winner": order[0].name, "order": [dataclasses.asdict(named) for named in order]}
    path = directory.path / WINNER
    if not path.exists():
        write_atomically(path, (json.dumps(winner, indent=2) + "\n").encode())
    elif json.loads(path.read_text()) != winner:
        raise UserError(
            f"{path} names another winner than the retrainings in {directory.journal_path.name} do; allowed: "
            f"both as they were written; restore them, or {_anew(directory)}."
        )
    said = ", ".join(f"{named.name} {percent(named.validation)}" for named in order)
    say(console, f"mean validation of the retrainings: {said}")
    say(console, f"winner, named before the test set is opened: {order[0].name}")


def _tested(
    job: RetrainingJob,
    directory: RunDirectory,
    ledger: Path,
    trials: Sequence[FrozenTrial],
    console: Console,
) -> OpenedTest:
    """Return what the test gave: from the run where it is kept there, else by opening the test set."""
    path = directory.path / TEST
    if path.exists():
        kept = OpenedTest.from_mapping(json.loads(path.read_text()))
        say(console, f"opening {kept.opening} is told again; the test images were not read anew.")
        return kept
    settings = job.settings
    models = _fitted(job)
    place = SealedImages(
        dataset=settings.dataset,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        device=settings.device,
        threads=settings.threads or 1,
        labeled_classes=settings.labeled_classes,
    )
    weights = _weights(settings.storage or str(directory.path), trials)
    at_once = machine.usable_cpus() // place.threads if place.device == "cpu" else 1
    processes = max(1, min(at_once, len(weights), MOST_PROCESSES))
    try:
        with stdout_to_stderr(), sealed_test(place, processes) as sealed:
            opened = _open(sealed, job.retrainings, directory, ledger, console)
            results = _measured(sealed, opened, weights, models)
    except BrokenProcessPool as error:
        raise StoppedError(
            f"a process that tests was ended from outside, by lack of memory maybe ({error}); all retrainings "
            "are kept, and the opening is not counted again; repeat the command."
        ) from error
    directory.write_json(TEST, results.to_mapping())
    return results


def _fitted(job: RetrainingJob) -> dict[str, list[Any]]:
    """Return the reference lines, fitted on every draw: done before the test set is opened."""
    from tune_ssl.references import REFERENCES

    return {
        name: [REFERENCES[name](drawn) for drawn in job.draws.values()] for name in job.references
    }


def _open(
    sealed: SealedTest,
    retrainings: Retrainings,
    directory: RunDirectory,
    ledger: Path,
    console: Console,
) -> OpenedTest:
    """Open the test set and count it, before anything is measured."""
    opened = sealed.open()
    try:
        opening = count_opening(
            ledger,
            test_set=opened.sha256,
            opening=retrainings.id,
            about={
                "dataset": retrainings.settings.dataset,
                "images": len(opened.labels),
                "run": str(directory.path),
                "data_dir": retrainings.settings.data_dir,
                "configurations": [one.name for one in retrainings.configurations],
                "draws": len(retrainings.draws),
                **retrainings.settings.conditions(),
            },
        )
    except OSError as error:
        raise StoppedError(
            f"the ledger {ledger} cannot be written ({error}), so the test set stays closed; all "
            "retrainings are kept; make it writable and repeat the command."
        ) from error
    before = openings_of_others(ledger, opened.sha256, retrainings.settings.data_dir)
    if before:
        say(
            console,
            f"warning: {retrainings.settings.data_dir} was opened {times(before)} before with other test images in "
            "it; those that are the same have judged before.",
        )
    describe_skipped(opened.skipped, console, TEST)
    say(
        console,
        f"opening {opening} of the test set ({len(opened.labels)} images), counted in {ledger}",
    )
    return OpenedTest(
        sha256=opened.sha256,
        opening=opening,
        labels=opened.labels,
        class_names=opened.class_names,
        correct={},
        skipped=list(opened.skipped),
    )


def _measured(
    sealed: SealedTest,
    opened: OpenedTest,
    weights: Mapping[int, StoredWeights],
    models: Mapping[str, Sequence[Any]],
) -> OpenedTest:
    """Return an opened test with what every retraining, and every reference line, classified."""
    correct = dict(zip(weights, sealed.measure(list(weights.values())), strict=True))
    references = {name: list(sealed.refer(own)) for name, own in models.items()}
    return dataclasses.replace(opened, correct=correct, references=references)


def _weights(root: str, trials: Sequence[FrozenTrial]) -> dict[int, StoredWeights]:
    """Return the weights of every retraining that has some, by its number."""
    return {
        trial.number: StoredWeights(
            root,
            trial.system_attrs[RESULT]["weights"],
            trial.system_attrs[RESULT]["weights_sha256"],
        )
        for trial in trials
        if trial.state == TrialState.COMPLETE
    }
