"""Tells study folders from all others, and removes from a study folder only what this program has left there.

A study folder has a marker, which is written when the study is made. Studies of older versions have none: they are
known by their runs, or by having nothing but the files of a study.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity.runs import files

MARKER, PLAN, LOCK = "capacity-study.json", "plan.json", ".lock"
RUNS, FAILED, UNFINISHED, CHECKPOINTS = "runs", "failed", "partial", "checkpoints"
RUN_FILES = (
    "spec.json", "fingerprint.json", "result.json", "metrics.jsonl", "outcomes.jsonl", files.ARTIFACT, files.CHECKSUMS,
)  # fmt: skip
_FORMAT = {"format": "capacity study", "version": 1}
_RUN_NAME = re.compile(r"[0-9a-f]{16}")
_CHECKPOINT_REST = re.compile(r"\.([0-9a-f]{16})\.checkpoint\.[0-9]+\.tmp")  # what a kill leaves of one that is written


def claim(folder: Path) -> None:
    """Makes a study folder, or takes one that is there. A new one gets its marker.

    Raises:
        DataError: if the folder is neither empty nor a study, or cannot be made.
    """
    check_format(folder)
    try:
        if not is_study(folder):
            raise DataError(
                f"{folder}: neither empty nor a study folder: choose another --out, so that nothing there is changed"
            )
        for name in (RUNS, FAILED):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"study folder {folder} cannot be made: {error.strerror}") from None
    if not (folder / MARKER).exists():
        files.write_atomically(folder / MARKER, files.json_text(_FORMAT))


def check_format(folder: Path) -> None:
    """Checks that a study folder was not made by a later version of this program.

    Raises:
        DataError: if its format is newer than this version reads.
    """
    found = _json(folder / MARKER) if (folder / MARKER).is_file() else None
    known = _FORMAT["version"]
    if isinstance(found, dict) and found.get("format") == _FORMAT["format"] and found.get("version") != known:
        raise DataError(
            f"{folder}: a study of format version {found.get('version')}, and this version of capacity reads {known}: "
            "use the version that made it, or a later one"
        )


def is_study(folder: Path) -> bool:
    """Tells whether a folder is a study, or may become one: it is empty, or is not there."""
    if not folder.exists():
        return True
    if (folder / MARKER).exists():
        return bool(_json(folder / MARKER) == _FORMAT)
    return _is_new(folder) or _has_runs(folder) or _has_plan(folder)


def is_marked(folder: Path) -> bool:
    """Tells whether a folder has the marker of a study. One that this user may not look into counts as having none."""
    try:
        return (folder / MARKER).is_file()
    except OSError:
        return False


def _json(path: Path) -> Any:
    try:
        return files.read_json(path)
    except DataError:
        return None


def _is_new(folder: Path) -> bool:
    """Tells whether a folder is empty, or as a study of an older version is before its first run."""
    names = {path.name for path in folder.iterdir()}
    inner, lock = [folder / name for name in (RUNS, FAILED) if name in names], folder / LOCK
    unlocked = not lock.exists() or (lock.is_file() and not lock.stat().st_size)  # locking empties the file
    return names <= {LOCK, RUNS, FAILED} and unlocked and not any(any(path.iterdir()) for path in inner)


def _has_runs(folder: Path) -> bool:
    """Tells whether there are complete runs, and nothing beside them where they are."""
    found = list((folder / RUNS).iterdir()) if (folder / RUNS).is_dir() else []
    return bool(found) and all(_RUN_NAME.fullmatch(p.name) and (p / files.CHECKSUMS).is_file() for p in found)


def _has_plan(folder: Path) -> bool:
    plan = _json(folder / PLAN)
    return isinstance(plan, list) and all(isinstance(spec, dict) and "schema_version" in spec for spec in plan)


@contextmanager
def unfinished(study: Path, run: str) -> Iterator[Path]:
    """Gives an empty folder in which a run is written until it is whole. What is still there at the end is removed.

    Raises:
        DataError: if files of somebody else are in its place.
    """
    folder = study / UNFINISHED / run
    discard(folder)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise DataError(f"{folder}: not what this program has left there: move it away") from None
    try:
        yield folder
    finally:
        discard(folder)


def discard_unfinished(study: Path) -> None:
    """Removes the unfinished runs that a crash has left. Whatever else lies beside them stays."""
    folder = study / UNFINISHED
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if _RUN_NAME.fullmatch(path.name):
            discard(path)
    _remove_if_empty(folder)


def checkpoint_of(study: Path, run: str) -> Path:
    """Returns the file of a run's checkpoint. The file need not exist."""
    return study / CHECKPOINTS / f"{run}.checkpoint"


def discard_checkpoint(study: Path, run: str) -> None:
    """Removes the checkpoint of a run."""
    checkpoint_of(study, run).unlink(missing_ok=True)


def discard_checkpoints(study: Path) -> None:
    """Removes the checkpoints of complete runs, and what a kill has left of one. Whatever else is there stays."""
    folder = study / CHECKPOINTS
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        run = path.name.removesuffix(".checkpoint")
        complete = _RUN_NAME.fullmatch(run) and (study / RUNS / run).is_dir()
        if path.is_file() and (complete or _CHECKPOINT_REST.fullmatch(path.name)):
            path.unlink()
    _remove_if_empty(folder)


def discard(folder: Path) -> None:
    """Removes the files of a run from a folder, and the folder if nothing is left in it."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for name in RUN_FILES:
        path = folder / name
        if path.is_file() and not path.is_symlink():
            path.unlink()
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
