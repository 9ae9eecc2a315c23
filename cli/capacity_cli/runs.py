"""`capacity runs`: what a study folder holds."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from capacity.library.study import Study
from capacity.runs.files import write_atomically
from capacity.runs.points import points as points_rows
from capacity.runs.points import to_csv
from capacity.runs.study import one_fingerprint
from capacity_reports.tables import rows_table, seconds


def runs_command(folder: Path, points: Path | None, where: Sequence[str], *, allow_mixed: bool, as_json: bool) -> None:
    """Lists runs and failures; writes the points table if asked."""
    study = Study(folder)
    found = study.runs()
    failures = study.failures()
    runs = found
    if where:
        from capacity_analysis.data.where import runs_where

        runs = runs_where(folder, found, where)
    rows = points_rows(folder.resolve().name, runs)
    done = {run.spec.identity for run in found}
    missing = [spec.label for spec in study.plan() if spec.identity not in done]
    if points is not None:
        one_fingerprint(runs, folder, allow_mixed=allow_mixed)
        write_atomically(points, to_csv(rows))
    states = [study.state_of(run) for run in runs]
    if as_json:
        listed = [
            {
                "id": run.spec.short_id,
                "label": run.spec.label,
                "state": state,
                **row,
                "result": run.result.model_dump(mode="json"),
            }
            for run, state, row in zip(runs, states, rows, strict=True)
        ]
        print(
            json.dumps(
                {"study": str(folder), "runs": listed, "missing": missing, "failures": [vars(f) for f in failures]},
                indent=1,
            )
        )
        return
    console = Console()
    table = [
        (
            run.spec.short_id,
            run.spec.label,
            f"{run.spec.training.learning_rate:g}" if run.spec.training else "",
            f"{100 * run.result.accuracy:.1f} %",
            "" if run.result.wall_seconds is None else seconds(run.result.wall_seconds),
            state,
        )
        for run, state in zip(runs, states, strict=True)
    ]
    table.sort(key=lambda row: row[1])
    console.print(rows_table(("run", "what", "rate", "accuracy", "time", "state"), table), soft_wrap=True)
    for failure in failures:
        console.print(f"failed: {failure.label}: {failure.message}", highlight=False, soft_wrap=True)
    counts = f"{states.count('complete')} complete, {states.count('stale')} stale"
    counts += f", {len(missing)} missing, {len(failures)} failed"
    print(counts + (f"; points written to {points}" if points else ""))
