"""A plain table of outcomes in CSV, Parquet or JSON Lines: a row an answer.

Every row needs `item` and `correct`, which is 0 or 1, true or false, or a share of 1. Where they are known there are
`arm`, `seed` and `task`. `prompt` is what was asked, `cluster` names items that belong together, and `sample` numbers
the completions of an item. `method` and `trained_parameters` say how the arm was trained: one value an arm. Where they
stand in a table without `arm`, each pair of them is an arm.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from capacity.errors import DataError, SpecError
from capacity_analysis.data.columns import NO_NUMBER
from capacity_analysis.data.csv_rows import csv_rows
from capacity_analysis.evaluations.evaluation import Answer, Collected, Evaluation, Reading, digest
from capacity_analysis.evaluations.json_lines import lines

FACTS = ("method", "trained_parameters")
COLUMNS = ("item", "correct", "arm", "seed", "task", "prompt", "cluster", "sample", *FACTS)
_NEEDED = ("item", "correct")
_OF_RUNS = ("accuracy", "n_correct")  # a points table has them, whose rows are runs
_BLOCK = 100_000
_TRUTHS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0}
_Place = tuple[str, str, int | None]  # arm, task and seed


def read_table(path: Path, arm: str | None, reading: Reading) -> list[Evaluation]:
    """The evaluations of a table: one for each arm, task and seed.

    Args:
        path: the file; its name ends in .csv, .parquet or .jsonl.
        arm: the name of its one arm; None: its column `arm` names them, or else the file.
        reading: how its columns are called.

    Raises:
        SpecError: columns are missing.
        DataError: an answer without a grade, or one that is there twice, or an arm of two methods or sizes.
    """
    named = {column: column for column in COLUMNS} | dict(reading.columns)
    found: dict[_Place, Collected] = {}
    facts: dict[_Place, dict[str, str]] = {}
    for number, row in _rows(path):
        where = f"row {number}"
        if number == 1:
            _check_columns(row, named, path)
        told = {key: row.get(column) for key, column in named.items()}
        if arm is not None and _known(told["arm"]) is not None:
            raise SpecError(f"{path}: has a column {named['arm']}: leave out the name {arm}=")
        trained = {key: value for key in FACTS if (value := _known(told[key])) is not None}
        own_name = arm or _known(told["arm"]) or " ".join(trained.values()) or path.stem
        place = (own_name, _known(told["task"]) or "", _seed(told["seed"], path, where))
        if facts.setdefault(place, trained) != trained:
            raise DataError(
                f"{path}: {where}: arm {own_name} has {_words(trained)}, and {_words(facts[place])} in a row before"
            )
        found.setdefault(place, Collected(str(path))).add(_answer(told, path, where), where)
    if not found:
        raise DataError(f"{path}: no rows")
    return [
        replace(own.evaluation(place[0], place[1], named["correct"], place[2]), facts=tuple(facts[place].items()))
        for place, own in found.items()
    ]


def is_table(path: Path) -> bool:
    """Whether a CSV or Parquet file is such a table by its columns, and not a points table."""
    try:
        if path.suffix == ".parquet":
            from pyarrow.parquet import read_schema

            columns = set(read_schema(path).names)
        else:
            columns = set(pd.read_csv(path, dtype=str, nrows=0, skipinitialspace=True).columns)
    except (ImportError, ValueError, OSError):  # whoever reads it says what is wrong with it
        return False
    return columns.issuperset(_NEEDED) and columns.isdisjoint(_OF_RUNS)


def _words(trained: dict[str, str]) -> str:
    return " and ".join(f"{name} {trained.get(name, 'none')}" for name in FACTS)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".jsonl":
        yield from lines(path)
    else:
        yield from enumerate(_records(path), start=1)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a CSV or Parquet file by the names of their columns."""
    try:
        if path.suffix == ".parquet":
            from pyarrow.parquet import ParquetFile

            for block in ParquetFile(path).iter_batches(_BLOCK):
                for row in block.to_pandas().to_dict("records"):
                    yield {str(key): value for key, value in row.items()}
        else:
            rows = csv_rows(path)
            header = next(rows)
            yield from (dict(zip(header, row, strict=True)) for row in rows)
    except (ValueError, OSError, csv.Error) as error:  # pandas and pyarrow have no one error of their own
        raise DataError(f"{path}: cannot be read as a table: {' '.join(str(error).split())[:160]}") from None


def _check_columns(row: dict[str, Any], named: dict[str, str], path: Path) -> None:
    missing = [named[key] for key in _NEEDED if named[key] not in row]
    if missing and row.keys() >= set(FACTS) and not row.keys().isdisjoint(_OF_RUNS):
        raise SpecError(
            f"{path}: is a points table, whose rows are runs and not single answers: "
            f"capacity report {path} compares its methods, and pairs answers where the table has the column answers"
        )
    if missing:
        raise SpecError(
            f"{path}: no column {' and '.join(missing)}: it has {', '.join(row)}; name them with --column item=NAME"
        )


def _answer(told: dict[str, Any], path: Path, where: str) -> Answer:
    item, prompt = _known(told["item"]), _known(told["prompt"])
    if item is None:
        raise DataError(f"{path}: {where}: no item")
    content = None if prompt is None else digest(prompt)
    return Answer(item, _score(told["correct"], path, where), content, _known(told["cluster"]), _known(told["sample"]))


def _score(value: Any, path: Path, where: str) -> float:
    if isinstance(value, bool | int | float):
        return float(value)
    text = "" if value is None else str(value).strip()
    if text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: {where}: {text!r} is no grade: give 0 or 1, true or false, or a share of 1") from None


def _seed(value: Any, path: Path, where: str) -> int | None:
    text = _known(value)
    if text is None or text in NO_NUMBER:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.5
    if not number.is_integer():
        raise DataError(f"{path}: {where}: seed {text!r} is not a whole number")
    return int(number)


def _known(value: Any) -> str | None:
    """A cell as text; None if it is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value).strip() == "":
        return None
    return str(value).strip()
