"""`capacity express`: what an adapter can express against what a method learned."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import Json


def express(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    methods: Annotated[str | None, typer.Option(help="Methods whose runs are taken, by comma. [default: all]")] = None,
    largest: Annotated[int, typer.Option(min=1, help="Leave out runs of more parameters.")] = 28,
    evaluations: Annotated[int, typer.Option(min=1, help="Updates that each of the two starts tries.")] = 200,
    items: Annotated[int, typer.Option(min=1, help="Training items that each update answers.")] = 512,
    json: Json = False,
) -> None:
    """Search for the best update of each small adapter, and compare it with what was learned."""
    from capacity_cli.output import print_blocks, print_json
    from capacity_cli.progress import ModuleProgress

    chosen = () if methods is None else tuple(name.strip() for name in methods.split(","))
    found = capacity.express(
        study, methods=chosen, largest=largest, evaluations=evaluations, items=items, progress=ModuleProgress
    )
    if json:
        print_json(found.to_json())
    else:
        print_blocks(found.blocks)
