"""Accuracy against size as a table: one row a cell."""

from collections.abc import Sequence
from typing import Any

from capacity.spec.methods import place
from capacity_analysis.data.cell_results import CellResult, cell_results
from capacity_analysis.data.recipes import UNSEEN
from capacity_analysis.data.table import Points
from capacity_analysis.statistics.estimate import labels

HEADINGS = ("model", "method", "demonstrations", "adapter", "trained", "rate", "accuracy % (95 %)", "seeds")


def size_cells(points: Points) -> list[CellResult]:
    """The cells of a study on the test split, by model, size and method."""
    return sorted((cell for cell in cell_results(points) if cell.split == "test"), key=_order)


def size_texts(cell: CellResult) -> tuple[str, ...]:
    """The row of a cell as text, under `HEADINGS`."""
    base = cell.method == "base"
    return (
        cell.model or "",
        f"base T={cell.temperature:g}" if base else cell.method,
        "" if cell.demonstrations in (None, UNSEEN) else cell.demonstrations,
        "" if base else cell.adapter or "",
        f"{cell.trained_parameters:,}",
        "" if cell.learning_rate is None else f"{cell.learning_rate:g}",
        cell.accuracy.percent(),
        "" if base else str(cell.accuracy.seeds),
    )


def size_json(cell: CellResult) -> dict[str, Any]:
    """The row of a cell as plain JSON types."""
    names = ("model", "method", "demonstrations", "adapter", "trained_parameters", "learning_rate", "temperature")
    return {**{name: getattr(cell, name) for name in names}, **cell.accuracy.to_json("accuracy")}


def size_note(cells: Sequence[CellResult]) -> str:
    """What the intervals of the table are for."""
    return f"Intervals: {labels(cell.accuracy for cell in cells)}."


def _order(cell: CellResult) -> tuple[Any, ...]:
    return cell.model, cell.trained_parameters, place(cell.method), cell.demonstrations, cell.temperature
