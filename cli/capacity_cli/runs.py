"""`capacity runs`: what a study folder holds."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity.errors import MissingPathError, SpecError
from capacity_cli.options import Json, Where


def runs(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    points: Annotated[Path | None, typer.Option(help="Write the points table to this CSV file.")] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Points of runs that different environments made.")
    ] = False,
    where: Where = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the runs that are being made, until they end.")
    ] = False,
    json: Json = False,
) -> None:
    """What is in a study: complete, stale and failed runs, and their points table."""
    if watch:
        from capacity_cli.watch import watch as follow

        others = {"--points": points, "--allow-mixed": allow_mixed, "--where": where, "--json": json}
        given = [option for option, value in others.items() if value]
        if given:
            raise SpecError(f"--watch shows runs as they are made: leave out {' and '.join(given)}")
        if not study.is_dir():
            raise MissingPathError(f"{study}: no such study folder")
        follow(study)
        return
    from capacity.runs.files import refuse_foreign, write_atomically
    from capacity.runs.mixed import bases, refuse_mixed
    from capacity.runs.points import COLUMNS, to_csv
    from capacity.runs.points import points as points_rows
    from capacity_cli.output import print_blocks, print_json
    from capacity_cli.prose import say
    from capacity_reports.blocks import Cell, Column, Table

    opened = capacity.Study(study)
    every, failures = opened.runs(), opened.failures()
    done = {run.identity for run in every}
    missing = [spec.label for spec in opened.plan() if spec.identity not in done]
    found = every
    if where:
        from capacity_analysis.data.where import runs_where

        found = runs_where(study, every, where)
    rows = points_rows(study.resolve().name, found) if points is not None or json else []
    if points is not None:
        refuse_mixed(found, study, allow_mixed=allow_mixed)
        refuse_foreign(points, ",".join(COLUMNS[:4]))
        write_atomically(points, to_csv(rows))
    states = opened.states(found)
    mixed = {model: counts for model, counts in bases(found).items() if len(counts) > 1}
    if json:
        listed = [
            {
                "id": run.short_id,
                "label": run.spec.label,
                "state": state,
                "trainer": run.fingerprint.trainer,
                **row,
                "result": run.result.model_dump(mode="json"),
            }
            for run, state, row in zip(found, states, rows, strict=True)
        ]
        print_json(
            {
                "study": str(study),
                "runs": listed,
                "missing": missing,
                "failures": [vars(f) for f in failures],
                "mixed_bases": mixed,
            }
        )
        return
    trainers = sorted({run.fingerprint.trainer for run in found})
    columns = (
        Column("run", "run"), Column("what", "what"), Column("rate", "rate", "number"),
        Column("accuracy", "accuracy, %", "percent"), Column("time", "time", "duration"), Column("trainer", "trainer"),
        Column("state", "state"),
    )  # fmt: skip
    table: list[tuple[Cell, ...]] = [
        (
            run.short_id,
            run.spec.label,
            run.spec.training.learning_rate if run.spec.training else None,
            run.result.accuracy,
            run.result.wall_seconds,
            run.fingerprint.trainer if len(trainers) > 1 else None,
            state if set(states) != {"complete"} else None,
        )
        for run, state in zip(found, states, strict=True)
    ]
    summary = f"{states.count('complete')} complete, {states.count('stale')} stale"
    summary += f", {len(missing)} missing, {len(failures)} failed"
    summary += f"; trainer {trainers[0]}" if len(trainers) == 1 else ""
    say(f"{study}: {summary}" + (f"; points written to {points}" if points else ""))
    for model, counts in mixed.items():
        shares = ", ".join(f"{count} on base {base[:16]}" for base, count in counts.items())
        say(f"{model} has runs on different weights, which cannot be compared: {shares}")
    print()
    print_blocks([Table("runs", "", columns, tuple(sorted(table, key=lambda row: str(row[1]))))])
    for failure in failures:
        say(f"failed: {failure.label}: {failure.message}")
