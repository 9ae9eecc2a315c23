"""Results of other programs as rows of a points table, which every analysis reads."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd

from capacity.errors import DataError, SpecError, unknown
from capacity.runs.answers import Answers
from capacity.runs.points import COLUMNS
from capacity.runs.study_folder import is_study
from capacity_analysis.data.table import Points, from_frame
from capacity_analysis.evaluations import means
from capacity_analysis.evaluations.evaluation import NOT_KNOWN, STATE, Evaluation, Reading, arm_name
from capacity_analysis.evaluations.read import holds_answers, read_evaluations, read_object
from capacity_analysis.evaluations.table import is_table

# What a person may say of an arm; the other columns follow from answers.
FACTS = (
    "study", "model", "model_parameters", "family", "task", "protocol", "method", "adapter", "trained_parameters",
    "storage_dtype", "update_bytes", "learning_rate", "seed", "split", "demonstrations",
)  # fmt: skip
_NEEDED = ("method", "trained_parameters")
Facts = Mapping[str, Mapping[str, str]]  # by arm, "" for all of them


def rows_of(path: Path, arm: str | None, reading: Reading, facts: Facts) -> list[dict[str, Any]]:
    """The runs of a source as rows.

    Args:
        path: a file of means or a folder of these, or a source of answers.
        arm: its name; None: its own.
        reading: what a person says of how to read it.
        facts: what a person says of its arms.

    Raises:
        SpecError: something that the source does not say has to be said.
        DataError: the source cannot be read.
    """
    wholes = _objects(path)
    if _all_means(wholes):
        named = [
            (arm or own, {"study": arm or own, **row})
            for file, whole in wholes
            for own in [arm_name(file)]
            for row in means.mean_rows(file, whole, reading)
        ]
    else:
        named = [(e.arm, _row(e)) for e in read_evaluations(path, arm, reading)]
    return [_complete(row, name, facts) for name, row in named]


def _objects(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The JSON objects of a source that may be of means: a file, a checkpoint of a trainer, or a folder of results."""
    if not path.is_dir():
        files = [path] if path.suffix == ".json" else []
    elif holds_answers(path):  # answers say more than the means beside them
        files = []
    elif (path / STATE).is_file():
        files = [path / STATE]
    else:
        files = sorted(path.glob("*.json"))
    return [(file, read_object(file)) for file in files if file.is_file()]


def _all_means(wholes: Sequence[tuple[Path, Mapping[str, Any]]]) -> bool:
    return bool(wholes) and all(means.has_means(whole) for _, whole in wholes)


def holds_results(path: Path) -> bool:
    """Whether a path has results of other programs: neither a study of this program nor a points table."""
    if path.is_dir():
        return not is_study(path) and (holds_answers(path) or _holds_means(path))
    if not path.is_file():
        return False
    if path.suffix in (".csv", ".parquet"):
        return is_table(path)
    return path.suffix in (".json", ".jsonl", ".eval")


def _holds_means(folder: Path) -> bool:
    try:
        return _all_means(_objects(folder))
    except DataError:
        return False


def points_of_results(path: Path) -> Points:
    """The points of a source that says the method and the trained parameters of its runs itself.

    Raises:
        SpecError: it does not say them, or several metrics; the message names the options of `capacity import`.
        DataError: the source cannot be read.
    """
    try:
        rows = rows_of(path, None, Reading(), {})
    except SpecError as error:
        raise SpecError(f"{error} (options of capacity import, which writes a points table)") from None
    return table_of(rows, str(path))


def table_of(rows: Iterable[Mapping[str, Any]], source: str) -> Points:
    """A validated points table of rows.

    Raises:
        SpecError: values that make no sense, or a run that is there twice.
        DataError: no rows.
    """
    return from_frame(pd.DataFrame(list(rows), columns=list(COLUMNS)), source)


def not_known(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The columns that no row has, in their order."""
    return tuple(name for name in (*FACTS, "n_items", "answers") if all(row.get(name) is None for row in rows))


def _complete(row: dict[str, Any], arm: str, facts: Facts) -> dict[str, Any]:
    said = {**facts.get("", {}), **facts.get(arm, {})}
    for name, value in said.items():
        if name not in FACTS:
            raise unknown("field", name, FACTS)
        if row.get(name) is not None and str(row[name]) != value:
            raise SpecError(f"{arm}: {name} is {row[name]} in the source, and {value} by --set")
        row[name] = value
    row = {"study": arm, "split": "test"} | {name: value for name, value in row.items() if value is not None}
    missing = [name for name in _NEEDED if row.get(name) is None]
    if missing:
        options = " ".join(f"--set {quote(f'{arm}:{name}=VALUE')}" for name in missing)
        raise SpecError(f"{arm}: the source does not say its {' and '.join(missing)}: {options}")
    return {name: row.get(name) for name in COLUMNS}


def _row(evaluation: Evaluation) -> dict[str, Any]:
    """The answers of an evaluation as a row; of items with several samples their counts."""
    row: dict[str, Any] = {
        "model": None if evaluation.model == NOT_KNOWN else evaluation.model,
        "task": evaluation.task or None,
        "seed": evaluation.seed,
        "accuracy": evaluation.accuracy,
        **dict(evaluation.facts),
    }
    samples, right = evaluation.samples, evaluation.scores * evaluation.samples
    if len(set(samples)) > 1 or not np.allclose(right, np.round(right)):
        return row  # neither counts nor answers: partial grades, or items with more samples than others
    count = int(samples[0])
    # Which sample of an item was right does not matter: all analyses take its mean.
    correct = np.arange(count)[None, :] < np.round(right)[:, None]
    answers = Answers(evaluation.items, correct)
    return {
        **row,
        "n_items": len(evaluation.items),
        "n_correct": int(correct.sum()),
        "samples_per_item": count,
        "items": answers.items_digest,
        "answers": answers.packed(),
    }
