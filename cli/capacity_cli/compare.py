"""`capacity compare`: plan the runs, make those that are missing, report."""

import json
from pathlib import Path

from rich.console import Console

from capacity.plan.memory import gigabytes, run_memory
from capacity.plan.rates import parse_rates
from capacity.plan.sampling import parse_choice
from capacity.plan.sizes import SizeChoice
from capacity.plan.specs import parse_methods
from capacity.runs.study import Study
from capacity.studies.comparison import ComparisonPlan, plan_comparison
from capacity.studies.make import environment, make_study
from capacity_analysis.compare.costs import costs_of
from capacity_analysis.compare.result import compare_runs, comparison_json
from capacity_cli.choices import match_choice, storage_dtype_choice
from capacity_cli.progress import RunProgress
from capacity_reports.tables import comparison_view, rows_table


def compare_command(
    model: str,
    task: str | None,
    choice: SizeChoice,
    methods: str,
    seeds: int,
    learning_rates: str | None,
    storage_dtype: str,
    match: str,
    tokens_per_step: int | None,
    workers: int | None,
    out: Path | None,
    *,
    dry_run: bool,
    allow_mixed: bool,
    report: bool,
    as_json: bool,
    rollouts: str = "auto",
) -> None:
    """Everything between the options and the printed result."""
    dtype, chosen = storage_dtype_choice(storage_dtype), parse_methods(methods)
    plan = plan_comparison(
        model, task, choice, chosen, seeds,
        rates=parse_rates(learning_rates, chosen), storage_dtype=dtype, match=match_choice(match),
        tokens_per_step=tokens_per_step, rollouts=parse_choice(rollouts),
    )  # fmt: skip
    study = Study(out or plan.folder)
    if dry_run:
        _show_plan(study, plan, as_json=as_json)
        return
    made = make_study(study.folder, plan.produce, workers=workers, observe=RunProgress, allow_mixed=allow_mixed)
    if made.failed and not any(run.spec.method == "base" for run in made.runs):
        made.check()
    comparison, costs = compare_runs(study.folder, made.runs, made.specs), costs_of(made.runs)
    result = {
        **comparison_json(comparison, costs),
        "remarks": list(made.remarks),
        "study": str(study.folder),
        "wall_seconds": round(made.wall_seconds, 1),
        "failed": made.failed,
    }
    if not as_json:
        console = Console()
        view = comparison_view(comparison, costs, made.wall_seconds, made.remarks)
        console.print(view, highlight=False, soft_wrap=not console.is_terminal)
        console.print(f"Runs: {study.folder}", highlight=False, soft_wrap=True)
    from capacity_cli.report import report_json, report_line, study_report

    written = study_report(study.folder, allow_mixed=allow_mixed) if report else None
    if as_json:
        print(json.dumps(result | report_json(written), indent=1))
    elif written is not None:
        print(report_line(written))
    made.check()


def _show_plan(study: Study, plan: ComparisonPlan, *, as_json: bool) -> None:
    fingerprint = environment()
    found = [(spec, study.find(spec, fingerprint)[0]) for spec in plan.specs]
    least = max(run_memory(spec).peak for spec in plan.specs)
    if as_json:
        runs = [{"id": s.short_id, "label": s.label, "state": state, "spec": s.model_dump()} for s, state in found]
        shown = {"study": str(study.folder), "runs": runs, "least_memory_bytes": least, "remarks": list(plan.remarks)}
        print(json.dumps(shown, indent=1))
        return
    rows = [(s.short_id, s.label, f"{s.training.learning_rate:g}" if s.training else "", state) for s, state in found]
    Console().print(rows_table(("run", "what", "rate", "state"), rows))
    print(f"{len(rows)} runs in {study.folder}")
    print(f"A run needs at least {gigabytes(least)} of memory, one sequence at a time")
    for remark in plan.remarks:
        print(remark)
