"""How commands print results: as one JSON object, or as text that is cut nowhere."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from capacity.library.compare import Compared
    from capacity.library.sweep import Swept


def print_json(value: Any) -> None:
    """Prints a result as JSON, for programs."""
    print(json.dumps(value, indent=1, allow_nan=False))


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[str]], console: "Console | None" = None) -> None:
    """Prints a plain table; its lines may be as long as it needs."""
    from rich.console import Console

    from capacity_reports.tables import rows_table

    (console or Console()).print(rows_table(headings, list(rows)), soft_wrap=True, highlight=False)


def print_view(view: "RenderableType") -> None:
    """Prints text and tables: on a terminal, or where lines may be as long as the tables need."""
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=1000)
    console.print(view, highlight=False, soft_wrap=not console.is_terminal)


def wide() -> "Console":
    """As wide as the terminal, or wide enough for every row where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)


def finish(result: "Compared | Swept", *, report: bool, allow_mixed: bool, as_json: bool) -> None:
    """What making a study ends with: its page, its JSON, and an error if runs failed.

    Args:
        result: of the study; its text is printed already.
        report: write the page.
        allow_mixed: the page may be of runs that different environments made.
        as_json: print JSON and nothing else.

    Raises:
        RunsFailedError: runs failed.
    """
    from capacity.library.report import page_of

    if report:
        result = replace(result, page=page_of(result.made.study.folder, allow_mixed=allow_mixed))
    if as_json:
        print_json(result.to_json())
    elif result.page.line is not None:
        print(result.page.line)
    result.made.check()
