"""The points table as every analysis reads it: validated, with the answers to each item where the source has them.

One row a run; the columns are `capacity.runs.points.COLUMNS`. What must be there: `method`, `trained_parameters`, and
either `n_items` with `n_correct`, or `accuracy`. Everything else may be missing and is then NA; nothing is guessed.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capacity.errors import DataError, SpecError
from capacity.runs.answers import unpacked
from capacity.runs.cell import leaves
from capacity.runs.points import COLUMNS
from capacity.runs.points import points as study_rows
from capacity.runs.study import Run
from capacity.spec.frozen import canonical_json
from capacity_analysis.data.columns import validated

# All that a table of the former format knows of a recipe: the fields nearest to its columns. They tell its cells apart.
FORMER = {
    "model": "model", "task.name": "task", "task.demonstrations": "demonstrations", "evaluation.protocol": "protocol",
    "method": "method", "adapter.kind": "adapter", "adapter.trained_parameters": "trained_parameters",
    "storage_dtype": "storage_dtype", "training.learning_rate": "learning_rate", "evaluation.split": "split",
}  # fmt: skip
KNOWN = tuple(FORMER.values())


@dataclass(frozen=True)
class Points:
    """A validated points table.

    Attributes:
        frame: one row a run, the canonical columns in their order, index 0 … rows−1. Text columns hold str or NA. Whole
            numbers are Int64, `learning_rate` and `accuracy` Float64. `accuracy` is never NA and lies in [0, 1]. `cell`
            is never NA: rows that differ in nothing but their seeds have the same.
        outcomes: rows × items, each run's share of correct samples on each item. It is NaN where a run was not asked
            (runs of another split), and None if the source has no answers.
        items: their names, in the order of the columns of `outcomes`: digest of the set of items, and number in it.
        source: what was read.
        fields: what is known of each row's recipe: its dotted fields ("adapter.rank"), or those of `FORMER`.
        lacking: what the source does not tell, in words, and what follows; empty for tables of this version.
        memo: what was read or computed of these very rows and is asked for often, by name.
    """

    frame: pd.DataFrame
    outcomes: NDArray[np.float64] | None
    items: tuple[str, ...]
    source: str
    fields: tuple[Mapping[str, Any], ...]
    lacking: tuple[str, ...] = ()
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def where(self, keep: Any) -> "Points":
        """The rows at which the boolean vector `keep` is true, with the items that at least one of them was asked."""
        mask = np.asarray(keep, dtype=bool)
        frame = self.frame[mask].reset_index(drop=True)
        fields = tuple(itertools.compress(self.fields, mask))
        if self.outcomes is None:
            return Points(frame, None, (), self.source, fields, self.lacking)
        rows = self.outcomes[mask]
        asked = ~np.isnan(rows).all(0)
        items = tuple(itertools.compress(self.items, asked))
        return Points(frame, rows[:, asked], items, self.source, fields, self.lacking)


def from_frame(raw: pd.DataFrame, source: str) -> Points:
    """A points table from any data frame, validated; columns that are not canonical are dropped.

    Tables of the former format have no columns `run`, `cell`, `recipe`, `items` and `answers`. Their cells are what
    the other columns tell apart (`KNOWN`), and `Points.lacking` says so.

    Raises:
        SpecError: see `capacity_analysis.data.read.read_points`.
        DataError: no rows.
    """
    frame = validated(raw, source)
    lacking = []
    if frame["cell"].isna().any():
        told = frame[list(KNOWN)].astype("string").fillna("").apply(lambda row: canonical_json(list(row)), axis=1)
        digests = told.map(lambda text: hashlib.sha256(text.encode()).hexdigest()[:16])
        frame["cell"] = frame["cell"].fillna(digests.astype("string"))
        lacking.append(
            f"{source} has no column cell: runs that differ in anything but {', '.join(KNOWN)} cannot be told apart"
        )
    _refuse_torn_cells(frame, source)
    fields = _fields(frame, source)
    outcomes, items = _outcomes(frame, source)
    if outcomes is None and frame["n_items"].notna().all():
        lacking.append(f"{source} has no column answers: items cannot be paired")
    lacking += _seedless(frame, source)
    points = Points(frame, outcomes, items, source, fields, tuple(lacking))
    refuse_duplicates(points)
    return points


def _seedless(frame: pd.DataFrame, source: str) -> list[str]:
    """What follows from trained runs without a seed, in words; empty if there are none."""
    rows = np.flatnonzero((frame["method"] != "base") & frame["seed"].isna())
    if not len(rows):
        return []
    if frame["seed"].isna().all():
        return [f"{source} has no seeds: runs cannot be paired by seed"]
    more = f", and {len(rows) - 1} more rows have none" if len(rows) > 1 else ""
    return [f"{source}: row {rows[0] + 1} has no seed{more}: its curve cannot be paired by seed with another"]


def refuse_duplicates(points: Points) -> None:
    """Refuses a run that is there twice.

    Raises:
        SpecError: names the two rows.
    """
    frame = points.frame
    # Where runs have no names, a cell has one run of each seed.
    name = frame["run"].fillna(frame["cell"] + "|" + frame["seed"].astype("string").fillna(""))
    repeated = name.duplicated(keep=False)
    if not repeated.any():
        return
    second = int(name.index[name.duplicated()][0])
    first = int(name.index[name == name[second]][0])
    run = frame.loc[second]
    what = f"{run['method']} with {run['trained_parameters']} trained parameters"
    seed = "no seed" if pd.isna(run["seed"]) else f"seed {run['seed']}"
    raise SpecError(
        f"{points.source}: rows {first + 1} and {second + 1} are the same run ({what}, {seed}): remove one, or tell "
        f"them apart in one of seed, {', '.join(KNOWN)}"
    )


def _refuse_torn_cells(frame: pd.DataFrame, source: str) -> None:
    """Refuses rows that are of one cell by its name and differ in what a recipe decides."""
    kinds = frame.groupby("cell")[list(KNOWN)].nunique(dropna=False)
    torn = kinds[(kinds > 1).any(axis=1)]
    if torn.empty:
        return
    cell, name = str(torn.index[0]), str((torn.iloc[0] > 1).idxmax())
    first, *_, last = frame.index[frame["cell"] == cell]
    raise SpecError(
        f"{source}: rows {first + 1} to {last + 1} are of cell {cell} and differ in {name}: its column cell is not of "
        "these rows; remove that column"
    )


def _fields(frame: pd.DataFrame, source: str) -> tuple[Mapping[str, Any], ...]:
    """The dotted fields of each row's recipe; where it is not there, what the columns tell of it."""
    known: dict[str, Mapping[str, Any]] = {}
    for row, text in enumerate(frame["recipe"]):
        if pd.isna(text) or text in known:
            continue
        try:
            recipe = json.loads(text)
        except (ValueError, RecursionError):
            recipe = None
        if not isinstance(recipe, dict):
            raise SpecError(f"{source}: row {row + 1}, column recipe: not a JSON object")
        known[text] = dict(leaves(recipe))
    told = frame[list(KNOWN)].astype(object).where(frame[list(KNOWN)].notna(), None).to_dict("records")
    return tuple(
        {field: columns[column] for field, column in FORMER.items()} if pd.isna(text) else known[text]
        for text, columns in zip(frame["recipe"], told, strict=True)
    )


