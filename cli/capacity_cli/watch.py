"""The live view of `capacity runs STUDY --watch`: what the runs of a study are doing, until they have ended."""

import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from capacity.studies.live import Progress, read_progress
from capacity_cli.progress import words
from capacity_reports.blocks import duration

_PAUSE = 1.0  # seconds between two looks
_LINE_SECONDS = 10.0  # between lines where there is no terminal


def watch(study: Path) -> None:
    """Shows the progress of a study until no command makes runs in it. Elsewhere than on a terminal it prints lines."""
    console, seen, printed = Console(), False, -_LINE_SECONDS
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while (found := read_progress(study)) is not None:
            seen = True
            if console.is_terminal:
                live.update(_table(found), refresh=True)
            elif time.monotonic() - printed >= _LINE_SECONDS:
                printed = time.monotonic()
                print(line(found), flush=True)
            time.sleep(_PAUSE)
    print(f"{study}: {'the runs have ended' if seen else 'no command makes runs here now'}")


def line(found: Progress) -> str:
    """Returns the progress in a sentence."""
    left = "" if found.seconds_left is None else f"; about {duration(found.seconds_left)} left"
    failed = f", {found.failed:,} of them failed" if found.failed else ""
    accuracy = "".join(f"; {method} {100 * mean:.1f} %" for method, mean in found.accuracy.items())
    ended = f"{found.done:,} of {found.runs:,} runs have ended{failed}"
    return f"{found.what} on {found.device}: {ended}{accuracy}{left}"


def rows(found: Progress) -> list[tuple[str, ...]]:
    """Returns a row of text for each run that is being made."""
    return [(run.label, f"{run.step:,}/{run.steps:,}", words(run)) for run in found.running]


def _table(found: Progress) -> Group:
    table = Table(box=None)
    for heading in ("run", "step", "what it does"):
        table.add_column(heading)
    for row in rows(found):
        table.add_row(*row)
    return Group(Text(line(found)), table)
