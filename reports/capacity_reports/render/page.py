"""Renders a report as Markdown, and as one HTML page that loads nothing from elsewhere."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from capacity_reports.blocks import Block, Example, Figure, Section, Table, Text
from capacity_reports.figures import DARK, inline_svg, variable

if TYPE_CHECKING:
    from jinja2 import Template

    from capacity_reports.document import Report


def html(report: "Report") -> str:
    """The report as one HTML page with its style, script and figures in it."""
    inks = {
        "light": "".join(f"{variable(ink)}:{ink};" for ink in DARK),
        "dark": "".join(f"{variable(ink)}:{dark};" for ink, dark in DARK.items()),
    }
    return _template().render(
        report=report, inks=inks, svg=inline_svg, style=_text("style.css"), script=_text("sort.js")
    )


def _text(name: str) -> str:
    return (files("capacity_reports") / "templates" / name).read_text(encoding="utf-8")


@cache
def _template() -> "Template":
    from jinja2 import BaseLoader, Environment, StrictUndefined

    environment = Environment(
        loader=BaseLoader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("report.html"))


def markdown(report: "Report") -> str:
    """The report as Markdown: text, tables, and the words and data of figures."""
    parts = [line for section in report.sections for line in _section(section)]
    return "\n".join([f"# {_plain(report.title)}", "", *parts]).rstrip() + "\n"


def section_markdown(section: Section) -> str:
    """One section as Markdown, for a job page or a comment."""
    return "\n".join(_section(section)).rstrip() + "\n"


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {_plain(section.title)}", "")
    if section.absent is not None:
        yield from (f"Not available: {_plain(section.absent)}", "")
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(lines=lines, bullets=True):
            yield from (f"- {_plain(line)}" for line in lines)
            yield ""
        case Text(lines=lines, strong=strong):
            mark = "**" if strong else ""
            for line in lines:
                yield from (f"{mark}{_plain(line)}{mark}", "")
        case Figure():
            yield from (f"### {_plain(block.title)}", "", _plain(block.alt), "", _plain(block.caption), "")
            yield from _table(block.data)
        case Example():
            yield from (f"### {_plain(block.title)}", "", *_fenced(block.prompt))
            for who, answer, right in block.answers:
                yield from (f"{_plain(who)} ({'right' if right else 'wrong'}):", "", *_fenced(answer))
        case Table(exported_only=False):
            yield from (f"### {_plain(block.title)}", "", *_table(block))
            if block.note:
                yield from (_plain(block.note), "")


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _fenced(text: str) -> list[str]:
    """Text as it is, in a fence longer than any in it."""
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return [ticks + "text", text, ticks, ""]


def _table(table: Table) -> list[str]:
    rows = [[_plain(c.heading) or " " for c in table.shown], ["---:" if c.numeric else "---" for c in table.shown]]
    rows += [[_plain(cell) for cell in row] for row in table.texts()]
    return [*("| " + " | ".join(row) + " |" for row in rows), ""]
