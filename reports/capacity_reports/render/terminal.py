"""Blocks as a terminal shows them."""

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text as Line

from capacity_reports.blocks import Block, Example, Figure, Table, Text

_WIDEST = 24  # characters of a column of numbers: its heading is broken into lines


def view(blocks: Iterable[Block]) -> RenderableType:
    """The blocks in their order; of a figure its caption and its data. Tables for programs only are left out."""
    return Group(*(part for block in blocks for part in _parts(block)))


def _parts(block: Block) -> Iterator[RenderableType]:
    match block:
        case Text():
            for line in block.lines:
                yield Line(f"- {line}" if block.bullets else line, style="bold" if block.strong else "")
        case Table():
            if block.exported_only:
                return
            yield Line(block.title, style="bold")
            yield grid(block)
            if block.note:
                yield Line(block.note)
        case Figure():
            yield Line(block.title, style="bold")
            yield Line(block.caption)
            yield grid(block.data)
        case Example():
            yield Line(block.title, style="bold")
            yield Line(block.prompt)
            for who, answer, right in block.answers:
                yield Line(f"{who} ({'right' if right else 'wrong'}): {answer}")
    yield Line("")


def grid(table: Table) -> Grid:
    """The rows of a table in columns, numbers on the right."""
    made = Grid(box=None, pad_edge=False)
    for column in table.shown:
        made.add_column(
            Line(column.heading),
            justify="right" if column.numeric else "left",
            max_width=_WIDEST if column.numeric else None,
        )
    for row in table.texts():
        made.add_row(*map(Line, row))
    return made
