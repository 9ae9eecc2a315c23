"""Accuracy against size: the cells of a study in the order of their sizes."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from capacity.spec.methods import place
from capacity_analysis.compare.comparison import untrained_under
from capacity_analysis.data.cell_results import CellResult, cell_results, collapsed_share
from capacity_analysis.data.table import Points
from capacity_analysis.statistics.collapses import CollapsedShare


def size_cells(points: Points) -> list[CellResult]:
    """The cells of a study on the test split, by model, size and method."""
    return sorted((cell for cell in cell_results(points) if cell.split == "test"), key=_order)


def collapses(cells: Sequence[CellResult]) -> dict[str, CollapsedShare]:
    """How many seeds of each trained cell collapsed, by the identity of the cell.

    Args:
        cells: trained ones, and untrained models under the same protocols.
    """
    untrained = [cell for cell in cells if cell.method == "base"]
    trained = [cell for cell in cells if cell.trained_parameters > 0]
    return {cell.identity: collapsed_share(cell, untrained_under(untrained, cell.recipe)) for cell in trained}


def size_json(cell: CellResult, collapsed: CollapsedShare | None) -> dict[str, Any]:
    """The row of a cell as plain JSON types.

    Args:
        cell: what was measured.
        collapsed: its seeds that collapsed; None for an untrained model.
    """
    names = ("model", "method", "demonstrations", "adapter", "trained_parameters", "learning_rate", "temperature")
    return {
        **{name: getattr(cell, name) for name in names},
        **cell.accuracy.to_json("accuracy"),
        "collapsed": None if collapsed is None else asdict(collapsed),
    }


def _order(cell: CellResult) -> tuple[Any, ...]:
    return cell.model, cell.trained_parameters, place(cell.method), cell.demonstrations, cell.temperature
