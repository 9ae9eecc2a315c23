"""What is known of the recipe behind each row of a points table. Rows are chosen, matched and grouped by it.

Columns tell most of a recipe (`KNOWN`). A table of this version tells the rest too: the fields of recipes that no
column tells, by their dotted paths. So "cells that differ in the learning rate only" can be said of every table.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capacity.errors import SpecError, unknown
from capacity.runs.cell import apart_from, differing, without
from capacity.runs.points import COLUMNS
from capacity_analysis.data.table import FORMER, KNOWN, Points

UNSEEN = "none"  # what the column demonstrations says of methods that see none
# Fields of recipes that columns tell under names of their own.
_TOLD_BY_COLUMNS = (
    *FORMER, "schema_version", "task", "evaluation.temperature", "evaluation.samples_per_item",
    "evaluation.max_new_tokens", "evaluation.seed", "evaluation.draws",
)  # fmt: skip
# Columns that identify or measure, in which nothing can be asked for by a value.
_MEASURED = ("recipe", "items", "answers", "n_correct", "accuracy")
# Fields that say "none" where there is nothing to have.
_NONE = ("adapter", "adapter.kind", "demonstrations", "task.demonstrations")
# What an untrained model does not have. Its rows say "base", "none", 0 or the dtype of no update there.
_OF_UPDATES = (
    "method", "adapter", "trained_parameters", "storage_dtype", "update_bytes", "learning_rate", "demonstrations",
    "seed",
)  # fmt: skip
# An adapter of zeros has the adapter of trained runs and nothing of their training.
_LACKING = {"base": _OF_UPDATES, "zero": tuple(n for n in _OF_UPDATES if n not in ("adapter", "storage_dtype"))}


@dataclass(frozen=True)
class Told:
    """What rows tell of one field.

    Attributes:
        values: of each row; None where there is none or it is not recorded.
        applies: which rows can have the field. The untrained base has no adapter, grpo no demonstrations, lora-xs no
            sharing.
    """

    values: tuple[Any, ...]
    applies: NDArray[np.bool_]


def recipes(points: Points) -> tuple[Mapping[str, Any], ...]:
    """What is known of the recipe of each row, by column or dotted path. What is not recorded is left out."""
    if "recipes" not in points.memo:
        columns = {name: _plain(points.frame[name]) for name in KNOWN}
        further = {id(fields): _further(fields) for fields in points.fields}
        points.memo["recipes"] = tuple(
            {name: values[row] for name, values in columns.items() if values[row] is not None} | further[id(fields)]
            for row, fields in enumerate(points.fields)
        )
    found: tuple[Mapping[str, Any], ...] = points.memo["recipes"]
    return found


def _further(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe that no column tells."""
    return without(fields, *_TOLD_BY_COLUMNS)


def _plain(column: "pd.Series[Any]") -> list[Any]:
    """Values as Python has them, None for NA."""
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def keys(points: Points, *apart: str) -> "pd.Series[str]":
    """For each row what is left of its recipe without some fields: rows of equal keys differ in these alone."""
    return pd.Series(
        [apart_from(recipe, *apart) for recipe in recipes(points)], index=points.frame.index, dtype="string"
    )


def told(points: Points, name: str) -> Told:
    """What the rows tell of a field, by the name that `field_of` gives it.

    A field that no row of a method and adapter has does not apply to them. Where some have it and others do not, as
    with samples from another engine, the others have the value None.
    """
    frame = points.frame
    if name in frame.columns:
        values = _plain(frame[name])
        applies = [name not in _LACKING.get(method, ()) for method in frame["method"]]
    else:
        kinds = list(zip(frame["method"], frame["adapter"].fillna(""), strict=True))
        having = {kind for kind, fields in zip(kinds, points.fields, strict=True) if name in fields}
        values = [fields.get(name) for fields in points.fields]
        applies = [kind in having for kind in kinds]
    absent = np.array([name in _NONE and value == UNSEEN for value in values], dtype=bool)
    hashable = tuple(tuple(value) if isinstance(value, list) else value for value in values)
    return Told(hashable, np.array(applies, dtype=bool) & ~absent)


def field_of(points: Points, name: str) -> str:
    """The full name of a field: a column, a dotted path in the recipe, or the end of exactly one path ("rank").

    Raises:
        SpecError: unknown, with the nearest names; ambiguous, with the candidates; or told by recipes that the table
            does not have.
    """
    columns = [column for column in COLUMNS if column not in _MEASURED and points.frame[column].notna().any()]
    paths = list(dict.fromkeys(path for fields in points.fields for path in fields))
    found = [name] if name in paths else [path for path in paths if path.endswith(f".{name}")]
    bare = points.frame["recipe"].isna()
    if name in columns:
        return name
    if len(found) > 1:
        raise SpecError(f"{points.source}: {name} is ambiguous: write {' or '.join(found)}")
    if found:
        unknown_in = [row for row in np.flatnonzero(bare) if found[0] not in points.fields[row]]
        if unknown_in:
            raise SpecError(f"{points.source}: row {unknown_in[0] + 1} has no recipe, so its {name} is not known")
        return found[0]
    error = unknown("field", name, {*columns, *(path.rpartition(".")[2] for path in paths)})
    lacking = "; it has no column recipe, so nothing but its columns is known of its runs" if bare.all() else ""
    raise SpecError(f"{points.source}: {error}{lacking}")


def short(points: Points, name: str) -> str:
    """The shortest name that `field_of` takes for a field."""
    last = name.rpartition(".")[2]
    return last if last not in points.frame.columns and _paths_of(points)[last] <= 1 else name


def _paths_of(points: Points) -> Counter[str]:
    """How many paths of a table end in each name; read once, because it is asked for every field of every cell."""
    if "paths" not in points.memo:
        paths = {path for fields in points.fields for path in fields if "." in path}
        points.memo["paths"] = Counter(path.rpartition(".")[2] for path in paths)
    found: Counter[str] = points.memo["paths"]
    return found


def told_apart(recipes: Sequence[Mapping[str, Any]], *besides: str) -> list[str]:
    """What tells each of some recipes from the others, in words: "style_shift=0", "abacus-3m"; "" where nothing does.

    Args:
        recipes: their dotted fields.
        besides: fields or whole parts that do not count.
    """
    left = [without(recipe, *besides) for recipe in recipes]
    names = sorted(differing(left))
    return [", ".join(_word(name, recipe[name]) for name in names if name in recipe) for recipe in left]


def _word(name: str, value: Any) -> str:
    """A value with the name of its field, or alone where it stands for itself."""
    return said(value) if name in ("model", "method", "storage_dtype") else f"{name.rpartition('.')[2]}={said(value)}"


def said(value: Any) -> str:
    """A value as it is written in `field=value`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
