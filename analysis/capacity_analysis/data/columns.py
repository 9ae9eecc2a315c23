"""The columns of a points table in their types, every value checked, alone and against the others of its row.

Nothing is overlooked or rounded: a column under a name that is nearly canonical is refused, and so are whole numbers
that floats cannot hold.
"""

import math
import re
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from capacity.errors import DataError, SpecError
from capacity.runs.points import COLUMNS
from capacity.spec.methods import METHODS

TEXT = ("study", "model", "family", "task", "protocol", "method", "adapter", "storage_dtype", "split",
        "demonstrations", "run", "cell", "recipe", "items", "answers")  # fmt: skip
WHOLE = (
    "model_parameters", "trained_parameters", "update_bytes", "seed", "n_items", "n_correct", "samples_per_item",
)  # fmt: skip
# Everything is computed in floats, which hold every whole number up to this one.
_LARGEST = 2**53
_UNTRAINED = tuple(method for method, facts in METHODS.items() if not facts.trains)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
# What R, pandas, Python and SQL write where there is no number. As a name each of them is text like any other.
NO_NUMBER = ("", "NA", "NaN", "nan", "None", "null", "NULL")


def validated(raw: pd.DataFrame, source: str) -> pd.DataFrame:
    """The canonical columns of a table in their types, every value checked; columns without a name do not count.

    Raises:
        SpecError: not a points table; the column and the row (counted from 1, without the header) are named.
        DataError: no rows.
    """
    raw = _named(raw, source)
    counted = {"n_items", "n_correct"} <= set(raw.columns)
    missing = [c for c in ("method", "trained_parameters") if c not in raw.columns]
    if not counted and "accuracy" not in raw.columns:
        half = next((c for c in ("n_items", "n_correct") if c not in raw.columns and counted is False), "n_correct")
        missing.append(f"{half} (or accuracy)")
    if missing:
        raise SpecError(f"{source}: missing column {', '.join(missing)}; it has {', '.join(raw.columns) or 'none'}")
    if raw.empty:
        raise DataError(f"{source}: has no rows")
    raw = raw.reset_index(drop=True)
    frame = pd.DataFrame({name: _column(raw, name, source) for name in COLUMNS}, columns=list(COLUMNS))
    _check_rows(frame, source)
    return frame


def _named(raw: pd.DataFrame, source: str) -> pd.DataFrame:
    """The columns that have names, blanks around these taken away.

    Raises:
        SpecError: two columns have one name, or a name is nearly that of a column that is not there.
    """
    if any(not isinstance(name, str) for name in raw.columns):
        raise SpecError(f"{source}: column names must be text")
    raw = raw.set_axis([name.strip() for name in raw.columns], axis=1)
    raw = raw.loc[:, raw.columns != ""]
    twice = raw.columns[raw.columns.duplicated()]
    if len(twice):
        raise SpecError(f"{source}: two columns are named {twice[0]}: remove or rename one")
    for name in raw.columns:
        meant = "_".join(re.split(r"[\s_-]+", name.lower()))
        if meant != name and meant in COLUMNS and meant not in raw.columns:
            raise SpecError(f"{source}: column {name!r}: write {meant}")
    return raw


def _column(raw: pd.DataFrame, name: str, source: str) -> pd.Series:
    if name in TEXT:
        if name not in raw:
            return pd.Series(pd.NA, index=raw.index, dtype="string")
        text = raw[name].astype("string").str.strip()
        return text.mask(text == "", pd.NA)
    kind = "Int64" if name in WHOLE else "Float64"
    if name not in raw:
        return pd.Series(pd.NA, index=raw.index, dtype=kind)
    text = raw[name].astype("string").str.strip()
    absent = (text.isna() | text.isin(NO_NUMBER)).to_numpy(dtype=bool)
    written = [None if nothing else str(value) for value, nothing in zip(text, absent, strict=True)]
    whole = name in WHOLE
    faults = [None if value is None else _fault(value, whole=whole) for value in written]
    wrong = [fault is not None for fault in faults]
    _refuse(wrong, lambda row: f"{name} is {written[row]}, {faults[row]}", name, source)
    read = _whole if whole else float
    return pd.Series([None if value is None else read(value) for value in written], index=raw.index, dtype=kind)


