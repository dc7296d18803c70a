"""Opening a run's study, new or interrupted: what must not have changed, and what is put right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from search_spaces.joint import Space, StudySpace
from ssl_core.data.images import checksum
from ssl_core.data.prepare import SplitImages
from ssl_core.errors import UserError
from tune_ssl.journal import MemoryJournal, RunJournal, open_journal
from tune_ssl.run import RunConfig, RunDirectory
from tune_ssl.storage import DamagedFileError, RunStorage
from tune_ssl.study import CHECKPOINT, FOREIGN, FirstTrial, SearchStudy, first_trials
from tune_ssl.views.messages import say
from tune_ssl.warm_start import WarmStart, check_comparable, warm_start
from tune_ssl.workflows.results import read_run

DATA_FACTS = {
    "images_crc32": "pixels",
    "split_sha256": "which images are labeled, unlabeled and validated on",
    "labels_sha256": "labels and class names",
}
"""What a study's values depend on of its data, and what a person calls it."""
CHECKPOINTS_AT_ONCE = 8


def open_study(
    config: RunConfig,
    directory: RunDirectory,
    shared: SplitImages,
    storage: RunStorage,
    console: Console,
) -> SearchStudy:
    """Return the study of a search whose lock is held, with nothing left running.

    Raises:
        UserError: see ``open_prepared``; or images, settings or space have changed.
    """

    def make(journal: RunJournal) -> SearchStudy:
        return study_of(
            config,
            config.space(shared.num_classes),
            journal,
            directory.name,
            warm_start=lambda: _take(config, shared, console) if config.warm_start else None,
        )

    prepared = PreparedStudy(
        make=make,
        first=lambda: _first_trials(config, config.space(shared.num_classes)),
        facts=_facts(config, shared),
        check=check_space,
        write=lambda: directory.write_config(config),  # the goal may have been changed
    )
    return open_prepared(prepared, directory, storage, console)


def study_of(
    config: RunConfig,
    space: Space,
    journal: RunJournal | MemoryJournal,
    name: str,
    *,
    warm_start: Callable[[], WarmStart | None] = lambda: None,
    all_needed: bool = False,
) -> SearchStudy:
    """Return the study of a run with these settings on a journal, its own or a replay's."""
    return SearchStudy(
        journal,
        space,
        name=name,
        trials=config.trials,
        seed=config.seed,
        rungs=config.rungs(),
        reduction_factor=None if config.scheduler == "none" else config.reduction_factor,
        sampler=config.sampler,
        warm_start=warm_start,
        all_needed=all_needed,
    )


@dataclass(frozen=True, kw_only=True)
class PreparedStudy:
    """What is known of a run's study before its journal is opened.

    Args:
        make: makes the study on its journal.
        first: returns the trials that are queued when it begins.
        facts: what its values depend on; kept in it, and compared when it is opened again.
        check: raises UserError where kept facts and these differ, beside settings and data.
        write: writes the run's settings, which a driver may have been given anew.
    """

    make: Callable[[RunJournal], SearchStudy]
    first: Callable[[], Sequence[FirstTrial]]
    facts: Mapping[str, Any]
    check: Callable[[Mapping[str, Any], Mapping[str, Any], RunDirectory], None]
    write: Callable[[], None]


