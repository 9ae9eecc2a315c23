"""What chosen projections gain, in Markdown: `python studies/tools/message_tables.py POINTS` (a study or its points).

A line for each model, size and method: the accuracy with a random projection and with chosen ones, what the choice
gains, paired by seed and item, and the bits of the stored update with its choice. Another line gives the differences
between methods that share a projection.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import combinations

from capacity import __version__
from capacity.spec.methods import place
from capacity_analysis.data.cell_results import CellResult, cell_results, difference
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import reported_rows
from capacity_analysis.statistics.estimate import labels
from capacity_reports.blocks import Cell, Column, Section, Table
from capacity_reports.document import Report

_GAINS = (
    Column("model", "model"),
    Column("parameters", "parameters", "count"),
    Column("method", "method"),
    Column("projection", "projection"),
    Column("bits", "bits of the update", "count"),
    Column("seeds", "seeds", "count"),
    Column("accuracy", "accuracy, %"),
    Column("gain", "chosen − random, points"),
)
_PAIRS = (
    Column("model", "model"),
    Column("parameters", "parameters", "count"),
    Column("projection", "projection"),
    Column("pair", "pair"),
    Column("difference", "difference, points"),
)


def trained(points: Points) -> list[CellResult]:
    """The trained cells on the test items, by model, size, method and bits of the choice."""
    found = [c for c in cell_results(points.where(reported_rows(points))) if c.trained_parameters and c.split == "test"]
    return sorted(found, key=lambda c: (c.model or "", c.trained_parameters, place(c.method), choice_bits(c)))


def choice_bits(cell: CellResult) -> int:
    """The bits that choose the projection of a parameter, 0 for a random one."""
    return int(cell.recipe.get("adapter.choice.bits") or 0)


def chooser(cell: CellResult) -> str | None:
    """The method whose gradient chose the projection, "own" for the cell's own method, None for a random projection."""
    return cell.recipe.get("adapter.choice.by")


def projection(cell: CellResult) -> str:
    """The projection of a cell in words."""
    bits = choice_bits(cell)
    own = " by its own gradient" if chooser(cell) == "own" else ""
    return f"chosen{own}, {bits} bits" if bits else "random"


def gains(cells: Iterable[CellResult]) -> Iterator[tuple[Cell, ...]]:
    """The rows of the table of gains. A random projection has no gain over itself."""
    random: dict[tuple[str | None, int, str], CellResult] = {}
    for c in cells:
        at = (c.model, c.trained_parameters, c.method)
        if not choice_bits(c):
            random[at] = c
        gain = difference(c, random[at]) if choice_bits(c) and at in random else None
        stored = None if c.update_bytes is None else 8 * c.update_bytes
        yield (
            c.model,
            c.trained_parameters,
            c.method,
            projection(c),
            stored,
            len(c.seeds),
            c.accuracy.percent(),
            "" if gain is None else gain.points(),
        )


def pairs(cells: Iterable[CellResult]) -> Iterator[tuple[Cell, ...]]:
    """The differences between methods at one size and projection."""
    groups: dict[tuple[str | None, int, str], list[CellResult]] = {}
    for c in cells:
        groups.setdefault((c.model, c.trained_parameters, projection(c)), []).append(c)
    for (model, parameters, name), members in groups.items():
        for one, other in combinations(members, 2):
            found = difference(other, one)
            if found is not None:
                yield model, parameters, name, f"{other.method} − {one.method}", found.points()


def main() -> None:
    """Reads the points named on the command line."""
    source = sys.argv[1]
    cells = trained(read_points(source))
    accuracies = f"Intervals of accuracies: {labels([c.accuracy for c in cells])}."
    blocks = (
        Table("gains", "Chosen and random projections", _GAINS, tuple(gains(cells)), accuracies),
        Table("pairs", "Methods that share a projection", _PAIRS, tuple(pairs(cells))),
    )
    print(Report("Chosen projections", "", (), (Section("tables", source, blocks),), {}, __version__).markdown())


if __name__ == "__main__":
    main()
