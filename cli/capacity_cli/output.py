"""How commands print results: as one JSON object, or as text that is cut nowhere."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: Any) -> None:
    """Prints a result as JSON, for programs."""
    print(json.dumps(value, indent=1, allow_nan=False))


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[str]], console: "Console | None" = None) -> None:
    """Prints a plain table; its lines may be as long as it needs."""
    from rich.console import Console

    from capacity_reports.tables import rows_table

    (console or Console()).print(rows_table(headings, list(rows)), soft_wrap=True, highlight=False)


def wide() -> "Console":
    """As wide as the terminal, or wide enough for every row where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)
