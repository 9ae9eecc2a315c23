"""What a report is made of: text, tables, and figures that carry their data. The folder `render` decides how they look.

A table holds raw values (shares of 1, not percent): files for programs and pages for people come from one source.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Literal

from capacity_analysis.words import minus, times

if TYPE_CHECKING:  # matplotlib takes half a second
    from matplotlib.axes import Axes

Kind = Literal["text", "count", "number", "percent", "points", "ratio", "p", "duration", "tokens", "flops"]
Cell = str | int | float | None
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its name in files for programs.
        heading: its name for people.
        kind: how its values are written.
        absent: what is written where there is no value.
        ends: keys of the two columns that hold the intervals of its values. People read "20 (18 to 22)" here, and for
            an open end what its column writes where there is no value; programs read three columns.
        exported_only: the column is written to files for programs and not shown to people.
    """

    key: str
    heading: str
    kind: Kind = "text"
    absent: str = NOTHING
    ends: tuple[str, str] | None = None
    exported_only: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the values of the column are numbers."""
        return self.kind != "text"

    def text(self, value: Cell) -> str:
        """A value of the column as people read it."""
        if value is None:
            return self.absent
        if isinstance(value, str):
            return value
        return _WRITERS[self.kind](value) if value >= 0 else minus(_WRITERS[self.kind](value))


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:,.3g}"


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A duration in words: "48 s" or "2 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


_WRITERS: dict[Kind, Callable[[float], str]] = {
    "text": str,
    "count": _count,
    "number": _number,
    "percent": lambda value: f"{100 * value:.1f}",
    "points": lambda value: f"{100 * value:+.1f}",
    "ratio": times,
    "p": lambda value: f"{value:.2g}",
    "duration": duration,
    "tokens": lambda value: f"{value / 1000:,.0f} k" if value >= 10_000 else f"{value:,.0f}",
    "flops": lambda value: f"{value:.2g}",
}


@dataclass(frozen=True)
class Table:
    """A table of raw values.

    Attributes:
        name: the name of its file and of its anchor on the page, in letters, digits and hyphens.
        title: what the table shows; "" on a terminal that says so already.
        columns, rows: the columns, and rows that are as long as the columns are many.
        note: what one must know to read it.
        exported_only: the table is written to files for programs and not shown on the page.
        folded: the page shows its title, and the table on demand.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    exported_only: bool = False
    folded: bool = False
    block: Literal["table"] = field(default="table", init=False)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: a row of {len(row)} values, {len(self.columns)} columns")
            for value in row:
                if isinstance(value, float) and not math.isfinite(value):
                    raise ValueError(f"table {self.name}: {value} is no value; absent ones are None")

    def column(self, key: str) -> list[Any]:
        """The values of one column, from the first row to the last.

        Raises:
            KeyError: no such column.
        """
        keys = [c.key for c in self.columns]
        if key not in keys:
            raise KeyError(key)
        place = keys.index(key)
        return [row[place] for row in self.rows]

    def records(self) -> list[dict[str, Cell]]:
        """The rows as dictionaries of raw values, by the columns' keys."""
        keys = [c.key for c in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns that people read.

        Ends of intervals stand behind their values, not in columns of their own. A column without any value is left
        out, unless the absence says something.
        """
        ends = {end for column in self.columns for end in column.ends or ()}
        known = {key for row in self.records() for key, value in row.items() if value not in (None, "")}
        return tuple(
            column
            for column in self.columns
            if column.key not in ends
            and not column.exported_only
            and (column.absent != NOTHING or not self.rows or known & {column.key, *(column.ends or ())})
        )

    def shown_rows(self) -> list[list[tuple[Column, Cell, str]]]:
        """The rows over the columns that are shown: column, raw value, and the value as people read it."""
        ends, shown = {c.key: c for c in self.columns}, self.shown
        return [[(c, row[c.key], _with_ends(c, row, ends)) for c in shown] for row in self.records()]

    def texts(self) -> list[list[str]]:
        """The rows as people read them."""
        return [[text for _, _, text in row] for row in self.shown_rows()]

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        heads = "".join(f"<th>{escape(c.heading)}</th>" for c in self.shown)
        rows = "".join("<tr>" + "".join(f"<td>{escape(t)}</td>" for t in row) + "</tr>" for row in self.texts())
        return f"<table><caption>{escape(self.title)}</caption><tr>{heads}</tr>{rows}</table>"


def _with_ends(column: Column, row: Mapping[str, Cell], ends: Mapping[str, Column]) -> str:
    """A value with its interval; alone if it has none, or one whose ends are written as the value is."""
    text = column.text(row[column.key])
    if column.ends is None or all(row[end] is None for end in column.ends):
        return text
    low, high = (ends[end].text(row[end]) for end in column.ends)
    return text if text == low == high else f"{text} ({low} to {high})"


@dataclass(frozen=True)
class Figure:
    """A drawing and the values that it draws.

    Attributes:
        name: the name of its file and of its anchor on the page, in letters, digits and hyphens.
        title: the heading.
        caption: how to read the drawing.
        alt: what it shows, for readers who do not see it.
        data: everything measured that it shows.
        draw: draws it on empty axes.
        height: the height of axes and legend, inches; all figures are as wide as a column.
    """

    name: str
    title: str
    caption: str
    alt: str
    data: Table
    draw: "Callable[[Axes], None]" = field(repr=False, compare=False)
    height: float = 3.6
    block: Literal["figure"] = field(default="figure", init=False)

    def _repr_svg_(self) -> str:
        """The drawing in a notebook."""
        from capacity_reports.figures import svg_file

        return svg_file(self)


@dataclass(frozen=True)
class Text:
    """Paragraphs, or the points of a list.

    Attributes:
        lines: the paragraphs or points.
        bullets: they are the points of a list.
        strong: they are verdicts.
        folded: a heading, under which the page shows them on demand; "" if they are always shown.
    """

    lines: tuple[str, ...]
    bullets: bool = False
    strong: bool = False
    folded: str = ""
    block: Literal["text"] = field(default="text", init=False)


@dataclass(frozen=True)
class Example:
    """One item with the answers to it: who wrote each, what it is, and whether it is right."""

    title: str
    prompt: str
    answers: tuple[tuple[str, str, bool], ...]
    block: Literal["example"] = field(default="example", init=False)


Block = Table | Figure | Text | Example


@dataclass(frozen=True)
class Section:
    """A part of the page with a link of its own; `absent` says why there is nothing in it."""

    name: str
    title: str
    blocks: tuple[Block, ...]
    absent: str | None = None


def uniquely_named(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections with a name of its own for every figure and table: where one repeats or is empty, numbers follow.

    Files and links are named so. Two models may have the same letters and digits in their names, or none at all.
    """
    taken: set[str] = set()

    def named(block: Block) -> Block:
        if not isinstance(block, Figure | Table):
            return block
        wanted = {block.name, block.data.name} if isinstance(block, Figure) else {block.name}
        ends = chain([""], (f"-{number}" for number in count(2)))
        end = next(end for end in ends if all(name + end and name + end not in taken for name in wanted))
        taken.update(name + end for name in wanted)
        if isinstance(block, Figure):
            return replace(block, name=block.name + end, data=replace(block.data, name=block.data.name + end))
        return replace(block, name=block.name + end)

    return tuple(replace(section, blocks=tuple(map(named, section.blocks))) for section in sections)


def slug(*parts: str) -> str:
    """The text as a name of files and links, in letters, digits and hyphens: "accuracy-abacus-0-9m"."""
    text = "-".join(part for part in parts if part).lower()
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text).split())
