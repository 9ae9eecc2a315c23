"""`capacity sweep`: make the runs of a study file, and print accuracy against size."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import capacity
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
    Together,
    Trainer,
    Workers,
)
from capacity_cli.prose import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capacity.plan.adaptive_file import AdaptiveFile
    from capacity.plan.executors import ExecutorChoice
    from capacity.plan.study_file import StudyFile
    from capacity.runs.fingerprint import Trainer as MadeBy


def sweep(
    study: Annotated[Path, typer.Argument(help="Study file (TOML).")],
    out: Annotated[Path | None, typer.Option(help="Study folder.", show_default="capacity-studies/NAME")] = None,
    trainer: Trainer = "loop",
    workers: Workers = None,
    executor: Executor = None,
    devices: Devices = None,
    ray: Ray = None,
    together: Together = None,
    checkpoint_minutes: CheckpointMinutes = None,
    dry_run: DryRun = False,
    reuse: Reuse = None,
    allow_mixed: ReuseMixed = False,
    no_report: NoReport = False,
    details: Details = False,
    json: Json = False,
) -> None:
    """Make all runs of a study file: models, tasks, methods, sizes, rates and seeds. Continues where it stopped."""
    from capacity.plan.adaptive_file import AdaptiveFile, read_any_study
    from capacity.plan.executors import parse_devices
    from capacity.runs.fingerprint import parse_trainer
    from capacity.studies.adaptive import LOG
    from capacity.studies.sweep import default_folder
    from capacity_cli.output import finish, print_result, print_reused
    from capacity_cli.progress import RunProgress
    from capacity_reports.blocks import duration

    file, made_by = read_any_study(study), parse_trainer(trainer)
    folder, numbers = out or default_folder(file), parse_devices(devices)
    copied = out is None if reuse is None else reuse
    if dry_run:
        if isinstance(file, AdaptiveFile):
            _show_candidates(file, folder, as_json=json)
        else:
            choice = file.executor_choice(executor, numbers, ray)
            _show_plan(file, folder, made_by, choice, workers, reuse=copied, as_json=json)
        return
    result = capacity.sweep(
        file, trainer=made_by, workers=workers, together=together, out=folder,
        allow_mixed=allow_mixed, reuse=copied, observe=RunProgress,
        checkpoint_minutes=checkpoint_minutes, executor=executor, devices=numbers, ray=ray,
    )  # fmt: skip
    if not json:
        made = result.made
        print_result(result, details=details)
        print_reused(made)
        if isinstance(file, AdaptiveFile):
            say(f"The design has ended. {made.remarks[0]} Its steps: {folder / LOG}")
        say(f"Runs: {folder}; points: {result.points}; {duration(made.wall_seconds)}")
        for failure in made.failures:
            say(f"failed: {failure.label}: {failure.message}")
    finish(result, report=not no_report, allow_mixed=allow_mixed, as_json=json)


def _show_candidates(file: "AdaptiveFile", folder: Path, *, as_json: bool) -> None:
    """What is known of an adaptive study beforehand: the sizes that it may choose from, and its limits."""
    from capacity.plan.memory import gigabytes, run_memory
    from capacity_cli.output import print_json, print_rows

    points = file.points()
    sizes = [(point.size.kind, point.size.trained_parameters) for point in points]
    first = file.methods[0]
    least = max(run_memory(p.spec(first, 0, {first: 1.0}, validation=False)).peak for p in (points[0], points[-1]))
    if as_json:
        listed = [{"adapter": kind, "trained_parameters": count} for kind, count in sizes]
        print_json(
            {"study": str(folder), "sizes": listed, "methods": list(file.methods), "most_runs": file.most_runs,
             "hours": file.hours, "least_memory_bytes": least}
        )  # fmt: skip
        return
    hours = "" if file.hours is None else f" and {file.hours:g} hours"
    say(f"{file.name} in {folder}: {file.question}".rstrip(": "))
    say(f"An adaptive design chooses among {len(sizes)} sizes, up to {file.most_runs} trained runs{hours}")
    say(f"A run needs at least {gigabytes(least)} of memory, one sequence at a time\n")
    print_rows(("adapter", "trained parameters"), [(kind, f"{count:,}") for kind, count in sizes])


def _show_plan(
    file: "StudyFile",
    folder: Path,
    trainer: "MadeBy",
    choice: "ExecutorChoice",
    workers: int | None,
    *,
    reuse: bool,
    as_json: bool,
) -> None:
    """The runs that a sweep makes. Tuned rates are not known before the tuning is done, so those runs are counted."""
    from capacity.plan.cost import GPU_BYTES, file_estimate
    from capacity.plan.grid import planned_runs, shipped_remarks
    from capacity.plan.memory import gigabytes
    from capacity.plan.models import ALIASES
    from capacity.studies.ahead import look_ahead, planned_states
    from capacity.studies.executors.executor import opened
    from capacity_cli.output import print_json, print_rows

    plan, cost, remarks = planned_runs(file), file_estimate(file), shipped_remarks(file)
    trials, planned = plan.trials, plan.results
    with opened(choice, workers) as there:
        states = [planned_states(folder, specs, trainer, there, reuse=reuse) for specs in (trials, planned)]
        ahead = look_ahead(folder, [run for found in states for run in found], trainer, there)
    if as_json:
        listed = [
            [{"id": s.short_id, "label": s.label, "state": state, "spec": s.model_dump()} for s, state in found]
            for found in states
        ]
        result: dict[str, Any] = {
            "study": str(folder),
            "tuning": listed[0],
            "runs": listed[1],
            "runs_at_tuned_rates": plan.at_tuned_rates,
            "remarks": list(remarks),
        }
        result["estimate"] = {
            "gpu_hours": cost.gpu_hours,
            "least_memory_bytes": cost.least_bytes,
            "peak_memory_bytes": cost.peak_bytes,
            "advice": cost.advice,
        }
        result["preflight"] = ahead.to_json()
        print_json(result)
        return
    rows = [
        (s.model, s.label, f"{s.training.learning_rate:g}" if s.training else "", state)
        for s, state in [*states[0], *states[1]]
    ]
    done = [_done([state for _, state in found]) for found in states]
    say(f"{file.name} in {folder}: {file.question}".rstrip(": "))
    if trials:
        say(f"{len(trials)} tuning runs ({done[0]}), more where the best rate lies at an edge")
        say(f"{plan.at_tuned_rates} runs at tuned rates, fewer where tasks share them")
    say(f"{len(planned)} other runs ({done[1]})")
    if any(ALIASES[m].source != "embedded" if m in ALIASES else True for grid in file.grids for m in grid.models):
        say(f"Without the tuning about {cost.gpu_hours:,.1f} A100-hours at the longest completions allowed")
        least, gpu = gigabytes(cost.least_bytes), gigabytes(GPU_BYTES)
        say(f"Largest run at least {least} of memory, one sequence at a time; on a GPU of {gpu} as many as fit")
        if cost.advice is not None:
            say(f"The largest {cost.advice}")
    print()
    print_rows(("model", "what", "rate", "state"), rows)
    for line in (*ahead.lines, *remarks):
        say(line)


def _done(states: "Sequence[str]") -> str:
    """How many runs of these states need not be made, in words: "3 done", "3 done, 2 copied"."""
    made, copied = sum(state in ("complete", "stale") for state in states), states.count("copied")
    return f"{made} done" + (f", {copied} copied" if copied else "")
