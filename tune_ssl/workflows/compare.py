"""``compare``: a search for every cell with equal budgets, then their winners on the same fresh draws.

All cells share one set of workers, in their order: a cell's search begins when those before have no trial
left to hand out. Then all winners are retrained together and tested in one opening, as ``confirm`` does it.

::

    OUTPUT/NAME/compare.yaml  what is compared, and with which budget
        cells/CELL/           an ordinary search each: status, report, export and confirm work on it; resumed,
                              it and the retrainings go on by the whole, with equal budgets
        retrainings/          see ``workflows/retrain.py``
        result.json           every figure, and all it is made of

Whatever is done stays: repeated, or given to ``resume``, a comparison goes on with the first cell whose
budget is not used up.
"""

from __future__ import annotations

import dataclasses
import json
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FixedTrial, FrozenTrial
from rich.console import Console

from ssl_core.data.prepare import SplitImages, prepare, prepare_draws
from ssl_core.data.sources import check_has_test_images
from ssl_core.errors import UserError
from tune_ssl import comparison as judging
from tune_ssl.best import rank_trials
from tune_ssl.comparison import CONTROL, Comparison, Searched, SearchedCell
from tune_ssl.driver import TIME_LIMIT, SearchDriver
from tune_ssl.ledger import LEDGER
from tune_ssl.machine import command_path
from tune_ssl.references import references_for
from tune_ssl.retraining import Retrainings, read_retrainings
from tune_ssl.run import (
    COMPARISON,
    RETRAININGS,
    RunConfig,
    RunDirectory,
    added_defaults,
    check_run_name,
    new_run,
    run_lock,
    write_yaml,
)
from tune_ssl.statistics.repeats import FEWEST_TRUSTED, is_indicative
from tune_ssl.storage import absolute_root
from tune_ssl.study import read_trials
from tune_ssl.text import duration
from tune_ssl.views.messages import say
from tune_ssl.workflows.confirm import DEFAULT_SEEDS, OTHER_SEEDS
from tune_ssl.workflows.driving import (
    ALL_FAILED,
    DONE,
    DRAINED,
    INTERNAL,
    LIMIT,
    Invocation,
    Run,
    connected_for,
    run_jobs,
)
from tune_ssl.workflows.opening import check_same_data, data_facts
from tune_ssl.workflows.plan import (
    describe_conditions,
    describe_training,
    on_this_host,
    placed,
    planned_steps,
    separable_text,
    slots_here,
    with_data,
    with_own_places,
    with_precision,
)
from tune_ssl.workflows.process import stdout_to_stderr
from tune_ssl.workflows.results import read_comparison, read_run
from tune_ssl.workflows.retrain import (
    RESULTS,
    Judgement,
    Retrained,
    RetrainingJob,
    all_finished,
    draw_images,
    kept_result,
    retrain,
)
from tune_ssl.workflows.search import SearchJob, outcome_of

if TYPE_CHECKING:
    from tune_ssl.on_ray.cluster import Cluster

TIMED_STEPS = 15
GRAVEST_FIRST = (ALL_FAILED, INTERNAL, LIMIT, DRAINED, DONE)
DECIDED_BY_THE_MACHINE = ("device", "gpus_per_trial", "threads", "precision")
FEWEST_TO_SEE_A_COLLAPSE = 20
"""Retrainings; see docs/statistics.md, "a failure that has not happened yet"."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A comparison that can begin or go on, and the lines of its bill."""

    comparison: Comparison
    directory: RunDirectory
    bill: list[str]


def comparison_of(
    settings: RunConfig,
    *,
    claim: str,
    budget_per_cell: float | None,
    seeds: int | None,
    repeats: int,
) -> Comparison:
    """Return what is asked for; supervised joins the methods, and None is the usual number of seeds.

    Raises:
        UserError: see ``Comparison``.
    """
    if CONTROL not in settings.alg:
        settings = dataclasses.replace(settings, alg=(CONTROL, *settings.alg))
    if seeds is None:
        seeds = DEFAULT_SEEDS.get(settings.dataset, OTHER_SEEDS)
    return Comparison(
        settings=settings,
        claim=claim,
        budget_per_cell=budget_per_cell,
        seeds=seeds,
        repeats=repeats,
    )


