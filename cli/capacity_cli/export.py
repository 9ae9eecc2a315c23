"""`capacity export`: a trained update as a PEFT LoRA folder or as merged weights."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import Json


def export(
    update: Annotated[Path, typer.Argument(help="Native artifact (update.safetensors), or the run folder it is in.")],
    to: Annotated[str, typer.Option(help="peft (a standard LoRA folder) or merged (weights).")] = "peft",
    out: Annotated[Path | None, typer.Option(help="New folder.", show_default="named after the artifact")] = None,
    dtype: Annotated[str, typer.Option(help="Of what is written: fp32, bf16 or fp16.")] = "fp32",
    model: Annotated[str | None, typer.Option(help="Alias or folder of the base.", show_default="as recorded")] = None,
    json: Json = False,
) -> None:
    """Write a trained update as a PEFT LoRA adapter or merged into the weights."""
    from capacity_cli.output import print_json
    from capacity_cli.progress import ModuleProgress

    done = capacity.export(update, to, out=out, dtype=dtype, model=model, progress=ModuleProgress)
    if json:
        print_json(done.to_json())
    else:
        print("\n".join(done.lines))
