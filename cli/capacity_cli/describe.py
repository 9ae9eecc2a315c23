"""`capacity describe`: description lengths of a study's runs, side by side."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import AllowMixed, Details, Json, Where


def describe(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    epsilon: Annotated[
        float | None,
        typer.Option(help="Loss of the surplus description length, bits a token.", show_default="final held-out loss"),
    ] = None,
    configurations: Annotated[
        int | None,
        typer.Option(min=1, help="Among how many each run was chosen.", show_default="trials of the shipped rate"),
    ] = None,
    where: Where = None,
    allow_mixed: AllowMixed = False,
    details: Details = False,
    json: Json = False,
) -> None:
    """Description lengths of a study in bits: demonstrations, rewards and updates, method by method."""
    from capacity_cli.output import print_json, print_result

    found = capacity.describe(
        study, epsilon=epsilon, configurations=configurations, where=where or (), allow_mixed=allow_mixed
    )
    print_json(found.to_json()) if json else print_result(found, details=details)
