"""The cells of a points table as they were measured: which seeds, which answers, how accurate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from capacity.errors import DataError
from capacity.runs.cell import Field
from capacity_analysis.data.table import Points
from capacity_analysis.statistics.collapses import CollapsedShare, collapsed, expected_accuracy
from capacity_analysis.statistics.crossed import SeedVariance
from capacity_analysis.statistics.estimate import (
    Estimate,
    accuracy_estimate,
    counted_estimate,
    difference_estimate,
    uncounted_estimate,
)
from capacity_analysis.types import Array


@dataclass(frozen=True)
class CellResult:
    """A cell with its runs. Text is None where the table does not tell.

    Attributes:
        identity: of the cell.
        recipe: its dotted fields; what a table of the former format tells stands under the names nearest to them.
        model, task, demonstrations, method, adapter, storage_dtype, protocol, split: columns of the table.
        trained_parameters: of each run.
        update_bytes: the payload; the largest of the runs, for that is what has to fit.
        learning_rate: of the training; None for the untrained model.
        seeds: S of them, rising; None where the table has no seeds, and then each run counts as one. Runs of one seed
            with several projections count once, by their mean.
        accuracies: of the seeds, (S,).
        items: names of the I items.
        shares: S × I, the share of correct samples; None if the table has no answers.
        accuracy: over seeds.
    """

    identity: str
    recipe: Mapping[Field, Any]
    model: str | None
    task: str | None
    demonstrations: str | None
    method: str
    adapter: str | None
    storage_dtype: str | None
    protocol: str | None
    split: str | None
    trained_parameters: int
    update_bytes: int | None
    learning_rate: float | None
    seeds: tuple[int | None, ...]
    accuracies: tuple[float, ...]
    items: tuple[str, ...]
    shares: Array | None
    accuracy: Estimate

    @property
    def temperature(self) -> float | None:
        """Of the evaluation; None where the table has no recipes."""
        found = self.recipe.get("evaluation.temperature")
        return None if found is None else float(found)


def cell_results(points: Points) -> tuple[CellResult, ...]:
    """Every cell of a table, in the order of their first rows.

    Raises:
        DataError: runs of one cell answered different items.
    """
    if "cell results" not in points.memo:
        groups = points.frame.groupby("cell", sort=False).indices
        points.memo["cell results"] = tuple(_result(points, rows) for rows in groups.values())
    found: tuple[CellResult, ...] = points.memo["cell results"]
    return found


def accuracy_of(points: Points, rows: Sequence[int]) -> Estimate:
    """The accuracy of runs that differ in their seeds alone, by what the table tells of them.

    Answers give the default estimate, counts a wider one for the same question, mere accuracies one for these items.

    Raises:
        DataError: the runs answered different items.
    """
    _, rows_of = by_seed(points, rows)
    shares, _ = answers_of(points, rows_of)
    if shares is not None:
        return accuracy_estimate(shares)
    frame = points.frame.loc[list(rows)]
    accuracies = _accuracies(points, rows_of)
    if frame[["n_items", "n_correct"]].notna().all(axis=None):
        return counted_estimate(accuracies, int(frame["n_items"].min()))
    return uncounted_estimate(accuracies)


def by_seed(points: Points, rows: Sequence[int]) -> tuple[tuple[int | None, ...], list[list[int]]]:
    """The seeds of some runs, rising, and the rows of each; a run without a seed counts as a seed of its own."""
    known: dict[int, list[int]] = {}
    unknown: list[list[int]] = []
    for row in map(int, rows):
        seed = points.frame.loc[row, "seed"]
        if pd.isna(seed):
            unknown.append([row])
        else:
            known.setdefault(int(seed), []).append(row)
    seeds = sorted(known)
    return (*seeds, *[None] * len(unknown)), [*(known[seed] for seed in seeds), *unknown]


def answers_of(points: Points, rows_of: Sequence[Sequence[int]]) -> tuple[Array | None, tuple[str, ...]]:
    """Seeds × items, means over the runs of each seed, and the names of the items; None if the table has no answers.

    Raises:
        DataError: the runs answered different items.
    """
    if points.outcomes is None:
        return None, ()
    rows = [row for own in rows_of for row in own]
    asked = ~np.isnan(points.outcomes[rows])
    odd = np.flatnonzero((asked != asked[0]).any(1))
    if len(odd):
        first, other = (_run(points, rows[place]) for place in (0, odd[0]))
        raise DataError(f"{points.source}: {other} answered other items than {first}")
    shares = np.array([points.outcomes[own].mean(0) for own in rows_of])
    return shares[:, asked[0]], tuple(points.items[i] for i in np.flatnonzero(asked[0]))


def _accuracies(points: Points, rows_of: Sequence[Sequence[int]]) -> Array:
    return np.array([float(points.frame.loc[list(own), "accuracy"].mean()) for own in rows_of])


def difference(first: CellResult, second: CellResult, over_methods: SeedVariance | None = None) -> Estimate | None:
    """How much more accurate the first cell is, paired by item and by the seeds that both have.

    Without answers the difference has no interval. None if the cells have no seed in common.

    Args:
        first: a trained cell.
        second: another one, or the untrained model.
        over_methods: as of `difference_estimate`.

    Raises:
        DataError: the cells answered different items.
    """
    common, one, two, paired = _pairing(first, second)
    if not common:
        return None
    if first.shares is None or second.shares is None:
        value = np.mean([first.accuracies[i] for i in one]) - np.mean([second.accuracies[i] for i in two])
        return Estimate.none(float(value), len(common))
    if first.items != second.items:
        raise DataError(f"{_name(second)} answered other items than {_name(first)}")
    theirs = second.shares[two] if paired else second.shares[two].mean(0, keepdims=True)
    return difference_estimate(first.shares[one], theirs, over_methods=over_methods)


def paired_accuracies(first: CellResult, second: CellResult) -> tuple[float, float] | None:
    """The mean accuracies of both cells over the seeds that `difference` compares; None if there are none."""
    common, one, two, _ = _pairing(first, second)
    if not common:
        return None
    ours, theirs = (float(np.mean([c.accuracies[i] for i in own])) for c, own in ((first, one), (second, two)))
    return ours, theirs


def seed_differences(first: CellResult, second: CellResult) -> Array:
    """Differences of accuracy at the seeds that both cells have, (S,); at all of `first` if the second is untrained."""
    _, one, two, paired = _pairing(first, second)
    ours, theirs = (np.array([cell.accuracies[i] for i in own]) for cell, own in ((first, one), (second, two)))
    return np.asarray(ours - (theirs if paired else theirs.mean()))


def changed_items(first: CellResult, second: CellResult) -> tuple[int | None, int]:
    """How many items two cells answered differently, over the seeds that both have, and how many both answered.

    An item counts if the share of its correct samples differs. The first number is None where answers are not known.
    """
    common = [seed for seed in first.seeds if seed is not None and seed in second.seeds]
    if first.shares is None or second.shares is None or not common:
        return None, 0
    one = first.shares[[first.seeds.index(seed) for seed in common]]
    two = second.shares[[second.seeds.index(seed) for seed in common]]
    return int((one != two).sum()), one.size


def collapsed_share(cell: CellResult, base: CellResult | None) -> CollapsedShare:
    """How many seeds of a trained cell collapsed, by the median of its seeds and the untrained model.

    Args:
        cell: the trained cell.
        base: the untrained model under the same protocol; None if it has no run.
    """
    accuracies = np.array(cell.accuracies)
    expected = expected_accuracy(accuracies, None if base is None else base.accuracy.value)
    return CollapsedShare.of(collapsed(accuracies, expected, cell.accuracy.items))


def _pairing(first: CellResult, second: CellResult) -> tuple[list[int], list[int], list[int], bool]:
    """The seeds in common, their places in both cells, and whether the cells are paired by them.

    The untrained model is paired by seed if it has all seeds of the first cell. Otherwise each seed of the first cell
    is compared with the mean of all its runs, as a fixed reference: items that are drawn anew carry its error.
    """
    known = [seed for seed in first.seeds if seed is not None]
    if second.method == "base" and not set(known) <= set(second.seeds):
        return known, [first.seeds.index(seed) for seed in known], list(range(len(second.seeds))), False
    common = [seed for seed in known if seed in second.seeds]
    return common, [first.seeds.index(seed) for seed in common], [second.seeds.index(seed) for seed in common], True


def _result(points: Points, rows: Sequence[int]) -> CellResult:
    seeds, rows_of = by_seed(points, rows)
    first = points.frame.loc[rows_of[0][0]]
    shares, items = answers_of(points, rows_of)
    payload = points.frame.loc[list(rows), "update_bytes"]
    return CellResult(
        identity=str(first["cell"]),
        recipe=points.fields[rows_of[0][0]],
        model=_plain(first["model"]),
        task=_plain(first["task"]),
        demonstrations=_plain(first["demonstrations"]),
        method=str(first["method"]),
        adapter=_plain(first["adapter"]),
        storage_dtype=_plain(first["storage_dtype"]),
        protocol=_plain(first["protocol"]),
        split=_plain(first["split"]),
        trained_parameters=int(first["trained_parameters"]),
        update_bytes=None if payload.isna().any() else int(payload.max()),
        learning_rate=_plain(first["learning_rate"]),
        seeds=seeds,
        accuracies=tuple(float(accuracy) for accuracy in _accuracies(points, rows_of)),
        items=items,
        shares=shares,
        accuracy=accuracy_of(points, rows),
    )


def _plain(value: Any) -> Any:
    """A cell of the frame as a plain Python value."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _run(points: Points, row: int) -> str:
    name = points.frame.loc[row, "run"]
    return f"row {row + 1}" if pd.isna(name) else f"run {name}"


def _name(cell: CellResult) -> str:
    return f"cell {cell.identity} ({cell.method} {cell.trained_parameters:,})"
