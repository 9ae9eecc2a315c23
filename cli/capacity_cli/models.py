"""`capacity models`: the models by name, and one of them in detail."""

from typing import Annotated

import typer

from capacity_cli.options import Json


def models(name: Annotated[str | None, typer.Argument(help="Model with options.")] = None, json: Json = False) -> None:
    """The models, or one of them with the memory of a run that `capacity compare` makes on it by default."""
    from capacity.library.models import model_facts
    from capacity.plan.sizes import DEFAULT_BUDGET
    from capacity_cli.output import print_json, print_rows
    from capacity_cli.prose import say

    if name is None:
        _list(as_json=json)
        return
    found = model_facts(name)
    if json:
        print_json(found.to_json())
        return
    if found.refusal is not None:
        say(found.refusal)
    shown = {**found.to_json(), "training_memory": None if found.memory is None else found.memory.text}
    rows = [
        (k.replace("_", " "), f"{v:,}" if isinstance(v, int) else str(v)) for k, v in shown.items() if v is not None
    ]
    print_rows(("", ""), rows)
    if found.refusal is None:
        say(f"\nTraining memory is that of a run as capacity compare makes it by default, --budget {DEFAULT_BUDGET}.")


def _list(*, as_json: bool) -> None:
    from capacity.library.models import aliases
    from capacity.plan.models import SYNONYMS
    from capacity_cli.output import print_json, print_rows

    found = aliases()
    if as_json:
        print_json({"models": found, "synonyms": SYNONYMS})
        return
    rows = [
        (str(r["name"]), f"{r['parameters']:,}", str(r["linear_modules"]), str(r["source"]), str(r["here"]))
        for r in found
    ]
    print_rows(("model", "parameters", "linear modules", "source", "weights"), rows)
    print("\nA model may also be any hub id, a folder, or a GGUF file.")
    print("Options: ?dtype=bf16, ?quantised=nf4, ?attention=eager, ?revision=COMMIT.")
