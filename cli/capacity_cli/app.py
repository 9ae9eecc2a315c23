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
Model = Annotated[str, typer.Option(help="Model alias.")]
Rank = Annotated[int, typer.Option(help="Frozen rank r of tinylora and lora-xs; trained rank of lora.")]
Sharing = Annotated[str, typer.Option(help="tiled (neighbours by depth) or structured (only modules of one type).")]
StorageDtype = Annotated[str, typer.Option(help="Dtype of the stored update: fp32, bf16 or fp16.")]


@app.command()
def compare(
    model: Model = "abacus",
    task: Annotated[str, typer.Option(help="Task, with options: abacus?demonstrations=own.")] = "abacus",
    budget: Annotated[
        str | None, typer.Option(help="Largest update: 100 (parameters), 26B, 1KiB, 208bit. [default: 100]")
    ] = None,
    methods: Annotated[str, typer.Option(help="Methods to train, by comma.")] = "sft,grpo",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method: seeds 0 … N−1.")] = 3,
    learning_rates: Annotated[
        str | None, typer.Option(help="0.01, or sft=0.003,grpo=0.01. Tuned rates are shipped for abacus.")
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="tinylora or full, instead of what the budget gives.")] = None,
    sharing: Sharing = "tiled",
    storage_dtype: StorageDtype = "bf16",
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes. [default: cores, at most 4]")] = None,
    out: Annotated[Path | None, typer.Option(help="Study folder. [default: capacity-studies/…]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and stop.")] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Reuse runs of this study that another environment made.")
    ] = False,
    json: Json = False,
) -> None:
    """Train matched pairs of runs of one size and compare them on the test items."""
    from capacity_cli.compare import compare_command

    compare_command(
        model, task, budget, methods, seeds, learning_rates, adapter, sharing, storage_dtype,
        workers, out, dry_run=dry_run, allow_mixed=allow_mixed, as_json=json,
    )  # fmt: skip


@app.command()
def plan(
    model: Model = "abacus",
    budget: Annotated[str | None, typer.Option(help="100 (parameters), 26B, 1KiB, 208bit.")] = None,
    adapter: Annotated[str | None, typer.Option(help="tinylora, lora-xs, lora or full.")] = None,
    rank: Rank = 2,
    u: Annotated[int | None, typer.Option(help="Entries of the trained vector of each group.")] = None,
    groups: Annotated[int | None, typer.Option(help="Number of groups that share a vector.")] = None,
    n_tie: Annotated[int | None, typer.Option(help="Modules a group, instead of --groups.")] = None,
    sharing: Sharing = "tiled",
    storage_dtype: StorageDtype = "bf16",
    modules: Annotated[bool, typer.Option("--modules", help="List the adapted modules with their groups.")] = False,
    json: Json = False,
) -> None:
    """What an update of a given budget or choice is on a model. Offline, without torch."""
    from capacity_cli.plan import plan_command

    plan_command(
        model,
        budget,
        adapter,
        rank,
        u,
        groups,
        n_tie,
        sharing,
        storage_dtype,
        list_modules=modules,
        as_json=json,
    )


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
def version() -> None:
    """Print the version."""
    from capacity import __version__

    typer.echo(__version__)


class Interrupted(CapacityError):
    """Ctrl-C; complete runs are kept."""


# Click's own base of usage errors, wherever Typer keeps it.
_UsageError = typer.BadParameter.__mro__[1]


def main() -> None:
    """Runs the command line. Every expected error is one line on stderr: exit 2 for wrong input, 1 for the rest."""
    try:
        sys.exit(app(standalone_mode=False))
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
