"""What a command prints first: the answer in at most five lines of a terminal, then one table that fits beside it."""

from collections.abc import Sequence

from capacity_reports.blocks import Block, Table, Text

LINES = 5  # at most, each of 80 characters


def answer(lines: Sequence[str], table: Table | None) -> tuple[Block, ...]:
    """The lines of an answer above its table, if it has one."""
    return (Text(tuple(lines), strong=True), *(() if table is None else (table,)))


def several(lines: Sequence[str], room: int, what: str) -> list[str]:
    """As many lines as there is room for; the last one says how many more there are."""
    if len(lines) <= room:
        return list(lines)
    return [*lines[: room - 1], f"{len(lines) - room + 1} more {what} stand in the details."]
