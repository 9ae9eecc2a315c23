"""Accuracy against size: the cells of a study in the order of their sizes."""

from typing import Any

from capacity.spec.methods import place
from capacity_analysis.data.cell_results import CellResult, cell_results
from capacity_analysis.data.table import Points


def size_cells(points: Points) -> list[CellResult]:
    """The cells of a study on the test split, by model, size and method."""
    return sorted((cell for cell in cell_results(points) if cell.split == "test"), key=_order)


def size_json(cell: CellResult) -> dict[str, Any]:
    """The row of a cell as plain JSON types."""
    names = ("model", "method", "demonstrations", "adapter", "trained_parameters", "learning_rate", "temperature")
    return {**{name: getattr(cell, name) for name in names}, **cell.accuracy.to_json("accuracy")}


def _order(cell: CellResult) -> tuple[Any, ...]:
    return cell.model, cell.trained_parameters, place(cell.method), cell.demonstrations, cell.temperature
