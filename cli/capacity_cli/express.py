"""`capacity express`: what an adapter can express against what a method learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity.errors import SpecError
from capacity.plan.sizes import SizeChoice
from capacity_cli.options import Json, sized


@sized
def express(
    study: Annotated[Path | None, typer.Argument(help="Study folder; or else --model.")] = None,
    *,
    model: Annotated[
        str | None, typer.Option(help="Without a study: the model whose update is searched for.", show_default="none")
    ] = None,
    choice: SizeChoice,
    task: Annotated[str | None, typer.Option(help="With --model: the task.", show_default="abacus")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="With --model: draws of the random parts.", show_default="2")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Methods whose runs are taken, by comma. [default: all]")] = None,
    largest: Annotated[
        int | None, typer.Option(min=1, help="Leave out runs of more parameters.", show_default="28")
    ] = None,
    evaluations: Annotated[int, typer.Option(min=1, help="Updates that each start tries.")] = 200,
    items: Annotated[int, typer.Option(min=1, help="Training items that each update answers.")] = 512,
    json: Json = False,
) -> None:
    """Search for the best update of each small adapter, and compare it with what was learned."""
    from capacity_cli.output import print_blocks, print_json
    from capacity_cli.progress import ModuleProgress

    of_model: dict[str, object] = {"task": task, "seeds": seeds, **choice.model_dump(exclude_defaults=True)}
    of_study: dict[str, object] = {"methods": methods, "largest": largest}
    if (study is None) == (model is None):
        raise SpecError("give a study folder, or a model with --model")
    _refuse(of_model if model is None else of_study, "--model" if model is None else "a study folder")
    if model is not None:
        reached = capacity.expressible(
            model, choice, task=task or "abacus", seeds=seeds or 2, evaluations=evaluations, items=items,
            progress=ModuleProgress,
        )  # fmt: skip
        print_json(reached.to_json()) if json else print_blocks(reached.blocks)
        return
    assert study is not None
    chosen = () if methods is None else tuple(name.strip() for name in methods.split(","))
    found = capacity.express(
        study, methods=chosen, largest=largest or 28, evaluations=evaluations, items=items, progress=ModuleProgress
    )
    print_json(found.to_json()) if json else print_blocks(found.blocks)


def _refuse(options: Mapping[str, object], owner: str) -> None:
    """Raises a SpecError if an option is given that goes with something else."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise SpecError(f"{', '.join(given)} goes with {owner}")
