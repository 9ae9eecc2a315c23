"""Entry point of `capacity`: the commands, their options, and how errors end."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from capacity.errors import CapacityError, SpecError

app = typer.Typer(
    help="How small an update teaches a language model a task, and does GRPO need a smaller one than SFT?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Largest update: 100 (parameters), 26B, 1KiB, 208bit.", show_default="100, if no adapter is chosen"
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        help="tinylora, lora-xs, lora, vera, vb-lora, uni-lora, bitfit or full.", show_default="the budget decides"
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        help="Frozen rank of tinylora and lora-xs, rank of the other LoRAs.",
        show_default="2; vera 256, vb-lora and uni-lora 4",
    ),
]
U = Annotated[
    int | None, typer.Option(help="Entries of the trained vector of each group (tinylora).", show_default="1")
]
Groups = Annotated[
    int | None,
    typer.Option(help="Number of groups that share a vector (tinylora).", show_default="every module its own"),
]
NTie = Annotated[int | None, typer.Option(help="Modules a group, instead of --groups (tinylora).")]
Vectors = Annotated[int | None, typer.Option(help="Vectors in the bank (vb-lora).", show_default="256")]
VectorLength = Annotated[
    int | None,
    typer.Option(help="Entries of each (vb-lora).", show_default="largest power of two up to 256 that fits"),
]
Length = Annotated[int | None, typer.Option(help="Entries of the one vector (uni-lora).", show_default="256")]
Targets = Annotated[
    str | None,
    typer.Option(help="Types of the modules to adapt: q_proj,k_proj.", show_default="all linear modules"),
]
Sharing = Annotated[str, typer.Option(help="tiled (neighbours by depth) or structured (only modules of one type).")]
Scaling = Annotated[str, typer.Option(help="paper (U Σ R Vᵀ) or split (U √Σ R √Σ Vᵀ), for tinylora and lora-xs.")]
Allocation = Annotated[
    str, typer.Option(help="even, or gradient: groups with larger gradients get more entries (tinylora).")
]
StorageDtype = Annotated[
    str, typer.Option(help="Dtype of the stored update: fp32, bf16, fp16, fp8, int8, int4 or entropy.")
]


@app.command()
def compare(
    model: Annotated[str, typer.Option(help="Model alias.")] = "abacus",
    task: Annotated[str, typer.Option(help="Task, with options: abacus?demonstrations=own.")] = "abacus",
    budget: Budget = None,
    methods: Annotated[str, typer.Option(help="Methods to train, by comma.")] = "sft,grpo",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method: seeds 0 … N−1.")] = 3,
    learning_rates: Annotated[
        str | None, typer.Option(help="0.01, or sft=0.003,grpo=0.01. Tuned rates are shipped for abacus.")
    ] = None,
    adapter: Adapter = None,
    rank: Rank = None,
    u: U = None,
    groups: Groups = None,
    n_tie: NTie = None,
    vectors: Vectors = None,
    vector_length: VectorLength = None,
    length: Length = None,
    targets: Targets = None,
    sharing: Sharing = "tiled",
    scaling: Scaling = "paper",
    allocation: Allocation = "even",
    storage_dtype: StorageDtype = "bf16",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes.", show_default="cores, at most 4")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Study folder.", show_default="capacity-studies/…")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and stop.")] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Reuse runs of this study that another environment made.")
    ] = False,
    json: Json = False,
) -> None:
    """Train matched pairs of runs of one size and compare them on the test items."""
    from capacity_cli.compare import compare_command
    from capacity_cli.sizes import size_choice

    choice = size_choice(
        budget=budget, adapter=adapter, rank=rank, u=u, groups=groups, n_tie=n_tie, vectors=vectors,
        vector_length=vector_length, length=length, targets=targets, sharing=sharing, scaling=scaling,
        allocation=allocation,
    )  # fmt: skip
    compare_command(
        model, task, choice, methods, seeds, learning_rates, storage_dtype,
        workers, out, dry_run=dry_run, allow_mixed=allow_mixed, as_json=json,
    )  # fmt: skip


@app.command()
def plan(
    model: Annotated[str, typer.Option(help="Model alias, or a folder with the config.json of a model.")] = "abacus",
    budget: Budget = None,
    adapter: Adapter = None,
    rank: Rank = None,
    u: U = None,
    groups: Groups = None,
    n_tie: NTie = None,
    vectors: Vectors = None,
    vector_length: VectorLength = None,
    length: Length = None,
    targets: Targets = None,
    sharing: Sharing = "tiled",
    scaling: Scaling = "paper",
    allocation: Allocation = "even",
    storage_dtype: StorageDtype = "bf16",
    modules: Annotated[bool, typer.Option("--modules", help="List the adapted modules with their groups.")] = False,
    json: Json = False,
) -> None:
    """What an update of a given budget or choice is on a model. Offline, without torch."""
    from capacity_cli.plan import plan_command
    from capacity_cli.sizes import size_choice

    choice = size_choice(
        budget=budget, adapter=adapter, rank=rank, u=u, groups=groups, n_tie=n_tie, vectors=vectors,
        vector_length=vector_length, length=length, targets=targets, sharing=sharing, scaling=scaling,
        allocation=allocation,
    )  # fmt: skip
    plan_command(model, choice, storage_dtype, list_modules=modules, as_json=json)


@app.command()
def runs(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    points: Annotated[Path | None, typer.Option(help="Write the points table to this CSV file.")] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Points of runs that different environments made.")
    ] = False,
    json: Json = False,
) -> None:
    """What is in a study: complete, stale and failed runs, and their points table."""
    from capacity_cli.runs import runs_command

    runs_command(study, points, allow_mixed=allow_mixed, as_json=json)


@app.command()
def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Alias, or a folder such as merged weights. [default: the adapter's base]")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Native artifact, run folder, or PEFT folder to put on the model.")
    ] = None,
    task: Annotated[str, typer.Option(help="Task.")] = "abacus",
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    items: Annotated[int | None, typer.Option(min=1, help="Items. [default: the task's protocol]")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Completions of each item.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature, 0 is greedy. [default: the task's protocol]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    json: Json = False,
) -> None:
    """Accuracy of a model on a task, with any form of adapter on it."""
    from capacity_cli.evaluate import evaluate_command

    evaluate_command(model, adapter, task, split, items, samples, temperature, seed, as_json=json)


@app.command()
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


@app.command()
def factors(
    folder: Annotated[Path, typer.Argument(help="Folder of a model in safetensors format.")],
    rank: Annotated[int, typer.Option(min=1, help="Singular triplets of each module.")] = 2,
    targets: Targets = None,
    json: Json = False,
) -> None:
    """Compute and cache the SVD factors of a local checkpoint, one tensor in memory at a time."""
    from capacity_cli.factors import factors_command

    factors_command(folder, rank, targets, as_json=json)


@app.command()
def version() -> None:
    """Print the version."""
    from capacity import __version__

    typer.echo(__version__)


class Interrupted(CapacityError):
    """Ctrl-C; complete runs are kept."""


_INTERRUPTED = 130
# Click's own base of usage errors, wherever Typer keeps it.
_UsageError = typer.BadParameter.__mro__[1]


def main() -> None:
    """Runs the command line. Every expected error is one line on stderr: exit 2 for wrong input, 1 for the rest."""
    try:
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:  # Typer swallows Ctrl-C
            _fail("interrupted", _INTERRUPTED)
        sys.exit(code)
    except CapacityError as error:
        _fail(str(error), 2 if isinstance(error, SpecError) else 130 if isinstance(error, Interrupted) else 1)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {error.strerror}", 1)
    except Exception as error:
        if not isinstance(error, _UsageError):
            raise
        if len(sys.argv) == 1:  # the help was shown
            sys.exit(2)
        _fail(" ".join(error.format_message().split()), 2)  # type: ignore[attr-defined]


def _fail(message: str, code: int) -> None:
    print(f"capacity: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
