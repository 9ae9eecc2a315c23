"""Reads and checks the rows of a data set, and keeps them by content so that runs can name them.

Rows come from JSONL or Parquet files. A file that the user names is copied into the cache under the hash of its rows.
The spec of a run holds that hash instead of the path. So the same data is the same task wherever the file lies, and
workers need no path.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from capacity.cache import cache_folder
from capacity.errors import DataError, SpecError
from capacity.runs import files
from capacity.tasks.task import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SUFFIXES = (".jsonl", ".parquet")
_DIGEST = 16  # hex digits of a data set's hash


@dataclass(frozen=True)
class Row:
    """A row holds one problem with its reference answer and its worked solutions, if it has any."""

    id: str
    problem: str
    answer: str
    solutions: tuple[str, ...] = ()


Rows = Mapping[Split, tuple[Row, ...]]
# Turns a decoded record into a row; raises ValueError with what is wrong with it. The number counts from 0.
ReadRow = Callable[[Mapping[str, Any], int], Row]


def records(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the records of a JSONL or Parquet file, each with its place for error messages.

    Raises:
        DataError: if the file is missing or unreadable, or a line is no JSON object.
    """
    if path.suffix not in _SUFFIXES:
        raise DataError(f"{path}: neither a .jsonl nor a .parquet file")
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    found: list[tuple[str, Mapping[str, Any]]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: not a JSON object")
        found.append((where, record))
    return found


def _parquet(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow: pip install 'sft-rl-capacity[train]'") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    return [(f"{path}, row {number}", record) for number, record in enumerate(table.to_pylist(), start=1)]


def read_rows(path: Path, read: ReadRow) -> tuple[Row, ...]:
    """Returns all rows of a file.

    Raises:
        DataError: if the file is unreadable or has no rows, a row lacks a field, or an id occurs twice.
    """
    rows: list[Row] = []
    seen: set[str] = set()
    for where, record in records(path):
        try:
            row = read(record, len(rows))
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if row.id in seen:
            raise DataError(f"{where}: the id {row.id!r} is there twice")
        seen.add(row.id)
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: no rows")
    return tuple(rows)


def text_field(record: Mapping[str, Any], *names: str) -> str:
    """Returns the text under the first of `names` that the record has. The name "a.b" means the field b of a.

    Raises:
        ValueError: if the record has none of the names, or the value is empty or no text.
    """
    for name in names:
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f'"{name}" is no text but {type(value).__name__}')
        if not value.strip():
            raise ValueError(f'"{name}" is empty')
        return value
    raise ValueError(f"no {' or '.join(names)}; it has {', '.join(map(str, record)) or 'nothing'}")


def files_of(path: Path, wanted: Sequence[Split]) -> dict[Split, Path]:
    """Returns the files of a folder by split, such as train.jsonl or train.parquet.

    Raises:
        DataError: if there is no such folder, or it has no file for any of the `wanted` splits.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    found = {s: path / f"{s}{suffix}" for s in wanted for suffix in _SUFFIXES if (path / f"{s}{suffix}").is_file()}
    if not found:
        raise DataError(f"{path}: none of {', '.join(f'{s}{x}' for s in wanted for x in _SUFFIXES)} in it")
    return found


def named_files(options: Mapping[str, str], wanted: Sequence[Split]) -> dict[Split, Path]:
    """Returns the files that options name, by split.

    The options are `path=FOLDER`, or `test=FILE&train=FILE`, or `path=FILE` for a task of one split.

    Raises:
        DataError: if the folder or its files are missing.
        SpecError: if both forms are given at once, or one file for several splits.
    """
    single = {split: Path(options[split]).expanduser() for split in wanted if split in options}
    if "path" not in options:
        return single
    if single:
        raise SpecError("path= and a file for one split cannot be given together")
    path = Path(options["path"]).expanduser()
    if path.is_file():
        if len(wanted) > 1:
            names = "&".join(f"{s}=FILE" for s in wanted if s != "validation")
            raise SpecError(f"path={path} is one file: give a folder, or {names}")
        return {wanted[0]: path}
    return files_of(path, wanted)


def digest_of(rows: Rows) -> str:
    """Returns the hash of all rows by split, 16 hex digits. It does not depend on the files that the rows came from."""
    return hashlib.sha256(_text(rows).encode()).hexdigest()[:_DIGEST]


def keep(rows: Rows) -> str:
    """Copies rows into the cache, and returns the hash under which `kept` finds them.

    Raises:
        DataError: if the cache cannot be written.
    """
    text = _text(rows)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
    path = cache_folder("data") / f"{digest}.jsonl"
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(path, text)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from None
    return digest


@lru_cache(maxsize=8)
def kept(digest: str) -> Rows:
    """Returns the rows that `keep` put into the cache.

    Raises:
        DataError: if the rows are missing, or have changed since.
    """
    path = cache_folder("data") / f"{digest}.jsonl"
    if not path.is_file():
        raise DataError(
            f"data set {digest} is not in the cache {path.parent}: name its file or folder again with path="
        )
    rows: dict[Split, list[Row]] = {}
    for _, record in records(path):
        split, solutions = record["split"], tuple(record["solutions"])
        rows.setdefault(split, []).append(Row(record["id"], record["problem"], record["answer"], solutions))
    found: Rows = {split: tuple(part) for split, part in rows.items()}
    if digest_of(found) != digest:
        raise DataError(f"{path}: damaged: delete it and name its file or folder again with path=")
    return found


def _text(rows: Rows) -> str:
    lines = ({"split": split, **vars(row)} for split in SPLITS for row in rows.get(split, ()))
    return "".join(json.dumps(line, sort_keys=True, ensure_ascii=True) + "\n" for line in lines)


def carved(rows: Rows, name: str, validation_share: float, test_share: float = 0.0) -> Rows:
    """Returns rows by split after missing splits have been carved from train. No two splits share a problem.

    A hash of the problem decides which rows are carved. Problems of train or validation that are also in test are left
    out. So are problems of train that are also in validation.

    Args:
        rows: the rows by split.
        name: the name of the task, which is part of the hash.
        validation_share: the share of train that becomes validation, if there is no such split.
        test_share: the share of train that becomes test, if there is no such split.
    """
    test = list(rows.get("test", ()))
    validation = list(rows.get("validation", ()))
    train: list[Row] = []
    for row in rows.get("train", ()):
        share = _share(name, row.problem)
        if "test" not in rows and share < test_share:
            test.append(row)
        elif "validation" not in rows and test_share <= share < test_share + validation_share:
            validation.append(row)
        else:
            train.append(row)
    kept_out = _problems(test)
    validation = [row for row in validation if _bare(row.problem) not in kept_out]
    kept_out |= _problems(validation)
    train = [row for row in train if _bare(row.problem) not in kept_out]
    return {"train": tuple(train), "validation": tuple(validation), "test": tuple(test)}


def _share(name: str, problem: str) -> float:
    """Maps a problem to a number from 0 to 1 by a hash that ignores spacing."""
    digest = hashlib.sha256(f"{name}|{_bare(problem)}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _bare(problem: str) -> str:
    return " ".join(problem.split())


def _problems(rows: Iterable[Row]) -> set[str]:
    return {_bare(row.problem) for row in rows}
