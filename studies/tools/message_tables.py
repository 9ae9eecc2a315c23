"""What chosen projections gain, in Markdown: `python studies/tools/message_tables.py POINTS` (a study or its points).

The tables compare, paired by seed and item: chosen projections with random ones of the same size, other choices with
the usual one, the gains with other demonstrations, methods that share a projection, and few chosen parameters with
more random ones.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np

from capacity import __version__
from capacity.spec.methods import place
from capacity_analysis.data.cell_results import CellResult, cell_results, difference
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import reported_rows
from capacity_analysis.statistics.estimate import difference_estimate, labels
from capacity_reports.blocks import Cell, Column, Section, Table
from capacity_reports.document import Report

_RANK = 8  # the frozen rank of TinyLoRA on the test bed, unless told otherwise
_USUAL_BITS = 8
_USUAL_STYLE = "worked&style_bits=4&style_shift=4"
_MODEL = Column("model", "model")
_DEMONSTRATIONS = Column("demonstrations", "demonstrations")
_PARAMETERS = Column("parameters", "parameters", "count")
_METHOD = Column("method", "method")
_PROJECTION = Column("projection", "projection")

_GAINS = (
    _MODEL,
    _DEMONSTRATIONS,
    _PARAMETERS,
    _METHOD,
    _PROJECTION,
    Column("bits", "bits of the update", "count"),
    Column("seeds", "seeds", "count"),
    Column("accuracy", "accuracy, %"),
    Column("gain", "chosen − random, points"),
)
_CHOICES = (
    _MODEL,
    _DEMONSTRATIONS,
    _PARAMETERS,
    _METHOD,
    _PROJECTION,
    Column("difference", "difference from the choice by 8 bits, points"),
)
_PAIRS = (
    _MODEL,
    _PARAMETERS,
    _PROJECTION,
    Column("pair", "pair"),
    Column("difference", "difference, points"),
)
_STYLES = (
    _MODEL,
    _DEMONSTRATIONS,
    _PARAMETERS,
    _METHOD,
    Column("difference", "gain of 8 bits − that with the usual demonstrations, points"),
)
_LARGER = (
    _MODEL,
    _METHOD,
    Column("chosen", "chosen parameters, 8 bits", "count"),
    Column("random", "random parameters", "count"),
    Column("difference", "chosen − random, points"),
)


def trained(points: Points) -> list[CellResult]:
    """The trained cells on the test items, by model, size, method and bits of the choice."""
    found = [c for c in cell_results(points.where(reported_rows(points))) if c.trained_parameters and c.split == "test"]
    return sorted(found, key=lambda c: (c.model or "", c.trained_parameters, place(c.method), choice_bits(c), _rank(c)))


def choice_bits(cell: CellResult) -> int:
    """The bits that choose the projection of a parameter, 0 for a random one."""
    return int(cell.recipe.get("adapter.choice.bits") or 0)


def is_usual(cell: CellResult) -> bool:
    """Tells whether a TinyLoRA has a random P, or one that the gradient of grpo chose, and the usual frozen rank."""
    return (
        cell.adapter == "tinylora" and cell.recipe.get("adapter.choice.by") in (None, "grpo") and _rank(cell) == _RANK
    )


def projection(cell: CellResult) -> str:
    """The projection of a cell in words, or its adapter if that has none."""
    if cell.adapter != "tinylora":
        return cell.adapter or ""
    bits, rank = choice_bits(cell), _rank(cell)
    own = " by its own gradient" if cell.recipe.get("adapter.choice.by") == "own" else ""
    return (f"chosen{own}, {bits} bits" if bits else "random") + (f", rank {rank}" if rank != _RANK else "")


def gains(cells: Iterable[CellResult]) -> Iterator[tuple[Cell, ...]]:
    """The rows of the table of gains. A random projection has no gain over itself."""
    random: dict[tuple[Cell, ...], CellResult] = {}
    for c in cells:
        if not choice_bits(c) and c.adapter == "tinylora":
            random[_arm(c)] = c
        gain = difference(c, random[_arm(c)]) if choice_bits(c) and _arm(c) in random else None
        yield (
            *_arm(c),
            projection(c),
            None if c.update_bytes is None else 8 * c.update_bytes,
            len(c.seeds),
            c.accuracy.percent(),
            "" if gain is None else gain.points(),
        )


def choices(cells: Iterable[CellResult]) -> Iterator[tuple[Cell, ...]]:
    """The difference of every other choice from the usual one by 8 bits: other bits, ranks and gradients."""
    chosen = [c for c in cells if choice_bits(c)]
    usual = {_arm(c): c for c in chosen if is_usual(c) and choice_bits(c) == _USUAL_BITS}
    for c in chosen:
        found = difference(c, usual[_arm(c)]) if _arm(c) in usual and c is not usual[_arm(c)] else None
        if found is not None:
            yield *_arm(c), projection(c), found.points()


def pairs(cells: Iterable[CellResult]) -> Iterator[tuple[Cell, ...]]:
    """The differences between methods at one size and projection."""
    groups: dict[tuple[str | None, int, str], list[CellResult]] = {}
    for c in cells:
        groups.setdefault((c.model, c.trained_parameters, projection(c)), []).append(c)
    for (model, parameters, name), members in groups.items():
        for one, other in combinations(members, 2):
            found = None if one.method == other.method else difference(other, one)
            if found is not None:
                yield model, parameters, name, f"{other.method} − {one.method}", found.points()


def gains_by_style(cells: Iterable[CellResult]) -> Iterator[tuple[Cell, ...]]:
    """How much more 8 bits gain with other demonstrations than with the usual ones, paired by seed and item."""
    arms = {(*_arm(c), choice_bits(c)): c.shares for c in cells if is_usual(c) and c.shares is not None}
    gained = {
        arm[:-1]: shares - arms[*arm[:-1], 0]
        for arm, shares in arms.items()
        if arm[-1] == _USUAL_BITS and (*arm[:-1], 0) in arms
    }
    for (model, style, parameters, method), gain in gained.items():
        usual = gained.get((model, _USUAL_STYLE, parameters, method))
        if style != _USUAL_STYLE and usual is not None and usual.shape == gain.shape:
            found = difference_estimate(gain - usual, np.zeros((1, gain.shape[1])))
            yield model, style, parameters, method, found.points()


def against_larger(cells: Iterable[CellResult]) -> Iterator[tuple[Cell, ...]]:
    """The difference of each cell chosen by 8 bits from every larger random one of its model and method."""
    groups: dict[tuple[Cell, ...], list[CellResult]] = {}
    for c in cells:
        if is_usual(c):
            groups.setdefault((c.model, c.demonstrations, c.method), []).append(c)
    for (model, _, method), members in groups.items():
        for chosen in [c for c in members if choice_bits(c) == _USUAL_BITS]:
            for random in [c for c in members if not choice_bits(c)]:
                larger = random.trained_parameters > chosen.trained_parameters
                found = difference(chosen, random) if larger else None
                if found is not None:
                    yield model, method, chosen.trained_parameters, random.trained_parameters, found.points()


def _arm(cell: CellResult) -> tuple[Cell, ...]:
    """What cells share that differ in their projection alone: model, demonstrations, size and method."""
    return cell.model, cell.demonstrations, cell.trained_parameters, cell.method


def _rank(cell: CellResult) -> int:
    return int(cell.recipe.get("adapter.rank") or 0)


def main() -> None:
    """Reads the points named on the command line."""
    source = sys.argv[1]
    cells = trained(read_points(source))
    accuracies = f"Intervals of accuracies: {labels([c.accuracy for c in cells])}."
    blocks = (
        Table("gains", "Chosen and random projections", _GAINS, tuple(gains(cells)), accuracies),
        Table("choices", "Other choices against 8 bits", _CHOICES, tuple(choices(cells))),
        Table("styles", "Other demonstrations against the usual ones", _STYLES, tuple(gains_by_style(cells))),
        Table("pairs", "Methods that share a projection", _PAIRS, tuple(pairs(cells))),
        Table("larger", "Few chosen parameters against more random ones", _LARGER, tuple(against_larger(cells))),
    )
    print(Report("Chosen projections", "", (), (Section("tables", source, blocks),), {}, __version__).markdown())


if __name__ == "__main__":
    main()
