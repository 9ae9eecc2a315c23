"""`capacity export`: a trained update as a PEFT LoRA folder, as merged weights, stored anew, or many in one file."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity.errors import SpecError
from capacity_cli.options import Json, Where


def export(
    updates: Annotated[
        list[Path],
        typer.Argument(
            metavar="UPDATE...",
            help="Native artifact (update.safetensors), run folder, study folder or bundle; several with --bundle.",
        ),
    ],
    method: Annotated[
        str | None, typer.Option(help="Of a study: only runs of this method.", show_default="all")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Of a study: the run that is most accurate on the test items.")
    ] = False,
    run: Annotated[
        str | None, typer.Option(help="Of a study: the run whose name begins so, as `capacity runs` lists it.")
    ] = None,
    where: Where = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Write all updates into one file with one header. They share a recipe.")
    ] = False,
    number: Annotated[int | None, typer.Option(min=0, help="Of a bundle: the place of the update, from 0.")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="peft (a LoRA folder), merged (weights) or native (an artifact).",
            show_default="native for dtypes that only it has, otherwise peft",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder, or the new file of a bundle.", show_default="named after the artifact"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of what is written: fp32, bf16 or fp16; as native also fp8, int8, int4 or entropy.",
            show_default="fp32, and as native what it has",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Alias or folder of the base.", show_default="as recorded")] = None,
    json: Json = False,
) -> None:
    """Write a trained update in a form that others load, with a README that says how."""
    from capacity_cli.output import print_json
    from capacity_cli.progress import ModuleProgress

    if bundle:
        _refuse_beside_bundle(best=best, run=run, number=number, to=to, dtype=dtype, model=model)
        written = capacity.bundle(updates, out=out, method=method, where=where or ())
        print_json(written.to_json()) if json else print(written.line)
        return
    if len(updates) > 1:
        raise SpecError(f"{len(updates)} updates are given: one is exported at a time, or all with --bundle")
    done = capacity.export(
        updates[0], to, out=out, dtype=dtype, model=model, method=method, best=best, run=run, where=where or (),
        number=number, progress=ModuleProgress,
    )  # fmt: skip
    if json:
        print_json(done.to_json())
    else:
        print("\n".join(done.lines))


def _refuse_beside_bundle(**options: object) -> None:
    """Raises a SpecError if an option is given that belongs to a single update."""
    given = ", ".join(f"--{name}" for name, value in options.items() if value not in (None, False))
    if given:
        raise SpecError(f"--bundle holds artifacts as they are: leave out {given}")
