"""Blocks as a terminal shows them.

A table keeps its first column and its numbers whole. Headings and other text fold between words where the terminal is
too narrow. Where that is not enough, lines are longer than the terminal; nothing is cut. In a pipe only headings of
numbers fold.
"""

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as Grid
from rich.text import Text as Line

from capacity_reports.blocks import Block, Example, Figure, Section, Table, Text

_WIDEST = 24  # characters of the heading of a column of numbers


def show(blocks: Iterable[Block | Section], console: Console | None = None) -> None:
    """Prints blocks on stdout, or on another console."""
    console = console or Console()
    console.print(view(blocks), highlight=False, crop=False, soft_wrap=not console.is_terminal)


def view(blocks: Iterable[Block | Section]) -> RenderableType:
    """Blocks in their order, an empty line between any two. Of a figure they show its caption and its data.

    Tables for programs only are left out. `show` prints the view so that no line is cut.
    """
    parts: list[RenderableType] = []
    for block in blocks:
        lines = list(_lines(block))
        parts += [Line(""), *lines] if parts and lines else lines
    return Group(*parts)


def _lines(block: Block | Section) -> Iterator[RenderableType]:
    match block:
        case Section():
            yield Line(block.title, style="bold")
            if block.absent is not None:
                yield Line(f"Not available: {block.absent}")
            if block.blocks:
                yield view(block.blocks)
        case Text():
            yield from _text(block)
        case Table(exported_only=False):
            if block.title:
                yield Line(block.title, style="bold")
            yield _WholeTable(block)
            if block.note:
                yield Line(block.note)
        case Figure():
            yield from (Line(block.title, style="bold"), Line(block.caption), _WholeTable(block.data))
        case Example():
            yield from (Line(block.title, style="bold"), Line(block.prompt))
            for who, answer, right in block.answers:
                yield Line(f"{who} ({'correct' if right else 'wrong'}): {answer}")
        case _:
            pass


def _text(text: Text) -> Iterator[RenderableType]:
    if text.folded:
        yield Line(f"{text.folded}:")
    for line in text.lines:
        yield Line(f"- {line}" if text.bullets else line, style="bold" if text.strong else "")


class _WholeTable:
    """The rows of a table, numbers on the right. It takes what its console has, but all that must not fold needs."""

    def __init__(self, table: Table) -> None:
        self.columns, self.rows = table.shown, table.texts()
        self.least, self.full = [], []
        for number, column in enumerate(self.columns):
            cells = [line for row in self.rows for line in row[number].splitlines()]
            whole = cells if column.numeric or number == 0 else [word for cell in cells for word in cell.split()]
            heading = cell_len(column.heading)
            self.least.append(_longest([*whole, *column.heading.split()]))
            self.full.append(max(_longest(cells), self.least[-1], min(heading, _WIDEST) if column.numeric else heading))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths, gaps = list(self.full), 2 * (len(self.full) - 1)
        while sum(widths) + gaps > options.max_width and not options.no_wrap:
            wide = [n for n, width in enumerate(widths) if width > self.least[n]]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
        grid = Grid(box=None, pad_edge=False, show_header=any(column.heading for column in self.columns))
        for column, width in zip(self.columns, widths, strict=True):
            grid.add_column(Line(column.heading), justify="right" if column.numeric else "left", width=width)
        for row in self.rows:
            grid.add_row(*map(Line, row))
        yield from console.render(grid, options.update(width=sum(widths) + gaps))


def _longest(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)
