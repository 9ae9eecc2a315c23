"""Commands on single models and updates: planned, evaluated, exported."""

from pathlib import Path
from typing import Annotated

import typer

from capacity.plan.sizes import SizeChoice
from capacity_cli.commands.options import Json, StorageDtype, Targets, sized


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
    from capacity_cli.plan import plan_command

    plan_command(
        model, choice, storage_dtype, list_modules=modules, as_json=json, rollouts=rollouts,
        memory=memory, new_tokens=new_tokens,
    )  # fmt: skip


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Alias, or a folder such as merged weights. [default: the adapter's base]")
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="Native artifact, run folder, or PEFT folder to put on the model; several with vllm."),
    ] = None,
    task: Annotated[str, typer.Option(help="Task.")] = "abacus",
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    items: Annotated[int | None, typer.Option(min=1, help="Items. [default: the task's protocol]")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Completions of each item.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature, 0 is greedy. [default: the task's protocol]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    control: Annotated[bool, typer.Option("--control", help="Also with the adapter switched off.")] = False,
    code_length: Annotated[
        bool, typer.Option("--code-length", help="Also what a demonstration of each item costs to code, in bits.")
    ] = False,
    rollouts: Annotated[str, typer.Option(help="What samples: transformers, or vllm for all adapters at once.")] = (
        "transformers"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Write the result with per-item outcomes.", show_default="none")
    ] = None,
    json: Json = False,
) -> None:
    """Accuracy of a model on a task, with any form of adapter on it."""
    from capacity_cli.evaluate import evaluate_command

    evaluate_command(
        model, adapter or [], task, split, items, samples, temperature, seed,
        rollouts=rollouts, control=control, code_length=code_length, out=out, as_json=json,
    )  # fmt: skip


def tasks(
    name: Annotated[str | None, typer.Argument(help="Task with options.")] = None,
    grade: Annotated[bool, typer.Option("--grade", help="Grade all references.")] = False,
    json: Json = False,
) -> None:
    """The tasks, or one of them: splits, a prompt, its references graded."""
    from capacity_cli.tasks import tasks_command

    tasks_command(name, grade=grade, as_json=json)


def models(name: Annotated[str | None, typer.Argument(help="Model with options.")] = None, json: Json = False) -> None:
    """The models, or one of them with the memory of a run that `capacity compare` makes on it by default."""
    from capacity_cli.models import models_command

    models_command(name, as_json=json)


def export(
    update: Annotated[Path, typer.Argument(help="Native artifact (update.safetensors), or the run folder it is in.")],
    to: Annotated[str, typer.Option(help="peft (a standard LoRA folder) or merged (weights).")] = "peft",
    out: Annotated[Path | None, typer.Option(help="New folder. [default: named after the artifact]")] = None,
    dtype: Annotated[str, typer.Option(help="Of what is written: fp32, bf16 or fp16.")] = "fp32",
    model: Annotated[str | None, typer.Option(help="Alias or folder of the base. [default: as recorded]")] = None,
    json: Json = False,
) -> None:
    """Write a trained update as a PEFT LoRA adapter or merged into the weights."""
    from capacity_cli.export import export_command

    export_command(update, to, out, dtype, model, as_json=json)


def factors(
    folder: Annotated[Path, typer.Argument(help="Folder of a model in safetensors format.")],
    rank: Annotated[int, typer.Option(min=1, help="Singular triplets of each module.")] = 2,
    targets: Targets = None,
    json: Json = False,
) -> None:
    """Compute and cache the SVD factors of a local checkpoint, several modules at once."""
    from capacity_cli.factors import factors_command

    factors_command(folder, rank, targets, as_json=json)
