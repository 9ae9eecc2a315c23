"""Blocks as a terminal shows them.

A table keeps names and numbers whole. Headings and longer texts fold between words where the terminal is too narrow.
Where that is not enough, the table is shown in parts, each of which repeats the names of its rows. A line is longer
than the terminal only where names and one more column need that; nothing is cut. In a pipe only headings of numbers
fold.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table as Grid
from rich.text import Text as Line

from capacity_reports.blocks import Block, Example, Figure, Section, Table, Text

_WIDEST = 24  # characters of the heading of a column of numbers
_NAME = 32  # characters of a text at most that is a name and never folds
_PROSE = 20  # characters of a line of a longer text at least, which folds
_GAP = 2  # characters between two columns
_MANY = 1000  # rows of a table that is large


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
            names = column.numeric or number == 0 or _longest(cells) <= _NAME
            heading = cell_len(column.heading)
            whole = _longest(cells if names else [word for cell in cells for word in cell.split()])
            least = whole if names else max(whole, _PROSE)
            self.least.append(max(least, _longest(column.heading.split())))
            self.full.append(max(_longest(cells), self.least[-1], min(heading, _WIDEST) if column.numeric else heading))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = list(range(len(self.columns)))
        parts = [whole] if options.no_wrap else self._parts(options.max_width)
        for place, part in enumerate(parts):
            if place:
                yield Line("")
            wide, widths = options.update(width=max(options.max_width, 10**4)), self._widths(part, options)
            whole_rows = len(self.rows) > _MANY and all(self.full[n] <= widths[n] for n in part)
            yield from console.render(self._grid(part, widths, [] if whole_rows else self.rows), wide)
            if whole_rows:  # nothing folds, and padding texts takes a tenth of the time
                yield Segment("".join(f"{self._padded(row, widths)}\n" for row in self.rows))

    def _padded(self, row: Sequence[str], widths: Mapping[int, int]) -> str:
        cells = []
        for n, width in widths.items():
            space = " " * (width - cell_len(row[n]))
            cells.append(space + row[n] if self.columns[n].numeric else row[n] + space)
        return (" " * _GAP).join(cells)

    def _parts(self, width: int) -> list[list[int]]:
        """The columns of each part that fits a width; every part begins with the names of the rows."""
        needs = [least + _GAP for least in self.least]
        room = width + _GAP
        if sum(needs) <= room:
            return [list(range(len(needs)))]
        names = self._names()
        parts, used = [list(names)], sum(needs[n] for n in names)
        for column in range(len(names), len(needs)):
            if used + needs[column] > room and len(parts[-1]) > len(names):
                parts.append(list(names))
                used = sum(needs[n] for n in names)
            parts[-1].append(column)
            used += needs[column]
        return parts

    def _names(self) -> list[int]:
        """The first columns that together tell the rows apart; the first column if none do."""
        for count in range(1, len(self.columns)):
            if len({tuple(row[:count]) for row in self.rows}) == len(self.rows):
                return list(range(count))
        return [0]

    def _widths(self, part: Sequence[int], options: ConsoleOptions) -> dict[int, int]:
        """The width of each column of a part."""
        widths = {n: self.full[n] for n in part}
        while not options.no_wrap and sum(widths.values()) + _GAP * (len(part) - 1) > options.max_width:
            wide = [n for n in part if widths[n] > self.least[n]]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
        return widths

    def _grid(self, part: Sequence[int], widths: Mapping[int, int], rows: Sequence[Sequence[str]]) -> Grid:
        grid = Grid(box=None, pad_edge=False, show_header=any(self.columns[n].heading for n in part))
        for n in part:
            column = self.columns[n]
            grid.add_column(Line(column.heading), justify="right" if column.numeric else "left", width=widths[n])
        for row in rows:
            grid.add_row(*(Line(row[n]) for n in part))
        return grid


def _longest(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)
