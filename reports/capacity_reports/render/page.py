"""Renders a report as Markdown, and as one HTML page that loads nothing from elsewhere."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from capacity_reports.blocks import Block, Example, Figure, Section, Table, Text
from capacity_reports.figures import DARK, WIDE, inline_svg, variable

if TYPE_CHECKING:
    from jinja2 import Template

    from capacity_reports.document import Report
    from capacity_reports.front import Front


def html(report: "Report", *, follow: bool = False) -> str:
    """The report as one HTML page with its style, scripts, data and figures in it.

    Args:
        report: the report.
        follow: the page asks its server for newer versions of itself; see `capacity_reports.server`.
    """
    inks = {
        "light": "".join(f"{variable(ink)}:{ink};" for ink in DARK),
        "dark": "".join(f"{variable(ink)}:{dark};" for ink, dark in DARK.items()),
    }
    explored = report.explored
    name = "" if _MADE_UP.search(report.title) else report.title
    parts = [*(_EXPLORING if explored else ()), "sort.js", *(("follow.js",) if follow else ())]
    return _template().render(
        report=report,
        name=name,
        front=report.front,
        inks=inks,
        svg=inline_svg,
        wide_svg=partial(inline_svg, width=WIDE),
        follow=follow,
        parts=_parts(report.sections),
        explored=explored,
        data=_json(explored),
        style=_text("style.css") + (_text("vendor/uPlot.min.css") if explored else ""),
        library=_text("vendor/uPlot.iife.min.js") if explored else "",
        script="\n".join(map(_text, ["page.js", *parts])),
    )


# Names of folders that a program made up from a digest say nothing to a reader.
_MADE_UP = re.compile(r"(^|-)(?=[a-f]*[0-9])[0-9a-f]{8,}$")
_EXPLORING = ("chart.js", "runs.js", "completions.js")


def _json(value: Any) -> str:
    """JSON that can stand in a page: no text in it ends the element, or begins another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _parts(sections: "Sequence[Section]") -> dict[str, list[list[Block]]]:
    """The blocks of each section, figures that follow one another together, so that they stand side by side."""
    found: dict[str, list[list[Block]]] = {}
    for section in sections:
        groups: list[list[Block]] = []
        for block in section.blocks:
            if groups and block.block == groups[-1][-1].block == "figure":
                groups[-1].append(block)
            else:
                groups.append([block])
        found[section.name] = groups
    return found


def _text(name: str) -> str:
    return (files("capacity_reports") / "templates" / name).read_text(encoding="utf-8")


@cache
def _template() -> "Template":
    from jinja2 import BaseLoader, Environment, StrictUndefined

    environment = Environment(
        loader=BaseLoader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")
    return environment.from_string(_text("report.html"))


def markdown(report: "Report") -> str:
    """The report as Markdown: text, tables, and the words and data of figures."""
    front = [] if report.front is None else list(_front(report.front))
    parts = [line for section in report.sections for line in _section(section)]
    return "\n".join([f"# {_plain(report.title)}", "", *front, *parts]).rstrip() + "\n"


def _front(front: "Front") -> Iterator[str]:
    yield from (f"**{_plain(front.question)}**", "", _plain(front.answer), "")
    yield from (f"- {_plain(number.value)}: {_plain(number.meaning)}." for number in front.numbers)
    yield ""
    yield from (line for text in (front.judged, front.undecided) if text for line in (_plain(text), ""))


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
        case Text(lines=lines, bullets=True, folded=folded):
            if folded:
                yield from (f"{_plain(folded)}:", "")
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
                yield from (f"{_plain(who)} ({'correct' if right else 'wrong'}):", "", *_fenced(answer))
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
