"""`capacity runs`: what a study folder holds."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import Json, Where


def runs(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    points: Annotated[Path | None, typer.Option(help="Write the points table to this CSV file.")] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Points of runs that different environments made.")
    ] = False,
    where: Where = None,
    json: Json = False,
) -> None:
    """What is in a study: complete, stale and failed runs, and their points table."""
    from rich.console import Console

    from capacity.runs.files import write_atomically
    from capacity.runs.points import points as points_rows
    from capacity.runs.points import to_csv
    from capacity.runs.study import one_fingerprint
    from capacity_cli.output import print_json, print_rows
    from capacity_reports.tables import seconds

    opened = capacity.Study(study)
    every, failures = opened.runs(), opened.failures()
    done = {run.spec.identity for run in every}
    missing = [spec.label for spec in opened.plan() if spec.identity not in done]
    found = every
    if where:
        from capacity_analysis.data.where import runs_where

        found = runs_where(study, every, where)
    rows = points_rows(study.resolve().name, found)
    if points is not None:
        one_fingerprint(found, study, allow_mixed=allow_mixed)
        write_atomically(points, to_csv(rows))
    states = [opened.state_of(run) for run in found]
    if json:
        listed = [
            {
                "id": run.spec.short_id,
                "label": run.spec.label,
                "state": state,
                **row,
                "result": run.result.model_dump(mode="json"),
            }
            for run, state, row in zip(found, states, rows, strict=True)
        ]
        print_json({"study": str(study), "runs": listed, "missing": missing, "failures": [vars(f) for f in failures]})
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
        for run, state in zip(found, states, strict=True)
    ]
    table.sort(key=lambda row: row[1])
    print_rows(("run", "what", "rate", "accuracy", "time", "state"), table)
    for failure in failures:
        console.print(f"failed: {failure.label}: {failure.message}", highlight=False, soft_wrap=True)
    counts = f"{states.count('complete')} complete, {states.count('stale')} stale"
    counts += f", {len(missing)} missing, {len(failures)} failed"
    print(counts + (f"; points written to {points}" if points else ""))
