"""Methods side by side at every size: accuracies, gains over the untrained model, and paired differences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from capacity_analysis.compare.comparison import Comparison, Difference
from capacity_analysis.compare.costs import Costs
from capacity_analysis.compare.sizes_table import collapses
from capacity_analysis.compare.zero import ZeroControl
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.cell_results import CellResult
from capacity_analysis.data.recipes import UNSEEN
from capacity_analysis.statistics.collapses import CollapsedShare
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
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("gain", "gain, points", "points", ends=("gain_low", "gain_high")),
    Column("gain_low", "gain low", "points"),
    Column("gain_high", "gain high", "points"),
    Column("over_best", "over the best temperature, points", "points", ends=("over_best_low", "over_best_high")),
    Column("over_best_low", "over the best temperature, low", "points"),
    Column("over_best_high", "over the best temperature, high", "points"),
    Column("seeds", "seeds", "count"),
    Column("collapsed", "seeds collapsed"),
    Column("n_items", "items", "count"),
)
_DIFFERENCES = (
    Column("first", "method"),
    Column("second", "against"),
    *_WHERE,
    Column("estimate", "difference, points", "points", ends=("low", "high")),
    Column("low", "95 % low", "points"),
    Column("high", "95 % high", "points"),
    Column("detectable", "could have shown, points", "percent"),
    Column("exchanged", "p, seeds exchanged", "p"),
    Column("seeds", "seeds", "count"),
    Column("n_items", "items", "count"),
)
_TEMPERATURES = (
    Column("temperature", "temperature", "number"),
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("best", ""),
)
_COSTS = (
    Column("method", "method"),
    Column("prompts", "prompts", "count"),
    Column("sequences", "sequences", "count"),
    Column("trained_tokens", "trained tokens", "tokens"),
    Column("sampled_tokens", "sampled tokens", "tokens"),
    Column("flops", "FLOPs", "flops"),
    Column("preparation_flops", "FLOPs before the training", "flops"),
    Column("wall_seconds", "run time", "duration"),
    Column("header_bytes", "header of the file, bytes", "count"),
)
_SIZES = (
    Column("model", "model"),
    Column("method", "method"),
    Column("temperature", "temperature", "number"),
    Column("demonstrations", "demonstrations"),
    Column("adapter", "adapter"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("learning_rate", "rate", "number"),
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("seeds", "seeds", "count"),
    Column("collapsed", "seeds collapsed"),
)

_COULD_HAVE_SHOWN = (
    " Could have shown: the smallest true difference that four of five studies of this design would tell from 0, "
    "if their runs scatter as these did."
)
_EXCHANGED = " Seeds exchanged: the exact test that swaps the two methods seed by seed, on these items."
_COLLAPSED = (
    " A seed has collapsed if it lies 10 points or more below the median of its cell, or below the untrained model "
    "where that is higher, and three binomial errors or more. In brackets: the exact 95 % interval of their share."
)
_NO_GAIN = (None, None, None)


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
    used += [c.base for c in found if c.base is not None]
    shared = _shared(found)
    measured = Table(
        "comparison",
        ": ".join(["Accuracy and gain over the untrained model", *([", ".join(shared.values())] if shared else [])]),
        _with_collapses(_told(_MEASURED, shared), [compared.collapsed for compared in shown]),
        tuple(_measured(found)),
        f"Intervals: {labels(used)}.{_collapse_note([compared.collapsed for compared in shown])}{_zero_note(found)}",
    )
    differences = [d.estimate for c in found for d in c.differences]
    if not differences:
        return [measured, Text(("No two methods have a size and a seed in common.",))]
    note = f"Intervals: {labels(differences)}."
    if all(e.seeds == 1 for e in differences):
        note += " One seed: no claim about methods."
    elif any(e.over is not None for e in differences):
        note += " Each interval stands alone: of twenty pairs that do not differ one seems to."
        note += _COULD_HAVE_SHOWN + _EXCHANGED
        note += "".join(map(_pooled, (d for c in found for d in c.differences)))
    apart = Table(
        "comparison-differences",
        "Paired differences of accuracy",
        _told(_DIFFERENCES, shared),
        tuple(_differences(found)),
        note,
    )
    return [measured, apart]


def _pooled(difference: Difference) -> str:
    """What is said of a difference whose variance between seeds is pooled over methods."""
    crossed = difference.estimate.crossed
    if crossed is None or crossed.pooled_p is None:
        return ""
    return (
        f" The variance between seeds of {difference.first} − {difference.second} is pooled over the methods: "
        f"the test of equal variances has p = {crossed.pooled_p:.2f}."
    )


def detail_blocks(comparison: Comparison, costs: Mapping[str, Costs]) -> list[Block]:
    """What else is known of one comparison: the untrained model by temperature, and what the runs used.

    Args:
        comparison: accuracies and differences.
        costs: of every cell, by its identity.
    """
    blocks: list[Block] = []
    temperatures = comparison.base_by_temperature
    if temperatures:
        best = comparison.best_temperature
        rows = tuple((t, *_accuracy(e), "best on validation" if t == best else "") for t, e in temperatures.items())
        note = f"Intervals: {labels(temperatures.values())}."
        blocks.append(Table("temperatures", "The untrained model by temperature", _TEMPERATURES, rows, note))
    if comparison.cells:
        used = [(c.name, costs[c.cell.identity]) for c in comparison.cells]
        spent = tuple((name, *(getattr(cost, c.key) or None for c in _COSTS[1:])) for name, cost in used)
        blocks.append(Table("costs", "What a run used, on average", _COSTS, spent))
    return blocks


def size_table(cells: Sequence[CellResult]) -> Table:
    """Accuracy against size, a row a cell."""
    collapsed = collapses(cells)
    rows = tuple(
        (
            cell.model,
            "zero (control)" if cell.method == "zero" else cell.method,
            *((cell.temperature, None, None) if cell.method == "base" else (None, _seen(cell), cell.adapter)),
            cell.trained_parameters,
            cell.learning_rate,
            *_accuracy(cell.accuracy),
            cell.accuracy.seeds,
            str(collapsed[cell.identity]) if cell.identity in collapsed else None,
        )
        for cell in cells
    )
    shares = list(collapsed.values())
    note = f"Intervals: {labels(cell.accuracy for cell in cells)}.{_collapse_note(shares)}"
    return Table("sizes", "Accuracy against size", _with_collapses(_SIZES, shares), rows, note)


def _collapse_note(shares: Sequence[CollapsedShare]) -> str:
    """What a collapse is; nothing where no seed has collapsed."""
    return _COLLAPSED if any(share.count for share in shares) else ""


def _with_collapses(columns: Sequence[Column], shares: Sequence[CollapsedShare]) -> tuple[Column, ...]:
    """The columns, that of collapses shown only if there are some."""
    shown = any(share.count for share in shares)
    return tuple(replace(c, exported_only=True) if c.key == "collapsed" and not shown else c for c in columns)


def _seen(cell: CellResult) -> str | None:
    return None if cell.demonstrations == UNSEEN else cell.demonstrations


def _shared(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """What all trained cells have in common and the title says, by the key of its column."""
    cells = [compared.cell for c in comparisons for compared in c.cells]
    values = {column.key: {getattr(cell, column.key) for cell in cells} for column in _WHERE}
    named = {key: own.pop() for key, own in values.items() if key != "trained_parameters" and len(own) == 1}
    tasks = {c.task for c in comparisons}
    if "task" in named and len(tasks) == 1:
        named["task"] = tasks.pop()
    return {key: str(value) for key, value in named.items() if value is not None}


def _told(columns: Sequence[Column], shared: Mapping[str, str]) -> tuple[Column, ...]:
    return tuple(replace(c, exported_only=True) if c.key in shared else c for c in columns)


def _measured(comparisons: Sequence[Comparison]) -> Iterator[tuple[Cell, ...]]:
    base: tuple[Cell, ...] = ()
    for c in comparisons:
        first = c.cells[0].cell
        if c.base is not None:
            row = ("base", first.model, first.task, None, 0, None, 0, None, *_accuracy(c.base), *_NO_GAIN, *_NO_GAIN)
            row += (c.base.seeds, None, c.base.items)
            if row != base:  # sizes of one model share it
                yield row
            base = row
        if c.zero is not None:
            yield _zero_row(c.zero)
        for compared in c.cells:
            cell = compared.cell
            gains = (compared.gain, compared.gain_over_best_temperature)
            gained = [end for gain in gains for end in (_NO_GAIN if gain is None else _accuracy(gain))]
            where = (cell.model, cell.task, cell.adapter, cell.trained_parameters, cell.storage_dtype)
            numbers = (cell.update_bytes, cell.learning_rate, *_accuracy(cell.accuracy), *gained)
            yield compared.name, *where, *numbers, cell.accuracy.seeds, str(compared.collapsed), cell.accuracy.items


def _zero_row(zero: ZeroControl) -> tuple[Cell, ...]:
    cell, over = zero.cell, zero.over_base
    gained = _NO_GAIN if over is None else _accuracy(over)
    where = (cell.model, cell.task, cell.adapter, 0, cell.storage_dtype, None, None)
    numbers = (*_accuracy(cell.accuracy), *gained, *_NO_GAIN)
    return "zero (control)", *where, *numbers, cell.accuracy.seeds, None, cell.accuracy.items


def _zero_note(comparisons: Sequence[Comparison]) -> str:
    """What adapters of zeros changed, a sentence each; nothing without them."""
    said = dict.fromkeys(f" {c.zero.sentence}" for c in comparisons if c.zero is not None)
    return "".join(said)


def _accuracy(estimate: Estimate) -> tuple[Cell, ...]:
    return estimate.value, estimate.low, estimate.high


def _differences(comparisons: Sequence[Comparison]) -> Iterator[tuple[Cell, ...]]:
    for c in comparisons:
        cell = c.cells[0].cell
        where = (cell.model, cell.task, cell.adapter, cell.trained_parameters, cell.storage_dtype)
        for d in c.differences:
            estimate = d.estimate
            exchanged = None if d.exchanged is None else d.exchanged.p
            numbers = (*_accuracy(estimate), d.detectable, exchanged, estimate.seeds, estimate.items)
            yield d.first, d.second, *where, *numbers
