"""Commands that make runs and list them."""

from pathlib import Path
from typing import Annotated

import typer

from capacity.plan.sizes import SizeChoice
from capacity_cli.options import DryRun, Json, NoReport, ReuseMixed, Rollouts, StorageDtype, Workers, sized


@sized
def compare(
    model: Annotated[str, typer.Option(help="Model alias.")] = "abacus",
    task: Annotated[
        str | None,
        typer.Option(help="Task, with options: abacus?demonstrations=own.", show_default="abacus; gsm8k for others"),
    ] = None,
    *,
    choice: SizeChoice,
    methods: Annotated[
        str, typer.Option(help="Methods to train, by comma: sft, rft, rft-online, grpo, random-reward, sft+grpo.")
    ] = "sft,rft,grpo",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method: seeds 0 … N−1.")] = 3,
    learning_rates: Annotated[
        str | None, typer.Option(help="0.01, or sft=0.003,grpo=0.01. Tuned rates are shipped for abacus.")
    ] = None,
    storage_dtype: StorageDtype = "bf16",
    match: Annotated[
        str, typer.Option(help="What the methods have in common: prompts, sequences or tokens.")
    ] = "prompts",
    tokens_per_step: Annotated[
        int | None, typer.Option(min=1, help="Completion tokens that a step trains on, with --match tokens.")
    ] = None,
    rollouts: Rollouts = "auto",
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option(help="Study folder.", show_default="capacity-studies/…")] = None,
    dry_run: DryRun = False,
    allow_mixed: ReuseMixed = False,
    no_report: NoReport = False,
    json: Json = False,
) -> None:
    """Train matched pairs of runs of one size and compare them on the test items."""
    from capacity_cli.compare import compare_command

    compare_command(
        model, task, choice, methods, seeds, learning_rates, storage_dtype, match, tokens_per_step,
        workers, out, dry_run=dry_run, allow_mixed=allow_mixed, report=not no_report, rollouts=rollouts,
        as_json=json,
    )  # fmt: skip


def sweep(
    study: Annotated[Path, typer.Argument(help="Study file (TOML).")],
    out: Annotated[Path | None, typer.Option(help="Study folder.", show_default="capacity-studies/NAME")] = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    allow_mixed: ReuseMixed = False,
    no_report: NoReport = False,
    json: Json = False,
) -> None:
    """Make all runs of a study file: models, tasks, methods, sizes, rates and seeds. Continues where it stopped."""
    from capacity_cli.sweep import sweep_command

    sweep_command(
        study, out, workers, dry_run=dry_run, allow_mixed=allow_mixed, report=not no_report, as_json=json
    )  # fmt: skip


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