def prepare_compare(asked: Comparison, *, name: str | None, output: str, here: bool) -> Prepared:
    """Return what a comparison will do; nothing is written.

    Args:
        name: of its folder; None for one that the same command gives again, so that it goes on.
        here: it is to run on this host alone, so what it asks for can be checked at once.

    Raises:
        UserError: something given cannot be used, or the folder holds another comparison.
    """
    asked = dataclasses.replace(asked, settings=_with_absolute_places(asked.settings))
    settings = asked.settings
    check_has_test_images(settings.dataset, settings.data_dir)
    name = name or f"compare-{settings.dataset}-{_fingerprint(asked)}"
    check_run_name(name)
    directory = RunDirectory((Path(output).expanduser() / name).absolute())
    if (directory.path / COMPARISON).exists():
        asked = _continued(directory, asked)
    else:
        new_run(name, output, settings)
    if here:
        on_this_host(settings)
    shared = prepare(settings.data())
    with_data(settings, shared)
    return Prepared(comparison=asked, directory=directory, bill=_bill(asked, directory, shared))


def parts(directory: RunDirectory) -> tuple[list[RunDirectory], list[str]]:
    """Return the runs of a comparison that have begun, in their order, and the paths of those to come.

    Raises:
        UserError: its settings are damaged.
    """
    comparison = read_comparison(directory)
    paths = [comparison.folder(cell, repeat) for repeat, cell in comparison.searches()]
    runs = {path: RunDirectory(directory.path / path) for path in (*paths, RETRAININGS)}
    begun = [path for path, run in runs.items() if run.journal_path.is_file()]
    return [runs[path] for path in begun], [path for path in runs if path not in begun]


def resume_compare(
    directory: RunDirectory,
    invocation: Invocation,
    console: Console,
    *,
    concurrency: int | None,
    data_dir: str | None,
) -> Retrained:
    """Go on with a comparison by its own folder, as it was begun; one that is finished needs no images.

    Raises:
        UserError: its files are damaged, or its images have changed.
    """
    kept = read_comparison(directory)
    settings = placed(kept.settings, concurrency=concurrency, data_dir=data_dir)
    comparison = dataclasses.replace(kept, settings=settings)
    try:
        if (directory.path / RESULTS).exists():
            _check_same_data(comparison, directory, _search_draws(comparison))
    except UserError as error:
        return kept_result(directory, error)
    return compare(
        Prepared(comparison=comparison, directory=directory, bill=[]), invocation, console
    )


def compare(prepared: Prepared, invocation: Invocation, console: Console) -> Retrained:
    """Search every cell, retrain their winners, test them once; or go on with that.

    Raises:
        UserError: something given cannot be used, or an older version gave a retraining up.
        StoppedError: a file could not be written.
    """
    for line in prepared.bill:
        say(console, line)
    comparison, directory = prepared.comparison, prepared.directory
    directory.path.mkdir(parents=True, exist_ok=True)
    with run_lock(directory, steal=invocation.steal_lock), ExitStack() as stack:
        _write(comparison, directory)
        draws = _search_draws(comparison)
        _check_same_data(comparison, directory, draws)
        cluster = _Cluster(stack, invocation)
        stopped = _Searches(comparison, directory, draws, invocation, cluster, console).drive()
        if stopped is not None:
            return stopped
        return _retrain_winners(comparison, directory, invocation, cluster, console)


