"""`capacity sweep`: make the runs of a study file, and print accuracy against size."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from capacity.errors import DataError, RunsFailedError
from capacity.plan.cost import GPU_BYTES, StudyEstimate, run_estimate, study_estimate
from capacity.plan.grid import cells, first_rates, result_specs, trial_specs, unique
from capacity.plan.memory import gigabytes
from capacity.plan.models import ALIASES
from capacity.plan.study_file import StudyFile, read_study_file
from capacity.runs import files
from capacity.runs.fingerprint import current
from capacity.runs.points import points, to_csv
from capacity.runs.study import Run, Study
from capacity.spec.methods import METHODS
from capacity.spec.run import RunSpec
from capacity.studies.device import check_libraries, device
from capacity.studies.sweep import sweep
from capacity_cli.making import make_missing, states
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
    folder = out or Path("capacity-studies") / file.name
    if dry_run:
        _show_plan(file, Study(folder), as_json=as_json)
        return
    began = time.monotonic()
    study, specs, runs = make_study(file, folder, workers, allow_mixed=allow_mixed)
    failures = [f for f in study.failures() if f.run in {s.short_id for s in specs}]
    table = folder / "points.csv"
    files.write_atomically(table, to_csv(points(file.name, study.runs())))
    wall = time.monotonic() - began
    from capacity_analysis.compare.sizes_table import HEADINGS, size_cells, size_json, size_note, size_texts
    from capacity_analysis.data.table import study_points

    sizes = size_cells(study_points(folder, runs)) if runs else []
    if not as_json:
        console = Console()
        console.print(rows_table(HEADINGS, [size_texts(cell) for cell in sizes]), soft_wrap=True, highlight=False)
        print(size_note(sizes))
        print(f"{len(runs)} runs in {folder}, points in {table}; {seconds(wall)}")
        for failure in failures:
            console.print(f"failed: {failure.label}: {failure.message}", highlight=False, soft_wrap=True)
    from capacity_cli.report import report_json, report_line, study_report

    written = study_report(folder, allow_mixed=allow_mixed) if report else None
    if as_json:
        result = {
            "study": str(folder),
            "points": str(table),
            "runs": len(runs),
            "failed": [{"label": f.label, "message": f.message} for f in failures],
            "sizes": [size_json(cell) for cell in sizes],
            "wall_seconds": round(wall, 1),
            **report_json(written),
        }
        print(json.dumps(result, indent=1))
    elif written is not None:
        print(report_line(written))
    if failures:
        raise RunsFailedError(
            f"{len(failures)} of {len(specs)} runs failed; the diagnosis of each: capacity runs {folder}"
        )


def make_study(
    file: StudyFile, folder: Path, workers: int | None, *, allow_mixed: bool = False
) -> tuple[Study, list[RunSpec], list[Run]]:
    """Makes what is missing of a study in `folder`.

    Returns:
        The study, the specs of its reported runs, and those runs; what failed is in the study with its diagnosis.
    """
    check_libraries()
    fingerprint, study = current(device(), "fp32"), Study(folder)

    def make(specs: Sequence[RunSpec], what: str) -> None:
        make_missing(study, specs, fingerprint, workers, what, allow_mixed=allow_mixed)

    with study.locked():
        specs = sweep(file, study, make)
        found = states(study, specs, fingerprint, allow_mixed=allow_mixed)
        return study, specs, [run for _, _, run in found if run is not None]


def run_sweep(path: Path, out: Path, workers: int | None, *, fresh: bool) -> Study:
    """Makes all runs of a study file; what `capacity check --run` calls.

    Raises:
        DataError: `fresh`, and there are runs already.
        RunsFailedError: runs failed.
    """
    file = read_study_file(path)
    if fresh and (out / "runs").is_dir() and any((out / "runs").iterdir()):
        raise DataError(f"{out}: has runs already, and a check starts an empty study: choose another folder")
    study, specs, runs = make_study(file, out, workers)
    arms = files.read_json(out / "tuning.json") if any(cells(file, tuned=True)) else []
    untuned = sum(arm["learning_rate"] is None for arm in arms)
    if untuned:
        raise RunsFailedError(f"{untuned} of {len(arms)} arms failed at every rate; the diagnoses: capacity runs {out}")
    failed = len(specs) - len(runs)
    if failed:
        raise RunsFailedError(f"{failed} of {len(specs)} runs failed; the diagnosis of each: capacity runs {out}")
    return study


def planned_specs(path: Path) -> list[RunSpec] | None:
    """The runs that a study file reports; None if that depends on a tuning."""
    file = read_study_file(path)
    return None if any(cells(file, tuned=True)) else result_specs(file, {})


def _show_plan(file: StudyFile, study: Study, *, as_json: bool) -> None:
    """The runs that a sweep makes. Tuned rates are not known before the tuning is done, so those runs are counted."""
    tuned, tuning = list(cells(file, tuned=True)), file.tuning
    trials: list[RunSpec] = []
    if tuning is not None:
        every = ((c, m, r) for c in tuned for m in c.tuned_methods for r in first_rates(c, tuning))
        trials = unique(s for c, m, r in every for s in trial_specs(c, m, r, tuning))
    planned = result_specs(file, {})
    later = sum(len(c.grid.methods) * len(c.grid.seeds) for c in tuned)
    cost = _estimate(file)
    if as_json:
        listed = [[{"id": s.short_id, "label": s.label, "spec": s.model_dump()} for s in x] for x in (trials, planned)]
        result: dict[str, Any] = {
            "study": str(study.folder),
            "tuning": listed[0],
            "runs": listed[1],
            "runs_at_tuned_rates": later,
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
        print(f"{later} runs at tuned rates, fewer where tasks share them")
    print(f"{len(planned)} other runs ({done[1]} done)")
    if any(ALIASES[m].source != "embedded" if m in ALIASES else True for grid in file.grids for m in grid.models):
        print(f"Without the tuning about {cost.gpu_hours:,.1f} A100-hours at the longest completions allowed")
        least, gpu = gigabytes(cost.least_bytes), gigabytes(GPU_BYTES)
        print(f"Largest run at least {least} of memory, one sequence at a time; on a GPU of {gpu} as many as fit")
        if cost.advice is not None:
            print(f"The largest {cost.advice}")


def _estimate(file: StudyFile) -> StudyEstimate:
    """Cost of the trained runs that are reported; learning rates make no difference to it."""
    rates = dict.fromkeys(METHODS, 1e-3)
    arms = [(cell, method) for cell in cells(file) for method in cell.grid.methods]
    estimates = []
    for cell, method in arms:
        spec = cell.spec(method, cell.grid.seeds[0], rates, validation=False)
        cost = run_estimate(spec)
        estimates += [cost] * len(cell.grid.seeds)
    return study_estimate(estimates)
