"""`capacity certify`: what a message of a few bits provably gains."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import Json


def certify(
    model: Annotated[str, typer.Option(help="Model alias or folder.")] = "abacus",
    task: Annotated[str, typer.Option(help="Task, with options.")] = "abacus",
    parameters: Annotated[int, typer.Option(min=1, max=2, help="Parameters of a code.")] = 1,
    choice_bits: Annotated[
        int, typer.Option(min=0, max=16, help="Bits that choose the projection of a parameter.")
    ] = 8,
    level_bits: Annotated[int, typer.Option(min=0, help="Bits that choose the value of a parameter.")] = 2,
    scale: Annotated[float, typer.Option(help="Largest magnitude of a value.")] = 0.05,
    items: Annotated[int, typer.Option(min=1, help="Training items that the best code answers.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the candidates and of the samples.")] = 0,
    level: Annotated[float, typer.Option(help="Probability with which the certificate holds.")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="Write the best code as an artifact.", show_default="none")] = None,
    json: Json = False,
) -> None:
    """Ask every code of a few bits, and certify what the best one gains on fresh items."""
    from capacity_cli.output import print_blocks, print_json
    from capacity_cli.progress import ModuleProgress

    found = capacity.certify(
        model, task=task, parameters=parameters, choice_bits=choice_bits, level_bits=level_bits, scale=scale,
        items=items, seed=seed, level=level, out=out, progress=ModuleProgress,
    )  # fmt: skip
    if json:
        print_json(found.to_json())
    else:
        print_blocks(found.blocks)