class _Cluster:
    """The cluster of all searches and retrainings: connected when the first one needs it."""

    def __init__(self, stack: ExitStack, invocation: Invocation) -> None:
        self._stack = stack
        self._invocation = invocation
        self._connected: Cluster | None = None

    def for_images(self, image_bytes: int) -> Cluster:
        if self._connected is None:
            with stdout_to_stderr():
                self._connected = self._stack.enter_context(
                    connected_for(self._invocation, image_bytes)
                )
        return self._connected


class _Searches:
    """The searches of a comparison that are not done, in their order, and how those ended that began.

    What the machine decides (device, share of a GPU, threads, precision) is decided once, for all cells: with
    a share of its own, a method whose trials are small would have more of them for its device time.
    """

    def __init__(
        self,
        comparison: Comparison,
        directory: RunDirectory,
        draws: Mapping[int, SplitImages],
        invocation: Invocation,
        cluster: _Cluster,
        console: Console,
    ) -> None:
        self._comparison = comparison
        self._directory = directory
        self._draws = draws
        self._invocation = invocation
        self._cluster = cluster
        self._console = console
        self._stopped: list[Retrained] = []
        self._under_way: dict[Path, tuple[SearchedCell, SplitImages]] = {}

    def drive(self) -> Retrained | None:
        """Use up the budget of every cell; return how it ended where that was before all are done."""
        left = list(self._left())
        if not left:
            return None
        self._check_alike(left)
        self._check_control()
        count = len(self._comparison.cells()) * self._comparison.repeats
        why = run_jobs(
            self._runs(),
            self._directory,
            self._invocation,
            self._console,
            ended=self._ended,
            count=count,
            done=count - len(left),
            cluster=self._cluster.for_images(next(iter(self._draws.values())).images.nbytes),
        )
        if self._stopped:  # what stopped the others, before what was stopped
            return min(self._stopped, key=lambda one: GRAVEST_FIRST.index(one.exit_code))
        if why is not None:
            return self._stop(LIMIT if why == TIME_LIMIT else DRAINED, f"interrupted by {why}")
        if any(self._left()):
            return self._stop(INTERNAL, "the searches ended early")
        return None

    def _left(self) -> Iterator[tuple[int, SearchedCell]]:
        """Yield repeat and cell of every search that is not done when its turn comes."""
        for repeat, cell in self._comparison.searches():
            if not _is_done(self._folder(repeat, cell), cell):
                yield repeat, cell

    def _check_alike(self, left: Sequence[tuple[int, SearchedCell]]) -> None:
        """Refuse searches that have begun in another way than the others, before any goes on.

        Raises:
            UserError: one has another budget, or was begun on another machine by an older version.
        """
        decided = self._as_begun()
        for repeat, cell in left:
            own = self._folder(repeat, cell)
            if not own.config_path.exists():
                continue
            config = own.read_config()
            _check_budget(config, cell)
            if _of_the_machine(config) != decided:
                raise UserError(
                    f"cell {cell.name} was begun with {_text(_of_the_machine(config))}; allowed: as the first "
                    f"cell, {_text(decided or {})}; remove {own.path} to have it searched anew, or compare under another --name."
                )

    def _folder(self, repeat: int, cell: SearchedCell) -> RunDirectory:
        return _run_of(self._comparison, self._directory, cell, repeat)

    def _runs(self) -> Iterator[Run]:
        comparison, cells, said = self._comparison, self._comparison.cells(), False
        for repeat, cell in self._left():
            own, settings = self._folder(repeat, cell), comparison.search_settings(cell, repeat)
            of = f", search {repeat + 1} of {comparison.repeats}" if comparison.repeats > 1 else ""
            place = f"cell {cells.index(cell) + 1} of {len(cells)}{of}"
            say(self._console, f"{place}: {cell.name}, {budget_text(cell)}")
            shared = self._draws[settings.split_seed]
            fresh = not own.config_path.exists()
            if fresh:
                settings = with_own_places(settings, f"{self._directory.name}-{own.name}")
                settings = with_data(settings, shared)
                settings = dataclasses.replace(settings, **self._decided_for_all(settings, shared))
            else:
                begun = placed(own.read_config(), data_dir=settings.data_dir)
                settings = dataclasses.replace(begun, concurrency=settings.concurrency)
            self._under_way[own.path] = cell, shared
            yield Run(
                job=SearchJob(settings=settings, shared=shared, draws=self._draws, quiet=said),
                directory=own,
                fresh=fresh,
                limits=dataclasses.replace(
                    self._invocation.limits, device_seconds=cell.device_seconds
                ),
            )
            said = True

    def _decided_for_all(self, settings: RunConfig, shared: SplitImages) -> dict[str, Any]:
        """Return what the machine decides: as it did for a search that has begun, on another machine maybe."""
        decided = self._as_begun()
        if decided is not None:
            return decided
        asked = self._comparison.settings
        every = dataclasses.replace(
            settings, alg=asked.alg, divergence=(), entropy_min=asked.entropy_min
        )
        cluster = self._cluster.for_images(shared.images.nbytes)
        job = SearchJob(settings=every, shared=shared).on_cluster(cluster, self._console)
        return _of_the_machine(job.settings)

    def _as_begun(self) -> dict[str, Any] | None:
        """Return what was decided for the first search that has begun; None where none has."""
        for repeat, cell in self._comparison.searches():
            own = self._folder(repeat, cell)
            if own.config_path.exists():
                return _of_the_machine(own.read_config())
        return None

    def _ended(self, run: Run, driver: SearchDriver) -> str | None:
        """Note how a search ended; say why the others shall end where its budget is not used up."""
        cell, shared = self._under_way.pop(run.directory.path)
        outcome = outcome_of(driver, run.directory, shared)
        if not _is_done(run.directory, cell) or outcome.exit_code == ALL_FAILED:
            reason = outcome.message.split("; continue with:")[0]
            self._stopped.append(self._stop(outcome.exit_code, f"cell {cell.name}: {reason}"))
            return f"the end of cell {cell.name}"
        if cell.algorithm == CONTROL and not outcome.records:
            self._stopped.append(
                Retrained(
                    exit_code=ALL_FAILED,
                    directory=self._directory,
                    message=self._too_small(cell, driver.study.get_trials()),
                )
            )
            return f"the end of cell {cell.name}"
        return None

    def _check_control(self) -> None:
        """Refuse to search the other cells where all are to be compared with one that has found nothing.

        Raises:
            UserError: the control has used up its budget without a trial of full length.
        """
        for repeat, cell in self._comparison.searches():
            own = self._folder(repeat, cell)
            if cell.algorithm != CONTROL or not _is_done(own, cell):
                continue
            trials = read_trials(own.journal_path)[0]
            if not rank_trials(trials):
                raise UserError(self._too_small(cell, trials))

    def _too_small(self, cell: SearchedCell, trials: Sequence[FrozenTrial]) -> str:
        steps = self._comparison.settings.steps
        return (
            f"cell {cell.name}, which all others are compared with, has used up {budget_text(cell)} without a "
            f"trial of full length ({judging.length_text(trials, steps)}); allowed: a budget of one at least; "
            f"{judging.more_budget(cell, self._directory.name)}"
        )

    def _stop(self, exit_code: int, reason: str) -> Retrained:
        going_on = f"continue with: {command_path('tune-ssl')} resume {self._directory.path}"
        message = f"{reason}; {going_on}"
        return Retrained(exit_code=exit_code, directory=self._directory, message=message)


