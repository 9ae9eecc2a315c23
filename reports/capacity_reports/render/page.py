"""Renders a report as Markdown, and as one HTML page that loads nothing from elsewhere."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from capacity_reports.blocks import Example, Figure, Report, Table, Text
from capacity_reports.figures import DARK, inline_svg, variable

if TYPE_CHECKING:
    from jinja2 import Template


def html(report: Report) -> str:
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


def markdown(report: Report) -> str:
    """The report as Markdown: text, tables, and the words and data of figures."""
    lines = [f"# {_plain(report.title)}", ""]
    for section in report.sections:
        lines += [f"## {_plain(section.title)}", ""]
        if section.absent is not None:
            lines += [f"Not available: {_plain(section.absent)}", ""]
        for block in section.blocks:
            if isinstance(block, Text):
                mark = "- " if block.bullets else "**" if block.strong else ""
                end = "**" if block.strong and not block.bullets else ""
                lines += [f"{mark}{_plain(line)}{end}" + ("" if block.bullets else "\n") for line in block.lines]
                lines += [""] if block.bullets else []
            elif isinstance(block, Figure):
                lines += [
                    f"### {_plain(block.title)}",
                    "",
                    _plain(block.alt),
                    "",
                    _plain(block.caption),
                    "",
                    *_table(block.data),
                ]
            elif isinstance(block, Example):
                lines += [f"### {_plain(block.title)}", "", *_fenced(block.prompt)]
                for who, answer, right in block.answers:
                    lines += [f"{_plain(who)} ({'right' if right else 'wrong'}):", "", *_fenced(answer)]
            elif not block.exported_only:
                lines += [
                    f"### {_plain(block.title)}",
                    "",
                    *_table(block),
                    *([_plain(block.note), ""] if block.note else []),
                ]
    return "\n".join(lines).rstrip() + "\n"


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
