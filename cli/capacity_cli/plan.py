"""`capacity plan`: sizes and groups of an update on a model, from shapes alone."""

from typing import Annotated

import typer

import capacity
from capacity.plan.sizes import SizeChoice
from capacity_cli.options import Json, StorageDtype, sized


@sized
def plan(
    model: Annotated[str, typer.Option(help="Model alias, or a folder with the config.json of a model.")] = "abacus",
    *,
    choice: SizeChoice,
    storage_dtype: StorageDtype = "bf16",
    rollouts: Annotated[
        str, typer.Option(help="With vllm: the memory of a device that trainer and engine share.")
    ] = "transformers",
    modules: Annotated[bool, typer.Option("--modules", help="List the adapted modules with their groups.")] = False,
    memory: Annotated[
        str | None, typer.Option(help="24GB: does training fit such a GPU, and if not, what to change?")
    ] = None,
    new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest completion, for the memory.", show_default="the default task's"),
    ] = None,
    json: Json = False,
) -> None:
    """What an update of a given budget or choice is on a model. Offline, without torch."""
    from capacity.plan.sampling import parse_choice
    from capacity_cli.choices import storage_dtype_choice
    from capacity_cli.output import print_blocks, print_json, print_rows

    planned = capacity.plan_update(
        model, choice, storage_dtype=storage_dtype_choice(storage_dtype), memory=memory, new_tokens=new_tokens,
        rollouts=parse_choice(rollouts),
    )  # fmt: skip
    if json:
        print_json(planned.to_json() | ({"modules": planned.modules} if modules else {}))
        return
    print_blocks(planned.blocks)
    if modules:
        listed = [
            (m["name"], f"{m['d']}×{m['k']}", "" if m["group"] is None else str(m["group"])) for m in planned.modules
        ]
        print_rows(("module", "shape", "group"), listed)
