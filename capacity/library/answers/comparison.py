"""What matched runs say, in a few lines: the claims of the verdict, and a table of the methods."""

from collections.abc import Sequence

from capacity.library.answers import LINES, answer, several
from capacity_analysis.compare.comparison import Comparison
from capacity_analysis.compare.verdicts import verdict
from capacity_analysis.data.cell_results import CellResult
from capacity_analysis.statistics.estimate import Estimate, labels
from capacity_reports.blocks import Block, Cell, Column, Table

_METHODS = (
    Column("method", "method"),
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("gain", "gain, points", "points", ends=("gain_low", "gain_high")),
    Column("gain_low", "gain low", "points"),
    Column("gain_high", "gain high", "points"),
    Column("seeds", "seeds", "count"),
)
_SIZES = (
    Column("model", "model"),
    Column("method", "method"),
    Column("parameters", "parameters", "count"),
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("seeds", "seeds", "count"),
)


def comparison_answer(comparison: Comparison) -> tuple[Block, ...]:
    """The head of the verdict and its claims, a line each, and the methods with their accuracies and gains."""
    said = verdict(comparison)
    claims = [f"{claim[:1].upper()}{claim[1:]}." if claim[:1].isspace() else f"{claim}." for claim in said.claims]
    return answer([f"{said.head}:", *several(claims, LINES - 1, "claims")], _methods(comparison, said.scope))


def _methods(comparison: Comparison, scope: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    if comparison.base is not None:
        rows.append(("base", *_ends(comparison.base), None, None, None, comparison.base.seeds))
    if (zero := comparison.zero) is not None:
        accuracy = zero.cell.accuracy
        rows.append(("zero (control)", *_ends(accuracy), *_ends(zero.over_base), accuracy.seeds))
    for compared in comparison.cells:
        accuracy = compared.cell.accuracy
        rows.append((compared.name, *_ends(accuracy), *_ends(compared.gain), accuracy.seeds))
    names = [str(compared.cell.model) for compared in comparison.cells[:1]]
    size = f"{comparison.cells[0].cell.trained_parameters:,} trained parameters" if comparison.cells else ""
    title = ", ".join(part for part in ("Accuracy and gain over the untrained model", *names, size) if part)
    note = f"Intervals: {scope}." + ("" if comparison.zero is None else f" {comparison.zero.sentence}")
    return Table("methods", title, _METHODS, tuple(rows), note)


def _ends(estimate: Estimate | None) -> tuple[Cell, Cell, Cell]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def sizes_answer(cells: Sequence[CellResult], runs: int, failed: int) -> tuple[Block, ...]:
    """How many runs there are, the most accurate update of each model, and accuracy against size."""
    lines = [f"{runs:,} runs are complete, {failed:,} failed."]
    best: dict[str, CellResult] = {}
    for cell in cells:
        name = cell.model or ""
        if cell.trained_parameters > 0 and (name not in best or cell.accuracy.value > best[name].accuracy.value):
            best[name] = cell
    lines += several([_best(name, cell) for name, cell in best.items()], LINES - 1, "models")
    return answer(lines, _sizes(cells) if cells else None)


def _best(model: str, cell: CellResult) -> str:
    accuracy = cell.accuracy
    ends = ""
    if accuracy.low is not None and accuracy.high is not None:
        ends = f" ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})"
    where = f"{model}: " if model else ""
    size = f"{cell.method} at {cell.trained_parameters:,} parameters"
    return f"{where}most accurate is {size}, {100 * accuracy.value:.1f} %{ends}."


def _sizes(cells: Sequence[CellResult]) -> Table:
    rows = tuple(
        (cell.model, _name(cell), cell.trained_parameters, *_ends(cell.accuracy), cell.accuracy.seeds) for cell in cells
    )
    note = f"Intervals: {labels(cell.accuracy for cell in cells)}."
    return Table("sizes", "Accuracy against size", _SIZES, rows, note)


def _name(cell: CellResult) -> str:
    if cell.method == "zero":
        return "zero (control)"
    return f"base T={cell.temperature:g}" if cell.method == "base" and cell.temperature is not None else cell.method