def _search_draws(comparison: Comparison) -> dict[int, SplitImages]:
    """Read the training images once, and draw the labels of every search."""
    settings = [comparison.search_settings(cell, repeat) for repeat, cell in comparison.searches()]
    return prepare_draws(settings[0].data(), (one.split_seed for one in settings))


def _check_same_data(
    comparison: Comparison, directory: RunDirectory, draws: Mapping[int, SplitImages]
) -> None:
    """Refuse to go on from searches that were made on other images, also where all are done.

    Raises:
        UserError: the data have changed.
    """
    facts = {seed: data_facts(drawn) for seed, drawn in draws.items()}
    for repeat, cell in comparison.searches():
        own = _run_of(comparison, directory, cell, repeat)
        if own.has_trials():
            now = facts[comparison.search_settings(cell, repeat).split_seed]
            anew = f"compare under another --name than {directory.name}"
            check_same_data(read_trials(own.journal_path)[1], now, own, anew)


def _write(comparison: Comparison, directory: RunDirectory) -> None:
    """Write down what is compared; a budget that was raised takes the place of the one before."""
    path = directory.path / COMPARISON
    if path.exists() and read_comparison(directory).budget_per_cell == comparison.budget_per_cell:
        return
    write_yaml(path, comparison.to_mapping())


