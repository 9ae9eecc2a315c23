"""Commands on points tables and studies: what they show, with intervals."""

from pathlib import Path
from typing import Annotated

import typer

from capacity_cli.options import AllowMixed, Gain, Json, OfItems, OfTask, Points, Target, Where


def threshold(
    points: Points,
    target: Target = None,
    gain: Gain = None,
    unit: Annotated[str, typer.Option(help="parameters or bytes.")] = "parameters",
    ceiling: Annotated[
        float | None, typer.Option(help="Accuracy of the ceiling.", show_default="measured: docs/thresholds.md")
    ] = None,
    lower: Annotated[float | None, typer.Option(help="Fixed lower limit of the curves.", show_default="fitted")] = None,
    upper: Annotated[float | None, typer.Option(help="Fixed upper limit of the curves.", show_default="fitted")] = None,
    items: OfItems = "these",
    replicates: Annotated[int, typer.Option(min=100, help="Resampled data sets.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random here.")] = 0,
    null: Annotated[int, typer.Option(min=0, help="Simulated studies of the null calibration; 0 for none.")] = 400,
    scaling: Annotated[bool, typer.Option("--scaling", help="Thresholds against model size too.")] = False,
    where: Where = None,
    task: OfTask = None,
    demonstrations: Annotated[
        str | None, typer.Option(help="Rows on these demonstrations.", show_default="all, each its own curve")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Rows of this split.", show_default="test")] = None,
    protocol: Annotated[str | None, typer.Option(help="Rows of this protocol.", show_default="the only one")] = None,
    adapter: Annotated[str | None, typer.Option(help="Rows of this adapter.", show_default="all")] = None,
    storage_dtype: Annotated[
        str | None, typer.Option(help="Rows of this dtype.", show_default="all, each its own curve")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(help="Learning rate: 0.001, or sft=0.001,grpo=0.003.", show_default="the best on validation"),
    ] = None,
    allow_mixed: AllowMixed = False,
    json: Json = False,
) -> None:
    """The smallest update that reaches a target, for each model and method, and the ratios between methods."""
    from capacity_analysis.data.where import conditions
    from capacity_cli.threshold import question_of, threshold_command

    chosen = conditions(
        where, task=task, demonstrations=demonstrations, protocol=protocol, adapter=adapter,
        storage_dtype=storage_dtype,
    )  # fmt: skip
    threshold_command(
        points, question_of(target, gain, ceiling, lower, upper, items, replicates), chosen,
        unit=unit, split=split, rate=rate, seed=seed, null=null, scaling=scaling, allow_mixed=allow_mixed,
        as_json=json,
    )  # fmt: skip


def bits(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[POINTS]", help="Points table (CSV, Parquet), study folder, or reference:NAME."),
    ] = None,
    requantise: Annotated[
        Path | None,
        typer.Option(help="Study whose updates to store anew in every dtype and evaluate.", show_default="none"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Fields that tell curves apart, by comma: method, storage_dtype, sharing, …",
            show_default="the method, and whatever differs beside the size",
        ),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="bytes or parameters.", show_default="bytes, where they are known")
    ] = None,
    where: Where = None,
    task: OfTask = None,
    items: OfItems = "these",
    replicates: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    allow_mixed: AllowMixed = False,
    json: Json = False,
) -> None:
    """Which updates are smallest at their accuracy, and what one curve saves over another at equal accuracy."""
    from capacity_analysis.data.where import conditions
    from capacity_cli.bits import bits_command

    bits_command(
        source, requantise, by, unit, conditions(where, task=task), items, replicates, seed, allow_mixed=allow_mixed,
        as_json=json,
    )  # fmt: skip


def describe(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    epsilon: Annotated[
        float | None,
        typer.Option(help="Loss of the surplus description length, bits a token.", show_default="final held-out loss"),
    ] = None,
    configurations: Annotated[
        int | None,
        typer.Option(min=1, help="Among how many each run was chosen.", show_default="trials of the shipped rate"),
    ] = None,
    where: Where = None,
    allow_mixed: AllowMixed = False,
    json: Json = False,
) -> None:
    """Description lengths of a study in bits: demonstrations, rewards and updates, method by method."""
    from capacity_cli.describe import describe_command

    describe_command(study, epsilon, configurations, where or (), allow_mixed=allow_mixed, as_json=json)


def report(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY...", help="Study folders, points tables (CSV, Parquet), or reference:NAME."),
    ],
    reference: Annotated[
        str | None, typer.Option(help="Published figures to show beside: tinylora.", show_default="none")
    ] = None,
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
    seed: Annotated[int, typer.Option(min=0, help="Of everything random here.")] = 0,
    where: Where = None,
    allow_mixed: AllowMixed = False,
    json: Json = False,
) -> None:
    """Write a study as one self-contained page, or as figures and tables; of several, each against the first."""
    from capacity_cli.report import report_command
    from capacity_cli.threshold import question_of
    from capacity_reports.views import Options

    options = Options(question_of(target, gain, None, None, None, items, 1000), seed, null)
    report_command(studies, out, formats, reference, options, where or (), allow_mixed=allow_mixed, as_json=json)
