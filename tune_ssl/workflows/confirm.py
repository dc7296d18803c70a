"""``confirm``: retrain a search's best on draws nobody has chosen on, then open the test set once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState
from rich.console import Console

from search_spaces.joint import Suggestion
from ssl_core.data.images import checksum
from ssl_core.data.prepare import SplitImages, all_labels
from ssl_core.data.sources import check_has_test_images
from ssl_core.data.splits import draw_folds
from ssl_core.errors import UserError, check_integer
from tune_ssl.best import RankedTrial, rank_trials
from tune_ssl.ledger import LEDGER
from tune_ssl.retraining import (
    Configuration,
    Draw,
    Retrainings,
    fold_draws,
    fresh_draws,
    read_retrainings,
    retrain_settings,
)
from tune_ssl.run import RunConfig, RunDirectory, check_run_name, whole_of
from tune_ssl.statistics.repeats import FEWEST_TRUSTED, check_retrainings, is_indicative
from tune_ssl.storage import root_below
from tune_ssl.study import RESULT, Counts, count
from tune_ssl.text import duration, times
from tune_ssl.trial import DIVISION
from tune_ssl.views.messages import say
from tune_ssl.workflows.driving import Invocation
from tune_ssl.workflows.plan import on_this_host, placed, slots_here
from tune_ssl.workflows.results import cell_of, is_done, read_run, without_full_length
from tune_ssl.workflows.retrain import (
    Retrained,
    RetrainingJob,
    check_job_data,
    draw_images,
    kept_result,
    retrain,
)

DEFAULT_TOP = 3
DEFAULT_SEEDS = {"digits": 20}
OTHER_SEEDS = 10
CONFIRM = "confirm"
PUBLISHED_DEFAULT = "published default"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What was asked for; None for the usual, or for what the search had.

    Args:
        top: configurations beside the published default.
        seeds: draws, each with a seed of its own.
        name: of this confirmation, below the run's ``confirm/``.
        cross_validate: folds of the search's own labels that judge in the place of the test set; ``seeds``
            are then repeats, each with folds of its own.
    """

    top: int = DEFAULT_TOP
    seeds: int | None = None
    cross_validate: int | None = None
    name: str | None = None
    data_dir: str | None = None
    device: str | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A confirmation that can begin or go on: what it retrains, where, and the lines of its bill."""

    job: RetrainingJob
    directory: RunDirectory
    fresh: bool
    bill: list[str]


def prepare_confirm(search: RunDirectory, wishes: Wishes, *, here: bool) -> Prepared:
    """Return what a confirmation of a search will do; nothing is written.

    Args:
        here: it is to run on this host alone, so what it asks for can be checked at once.

    Raises:
        UserError: something given cannot be used; the search is being driven, or has nothing to
            confirm; its images have changed, or have no test part.
    """
    config, trials, attributes = read_run(search)
    _check_not_driven(search)
    check_integer("top", wishes.top, 1)
    draws, draws_text = _draws(config, wishes)
    config = _with_wishes(config, wishes)
    if wishes.cross_validate is None:
        check_has_test_images(config.dataset, config.data_dir)
    chosen = _chosen(config, trials, attributes["num_classes"], wishes.top, search)
    name = wishes.name or f"top{wishes.top}-{draws_text}"
    check_run_name(name)
    directory = RunDirectory(search.path / CONFIRM / name)
    settings = retrain_settings(
        config,
        configurations=len(chosen),
        draws=len(draws),
        storage=root_below(config.storage, f"{CONFIRM}/{name}"),
    )
    settings = dataclasses.replace(settings, concurrency=wishes.concurrency)
    if here:
        on_this_host(settings)
    retrainings = Retrainings(
        settings=settings,
        configurations=tuple(chosen),
        draws=draws,
        origin=str(search.path),
    )
    fresh = not directory.config_path.exists()
    if not fresh:
        retrainings = _continued(directory, retrainings, wishes)
    images = draw_images(retrainings)
    first = next(iter(images.values()))
    _check_same_images(search, attributes, first)
    if wishes.cross_validate is not None:
        draw_folds(all_labels(first)[1], wishes.cross_validate, seed=0)  # refuses too many
    searched = [_searched(trial) for trial in trials if trial.state == TrialState.COMPLETE]
    if config.reshuffle_validation or wishes.cross_validate is not None:
        searched = []  # measured on different images: there is nothing to choose on again
    return Prepared(
        job=RetrainingJob(retrainings=retrainings, draws=images, searched=searched),
        directory=directory,
        fresh=fresh,
        bill=[
            *_bill(retrainings, here),
            *_warnings(retrainings, search, count(trials, config.trials), trials, wishes.top),
        ],
    )


def confirm(prepared: Prepared, invocation: Invocation, console: Console) -> Retrained:
    """Retrain, name the winner, test; or go on with that, or tell again what is kept.

    Raises:
        UserError: something given cannot be used.
    """
    for line in prepared.bill:
        say(console, line)
    return retrain(
        prepared.job,
        prepared.directory,
        _ledger(prepared.directory),
        invocation,
        console,
        fresh=prepared.fresh,
    )


def resume_confirm(
    directory: RunDirectory,
    invocation: Invocation,
    console: Console,
    *,
    concurrency: int | None,
    data_dir: str | None,
) -> Retrained:
    """Go on with a confirmation by its own folder, as it was begun; one that is finished needs no images.

    Raises:
        UserError: its files are damaged, or its images have changed.
    """
    retrainings = _placed(read_retrainings(directory), concurrency, data_dir)
    settings = retrainings.settings
    try:
        if retrainings.folds is None:
            check_has_test_images(settings.dataset, settings.data_dir)
        job = RetrainingJob(retrainings=retrainings, draws=draw_images(retrainings))
        check_job_data(job, directory)
    except UserError as error:
        return kept_result(directory, error)
    return retrain(job, directory, _ledger(directory), invocation, console, fresh=False)


def configurations_to_confirm(
    config: RunConfig, ranked: Sequence[RankedTrial], num_classes: int, top: int
) -> list[Configuration]:
    """Return the published default of the best one's method and the ``top`` best others, by rank.

    The default of its own method and divergence says what tuning bought. Where that was not
    trained to the end, it is the best of the defaults that were.
    """
    space = config.space(num_classes)
    suggested = {one.number: space.suggest(FixedTrial(one.params)) for one in ranked}
    defaults = [one for one in ranked if one.is_default]
    own = [
        one
        for one in defaults
        if _cell(suggested[one.number]) == _cell(suggested[ranked[0].number])
    ]
    default = next(iter(own or defaults), None)
    others = [one for one in ranked if one is not default][:top]
    kept = sorted([*others, *([default] if default else [])], key=lambda one: one.rank)
    return [_configuration(one, suggested[one.number], is_yardstick=one is default) for one in kept]


def _draws(config: RunConfig, wishes: Wishes) -> tuple[tuple[Draw, ...], str]:
    """Return the columns of the table that is asked for, and their part of its name."""
    usual = DEFAULT_SEEDS.get(config.dataset, OTHER_SEEDS)
    folds = wishes.cross_validate
    if folds is None:
        seeds = usual if wishes.seeds is None else wishes.seeds
        check_retrainings(seeds)
        return fresh_draws(seeds, seen={config.split_seed}), f"seeds{seeds}"
    check_integer("cross-validate", folds, 2)
    repeats = max(1, usual // folds) if wishes.seeds is None else wishes.seeds
    check_integer("seeds", repeats, 1)
    check_retrainings(folds * repeats)
    return fold_draws(config.split_seed, folds=folds, repeats=repeats), f"folds{folds}x{repeats}"


def _cell(suggestion: Suggestion) -> tuple[str, str | None]:
    return suggestion.algorithm, suggestion.divergence


def _configuration(
    trial: RankedTrial, suggestion: Suggestion, *, is_yardstick: bool
) -> Configuration:
    return Configuration(
        name=PUBLISHED_DEFAULT if is_yardstick else f"rank {trial.rank}",
        algorithm=suggestion.algorithm,
        divergence=suggestion.divergence,
        parameters=dict(suggestion.parameters),
        origin={
            "trial": trial.number,
            "rank": trial.rank,
            "validation": trial.value,
            "validation_standard_error": trial.standard_error,
            "published_default": trial.is_default,
            "recommended": trial.recommended,
            "device_seconds": trial.seconds,
            **{key: trial.result[key] for key in (DIVISION,) if key in trial.result},
        },
    )


def _chosen(
    config: RunConfig,
    trials: Sequence[FrozenTrial],
    num_classes: int,
    top: int,
    search: RunDirectory,
) -> list[Configuration]:
    ranked = rank_trials(trials)
    if not ranked:
        raise without_full_length(search, trials, config.trials)
    return configurations_to_confirm(config, ranked, num_classes, top)


def _check_not_driven(search: RunDirectory) -> None:
    driver = search.driver()
    if driver is not None:
        raise UserError(
            f"run {search.name!r} is being searched ({driver}); allowed: a search that rests, because its "
            "best may change; wait for its end, or stop it."
        )


def _with_wishes(config: RunConfig, wishes: Wishes) -> RunConfig:
    changes: dict[str, Any] = {}
    if wishes.device is not None:
        changes |= {"device": wishes.device, "gpus_per_trial": None}
    if wishes.cpus_per_trial is not None:
        changes |= {"cpus_per_trial": wishes.cpus_per_trial, "threads": None}
    if wishes.gpus_per_trial is not None:
        changes["gpus_per_trial"] = wishes.gpus_per_trial
    return placed(dataclasses.replace(config, **changes), data_dir=wishes.data_dir)


def _continued(directory: RunDirectory, asked: Retrainings, wishes: Wishes) -> Retrainings:
    """Return the retrainings a folder holds, where they are what is asked for now.

    Raises:
        UserError: the search has gone on since, and its best are others; or a device or a share
            of a node was given that they were not begun with.
    """
    kept = read_retrainings(directory)
    if kept.table() != asked.table():
        raise UserError(
            f"confirmation {directory.name!r} retrains other configurations or draws than these; allowed: the "
            "same, to go on with it; give another --name to confirm what is best now, or go on with that "
            f"one: tune-ssl resume {directory.path}"
        )
    decided = kept.settings.fixed_settings()
    wished = _with_wishes(kept.settings, wishes).fixed_settings()
    open_again = {name for name, value in wished.items() if value in (None, "auto")}
    directory.check_settings(decided, {k: v for k, v in wished.items() if k not in open_again})
    return _placed(kept, wishes.concurrency, wishes.data_dir)


def _placed(retrainings: Retrainings, concurrency: int | None, data_dir: str | None) -> Retrainings:
    settings = placed(retrainings.settings, concurrency=concurrency, data_dir=data_dir)
    return dataclasses.replace(retrainings, settings=settings)


def _check_same_images(
    search: RunDirectory, attributes: Mapping[str, Any], drawn: SplitImages
) -> None:
    found = f"{checksum(drawn.images):08x}"
    if found != attributes["images_crc32"]:
        raise UserError(
            f"the training images of run {search.name!r} have changed (CRC-32 was "
            f"{attributes['images_crc32']} and is {found}); allowed: the images it searched with; restore them, "
            "or search again."
        )


def _searched(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "validation": trial.value,
        "correct": trial.system_attrs[RESULT]["correct"],
    }


def _bill(retrainings: Retrainings, here: bool) -> list[str]:
    """Return what will be trained and about how long that takes, line by line."""
    settings, draws = retrainings.settings, len(retrainings.draws)
    names = ", ".join(one.name for one in retrainings.configurations)
    per_draw = sum(float(one.origin["device_seconds"]) for one in retrainings.configurations)
    device_seconds = per_draw * draws
    time = f"about {duration(device_seconds)} of device time, as the search's trials took"
    if here and settings.device == "cpu":
        slots = slots_here(settings)
        time += f"; about {duration(device_seconds / slots)} with {slots} at a time"
    folds = retrainings.folds
    on = f"{draws} fresh draws of labels and seeds"
    if folds is not None:
        on = f"{folds} folds of the search's own labels, {times(draws // folds)}"
    return [
        f"{'confirming' if folds is None else 'cross-validating, no test image is opened'}: {names}",
        f"trainings: {settings.trials}, each of {len(retrainings.configurations)} configurations on the same "
        f"{on}, {settings.steps} steps each",
        f"time: {time}",
    ]


def _warnings(
    retrainings: Retrainings,
    search: RunDirectory,
    counts: Counts,
    trials: Sequence[FrozenTrial],
    top: int,
) -> list[str]:
    """Return what a reader of the bill should know: less is confirmed, or trusted, than it seems."""
    told = []
    draws = len(retrainings.draws)
    if is_indicative(draws):
        what = "draws" if retrainings.folds is None else "trainings of each"
        told.append(
            f"warning: {draws} {what} are indicative only; {FEWEST_TRUSTED} or more are trusted."
        )
    others = [one for one in retrainings.configurations if one.name != PUBLISHED_DEFAULT]
    if len(others) < top:
        told.append(
            f"warning: beside the published default {len(others)} of the {top} asked for have a trial of full "
            "length."
        )
    if len(others) == len(retrainings.configurations) and retrainings.folds is None:
        told.append(
            "warning: no published default was trained to the end, so the search's optimism stays unknown."
        )
    if not is_done(cell_of(search), counts, trials):
        told.append(
            f"warning: the search has finished {counts.finished} of {counts.asked} trials; it can be resumed."
        )
    return told


def _ledger(directory: RunDirectory) -> Path:
    """Return the ledger beside the runs, of a folder RUN/confirm/NAME.

    A cell of a comparison lies below the comparison's folder, and is counted in the same ledger.
    """
    return whole_of(RunDirectory(directory.path.parents[1])).path.parent / LEDGER
