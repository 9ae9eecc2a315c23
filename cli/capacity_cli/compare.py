"""`capacity compare`: plan the runs, make those that are missing, report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capacity.plan.sizes import SizeChoice
from capacity_cli.options import (
    CheckpointMinutes,
    Details,
    Devices,
    DryRun,
    Executor,
    Json,
    NoReport,
    Ray,
    Reuse,
    ReuseMixed,
    Rollouts,
    StorageDtype,
    Together,
    Trainer,
    Workers,
    sized,
)
from capacity_cli.prose import say

if TYPE_CHECKING:
    from capacity.plan.executors import ExecutorChoice
    from capacity.studies.comparison import ComparisonPlan


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
        str,
        typer.Option(
            help="Methods to train, by comma: sft, rft, rft-online, grpo, random-reward, sft+grpo; and zero, a control."
        ),
    ] = "sft,rft,grpo",
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs of each method: seeds 0 … N−1. With --until: those of the first look.",
            show_default="5; 3 with --until",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="decided: add seeds to every method until grpo − sft is decided.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Hours of all calls after which no more seeds are added.")
    ] = None,
    most_seeds: Annotated[
        int | None, typer.Option(min=2, help="Largest number of seeds, with --until.", show_default="10")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Equivalence margin: with 0.02, methods within 2 points count as equal.")
    ] = None,
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
    trainer: Trainer = "loop",
    draws: Annotated[
        str, typer.Option(help="Answers of an evaluation: drawn anew for each seed, or common to all runs.")
    ] = "seed",
    workers: Workers = None,
    executor: Executor = None,
    devices: Devices = None,
    ray: Ray = None,
    together: Together = None,
    checkpoint_minutes: CheckpointMinutes = None,
    out: Annotated[Path | None, typer.Option(help="Study folder.", show_default="capacity-studies/…")] = None,
    dry_run: DryRun = False,
    reuse: Reuse = None,
    allow_mixed: ReuseMixed = False,
    no_report: NoReport = False,
    details: Details = False,
    json: Json = False,
) -> None:
    """Train matched pairs of runs of one size and compare them on the test items."""
    from capacity.library.compare import DEFAULT_SEEDS, compare_planned
    from capacity.plan.executors import Executed, parse_devices
    from capacity.plan.looks import planned_looks
    from capacity.plan.rates import parse_rates
    from capacity.plan.sampling import parse_choice
    from capacity.plan.specs import parse_methods
    from capacity.runs.fingerprint import parse_trainer
    from capacity.studies.comparison import plan_comparison
    from capacity_analysis.compare.looks import looks_sentence
    from capacity_cli.choices import draws_choice, match_choice, storage_dtype_choice
    from capacity_cli.output import finish, print_result, print_reused
    from capacity_cli.progress import RunProgress
    from capacity_reports.blocks import duration

    where = Executed().executor_choice(executor, parse_devices(devices), ray)
    dtype, chosen = storage_dtype_choice(storage_dtype), parse_methods(methods)
    plan = plan_comparison(
        model, task, choice, chosen, DEFAULT_SEEDS if seeds is None else seeds,
        rates=parse_rates(learning_rates, chosen), storage_dtype=dtype, match=match_choice(match),
        tokens_per_step=tokens_per_step, rollouts=parse_choice(rollouts), trainer=parse_trainer(trainer),
        draws=draws_choice(draws), looks=planned_looks(until, chosen, seeds, most_seeds, margin, within),
    )  # fmt: skip
    folder, copied = out or plan.folder, out is None if reuse is None else reuse
    if dry_run:
        _show_plan(plan, folder, where, workers, reuse=copied, as_json=json)
        return
    result = compare_planned(
        plan, folder, workers=workers, together=together, allow_mixed=allow_mixed, reuse=copied, within=within,
        observe=RunProgress, checkpoint_minutes=checkpoint_minutes, executor=where,
    )  # fmt: skip
    if not json:
        print_result(result, details=details)
        print_reused(result.made)
        if plan.looks is not None:
            say(looks_sentence(result.looks, plan.looks))
        say(f"Runs: {folder}; {duration(result.made.wall_seconds)}")
    finish(result, report=not no_report, allow_mixed=allow_mixed, as_json=json)


def _show_plan(
    plan: "ComparisonPlan", folder: Path, choice: "ExecutorChoice", workers: int | None, *, reuse: bool, as_json: bool
) -> None:
    from capacity.plan.memory import gigabytes
    from capacity.studies.ahead import look_ahead, planned_states
    from capacity.studies.executors.executor import opened
    from capacity_cli.output import print_json, print_rows

    with opened(choice, workers) as there:
        found = planned_states(folder, plan.specs, plan.trainer, there, reuse=reuse)
        ahead = look_ahead(folder, found, plan.trainer, there)
    if as_json:
        runs = [{"id": s.short_id, "label": s.label, "state": state, "spec": s.model_dump()} for s, state in found]
        shown = {
            "study": str(folder),
            "runs": runs,
            "least_memory_bytes": ahead.least_memory_bytes,
            "remarks": list(plan.remarks),
        }
        shown["preflight"] = ahead.to_json()
        print_json(shown)
        return
    rows = [(s.short_id, s.label, f"{s.training.learning_rate:g}" if s.training else "", state) for s, state in found]
    say(f"{len(rows)} runs in {folder}")
    if ahead.runs:
        say(f"A run needs at least {gigabytes(ahead.least_memory_bytes)} of memory, one sequence at a time\n")
    print_rows(("run", "what", "rate", "state"), rows)
    for line in (*ahead.lines, *plan.remarks):
        say(line)
