"""How commands print results: as one JSON object, or as text that is cut nowhere."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from capacity_cli.prose import say

if TYPE_CHECKING:
    from capacity.library.compare import Compared
    from capacity.library.shown import Shown
    from capacity.library.sweep import Swept
    from capacity.studies.make import MadeStudy
    from capacity_reports.blocks import Block

MORE = "All tables and remarks: --details."


def print_json(value: Any) -> None:
    """Prints a result as JSON, for programs."""
    print(json.dumps(value, indent=1, allow_nan=False))


def print_blocks(blocks: "Iterable[Block]") -> None:
    """Prints what the page of a study shows, without its figures."""
    from capacity_reports.blocks import Figure
    from capacity_reports.render.terminal import show

    show(block for block in blocks if not isinstance(block, Figure))


def print_result(result: "Shown", *, details: bool) -> None:
    """Prints the answer of a result: a few lines and one table. All else that it shows follows, if it is wanted."""
    print_blocks(result.answer)
    if details:
        print()
        print_blocks(result.blocks)
    else:
        print(f"\n{MORE}")


def print_reused(made: "MadeStudy") -> None:
    """Prints from where runs of a study were copied, in one line, if any were."""
    from capacity.studies.siblings import reuse_sentence

    if made.reused:
        say(reuse_sentence(made.reused))


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a plain table of texts."""
    from capacity_reports.blocks import Column, Table

    columns = tuple(Column(str(number), heading) for number, heading in enumerate(headings))
    print_blocks([Table("rows", "", columns, tuple(tuple(row) for row in rows))])


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
    from capacity_cli.progress import ModuleProgress

    if report:
        page = page_of(result.made.study.folder, allow_mixed=allow_mixed, progress=ModuleProgress)
        result = replace(result, page=page)
    if as_json:
        print_json(result.to_json())
    elif result.page.line is not None:
        say(result.page.line)
    result.made.check()
