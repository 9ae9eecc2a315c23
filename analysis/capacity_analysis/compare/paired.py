"""Two tables side by side: the difference of accuracy at every cell that both have, or that is the same but its recipe.

Cells of equal recipes are pairs. So are cells that were trained by other recipes, if each table has one of them. They
have one model, task, method, demonstrations, adapter, size and dtype. If each table has one model, the models may
differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from capacity.errors import DataError
from capacity.spec.methods import place
from capacity_analysis.data.cell_results import CellResult, cell_results, difference, paired_accuracies
from capacity_analysis.data.recipes import told_apart
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import reported_rows
from capacity_analysis.statistics.estimate import Estimate

_Key = tuple[str | int | None, ...]


@dataclass(frozen=True)
class CellPair:
    """One cell of each table.

    Attributes:
        first, second: the cells.
        before, after: their accuracies over the seeds that are compared.
        estimate: of second − first.
        remark: why it has no interval, and which runs are left out; empty if there is nothing to say.
    """

    first: CellResult
    second: CellResult
    before: float
    after: float
    estimate: Estimate
    remark: str


@dataclass(frozen=True)
class Paired:
    """All pairs of two tables, by model, method and size. `unclear`: what cannot be matched, a clause each."""

    pairs: tuple[CellPair, ...]
    unclear: tuple[str, ...]


def paired(first: Points, second: Points) -> Paired:
    """Matches the trained cells of two tables.

    Raises:
        SpecError: as `reported_rows`.
        DataError: the tables have nothing in common, or they hold different models and one of them several.
    """
    one, two = (
        [c for c in cell_results(p.where(reported_rows(p))) if c.trained_parameters > 0] for p in (first, second)
    )
    models = [{cell.model for cell in cells if cell.model is not None} for cells in (one, two)]
    if models[0] != models[1] and max(map(len, models)) > 1:
        raise DataError(
            "the two hold different models, and one of them several: their runs cannot be told apart in pairs"
        )
    by_identity = {cell.identity: cell for cell in two}
    matched = [(cell, by_identity[cell.identity]) for cell in one if cell.identity in by_identity]
    same = {cell.identity for cell, _ in matched}
    left = [
        _by_key([c for c in cells if c.identity not in same], with_model=models[0] == models[1]) for cells in (one, two)
    ]
    unclear = []
    for key in left[0]:
        if key not in left[1]:
            continue
        several = [(points, own[key]) for points, own in zip((first, second), left, strict=True) if len(own[key]) > 1]
        unclear += [_unclear(points.source, cells) for points, cells in several]
        if not several:
            matched.append((left[0][key][0], left[1][key][0]))
    if not matched and not unclear:
        raise DataError("they have no cell in common (method, demonstrations, adapter, size, dtype)")
    matched.sort(key=lambda pair: (pair[0].model or "", place(pair[0].method), pair[0].trained_parameters))
    return Paired(tuple(_pair(a, b) for a, b in matched), tuple(unclear))


def _by_key(cells: Sequence[CellResult], *, with_model: bool) -> dict[_Key, list[CellResult]]:
    found: dict[_Key, list[CellResult]] = {}
    for c in cells:
        what = (c.task, c.demonstrations, c.method, c.adapter, c.trained_parameters, c.storage_dtype)
        found.setdefault((c.model if with_model else "", *what), []).append(c)
    return found


def _unclear(source: str, cells: Sequence[CellResult]) -> str:
    which = " or ".join(word or "nothing" for word in told_apart([cell.recipe for cell in cells]))
    return f"{cells[0].method} {cells[0].trained_parameters:,} of {source} is not one cell: {which}"


def _pair(first: CellResult, second: CellResult) -> CellPair:
    before, after = paired_accuracies(first, second) or (first.accuracy.value, second.accuracy.value)
    apart = Estimate.none(after - before, 0)
    try:
        found = difference(second, first)
    except DataError:
        return CellPair(first, second, before, after, apart, "answered different items")
    if found is None:
        return CellPair(first, second, before, after, apart, "no seed in common")
    left_out = len(first.seeds) + len(second.seeds) - 2 * found.seeds
    remarks = ["no per-item outcomes"] if found.over is None else []
    remarks += [f"{left_out} runs of other seeds are left out"] if left_out else []
    return CellPair(first, second, before, after, found, "; ".join(remarks))
