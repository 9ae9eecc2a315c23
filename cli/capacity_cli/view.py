"""`capacity view`: the report of a study in a browser, which follows runs while they are made."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from capacity_cli.options import AllowMixed, Gain, Target


def view(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Study folder; its runs may still be made.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes any free one.")] = 8765,
    target: Target = None,
    gain: Gain = None,
    allow_mixed: AllowMixed = False,
) -> None:
    """Serve the report of a study on this machine, and follow the runs of a sweep as they are made."""
    from capacity.library.thresholds import question_of
    from capacity_cli.prose import say
    from capacity_reports.server import Server
    from capacity_reports.views import Options

    say(f"Building the page of {study}.", sys.stderr)
    server = Server(study, port, Options(question_of(target, gain), null=0), allow_mixed=allow_mixed)
    say(f"Report of {study}: {server.address} (Ctrl-C ends it)")
    try:
        server.serve()
    finally:
        server.close()
