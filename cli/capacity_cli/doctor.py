"""`capacity doctor`: what this machine has for making runs."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import Json


def doctor(
    out: Annotated[Path, typer.Option(help="Folder in which studies are to be made.")] = Path("capacity-studies"),
    json: Json = False,
) -> None:
    """What this machine has for making runs: versions, memory, disks, devices, caches, engines, and obstacles."""
    from capacity_cli.output import print_blocks, print_json

    found = capacity.doctor(out)
    if json:
        print_json(found.to_json())
    else:
        print_blocks(found.blocks)
    raise typer.Exit(1 if found.obstacles else 0)
