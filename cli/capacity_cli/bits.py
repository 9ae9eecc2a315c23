"""`capacity bits`: which updates are the smallest at their accuracy, and how much one curve saves over another."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity.errors import SpecError
from capacity_cli.options import AllowMixed, Details, Json, OfItems, OfTask, Where


def bits(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[POINTS]", help="Points table (CSV, Parquet), study folder, reference:NAME, or other results."
        ),
    ] = None,
    requantise: Annotated[
        Path | None,
        typer.Option(help="Study whose updates to store anew in every dtype and evaluate."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Fields that tell curves apart, by comma: method, storage_dtype, sharing, …",
            show_default="the method, and whatever differs beside the size",
        ),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="bytes or parameters.", show_default="bytes, where they are known")
    ] = None,
    where: Where = None,
    task: OfTask = None,
    items: OfItems = "these",
    replicates: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    allow_mixed: AllowMixed = False,
    details: Details = False,
    json: Json = False,
) -> None:
    """Which updates are smallest at their accuracy, and what one curve saves over another at equal accuracy."""
    from dataclasses import replace

    from capacity.library.bits import store_anew
    from capacity_analysis.data.where import conditions
    from capacity_cli.output import print_json, print_result
    from capacity_cli.progress import ModuleProgress

    if (source is None) == (requantise is None):
        raise SpecError("give a points table (POINTS), or a study whose updates to store anew (--requantise STUDY)")
    stored = None
    if requantise is not None:
        stored = store_anew(requantise, allow_mixed=allow_mixed, progress=ModuleProgress)
        source = str(stored.points)
    assert source is not None
    named = None if by is None else tuple(name.strip() for name in by.split(",") if name.strip())
    found = capacity.bits(
        source, by=named, unit=unit, where=conditions(where, task=task), items=items, replicates=replicates, seed=seed,
        allow_mixed=allow_mixed, progress=ModuleProgress,
    )  # fmt: skip
    if stored is not None:
        found = replace(found, rates=stored.rates, remarks=(*stored.remarks, *found.remarks))
    print_json(found.to_json()) if json else print_result(found, details=details)
