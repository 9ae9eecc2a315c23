"""The base of results: a line for people, text and tables for a notebook."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capacity_reports.blocks import Block


class Shown(ABC):
    """A result that is shown by blocks of a report."""

    @property
    @abstractmethod
    def line(self) -> str:
        """What it is, in a line."""

    @property
    @abstractmethod
    def blocks(self) -> "Sequence[Block]":
        """What it shows: text and tables."""

    @property
    def answer(self) -> "Sequence[Block]":
        """What it shows first: at most five lines and one table. It is all that it shows, if that is no more."""
        return self.blocks

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.line}>"

    def _repr_html_(self) -> str:
        """The blocks in a notebook."""
        from capacity_reports.render.notebook import html

        return html(self.blocks)