def open_prepared(
    prepared: PreparedStudy, directory: RunDirectory, storage: RunStorage, console: Console
) -> SearchStudy:
    """Return the study of a run whose lock is held, with nothing left running.

    Opening a study that an earlier driver was killed while setting up finishes its setting up.

    Raises:
        UserError: journal or checkpoint is damaged, or what the study rests on has changed.
    """
    begun = any(directory.path.glob("trials/*"))
    if begun and not directory.journal_path.exists():
        raise UserError(
            f"run {directory.name!r} has trials and its {directory.journal_path.name} is gone; allowed: the "
            "journal, which says what happened to them; restore it, or begin a new run."
        )
    journal, mended = open_journal(directory.journal_path)
    if mended:
        say(console, f"warning: {mended}")
    study = prepared.make(journal)
    finished = study.counts().finished
    if finished > study.trials:
        raise UserError(
            f"trials is {study.trials} and run {directory.name!r} has finished {finished}; allowed: "
            f"{finished} or more; give --trials {finished} to go no further."
        )
    known = study.attributes()
    _check_unchanged(known, prepared, directory)
    gone = _gone_checkpoints(study, directory, storage)
    # Nothing was written so far, but for a torn end that was cut.
    for key, value in prepared.facts.items():
        if key not in known:
            study.set_attribute(key, value)
    prepared.write()
    if not study.attributes().get("queued"):
        study.enqueue_first(prepared.first())
        study.set_attribute("queued", True)
    interrupted = study.recover("the driver before was lost")
    if interrupted:
        say(console, f"continuing {len(interrupted)} trials that a lost driver left unfinished.")
    for number, why in gone.items():
        say(console, f"warning: trial {number} begins anew: its checkpoint is gone ({why})")
        study.forget_checkpoint(number)
    return study


def trials_to_start_from(config: RunConfig, shared: SplitImages) -> WarmStart:
    """Return what ``config.warm_start`` gives this search.

    Raises:
        UserError: there is no such run, its values do not compare, or none of its trials lies in
            what is searched.
    """
    assert config.warm_start is not None
    earlier = RunDirectory.open(config.warm_start, "")
    earlier_config, trials, earlier_facts = read_run(earlier)
    check_comparable(earlier.name, earlier_facts, _facts(config, shared))
    taken = warm_start(
        earlier.name,
        earlier_config.space(shared.num_classes),
        trials,
        config.space(shared.num_classes),
    )
    if not taken.trials:
        raise UserError(
            f"run {earlier.name!r} has no finished trial that lies in what is searched ({taken.left_out} lie "
            "outside); allowed: an earlier run of the same methods and divergences; leave --warm-start out."
        )
    return taken


def describe_warm_start(taken: WarmStart) -> str:
    """Return the line that says what an earlier run contributes."""
    outside = f", {taken.left_out} lie outside what is searched" if taken.left_out else ""
    return (
        f"warm start: {len(taken.trials)} trials of run {taken.run!r} inform the sampler{outside}"
    )


def _take(config: RunConfig, shared: SplitImages, console: Console) -> WarmStart:
    taken = trials_to_start_from(config, shared)
    say(console, describe_warm_start(taken))
    return taken


def _facts(config: RunConfig, shared: SplitImages) -> dict[str, Any]:
    """Return what a study rests on and what its values depend on."""
    return {
        **data_facts(shared),
        "num_classes": shared.num_classes,
        "settings": config.fixed_settings(),
        "space": config.space(shared.num_classes).outline(),
    }


def data_facts(shared: SplitImages) -> dict[str, Any]:
    """Return what of its data a study's values depend on, see ``DATA_FACTS``."""
    return {
        "images_crc32": f"{checksum(shared.images):08x}",
        "split_sha256": shared.fingerprint,
        "labels_sha256": labels_sha256(shared),
    }


def labels_sha256(shared: SplitImages) -> str:
    """Return the SHA-256 of the labels a draw uses, and of the names of all classes."""
    named = [
        [shared.class_names[label] for label in labels]
        for labels in (shared.labels, shared.validation_labels)
    ]
    return hashlib.sha256(json.dumps([named, shared.class_names]).encode()).hexdigest()


def _check_unchanged(
    known: Mapping[str, Any], prepared: PreparedStudy, directory: RunDirectory
) -> None:
    """Refuse to go on where what the study rests on has changed.

    What it did not write down, because its driver was killed before or was an older one, cannot
    have changed.
    """
    now = prepared.facts
    before = {**now, **known}
    directory.check_settings(before["settings"], now["settings"])
    check_same_data(known, now, directory)
    prepared.check(before, now, directory)