def _outcomes(frame: pd.DataFrame, source: str) -> tuple[NDArray[np.float64] | None, tuple[str, ...]]:
    """Rows × items over the items of all rows, NaN where a row was not asked, and their names.

    None if a row has no answers.

    Raises:
        SpecError: answers that are not as many bits as the row has answers, or not as many correct ones.
    """
    if frame[["answers", "items", "n_items", "n_correct"]].isna().any(axis=None):
        return None, ()
    asked = {digest: int(rows["n_items"].iloc[0]) for digest, rows in frame.groupby("items", sort=False)}
    starts = dict(zip(asked, itertools.accumulate(asked.values(), initial=0), strict=False))
    matrix = np.full((len(frame), sum(asked.values())), np.nan)
    for row, run in enumerate(frame.to_dict("records")):
        n, k = int(run["n_items"]), int(run["samples_per_item"])
        where = f"{source}: row {row + 1}, column answers"
        try:
            bits = unpacked(str(run["answers"]), n * k, where)
        except DataError as error:
            raise SpecError(str(error)) from None
        if n != asked[run["items"]] or int(bits.sum()) != run["n_correct"]:
            raise SpecError(f"{where}: not the answers that its counts tell")
        start = starts[run["items"]]
        matrix[row, start : start + n] = bits.reshape(n, k).mean(1)
    return matrix, tuple(f"{digest}:{i}" for digest, count in asked.items() for i in range(count))


def study_points(folder: Path, runs: Sequence[Run]) -> Points:
    """The points of complete runs that were read already: what a table written from them says.

    Raises:
        DataError: there are none.
    """
    if not runs:
        raise DataError(f"{folder}: no complete runs in this study")
    found = from_frame(pd.DataFrame(study_rows(folder.resolve().name, runs), columns=list(COLUMNS)), str(folder))
    found.memo["runs"] = tuple(runs)
    return found
