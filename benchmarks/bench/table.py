"""Writes figures as Markdown tables."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.bench.figures import Figure, Quantity
from capacity.errors import CapacityError

TITLES = {
    "steps": "Training steps",
    "flops": "Use of the processor",
    "rollouts": "Rollouts",
    "injection": "Injection and stored updates",
    "studies": "Whole studies",
    "startup": "Start of commands",
}


def number(value: float) -> str:
    """Returns a value with three significant digits, or as a whole number with separators from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def row(quantity: Quantity) -> str:
    """Returns a row: medians of both sides, the median ratio, and the lowest and highest ratio of a pair."""
    cells = [quantity.name, number(median(quantity.ours)), "–", "–", "–"]
    if quantity.ratio is not None:
        cells[2:4] = [number(median(quantity.theirs)), number(quantity.ratio)]
    if len(quantity.ratios) > 1:
        lowest, highest = (number(end(quantity.ratios)) for end in (min, max))
        cells[4] = f"{lowest}–{highest}, {len(quantity.ratios)} pairs"
    return f"| {' | '.join(cells)} |"


def tables(figures: Sequence[Figure]) -> str:
    """Returns the tables of all sections, in their fixed order."""
    parts: list[str] = []
    for section, title in TITLES.items():
        chosen = [figure for figure in figures if figure.section == section]
        parts += [f"### {title}", *(part for figure in chosen for part in _table(figure))] if chosen else []
    return "\n\n".join(parts)


def _table(figure: Figure) -> Iterator[str]:
    against = f", against {figure.against}" if figure.against else ""
    yield f"**{figure.subject}**{against}:"
    head = ["| | ours | theirs | ours / theirs | pair by pair |", "|---|---|---|---|---|"]
    yield "\n".join([*head, *map(row, figure.quantities)])


def described(machine: Mapping[str, Any]) -> str:
    """Returns a line that says where and with what the figures were measured."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    where = f"on {machine['processor']} ({machine['cores']} cores, load {machine['load']:g} at the end)"
    return f"Measured at commit `{machine['commit'][:12]}` {where}; {versions}."


def marks(name: str) -> tuple[str, str]:
    """Returns the two marks of a document between which tables stand."""
    return f"<!-- {name}: start -->", f"<!-- {name}: end -->"


def between_marks(document: str, text: str, name: str = "bench") -> str:
    """Returns a document with `text` between the two marks of this name.

    Raises:
        CapacityError: if the document does not hold the two marks in their order.
    """
    opening, closing = marks(name)
    before, start, rest = document.partition(opening)
    _, end, after = rest.partition(closing)
    if not start or not end:
        raise CapacityError(f"the document has no place for the table: write {opening} and {closing} into it")
    return f"{before}{opening}\n{text}\n{closing}{after}"