def check_same_data(
    known: Mapping[str, Any],
    now: Mapping[str, Any],
    directory: RunDirectory,
    anew: str = "begin a new run",
) -> None:
    """Refuse to go on with, or to judge by, other data than a study was begun with.

    Args:
        known: the study's attributes; what it did not write down cannot have changed.
        now: the facts of the data as they are read now, see ``DATA_FACTS``.
        anew: what to do with the data as they are now.

    Raises:
        UserError: the data have changed.
    """
    differing = [
        f"{what}: {key} was {known[key]} and is {now[key]}"
        for key, what in DATA_FACTS.items()
        if known.get(key, now[key]) != now[key]
    ]
    if differing:
        raise UserError(
            f"the data of run {directory.name!r} have changed ({'; '.join(differing)}); allowed: the same "
            f"images and labels, because accuracies would not compare; restore them or {anew}."
        )


def check_space(before: Mapping[str, Any], now: Mapping[str, Any], directory: RunDirectory) -> None:
    """Refuse to go on with another search space than the trials were drawn from."""
    moved = _space_differences(before["space"], now["space"])
    if moved:
        raise UserError(
            f"the search space of run {directory.name!r} has changed ({'; '.join(moved)}); allowed: the space "
            "its trials were drawn from, which another version of tune-ssl may have changed; install the "
            "version environment.json names, or begin a new run."
        )


def _space_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two outlines of a space, cell by cell."""
    return [
        f"{name} of {cell} was {_range_text(before, cell, name)} and is {_range_text(now, cell, name)}"
        for cell in sorted({*before, *now})
        for name in sorted({*before.get(cell, {}), *now.get(cell, {})})
        if before.get(cell, {}).get(name) != now.get(cell, {}).get(name)
    ]


def _range_text(outline: Mapping[str, Any], cell: str, name: str) -> str:
    places = outline.get(cell, {}).get(name)
    return "not searched" if places is None else ", ".join(f"{place:g}" for place in places)


def _first_trials(config: RunConfig, space: StudySpace) -> list[FirstTrial]:
    given = [
        FirstTrial(
            params=space.params_for(
                start["algorithm"], start.get("divergence"), start["parameters"]
            ),
            attributes={FOREIGN: "--config"},
        )
        for start in config.start_from
    ]
    return first_trials(space.defaults(), config.trials, started_from=given)


def _gone_checkpoints(
    study: SearchStudy, directory: RunDirectory, storage: RunStorage
) -> dict[int, str]:
    """Read the checkpoints that trials will be continued from; return why some cannot be.

    One that is gone lets its trial begin anew; one that is damaged is the user's to decide on.
    """
    stored = {
        trial.number: trial.system_attrs[CHECKPOINT]
        for trial in study.get_trials()
        if not trial.state.is_finished() and trial.system_attrs.get(CHECKPOINT)
    }
    with ThreadPoolExecutor(CHECKPOINTS_AT_ONCE) as pool:
        reasons = pool.map(lambda one: _why_gone(one, directory, storage), stored.values())
        return {number: why for number, why in zip(stored, reasons, strict=True) if why}


def _why_gone(
    stored: Mapping[str, Any], directory: RunDirectory, storage: RunStorage
) -> str | None:
    name = f"checkpoint {storage.shown}/{stored['path']} of run {directory.name!r}"
    try:
        storage.read_stored(stored["path"], stored["sha256"])
    except FileNotFoundError as error:
        return str(error)
    except DamagedFileError as error:
        raise UserError(
            f"{name} is damaged or half written ({error.size} bytes); allowed: the file as it was stored; "
            "restore it, or delete it to begin that trial anew."
        ) from error
    except OSError as error:
        raise UserError(
            f"{name} cannot be read ({error}); allowed: a storage that answers; try again when it does, or "
            "delete the file to begin that trial anew."
        ) from error
    return None
