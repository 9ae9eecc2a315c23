"""Defines the task `jsonl:PATH`, which reads the user's own problems.

A row is an object with these fields:

    prompt     text (or `problem`, or `question`)
    answer     text or number that a completion is compared with
    solution   optional: a worked solution, or a list of several; what sft learns from
    split      optional: "train", "validation" or "test"; in all rows of a file or in none
    id         optional, else rows are numbered

PATH is one file, or a folder with train.jsonl and test.jsonl, and optionally validation.jsonl. Parquet files with the
same columns are read too. A single file without `split` is divided by a hash of the problem: about 1/5 test, 1/16
validation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity.spec.parts import TaskSpec
from capacity.tasks.data_sets import (
    VALIDATION_SHARE,
    DataSet,
    complete_spec,
    numbered,
    parse_words,
    rule_of,
    style_of,
)
from capacity.tasks.references import Rule
from capacity.tasks.rows import SPLITS, Row, Rows, carved, keep, read_rows, records, text_field, whole_text
from capacity.tasks.task import Split

TEST_SHARE = 1 / 5


def read_row(record: Mapping[str, Any], number: int) -> Row:  # noqa: ARG001
    """Turns a record with the fields that this module describes into a row.

    Raises:
        ValueError: if a field is missing or has another type.
    """
    solution = record.get("solution")
    solutions = solution if isinstance(solution, list) else [] if solution is None else [solution]
    if not all(isinstance(text, str) and text.strip() for text in solutions):
        raise ValueError('"solution" is neither text nor a list of texts')
    solutions = [whole_text("solution", text) for text in solutions]
    identity = text_field(record, "id") if "id" in record else ""
    return Row(
        identity, text_field(record, "prompt", "problem", "question"), text_field(record, "answer"), (*solutions,)
    )


JSONL = DataSet(
    name="jsonl",
    splits=SPLITS,
    read=read_row,
    compare="text",
    template="bare",
    max_new_tokens=256,
    about="your own problems: jsonl:FILE or jsonl:FOLDER",
)


def parse_jsonl(options: Mapping[str, str]) -> TaskSpec:
    """Reads the options of `jsonl:PATH?…`. PATH comes as the option `path`.

    Raises:
        SpecError: if an option is unknown, or a value is out of range.
        DataError: if a file is missing, or does not have the schema of the task.
    """
    path = Path(options.get("path", "")).expanduser()
    if "path" not in options or path.is_dir():
        return parse_words(JSONL, options)
    rows = _one_file(path, rule_of(JSONL, options))
    rest = {name: value for name, value in options.items() if name != "path"}
    checked = parse_words(JSONL, {**rest, "data": keep(rows)})
    return complete_spec(JSONL, options.get("demonstrations") or style_of(rows), checked.options)


def _one_file(path: Path, rule: Rule) -> Rows:
    """Returns the rows of a single file by split."""
    every = read_rows(path, rule.checked(numbered(read_row, "row")), rule.contradict)
    splits = [(where, record.get("split")) for where, record in records(path)]
    if all(split is None for _, split in splits):
        return carved({"train": every}, JSONL.name, VALIDATION_SHARE, TEST_SHARE)
    rows: dict[Split, list[Row]] = {}
    for row, (where, split) in zip(every, splits, strict=True):
        known = next((s for s in SPLITS if s == split), None)
        if known is None:
            raise DataError(f'{where}: "split" is {split!r}: train, validation or test, in all rows or in none')
        rows.setdefault(known, []).append(row)
    return carved({split: tuple(part) for split, part in rows.items()}, JSONL.name, VALIDATION_SHARE)
