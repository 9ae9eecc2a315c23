"""`capacity evaluate`: the accuracy of a model on a task, with whatever form of adapter on it."""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import capacity
from capacity.errors import DataError, MissingPathError, SpecError
from capacity_cli.options import Json

if TYPE_CHECKING:
    from capacity.library.evaluate_adapters import EvaluatedAdapters


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Alias, or a folder such as merged weights.", show_default="the adapter's base")
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="Native artifact, run folder, or PEFT folder to put on the model; several with vllm."),
    ] = None,
    task: Annotated[str, typer.Option(help="Task.")] = "abacus",
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    items: Annotated[int | None, typer.Option(min=1, help="Items.", show_default="the task's protocol")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Completions of each item.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature, 0 is greedy.", show_default="the task's protocol")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    control: Annotated[
        str | None,
        typer.Option(
            help="Also with the adapter switched off (off), or with an adapter of zeros (zero).", show_default="none"
        ),
    ] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="With --control: adapter, control, control, adapter, and how they differ.")
    ] = False,
    code_length: Annotated[
        bool, typer.Option("--code-length", help="Also what a demonstration of each item costs to code, in bits.")
    ] = False,
    rollouts: Annotated[str, typer.Option(help="What samples: transformers, or vllm for all adapters at once.")] = (
        "transformers"
    ),
    out: Annotated[Path | None, typer.Option(help="Write the result with per-item outcomes.")] = None,
    json: Json = False,
) -> None:
    """Accuracy of a model on a task, with any form of adapter on it."""
    from capacity.library.evaluate import Evaluated
    from capacity.runs.files import write_atomically
    from capacity_cli.choices import control_choice
    from capacity_cli.output import print_blocks, print_json
    from capacity_cli.progress import ModuleProgress

    adapters = adapter or []
    several = through_engine(rollouts, adapters, code_length=code_length)
    if out is not None and not out.parent.is_dir():
        raise MissingPathError(f"--out {out}: no folder {out.parent}")
    if out is not None and out.exists() and not out.is_file():
        raise DataError(f"--out {out}: not a file")
    found: Evaluated | EvaluatedAdapters
    if several:
        found = capacity.evaluate_adapters(
            model, adapters, task=task, split=split, items=items, samples=samples, temperature=temperature, seed=seed,
            control=control_choice(control), drift=drift,
        )  # fmt: skip
    else:
        found = capacity.evaluate(
            model, adapters[0] if adapters else None, task=task, split=split, items=items, samples=samples,
            temperature=temperature, seed=seed, control=control_choice(control), drift=drift, code_length=code_length,
            progress=ModuleProgress,
        )  # fmt: skip
    if out is not None:
        write_atomically(out, dumps(found.to_json(), indent=1) + "\n")
    if json:
        print_json(found.to_json())
    else:
        print_blocks(found.blocks)


def through_engine(rollouts: str, adapters: Sequence[Path], *, code_length: bool = False) -> bool:
    """Whether an evaluation goes through vLLM.

    Raises:
        SpecError: several adapters, but not through vLLM; code lengths through it.
    """
    from capacity.plan.sampling import parse_choice

    choice = parse_choice(rollouts)
    if choice == "vllm" and code_length:
        raise SpecError("--code-length is measured by transformers: leave --rollouts vllm out")
    if choice != "vllm" and len(adapters) > 1:
        raise SpecError("several adapters at once need --rollouts vllm")
    return choice == "vllm"
