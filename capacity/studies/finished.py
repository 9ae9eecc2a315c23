"""Keeps a finished run whose study has no room for it, or may not be written any more. No such run is thrown away.

It is kept in the cache, from where the same command adds it to its study. If the cache is full too, it waits in memory.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capacity.cache import cache_folder
from capacity.errors import CapacityError, DataError
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.items import read_items, write_items
from capacity.runs.study import Run, Study
from capacity.spec.run import RunSpec

if TYPE_CHECKING:
    from capacity.training.run import RunRecord

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_PAUSE = 2.0  # seconds between two tries


def kept_study(study: Study) -> Study:
    """Returns the folder, of the form of a study, that keeps the finished runs which a study had no room for."""
    place = hashlib.sha256(os.fsencode(study.folder.resolve())).hexdigest()[:16]
    return Study(cache_folder("finished") / place)


def add_finished(
    study: Study,
    spec: RunSpec,
    fingerprint: Fingerprint,
    record: "RunRecord",
    on_wait: Callable[[str], None],
    pause: float = _PAUSE,
) -> None:
    """Adds a finished run to its study. If there is no room, it waits until there is some.

    Args:
        study: the study that the run belongs to.
        spec: the spec of the run.
        fingerprint: the environment that the run was made in.
        record: what the run gave.
        on_wait: a function that is called once, with the reason, if the run has to wait in memory.
        pause: the time between two tries, in seconds.

    Raises:
        DataError: if the study cannot be written. The message says where the run is kept, if the cache could hold it.
    """
    _add_or_keep(study, lambda where: _add(where, spec, fingerprint, record), on_wait, pause)


def adopt_finished(
    study: Study, source: Study, run: Run, on_wait: Callable[[str], None], pause: float = _PAUSE
) -> None:
    """Adds a finished run of another folder to its study, as `add_finished` adds one that was made here.

    Args:
        study: the study that the run belongs to.
        source: the folder that it is in, of the form of a study.
        run: the run.
        on_wait, pause: as of `add_finished`.

    Raises:
        DataError: as `add_finished`.
    """
    _add_or_keep(study, lambda where: _adopt(where, source, run), on_wait, pause)


def _add_or_keep(study: Study, add: Callable[[Study], Path], on_wait: Callable[[str], None], pause: float) -> None:
    told = False
    while True:
        try:
            study.check_there()  # or writing would make a folder again that somebody has removed
            add(study)
            return
        except OSError as error:
            reason = f"{study.folder} cannot be written: {error.strerror}"
            when = _when(error)
        kept = kept_study(study)
        try:
            kept.runs_folder.mkdir(parents=True, exist_ok=True)
            folder = add(kept)
        except OSError as error:
            reason = f"{reason}, and {kept.folder} neither: {error.strerror}"
            if error.errno not in _NO_ROOM:
                raise DataError(f"{reason}: the result of the run is lost") from None
        else:
            raise DataError(f"{reason}: the finished run is kept in {folder}, and the same command adds it{when}")
        if not told:
            on_wait(f"{reason}: the finished run waits in memory until there is room in one of them")
            told = True
        time.sleep(pause)


def _when(error: OSError) -> str:
    """What has to happen before a run can be added after this error, in words; empty if nothing has to."""
    if error.errno in _NO_ROOM:
        return " once there is room"
    return " once the folder can be written" if error.errno in _FORBIDDEN else ""


def _add(study: Study, spec: RunSpec, fingerprint: Fingerprint, record: "RunRecord") -> Path:
    if record.items:
        write_items(study.folder, record.items)
    return study.add(spec, fingerprint, record.result, record.steps, record.outcomes, record.artifact)


def _adopt(study: Study, source: Study, run: Run) -> Path:
    if items := read_items(source.folder, run.result.items_digest):
        write_items(study.folder, tuple(items.values()))
    return study.adopt(run)


def adopt_kept(study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint | None) -> None:
    """Moves those runs into a study that it had no room for when they were made. The caller holds the study's lock.

    Args:
        study: where to.
        specs: the runs.
        fingerprint: the environment of the runs that are moved, because the study would find others stale; None: any.

    Raises:
        DataError: if there is still no room, or a kept run is corrupt.
    """
    kept = kept_study(study)
    if not kept.runs_folder.is_dir():
        return
    for spec in specs:
        folder = kept.path_of(spec)
        if not folder.is_dir() or study.path_of(spec).is_dir():
            continue
        run = kept.read(folder)
        if fingerprint not in (None, run.fingerprint):
            continue
        try:
            _adopt(study, kept, run)
        except OSError as error:
            what = "make room" if error.errno in _NO_ROOM else "make it writable"
            raise DataError(
                f"{study.folder} cannot be written: {error.strerror}: {what} for the finished run in {folder}"
            ) from None
        kept.discard(run)


def record_failure(study: Study, spec: RunSpec, message: str, traceback: str) -> str:
    """Keeps the diagnosis of a run that failed. Returns the message, and says so if it could not be kept."""
    try:
        study.add_failure(spec, message, traceback)
    except CapacityError as error:
        return f"{message} (no record of this failure could be left: {error})"
    return message
