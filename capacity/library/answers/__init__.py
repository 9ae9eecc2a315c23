"""What a command prints first: the answer in at most five lines of a terminal, then one table that fits beside it."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from capacity_reports.blocks import Block, Table, Text

LINES = 5  # at most, each of 80 characters


class PairOfCurves(Protocol):
    """Two curves of one model that are compared."""

    @property
    def model(self) -> str | None:
        """The model of both."""

    @property
    def differ(self) -> tuple[str, ...]:
        """The fields in which they differ."""


Pair = TypeVar("Pair", bound=PairOfCurves)


def answer(lines: Sequence[str], table: Table | None) -> tuple[Block, ...]:
    """The lines of an answer above its table, if it has one."""
    return (Text(tuple(lines), strong=True), *(() if table is None else (table,)))


def several(lines: Sequence[str], room: int, what: str) -> list[str]:
    """As many lines as there is room for; the last one says how many more there are."""
    if len(lines) <= room:
        return list(lines)
    return [*lines[: room - 1], f"{len(lines) - room + 1} more {what} stand in the details."]


def leading(pairs: Sequence[Pair]) -> list[Pair]:
    """One pair of each model: the first that differs in the method alone, or the first if there is none."""
    first: dict[str | None, Pair] = {}
    for pair in pairs:
        best = first.setdefault(pair.model, pair)
        if best.differ != ("method",) and pair.differ == ("method",):
            first[pair.model] = pair
    return list(first.values())


def named(model: str | None, one: str, other: str) -> tuple[str, str, str]:
    """Returns where a pair of curves is, and their names: words that both names end with stand with the model."""
    (first, _, rest), (second, _, same) = one.partition(" "), other.partition(" ")
    where = [model] if model else []
    if rest and rest == same:
        where, one, other = [*where, rest], first, second
    return ", ".join(where) + (": " if where else ""), one, other
