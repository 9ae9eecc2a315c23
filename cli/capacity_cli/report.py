"""`capacity report`: a study as one page that people read, or as figures and tables for a paper."""

from pathlib import Path
from typing import Annotated

import typer

from capacity_cli.options import AllowMixed, Gain, Json, Target, Where


def report(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...", help="Study folders, points tables (CSV, Parquet), reference:NAME, or other results."
        ),
    ],
    reference: Annotated[str | None, typer.Option(help="Published figures to show beside: tinylora.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File of the report.", show_default="report.html in the study folder"),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", help="By comma: html, md, pdf, png, svg, csv, json.", show_default="that of --out"),
    ] = None,
    target: Target = None,
    gain: Gain = None,
    items: Annotated[str, typer.Option(help="Thresholds for fresh seeds on these items, or a population of them.")] = (
        "these"
    ),
    null: Annotated[int, typer.Option(min=0, help="Simulated studies of the null calibration; 0 for none.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    where: Where = None,
    allow_mixed: AllowMixed = False,
    json: Json = False,
) -> None:
    """Write a study as one self-contained page, or as figures and tables; of several, each against the first."""
    from capacity.library.thresholds import question_of
    from capacity_cli.output import print_json
    from capacity_cli.progress import ModuleProgress
    from capacity_cli.prose import say
    from capacity_reports.report import build_report, destination, write_files
    from capacity_reports.views import Options

    options = Options(question_of(target, gain, items=items), seed, null)
    named = [name.strip() for name in (formats or "").split(",") if name.strip()]
    path, kinds = destination(studies, out, named)
    with ModuleProgress("report") as progress:
        found = build_report(
            studies, where=where or (), reference=reference, options=options, allow_mixed=allow_mixed,
            heard=progress.on_module,
        )  # fmt: skip
        written = write_files(found, path, kinds)
    if json:
        print_json(
            {
                "written": [str(path) for path in written],
                "title": found.title,
                "verdicts": list(found.verdicts),
                "absent": {s.name: s.absent for s in found.sections if s.absent is not None},
            }
        )
        return
    if found.front is not None:
        for line in (found.front.answer, found.front.undecided):
            if line is not None:
                say(line)
    for path in written:
        print(f"Report: {path}")
