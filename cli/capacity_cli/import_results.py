"""`capacity import`: results of other programs as a points table."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import Json


def import_results(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Sources of `capacity verdict`, or results of PEFT's method_comparison; NAME=SOURCE names an arm.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for points.csv.")],
    fact: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="What sources do not say: method=sft, or of one arm NAME:trained_parameters=13. Repeatable.",
            show_default="nothing",
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Which of several grades: acc, or NAME,FILTER.", show_default="the only one")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="How a table calls a column: item=question_id. Repeatable.", show_default="their own names"),
    ] = None,
    json: Json = False,
) -> None:
    """Write results of other programs as a points table for threshold, bits and report."""
    from capacity_cli.choices import columns_choice, facts_choice
    from capacity_cli.output import print_blocks, print_json

    done = capacity.import_results(
        *sources, out=out, facts=facts_choice(fact or []), metric=metric, columns=columns_choice(column or [])
    )
    print_json(done.to_json()) if json else print_blocks(done.blocks)
