"""Options that several commands share."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_args

import typer

from capacity.plan.sizes import SizeChoice

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Details = Annotated[bool, typer.Option("--details", help="Print all tables and remarks below the answer.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="End without writing the page of the study.")]
Targets = Annotated[str | None, typer.Option(help=SizeChoice.model_fields["targets"].description)]
StorageDtype = Annotated[
    str, typer.Option(help="Dtype of the stored update: fp32, bf16, fp16, fp8, int8, int4 or entropy.")
]
Rollouts = Annotated[
    str,
    typer.Option(help="What samples: transformers (the trainer's own model), vllm, or auto (vllm for large models)."),
]
Trainer = Annotated[
    str, typer.Option(help="What makes the steps: loop, or trl (the trainers of TRL, which give the same update).")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Worker processes.", show_default="one a GPU, else one a core, at most 4"),
]
Executor = Annotated[
    str | None,
    typer.Option(
        help="What makes the runs: local (this machine), or ray (a Ray cluster).",
        show_default="what the study file says, else local",
    ),
]
Devices = Annotated[
    str | None, typer.Option(help="GPUs of this machine that workers use, by number: 0,1.", show_default="all")
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Address of a running Ray cluster; auto finds the one of this machine. It implies --executor ray.",
        show_default="RAY_ADDRESS, else a cluster of its own",
    ),
]
Together = Annotated[
    int | None,
    typer.Option(
        min=1, help="Runs on one base that share their passes, at most.", show_default="1 on a CPU, what fits on a GPU"
    ),
]
CheckpointMinutes = Annotated[
    float | None,
    typer.Option(help="Minutes between two checkpoints of a run in training; 0 makes none.", show_default="5"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the runs and stop.")]
ReuseMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Reuse runs of this study that another environment made.")
]
Reuse = Annotated[
    bool | None,
    typer.Option(
        "--reuse/--no-reuse",
        help="Copy runs that a study beside this one has made in this environment.",
        show_default="copied, unless --out is given",
    ),
]
AllowMixed = Annotated[bool, typer.Option("--allow-mixed", help="Runs that different environments made.")]
Points = Annotated[
    str, typer.Argument(help="Points table (CSV, Parquet), study folder, reference:NAME, or other results.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(help="Only runs with field=value: a column, or a field of the recipe such as rank. Repeatable."),
]
OfTask = Annotated[str | None, typer.Option(help="Rows of this task.", show_default="the only one")]
OfItems = Annotated[str, typer.Option(help="Intervals for fresh seeds on these items, or a population of them.")]
Target = Annotated[float | None, typer.Option(help="Accuracy to reach: 0.85.", show_default="by --gain")]
Gain = Annotated[
    float | None, typer.Option(help="Share of the gain from the base up to the ceiling.", show_default="0.8")
]


def sized(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes `choice: SizeChoice`, with an option for each field of `SizeChoice` in its place."""

    @wraps(command)
    def with_options(**given: Any) -> None:
        choice = SizeChoice.model_validate({name: given.pop(name) for name in SizeChoice.model_fields})
        command(choice=choice, **given)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        parameters += _size_options() if parameter.annotation is SizeChoice else [parameter]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_options


def _size_options() -> list[inspect.Parameter]:
    """What Typer reads: numbers as such, everything else as text, which `SizeChoice` reads."""
    found = []
    for name, field in SizeChoice.model_fields.items():
        number = set(get_args(field.annotation)) == {int, type(None)}
        typed: Any = Annotated[int | None if number else str | None, typer.Option(help=field.description)]
        found.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=typed))
    return found