def _of_the_machine(settings: RunConfig) -> dict[str, Any]:
    return {key: getattr(settings, key) for key in DECIDED_BY_THE_MACHINE}


def _text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _retrain_winners(
    comparison: Comparison,
    directory: RunDirectory,
    invocation: Invocation,
    cluster: _Cluster,
    console: Console,
) -> Retrained:
    own = RunDirectory(directory.path / RETRAININGS)
    fresh = not own.config_path.exists()
    retrainings = _table(comparison, directory, console) if fresh else _kept(own, comparison)
    draws = draw_images(retrainings)
    first = next(iter(draws.values()))
    job = RetrainingJob(retrainings=retrainings, draws=draws, references=references_for(first))
    settings = retrainings.settings
    finished = not fresh and all_finished(own, settings.trials)
    ended = retrain(
        job,
        own,
        directory.path.parent / LEDGER,
        invocation,
        console,
        fresh=fresh,
        judgement=Judgement(
            order=judging.order,
            figures=lambda table, trials, test, _: judging.compared(
                comparison, table, trials, test
            ),
        ),
        cluster=None if finished else cluster.for_images(job.image_bytes),
    )
    if ended.result is not None:
        directory.write_json(RESULTS, ended.result)
    return dataclasses.replace(ended, directory=directory)


def _table(comparison: Comparison, directory: RunDirectory, console: Console) -> Retrainings:
    searches = [
        _searched(comparison, directory, cell, repeat) for repeat, cell in comparison.searches()
    ]
    for name in judging.left_out(searches):
        say(console, f"warning: {name} has no trial of full length and is left out of the table.")
    first = searches[0].settings
    return judging.table(
        comparison,
        judging.winners(comparison, searches, directory.name),
        first,
        storage=with_own_places(comparison.settings, f"{directory.name}-{RETRAININGS}").storage,
        origin=str(directory.path),
    )


def _kept(own: RunDirectory, comparison: Comparison) -> Retrainings:
    kept, settings = read_retrainings(own), comparison.settings
    own_settings = placed(
        kept.settings, concurrency=settings.concurrency, data_dir=settings.data_dir
    )
    return dataclasses.replace(kept, settings=own_settings)


def _searched(
    comparison: Comparison, directory: RunDirectory, cell: SearchedCell, repeat: int
) -> Searched:
    """Return what a search that is done found.

    Raises:
        UserError: it has been given more trials than the others.
    """
    own = _run_of(comparison, directory, cell, repeat)
    config, trials, attributes = read_run(own)
    _check_budget(config, cell)
    return Searched(
        cell=cell,
        repeat=repeat,
        run=comparison.folder(cell, repeat),
        settings=config,
        trials=trials,
        num_classes=attributes["num_classes"],
    )


def _check_budget(config: RunConfig, cell: SearchedCell) -> None:
    if config.trials != cell.trials:
        raise UserError(
            f"cell {cell.name} has {config.trials} trials and its budget is {cell.trials}; allowed: equal "
            "budgets, as compare.yaml has them; compare under another --name."
        )


