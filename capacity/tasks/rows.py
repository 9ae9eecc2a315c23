"""Reads and checks the rows of a data set, and keeps them by content so that runs can name them.

Rows come from JSONL or Parquet files. A file that the user names is copied into the cache under the hash of its rows.
The spec of a run holds that hash instead of the path. So the same data is the same task wherever the file lies, and
workers need no path.
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

from capacity.cache import cache_folder
from capacity.errors import DataError, DataWarning, MissingPathError, SpecError
from capacity.runs import files
from capacity.tasks.task import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SUFFIXES = (".jsonl", ".parquet")
_DIGEST = 16  # hex digits of a data set's hash
_NAMED = 8  # rows that one error or remark names at most


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


class LeftOut(ValueError):
    """A data set leaves out a row, for the reason that the message gives."""


def records(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the records of a JSONL or Parquet file, each with its place for error messages.

    Raises:
        DataError: if the file is missing or unreadable, or a line is no JSON object.
    """
    if path.suffix not in _SUFFIXES:
        raise DataError(f"{path}: neither a .jsonl nor a .parquet file")
    if not path.exists():
        raise MissingPathError(f"{path}: no such file")
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
            record = json.loads(line, parse_float=Decimal)  # a number keeps its digits
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        except RecursionError:
            raise DataError(f"{where}: its JSON is nested too deeply to be read") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: not a JSON object")
        found.append((where, record))
    return found


def _parquet(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    return [(f"{path}, row {number}", record) for number, record in enumerate(table.to_pylist(), start=1)]


def read_rows(path: Path, read: ReadRow, contradict: Callable[[Row, Row], bool] | None = None) -> tuple[Row, ...]:
    """Returns all rows of a file. Rows that their data set leaves out are counted in a warning.

    Args:
        path: the file.
        read: the function that turns a record into a row.
        contradict: a function that tells whether two rows of the same problem contradict. None allows all rows.

    Raises:
        DataError: if the file is unreadable or has no rows, a row is faulty, an id occurs twice, or rows contradict.
            The first faulty row is described, and the others are named.
    """
    rows: list[Row] = []
    ids: set[str] = set()
    problems: dict[str, tuple[str, Row]] = {}
    faults: list[tuple[str, str]] = []
    left_out: list[tuple[str, str]] = []
    for number, (where, record) in enumerate(records(path)):
        try:
            row = read(record, number)
            if row.id in ids:
                raise ValueError(f"the id {row.id!r} is there twice")
            before, other = problems.setdefault(_bare(row.problem), (where, row))
            if contradict is not None and other is not row and contradict(other, row):
                raise ValueError(
                    f"the same problem as {_place(before)}, with another answer: {other.answer!r} and {row.answer!r}"
                )
        except LeftOut as reason:
            left_out.append((where, str(reason)))
        except ValueError as fault:
            faults.append((where, str(fault)))
        else:
            ids.add(row.id)
            rows.append(row)
    if faults:
        where, fault_ = faults[0]
        rest = f" (the first of {len(faults):,} faulty rows: {_places(faults)})" if len(faults) > 1 else ""
        raise DataError(f"{where}: {fault_}{rest}")
    if not rows:
        raise DataError(f"{path}: no rows")
    if left_out:
        what = f"{path}: left out because {left_out[0][1]}: {len(left_out):,} of {len(rows) + len(left_out):,} rows"
        warnings.warn(f"{what} ({_places(left_out)})", DataWarning, stacklevel=2)
    return tuple(rows)


def _place(where: str) -> str:
    """Returns the line or row of a place, without its file."""
    return where.rpartition(", ")[2]


def _places(found: Sequence[tuple[str, str]]) -> str:
    """Returns the lines or rows of places, such as "line 2" or "lines 2, 4"."""
    if len(found) == 1:
        return _place(found[0][0])
    first = _place(found[0][0]).partition(" ")[0]
    numbers = [_place(where).partition(" ")[2] for where, _ in found[:_NAMED]]
    return f"{first}s {', '.join(numbers)}" + (", …" if len(found) > _NAMED else "")


def text_field(record: Mapping[str, Any], *names: str) -> str:
    """Returns the text under the first of `names` that the record has. The name "a.b" means the field b of a.

    Raises:
        ValueError: if the record has none of the names, or the value is empty, no text, or half a character.
    """
    for name in names:
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            continue
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            if not isfinite(value):
                raise ValueError(f'"{name}" is {value}, which is no value of JSON')
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f'"{name}" is no text but {type(value).__name__}')
        if not value.strip():
            raise ValueError(f'"{name}" is empty')
        return whole_text(name, value)
    raise ValueError(f"no {' or '.join(names)}; it has {', '.join(map(str, record)) or 'nothing'}")


def whole_text(name: str, text: str) -> str:
    """Returns `text`, which is the value of the field `name`.

    Raises:
        ValueError: if `text` holds half a character, which no file and no tokenizer can hold.
    """
    half = next((c for c in text if "\ud800" <= c <= "\udfff"), None)
    if half is not None:
        raise ValueError(f'"{name}" holds half a character, \\u{ord(half):04x}: write the whole character')
    return text


def files_of(path: Path, wanted: Sequence[Split]) -> dict[Split, Path]:
    """Returns the files of a folder by split, such as train.jsonl or train.parquet.

    Raises:
        DataError: if there is no such folder, or it has no file for any of the `wanted` splits.
    """
    if not path.is_dir():
        raise MissingPathError(f"{path}: no such folder")
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
    """Returns rows by split after missing splits have been carved from train. No two splits share a problem or an id.

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
    return _named_apart({"train": tuple(train), "validation": tuple(validation), "test": tuple(test)})


def _named_apart(rows: Rows) -> Rows:
    """Puts the name of the split before ids that stand in several splits, as files have that count from 0 each."""
    times = Counter(row.id for part in rows.values() for row in part)
    if max(times.values(), default=1) == 1:
        return rows
    named = {s: tuple(replace(r, id=f"{s}-{r.id}") if times[r.id] > 1 else r for r in p) for s, p in rows.items()}
    check_ids(named, "the rows")
    return named


def check_ids(rows: Rows, where: str) -> None:
    """Checks that no id occurs twice in all splits together, because items are known by their ids.

    Raises:
        DataError: if one does.
    """
    splits: dict[str, Split] = {}
    for split, row in ((split, row) for split, part in rows.items() for row in part):
        if row.id in splits:
            raise DataError(f"{where}: the id {row.id!r} occurs twice, in {splits[row.id]} and in {split}: rename one")
        splits[row.id] = split


def _share(name: str, problem: str) -> float:
    """Maps a problem to a number from 0 to 1 by a hash that ignores spacing."""
    digest = hashlib.sha256(f"{name}|{_bare(problem)}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _bare(problem: str) -> str:
    return " ".join(problem.split())


def _problems(rows: Iterable[Row]) -> set[str]:
    return {_bare(row.problem) for row in rows}
