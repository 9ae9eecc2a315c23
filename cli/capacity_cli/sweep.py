"""`capacity sweep`: make the runs of a study file, and print accuracy against size."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from capacity.plan.cost import GPU_BYTES, file_estimate
from capacity.plan.grid import planned_runs, shipped_remarks
from capacity.plan.memory import gigabytes
from capacity.plan.models import ALIASES
from capacity.plan.study_file import StudyFile, read_study_file
from capacity.runs.study import Study
from capacity.studies.sweep import POINTS, default_folder, make_sweep
from capacity_cli.progress import RunProgress
from capacity_reports.tables import rows_table, seconds


def sweep_command(
    path: Path,
    out: Path | None,
    workers: int | None,
    *,
    dry_run: bool,
    allow_mixed: bool,
    report: bool,
    as_json: bool,
) -> None:
    """Everything between the options and the printed result."""
    file = read_study_file(path)
    folder = out or default_folder(file)
    if dry_run:
        _show_plan(file, Study(folder), as_json=as_json)
        return
    made = make_sweep(file, folder, workers=workers, observe=RunProgress, allow_mixed=allow_mixed)
    table = folder / POINTS
    from capacity_analysis.compare.sizes_table import HEADINGS, size_cells, size_json, size_note, size_texts
    from capacity_analysis.data.table import study_points

    sizes = size_cells(study_points(folder, made.runs)) if made.runs else []
    if not as_json:
        console = Console()
        console.print(rows_table(HEADINGS, [size_texts(cell) for cell in sizes]), soft_wrap=True, highlight=False)
        print(size_note(sizes))
        for remark in made.remarks:
            console.print(remark, highlight=False, soft_wrap=True)
        print(f"{len(made.runs)} runs in {folder}, points in {table}; {seconds(made.wall_seconds)}")
        for failure in made.failures:
            console.print(f"failed: {failure.label}: {failure.message}", highlight=False, soft_wrap=True)
    from capacity_cli.report import report_json, report_line, study_report

    written = study_report(folder, allow_mixed=allow_mixed) if report else None
    if as_json:
        result = {
            "study": str(folder),
            "points": str(table),
            "runs": len(made.runs),
            "failed": [{"label": f.label, "message": f.message} for f in made.failures],
            "sizes": [size_json(cell) for cell in sizes],
            "remarks": list(made.remarks),
            "wall_seconds": round(made.wall_seconds, 1),
            **report_json(written),
        }
        print(json.dumps(result, indent=1))
    elif written is not None:
        print(report_line(written))
    made.check()


def _show_plan(file: StudyFile, study: Study, *, as_json: bool) -> None:
    """The runs that a sweep makes. Tuned rates are not known before the tuning is done, so those runs are counted."""
    plan, cost, remarks = planned_runs(file), file_estimate(file), shipped_remarks(file)
    trials, planned = plan.trials, plan.results
    if as_json:
        listed = [[{"id": s.short_id, "label": s.label, "spec": s.model_dump()} for s in x] for x in (trials, planned)]
        result: dict[str, Any] = {
            "study": str(study.folder),
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
        print(json.dumps(result, indent=1))
        return
    rows = [(s.model, s.label, f"{s.training.learning_rate:g}" if s.training else "") for s in [*trials, *planned]]
    Console().print(rows_table(("model", "what", "rate"), rows), soft_wrap=True, highlight=False)
    done = [sum(study.path_of(s).is_dir() for s in specs) for specs in (trials, planned)]
    print(f"{file.name} in {study.folder}: {file.question}".rstrip(": "))
    if trials:
        print(f"{len(trials)} tuning runs ({done[0]} done), more where the best rate lies at an edge")
        print(f"{plan.at_tuned_rates} runs at tuned rates, fewer where tasks share them")
    print(f"{len(planned)} other runs ({done[1]} done)")
    if any(ALIASES[m].source != "embedded" if m in ALIASES else True for grid in file.grids for m in grid.models):
        print(f"Without the tuning about {cost.gpu_hours:,.1f} A100-hours at the longest completions allowed")
        least, gpu = gigabytes(cost.least_bytes), gigabytes(GPU_BYTES)
        print(f"Largest run at least {least} of memory, one sequence at a time; on a GPU of {gpu} as many as fit")
        if cost.advice is not None:
            print(f"The largest {cost.advice}")
    for remark in remarks:
        print(remark)
