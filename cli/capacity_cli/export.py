"""`capacity export`: a trained update as a PEFT LoRA folder, as merged weights, or stored anew in another dtype."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import Json, Where


def export(
    update: Annotated[
        Path,
        typer.Argument(help="Native artifact (update.safetensors), the run folder that it is in, or a study folder."),
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
    to: Annotated[
        str | None,
        typer.Option(
            help="peft (a LoRA folder), merged (weights) or native (an artifact).",
            show_default="native for dtypes that only it has, otherwise peft",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder.", show_default="named after the artifact")] = None,
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

    done = capacity.export(
        update, to, out=out, dtype=dtype, model=model, method=method, best=best, run=run, where=where or (),
        progress=ModuleProgress,
    )  # fmt: skip
    if json:
        print_json(done.to_json())
    else:
        print("\n".join(done.lines))
