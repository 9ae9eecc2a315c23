"""Writes files so that they are whole or absent, by fsync, rename and checksums."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from capacity.errors import DataError, MissingPathError
from capacity.spec.faults import fault_of

CHECKSUMS = "checksums.json"
ARTIFACT = "update.safetensors"  # of a run folder: the trained update with the recipe that rebuilds it
_Record = TypeVar("_Record", bound=BaseModel)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)  # what a write says without naming a file


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def json_text(value: Any) -> str:
    """Returns `value` as indented JSON, with a line break at the end.

    Raises:
        ValueError: if the value holds a NaN or an infinity.
    """
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON.

    Raises:
        ValueError: if the value holds a NaN or an infinity.
    """
    path.write_text(json_text(value), encoding="utf-8")


def check_regular(path: Path) -> None:
    """Checks that a file which is there is a regular one. Reading a pipe or a device may never end.

    Raises:
        DataError: if it is something else.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: cannot be read: not a regular file")


def read_json(path: Path) -> Any:
    """Returns the decoded JSON of a file.

    Raises:
        DataError: if the file is missing, is no regular file, or is not JSON.
    """
    check_regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def read_record(path: Path, kind: type[_Record]) -> _Record:
    """Reads a JSON file as a record of type `kind`.

    Raises:
        DataError: if the file is missing, is not JSON, or is not such a record. The message names the field.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise DataError(f"{path}{_first(error, kind)}") from None


def read_records(path: Path, kind: type[_Record]) -> tuple[_Record, ...]:
    """Reads the records of a JSONL file, which has one record per line.

    Raises:
        DataError: if the file is missing, or a line is not such a record. The message names the line and the field.
    """
    check_regular(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    try:  # all lines in one go, which takes a tenth of the time of a call for each
        return TypeAdapter(tuple[kind, ...]).validate_json(f"[{','.join(lines)}]")  # type: ignore[valid-type]
    except ValidationError:
        return tuple(_record(line, kind, f"{path}: line {number}") for number, line in enumerate(lines, start=1))


def _record(line: str, kind: type[_Record], where: str) -> _Record:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise DataError(f"{where}{_first(error, kind)}") from None


def _first(error: ValidationError, kind: type[BaseModel]) -> str:
    """Describes the first fault of a record."""
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        return " is not JSON"
    return f": {fault_of(error, kind)}" if fault["loc"] else " is not a JSON object"


def write_records(path: Path, records: Sequence[BaseModel]) -> None:
    """Writes each record as one line of compact JSON."""
    with path.open("w", encoding="utf-8") as handle:
        for record in records:
            text = json.dumps(record.model_dump(mode="json"), separators=(",", ":"), allow_nan=False)
            handle.write(text + "\n")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces the content of a file by `content`. A reader sees either the old or the new content, never a part.

    Raises:
        DataError: if the file cannot be written.
    """
    if not path.name:
        raise DataError(f"{str(path)!r}: not the name of a file")
    if path.exists() and not path.is_file():  # as root one would replace even /dev/null
        raise DataError(f"{path}: cannot be written: not a file")
    if not path.parent.exists():
        raise MissingPathError(f"{path}: cannot be written: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as handle:
                handle.write(content.encode() if isinstance(content, str) else content)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def refuse_foreign(path: Path, sign: str) -> None:
    """Checks that a file may be replaced: that it is empty, not there, or was written by this program.

    Args:
        path: the file.
        sign: what every such file of this program contains.

    Raises:
        DataError: if the file does not contain the sign, or cannot be read.
    """
    check_regular(path)
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if content and sign.encode() not in content:
        raise DataError(f"{path} exists and was not made by this program: choose another file, or remove it")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder that becomes `folder`, in one step, when the context ends without an error.

    After an error, nothing is left of the temporary folder.

    Raises:
        DataError: if `folder` exists already, or cannot be made.
    """
    if folder.exists():
        raise DataError(f"{folder} exists already: choose another, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}") from None
    try:
        yield partial
        # mkdtemp and safetensors let only the owner in: give what any new folder and file would have.
        umask = os.umask(0)
        os.umask(umask)
        for path in [*partial.iterdir(), partial]:
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
            _fsync(path)
        try:
            partial.rename(folder)
        except OSError as error:
            raise DataError(f"{folder} cannot be made: {error.strerror}") from None
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise DataError(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def seal(folder: Path) -> None:
    """Writes the checksums of all files of a finished folder and makes the folder durable on disk."""
    files = sorted(p for p in folder.iterdir() if p.name != CHECKSUMS)
    write_json(folder / CHECKSUMS, {p.name: sha256_file(p) for p in files})
    sync(folder)


def sync(folder: Path) -> None:
    """Makes a folder and the files in it durable on disk."""
    for path in [*sorted(folder.iterdir()), folder]:
        _fsync(path)


def publish(folder: Path, destination: Path) -> bool:
    """Moves a sealed folder to `destination` in one step; False, and nothing is moved, if a folder is there already."""
    moved = not destination.is_dir()
    if moved:
        folder.rename(destination)
        _fsync(destination.parent)
    return moved


def verify(folder: Path) -> None:
    """Checks every file of a sealed folder against its checksum.

    Raises:
        DataError: if a file is missing, unexpected or changed. The message names the first such file.
    """
    sums = read_json(folder / CHECKSUMS)
    if not isinstance(sums, Mapping):
        raise DataError(f"{folder / CHECKSUMS}: not a table of checksums")
    present = {p.name for p in folder.iterdir()} - {CHECKSUMS}
    for name in sorted(present | set(sums)):
        if name not in sums:
            raise DataError(f"{folder}: unexpected file {name}: remove it, or remove the folder to run again")
        if name not in present:
            raise DataError(f"{folder}: {name} is missing: remove the folder to run it again")
        check_regular(folder / name)
        try:
            digest = sha256_file(folder / name)
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {error}") from None
        if digest != sums[name]:
            raise DataError(f"{folder}: {name} is corrupt (checksum differs): remove the folder to run it again")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
