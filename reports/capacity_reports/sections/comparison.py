"""Methods side by side at every size: accuracies, gains over the untrained model, and paired differences."""

from collections.abc import Iterator, Sequence

from capacity_analysis.compare.comparison import Comparison
from capacity_analysis.data.absent import Absent
from capacity_analysis.statistics.estimate import Estimate, labels
from capacity_reports.blocks import Block, Cell, Column, Section, Table, Text
from capacity_reports.views import Analysis

_WHERE = (
    Column("model", "model"),
    Column("task", "task"),
    Column("adapter", "adapter"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("storage_dtype", "dtype"),
)
_MEASURED = (
    Column("method", "method"),
    *_WHERE,
    Column("update_bytes", "payload, bytes", "count"),
    Column("learning_rate", "rate", "number"),
    Column("accuracy", "accuracy, %", "percent"),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("gain", "gain, points", "points"),
    Column("gain_low", "gain low", "points"),
    Column("gain_high", "gain high", "points"),
    Column("seeds", "seeds", "count"),
    Column("n_items", "items", "count"),
)
_DIFFERENCES = (
    Column("first", "method"),
    Column("second", "against"),
    *_WHERE,
    Column("estimate", "difference, points", "points"),
    Column("low", "95 % low", "points"),
    Column("high", "95 % high", "points"),
    Column("seeds", "seeds", "count"),
    Column("n_items", "items", "count"),
)


def comparison_section(analysis: Analysis) -> Section:
    """The section."""
    name, title = "comparison", "Methods at equal size"
    if isinstance(analysis.comparisons, Absent):
        return Section(name, title, (), analysis.comparisons.reason)
    blocks = comparison_blocks(analysis.comparisons)
    return Section(name, title, tuple(blocks), None if blocks else "no trained runs are complete")


def comparison_blocks(comparisons: Sequence[Comparison]) -> list[Block]:
    """Two tables: what each method reached, and how far every two lie apart."""
    found = [c for c in comparisons if c.cells]
    if not found:
        return []
    shown = [compared for c in found for compared in c.cells]
    used = [e for compared in shown for e in (compared.cell.accuracy, compared.gain) if e is not None]
    measured = Table(
        "comparison",
        "Accuracy and gain over the untrained model",
        _MEASURED,
        tuple(_measured(found)),
        f"Intervals: {labels(used)}.",
    )
    differences = [d.estimate for c in found for d in c.differences]
    if not differences:
        return [measured, Text(("No two methods have a size and a seed in common.",))]
    note = f"Intervals: {labels(differences)}."
    if all(e.seeds == 1 for e in differences):
        note += " One seed: no claim about methods."
    elif any(e.over is not None for e in differences):
        note += " Each interval stands alone: of twenty pairs that do not differ one seems to."
    apart = Table(
        "comparison-differences",
        "Paired differences of accuracy",
        _DIFFERENCES,
        tuple(_differences(found)),
        note,
    )
    return [measured, apart]


def _measured(comparisons: Sequence[Comparison]) -> Iterator[tuple[Cell, ...]]:
    base: tuple[Cell, ...] = ()
    for c in comparisons:
        first = c.cells[0].cell
        if c.base is not None:
            row = ("base", first.model, first.task, None, 0, None, 0, None, *_accuracy(c.base), None, None, None)
            row += (c.base.seeds, c.base.items)
            if row != base:  # sizes of one model share it
                yield row
            base = row
        for compared in c.cells:
            cell, gain = compared.cell, compared.gain
            gained = (None, None, None) if gain is None else _accuracy(gain)
            where = (cell.model, cell.task, cell.adapter, cell.trained_parameters, cell.storage_dtype)
            numbers = (cell.update_bytes, cell.learning_rate, *_accuracy(cell.accuracy), *gained)
            yield compared.name, *where, *numbers, cell.accuracy.seeds, cell.accuracy.items


def _accuracy(estimate: Estimate) -> tuple[Cell, ...]:
    return estimate.value, estimate.low, estimate.high


def _differences(comparisons: Sequence[Comparison]) -> Iterator[tuple[Cell, ...]]:
    for c in comparisons:
        cell = c.cells[0].cell
        where = (cell.model, cell.task, cell.adapter, cell.trained_parameters, cell.storage_dtype)
        for d in c.differences:
            yield d.first, d.second, *where, *_accuracy(d.estimate), d.estimate.seeds, d.estimate.items
