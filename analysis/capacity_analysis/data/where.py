"""Choosing runs by what they are: `--where field=value`, for every command that reads a points table."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capacity.errors import SpecError, unknown
from capacity.runs.study import Run
from capacity_analysis.data.recipes import field_of, said, told
from capacity_analysis.data.table import Points, study_points


def where(points: Points, conditions: Iterable[str]) -> Points:
    """The rows that meet all conditions.

    A condition is `field=value`. The field is a column, a dotted path in the recipe ("adapter.rank"), or its end
    ("rank") where that is unique. Two conditions on one field ask for either value. A row that cannot have the field
    stays: the untrained base under conditions on adapters, methods without demonstrations under those on
    demonstrations. The value "none" asks for the rows without one.

    Raises:
        SpecError: not a condition, an unknown or ambiguous field, or a value that no row has; with the nearest names.
    """
    asked: dict[str, list[str]] = {}
    for text in conditions:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals):
            raise SpecError(f"--where {text!r}: write field=value, such as storage_dtype=bf16")
        asked.setdefault(field_of(points, name), []).append(value)
    for name, values in asked.items():
        points = points.where(_rows(points, name, values))
    return points


def runs_where(folder: Path, runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs of a study folder that meet all conditions, as `where` has them.

    Raises:
        SpecError: as `where`.
    """
    if not conditions or not runs:
        return list(runs)
    kept = set(where(study_points(folder, runs), conditions).frame["run"])
    return [run for run in runs if run.short_id in kept]


def conditions(given: Iterable[str] | None = None, /, **columns: str | None) -> tuple[str, ...]:
    """Those of `--where`, and one for each option that names a value of a column."""
    named = (f"{name}={value}" for name, value in columns.items() if value is not None)
    return (*(given or ()), *named)


def _rows(points: Points, name: str, values: Sequence[str]) -> NDArray[np.bool_]:
    """The rows at which a field has one of the values, and those to which it does not apply."""
    field = told(points, name)
    known = field.applies | (name == "method")  # the untrained base can be asked for by its method
    found = np.zeros(len(known), dtype=bool)
    for value in values:
        same = known & [_is(one, value) for one in field.values]
        if value == "none":
            same |= ~field.applies
        if not same.any():
            there = {said(one) if here else "none" for one, here in zip(field.values, known, strict=True)}
            raise SpecError(f"{points.source}: {unknown(name, value, there)}")
        found |= same
    return found if "none" in values else found | ~field.applies


def _is(value: Any, text: str) -> bool:
    """A value is what a text says: as a number where it is one, otherwise as it is written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return math.isclose(value, float(text), rel_tol=1e-9) or said(value) == text
        except ValueError:
            return False
    return said(value) == text
