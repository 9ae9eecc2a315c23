"""`capacity compare`: plan the runs, make those that are missing, report."""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from capacity.errors import CapacityError
from capacity.plan.defaults import default_task, default_weights
from capacity.plan.kinds.kind import Size
from capacity.plan.memory import gigabytes, run_memory
from capacity.plan.models import check_trainable, model_shape, resolve
from capacity.plan.rates import parse_rates, tuned_rate
from capacity.plan.sampling import parse_choice, rollout_spec, with_rollouts
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import compare_specs, parse_methods
from capacity.runs.fingerprint import Fingerprint, current
from capacity.runs.study import Study
from capacity.spec.methods import METHODS, Method
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec
from capacity.studies.device import check_libraries, device
from capacity.tasks.catalog import parse_task
from capacity_analysis.compare.costs import costs_of
from capacity_analysis.compare.result import compare_runs, comparison_json
from capacity_cli.choices import match_choice, storage_dtype_choice
from capacity_cli.making import make_missing, states
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
    check_trainable(resolve(model))
    alias, dtype, chosen = default_weights(model), storage_dtype_choice(storage_dtype), parse_methods(methods)
    task_spec = parse_task(task or default_task(alias))
    size = size_of(alias, choice, dtype)
    rates = parse_rates(learning_rates, chosen)
    specs = compare_specs(alias, task_spec, chosen, size, seeds, dtype, rates, match_choice(match), tokens_per_step)
    engine = rollout_spec(parse_choice(rollouts), alias, model_shape(alias)[1], device(), size.template)
    specs = [with_rollouts(spec, engine) for spec in specs]
    fingerprint = current(device(), "fp32")
    study = Study(out or _default_out(alias, size, specs, fingerprint))
    remarks = _remarks(model, alias, task_spec, chosen, size, rates)
    if dry_run:
        _show_plan(study, specs, fingerprint, remarks, as_json=as_json)
        return
    check_libraries()
    began = time.monotonic()
    with study.locked():
        failed = make_missing(study, specs, fingerprint, workers, "steps of all runs", allow_mixed=allow_mixed)
        found = states(study, specs, fingerprint, allow_mixed=allow_mixed)
        runs = [run for _, _, run in found if run is not None]
        if failed and not any(run.spec.method == "base" for run in runs):
            raise _failures(failed, specs, study)
        comparison, costs = compare_runs(study.folder, runs, specs), costs_of(runs)
        wall = time.monotonic() - began
        result = {
            **comparison_json(comparison, costs),
            "remarks": remarks,
            "study": str(study.folder),
            "wall_seconds": round(wall, 1),
            "failed": failed,
        }
    if not as_json:
        console = Console()
        view = comparison_view(comparison, costs, wall, remarks)
        console.print(view, highlight=False, soft_wrap=not console.is_terminal)
        console.print(f"Runs: {study.folder}", highlight=False, soft_wrap=True)
    from capacity_cli.report import report_json, report_line, study_report

    written = study_report(study.folder, allow_mixed=allow_mixed) if report else None
    if as_json:
        print(json.dumps(result | report_json(written), indent=1))
    elif written is not None:
        print(report_line(written))
    if failed:
        raise _failures(failed, specs, study)


def _failures(failed: int, specs: Sequence[RunSpec], study: Study) -> CapacityError:
    return CapacityError(f"{failed} of {len(specs)} runs failed; the diagnosis of each: capacity runs {study.folder}")


def _remarks(
    model: str, alias: str, task: TaskSpec, methods: Sequence[Method], size: Size, rates: dict[Method, float]
) -> list[str]:
    """Says which shipped rates were the smallest or largest of those tried, which nobody tuned, and what was chosen."""
    parts = {phase for m in methods for phase in METHODS[m].phases}
    used = [m for m in METHODS if m in parts and m not in rates]
    rate = {m: tuned_rate(alias, task, m, size.tuned_as, size.trained_parameters) for m in used}
    edge = [m for m in used if rate[m].at_edge]
    remarks = [f"The tuned rate of {m} lies at the edge of the rates tried: a better one may exist." for m in edge]
    untuned = [f"{m} {rate[m].learning_rate:g}" for m in used if rate[m].tuned_at is None]
    if untuned:
        remarks.append(
            f"The rates {', '.join(untuned)} are untuned defaults from the range that the paper tried: tune them with "
            "capacity sweep before comparing methods."
        )
    if alias != resolve(model):
        remarks.append(f"Weights in bf16, as a large model's are unless its name says another: {model}?dtype=fp32.")
    return remarks


def _default_out(alias: str, size: Size, specs: Sequence[RunSpec], fingerprint: Fingerprint) -> Path:
    """A folder of its own for each question and environment, so the same command continues where it stopped."""
    identities = "".join(s.identity for s in specs) + fingerprint.digest
    digest = hashlib.sha256(identities.encode()).hexdigest()[:8]
    plain = re.sub(r"[^\w.-]+", "-", alias)
    return Path("capacity-studies") / f"compare-{plain}-{size.kind}-{size.trained_parameters}-{digest}"


def _show_plan(
    study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint, remarks: Sequence[str], *, as_json: bool
) -> None:
    found = [(spec, study.find(spec, fingerprint)[0]) for spec in specs]
    least = max(run_memory(spec).peak for spec in specs)
    if as_json:
        runs = [{"id": s.short_id, "label": s.label, "state": state, "spec": s.model_dump()} for s, state in found]
        plan = {"study": str(study.folder), "runs": runs, "least_memory_bytes": least, "remarks": list(remarks)}
        print(json.dumps(plan, indent=1))
        return
    rows = [(s.short_id, s.label, f"{s.training.learning_rate:g}" if s.training else "", state) for s, state in found]
    Console().print(rows_table(("run", "what", "rate", "state"), rows))
    print(f"{len(rows)} runs in {study.folder}")
    print(f"A run needs at least {gigabytes(least)} of memory, one sequence at a time")
    for remark in remarks:
        print(remark)