def _fault(text: str, *, whole: bool) -> str | None:
    """Why a text is no value of a column of numbers, in words; None if it is one."""
    if not _NUMBER.fullmatch(text):
        return "not a number"
    if not whole:
        return None if math.isfinite(float(text)) else "not a number"
    number = Decimal(text)
    if number < 0:
        return "below 0"
    if number > _LARGEST:
        return "above 2^53"
    return None if number == number.to_integral_value() else "not a whole number"


def _whole(text: str) -> int:
    return int(Decimal(text))


def _refuse(bad: Any, message: Any, name: str, source: str) -> None:
    """Raises the error of the first row at which `bad` is true."""
    rows = np.flatnonzero(np.asarray(bad, dtype=bool))
    if len(rows):
        more = f" ({len(rows) - 1} more rows like it)" if len(rows) > 1 else ""
        raise SpecError(f"{source}: row {rows[0] + 1}, column {name}: {message(int(rows[0]))}{more}")


def _check_rows(frame: pd.DataFrame, source: str) -> None:
    """Checks values against one another and completes `accuracy` and `samples_per_item`."""
    for name in ("method", "trained_parameters"):
        _refuse(frame[name].isna(), lambda _: "is missing", name, source)
    size = frame["trained_parameters"]
    untrained = frame["method"].isin(_UNTRAINED)
    _refuse(
        untrained & (size > 0),
        lambda row: f"{frame['method'][row]} has {size[row]} trained parameters, it must have 0",
        "method",
        source,
    )
    _refuse(
        ~untrained & (size == 0),
        lambda row: f"{frame['method'][row]} has 0 trained parameters; only base and zero, which train nothing, do",
        "trained_parameters",
        source,
    )
    items, right = frame["n_items"], frame["n_correct"]
    _refuse((items == 0).fillna(False), lambda _: "no items were asked", "n_items", source)
    for name in ("samples_per_item", "update_bytes"):
        limit = frame[name] < 1 if name == "samples_per_item" else (frame[name] < 1) & ~untrained
        _refuse(limit.fillna(False), lambda row, name=name: f"{frame[name][row]} is below 1", name, source)
    rate = frame["learning_rate"]
    _refuse((rate <= 0).fillna(False), lambda row: f"{rate[row]:g} is not above 0", "learning_rate", source)
    counted = items.notna() & right.notna()
    frame.loc[counted & frame["samples_per_item"].isna(), "samples_per_item"] = 1
    samples = frame["samples_per_item"]
    _refuse(
        (items.astype("Float64") * samples.astype("Float64") > _LARGEST).fillna(False),
        lambda row: f"{items[row]} items × {samples[row]} samples are above 2^53",
        "n_items",
        source,
    )
    total = items * samples
    _refuse(
        (right > total).fillna(False), lambda row: f"{right[row]} right of {total[row]} answers", "n_correct", source
    )
    given = frame["accuracy"]
    outside = ((given < 0) | (given > 1)).fillna(False)
    _refuse(outside, lambda row: f"{given[row]:g} is not a share from 0 to 1 (percent?)", "accuracy", source)
    share = (right / total).astype("Float64")
    apart = counted & ((given - share).abs() > 1e-3).fillna(False)
    _refuse(
        apart, lambda row: f"{given[row]:g} is not {right[row]} of {total[row]} ({share[row]:.4f})", "accuracy", source
    )
    frame["accuracy"] = share.where(counted, given)
    _refuse(frame["accuracy"].isna(), lambda _: "neither counts nor accuracy", "accuracy", source)
