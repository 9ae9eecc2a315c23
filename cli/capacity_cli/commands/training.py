"""Commands that make runs and list them."""

from pathlib import Path
from typing import Annotated

import typer

from capacity_cli.options import Json, Where


def runs(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    points: Annotated[Path | None, typer.Option(help="Write the points table to this CSV file.")] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Points of runs that different environments made.")
    ] = False,
    where: Where = None,
    json: Json = False,
) -> None:
    """What is in a study: complete, stale and failed runs, and their points table."""
    from capacity_cli.runs import runs_command

    runs_command(study, points, where or (), allow_mixed=allow_mixed, as_json=json)