def _run_of(
    comparison: Comparison, directory: RunDirectory, cell: SearchedCell, repeat: int
) -> RunDirectory:
    return RunDirectory(directory.path / comparison.folder(cell, repeat))


def _is_done(own: RunDirectory, cell: SearchedCell) -> bool:
    """Return whether a search has used up its budget."""
    if not own.config_path.exists() or not own.has_trials():
        return False
    return cell.used_up(read_trials(own.journal_path)[0])


def _with_absolute_places(settings: RunConfig) -> RunConfig:
    if settings.storage is not None:
        settings = dataclasses.replace(settings, storage=absolute_root(settings.storage))
    return placed(settings, data_dir=settings.data_dir)


def _compared_settings(comparison: Comparison) -> dict[str, Any]:
    """Return what a comparison keeps from its first trial to its last."""
    mapping = comparison.to_mapping()
    free = ["concurrency", "data_dir"]
    if (
        not comparison.settings.conditions()
    ):  # a comparison's name is made of this: as it always was
        free += ["unlabeled", "labeled_classes", "class_mismatch", "imbalance"]
    settings: Mapping[str, Any] = mapping.pop("settings")
    return mapping | {key: value for key, value in settings.items() if key not in free}


def _fingerprint(comparison: Comparison) -> str:
    # As earlier versions had it, so that the same command goes on with their comparisons.
    unsaid = added_defaults().items()
    kept = {
        pair[0]: pair[1] for pair in _compared_settings(comparison).items() if pair not in unsaid
    }
    if comparison.settings.dataset == "folder":  # whose images no other setting names
        kept["data_dir"] = comparison.settings.data_dir
    text = json.dumps(kept, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


def _continued(directory: RunDirectory, asked: Comparison) -> Comparison:
    """Return what is asked for, where it is what the folder compares.

    Raises:
        UserError: it is something else.
    """
    kept = read_comparison(directory)
    if _is_raised(kept, asked, directory):
        kept = dataclasses.replace(kept, budget_per_cell=asked.budget_per_cell)
    before, now = _compared_settings(kept), _compared_settings(asked)
    changed = [key for key in {**now, **before} if before.get(key) != now.get(key)]
    if changed:
        raise UserError(
            f"comparison {directory.name!r} was begun with other {', '.join(changed)}; allowed: the same, to "
            f"go on with it (tune-ssl resume {directory.path}); give another --name for another one."
        )
    return asked


def _is_raised(kept: Comparison, asked: Comparison, directory: RunDirectory) -> bool:
    """Return whether every cell may be given more device time: none has been retrained yet."""
    before, now = kept.budget_per_cell, asked.budget_per_cell
    retrained = RunDirectory(directory.path / RETRAININGS).config_path.exists()
    return before is not None and now is not None and now > before and not retrained


def budget_text(cell: SearchedCell) -> str:
    """Return a cell's budget as people write it."""
    if cell.device_seconds is not None:
        return f"{duration(cell.device_seconds)} of device time"
    return f"{cell.trials} trials"


def rough_device_seconds(comparison: Comparison, seconds_per_step: Mapping[str, float]) -> float:
    """Return about how long all searches and retrainings take together, on one device after another.

    Args:
        seconds_per_step: of each method.
    """
    total = 0.0
    for cell in comparison.cells():
        of_a_step = seconds_per_step[cell.algorithm]
        settings = comparison.search_settings(cell, 0)
        searched = cell.device_seconds
        if searched is None:
            searched = planned_steps(settings) * of_a_step
        total += searched + comparison.seeds * settings.steps * of_a_step
    return total * comparison.repeats


def time_lines(comparison: Comparison) -> list[str]:
    """Return about how long a comparison takes, by steps of each method that are trained here and now.

    Of a budget in device time also which methods' trainings are longer than it.

    Raises:
        UserError: the images cannot be read.
    """
    settings = on_this_host(comparison.settings)
    shared = prepare(settings.data())
    settings = with_precision(with_data(settings, shared), shared)
    measured = {name: _seconds_per_step(settings, name, shared) for name in settings.alg}
    seconds = rough_device_seconds(comparison, measured)
    told = f"time: about {duration(seconds)} of device time"
    if settings.device == "cpu":
        slots = slots_here(settings)
        told += f", {duration(seconds / slots)} with {slots} at a time"
    lines = [f"{told}, by {TIMED_STEPS} steps of each method timed here"]
    for cell in comparison.cells():
        training = settings.steps * measured[cell.algorithm]
        if cell.device_seconds is not None and cell.device_seconds < training:
            lines.append(
                f"warning: {cell.name} has {budget_text(cell)}, and one training of full length takes about "
                f"{duration(training)}: nothing may come of it; give a larger --budget-per-cell."
            )
    return lines


def _seconds_per_step(settings: RunConfig, algorithm: str, shared: SplitImages) -> float:
    from ssl_core.training.capture import WARM_UP_STEPS
    from ssl_core.training.config import TrainingConfig
    from ssl_core.training.device import set_up_process
    from ssl_core.training.loop import Training

    space = settings.space(shared.num_classes)
    default = next(
        suggestion
        for suggestion in (space.suggest(FixedTrial(one.params)) for one in space.defaults())
        if suggestion.algorithm == algorithm
    )
    config = TrainingConfig.from_record(settings.trial_record(default, settings.seed))
    set_up_process(config.threads)
    training = Training(config, shared)
    # The first step is slower, and those until one is captured.
    before = 1 if config.device == "cpu" else WARM_UP_STEPS + 2
    training.run(before)
    assert training.finite is not None  # waits for the device
    began = time.monotonic()
    training.run(before + TIMED_STEPS)
    assert training.finite is not None
    return (time.monotonic() - began) / TIMED_STEPS


def _bill(comparison: Comparison, directory: RunDirectory, shared: SplitImages) -> list[str]:
    """Return what will be done, line by line."""
    cells, repeats, seeds = comparison.cells(), comparison.repeats, comparison.seeds
    budgets = dict.fromkeys(budget_text(cell) for cell in cells)
    times = f"{repeats} searches" if repeats > 1 else "a search"
    done = sum(
        _is_done(_run_of(comparison, directory, cell, repeat), cell)
        for repeat, cell in comparison.searches()
    )
    labels = f"{len(shared.labeled)} to train + {len(shared.validation)} to choose"
    if comparison.settings.reshuffle_validation:
        labels += ", divided anew for every trial of a search"
    lines = [
        f"comparing: {', '.join(cell.name for cell in cells)}",
        f"claim: about {comparison.claim}, each with {times} of {' or '.join(budgets)}",
        *([f"searched so far: {done} of {len(cells) * repeats}"] if done else []),
        f"retrainings: {len(cells) * repeats * seeds}, each search's best on {seeds} fresh draws of labels and "
        f"seeds, the same for all, {comparison.settings.steps} steps each",
        f"labels: {labels}",
        separable_text(len(shared.validation)),
        *describe_conditions(comparison.settings, shared),
        *describe_training(comparison.settings),
    ]
    if seeds < FEWEST_TO_SEE_A_COLLAPSE and len(cells) > 2 and repeats == 1:
        lines.append(
            f"warning: a method that collapses on one draw in five may show none of it in {seeds} retrainings, and "
            f"then tables claim falsely more often than they say; with {FEWEST_TO_SEE_A_COLLAPSE} --seeds it nearly always "
            "shows, and the table names it."
        )
    counted = repeats if repeats > 1 else seeds
    if is_indicative(counted):
        what = "searches" if repeats > 1 else "draws"
        lines.append(
            f"warning: {counted} {what} are indicative only; {FEWEST_TRUSTED} or more are trusted."
        )
    return lines
