"""A whole report: its sections and what they found, as a page, as Markdown or as data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from capacity_reports.blocks import Figure, Section, Table, Text
from capacity_reports.render.page import html, markdown

if TYPE_CHECKING:
    from capacity_reports.front import Front

_Named = TypeVar("_Named", Section, Figure, Table)


@dataclass(frozen=True)
class Report:
    """A whole report: `html()`, `markdown()` and `json()` give it as text; a notebook shows it as a page.

    Attributes:
        title: the heading.
        question: what was asked, or "".
        verdicts: the sentences that the data allow.
        sections: the sections in reading order.
        analysis: the results that `capacity threshold` gives, by what they are about.
        version: the version of the program that made it.
        front: the first screen; None for a report without one.
        explored: what the page lets a person explore, as plain JSON types; see `capacity_reports.explorer`.
    """

    title: str
    question: str
    verdicts: tuple[str, ...]
    sections: tuple[Section, ...]
    analysis: dict[str, Any]
    version: str
    front: "Front | None" = None
    explored: Mapping[str, Any] | None = None

    def figures(self) -> Iterator[Figure]:
        """The figures of all sections, in reading order."""
        return (block for section in self.sections for block in section.blocks if isinstance(block, Figure))

    def tables(self) -> Iterator[Table]:
        """The tables of all sections, in reading order; the data of figures are among them."""
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Figure):
                    yield block.data
                elif isinstance(block, Table):
                    yield block

    def section(self, name: str) -> Section:
        """The section of this name.

        Raises:
            KeyError: no such section.
        """
        return _named(self.sections, name)

    def figure(self, name: str) -> Figure:
        """The figure of this name.

        Raises:
            KeyError: no such figure.
        """
        return _named(tuple(self.figures()), name)

    def table(self, name: str) -> Table:
        """The table of this name; the data of a figure are a table too.

        Raises:
            KeyError: no such table.
        """
        return _named(tuple(self.tables()), name)

    def html(self, *, follow: bool = False) -> str:
        """The report as one self-contained HTML page. With `follow` it asks its server for newer versions."""
        return html(self, follow=follow)

    def markdown(self) -> str:
        """The report's text and tables as Markdown, without figures."""
        return markdown(self)

    def json(self) -> dict[str, Any]:
        """The whole report as plain JSON types."""
        return {
            "title": self.title,
            "question": self.question,
            "answer": None if self.front is None else self.front.answer,
            "judged": "" if self.front is None else self.front.judged,
            "undecided": None if self.front is None else self.front.undecided,
            "verdicts": list(self.verdicts),
            "version": self.version,
            "sections": [
                {
                    "name": section.name,
                    "title": section.title,
                    "absent": section.absent,
                    "text": [line for b in section.blocks if isinstance(b, Text) for line in b.lines],
                    "tables": [
                        {"name": t.name, "title": t.title, "rows": t.records()}
                        for b in section.blocks
                        if (t := b.data if isinstance(b, Figure) else b) and isinstance(t, Table)
                    ],
                }
                for section in self.sections
            ],
            "analysis": self.analysis,
        }

    def __repr__(self) -> str:
        return f"<Report: {self.title}, {len(self.sections)} sections>"

    def _repr_html_(self) -> str:
        """The page in a frame of the notebook, so that the styles of both stay apart."""
        return (
            f'<iframe title="{escape(self.title)}" srcdoc="{escape(self.html())}" loading="lazy" '
            'style="width:100%;height:80vh;border:1px solid #8888"></iframe>'
        )


def _named(things: Sequence[_Named], name: str) -> _Named:
    found = next((thing for thing in things if thing.name == name), None)
    if found is None:
        raise KeyError(f"{name}: there is {', '.join(thing.name for thing in things)}")
    return found
