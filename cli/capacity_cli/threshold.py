"""`capacity threshold`: the smallest update that reaches a target, and how many times more one method needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import capacity
from capacity.errors import SpecError
from capacity_cli.options import AllowMixed, Details, Gain, Json, OfItems, OfTask, Target, Where, Workers
from capacity_cli.prose import say

if TYPE_CHECKING:
    from capacity.plan.adaptive_file import AdaptiveFile
    from capacity.plan.study_file import StudyFile
    from capacity.studies.make import MadeStudy

NULL = 400  # simulated studies of each null calibration, where the null calibrations are shown


def threshold(
    points: Annotated[
        str | None,
        typer.Argument(
            help="Points table (CSV, Parquet), study folder, reference:NAME, or other results.", show_default=False
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(help="Make or continue the study of this file (TOML) first, and answer from its runs."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Study folder, with --study.", show_default="capacity-studies/NAME")
    ] = None,
    workers: Workers = None,
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
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    null: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Simulated studies of the null calibration; 0 for none.",
            show_default="400 with --details or --json, otherwise none",
        ),
    ] = None,
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
    details: Details = False,
    json: Json = False,
) -> None:
    """The smallest update that reaches a target, for each model and method, and the ratios between methods."""
    from capacity.library.published import published
    from capacity.library.thresholds import question_of, unit_of
    from capacity.plan.adaptive_file import asked_of, read_any_study
    from capacity_analysis.data.where import conditions
    from capacity_cli.output import print_blocks, print_json, print_result
    from capacity_cli.progress import ModuleProgress

    chosen = conditions(
        where, task=task, demonstrations=demonstrations, protocol=protocol, adapter=adapter,
        storage_dtype=storage_dtype,
    )  # fmt: skip
    _check_source(points, study, out, workers)
    rates = rates_of(rate)
    file = None if study is None else read_any_study(study)
    if file is not None:
        target, gain = asked_of(file, target, gain)
    # What cannot be asked is refused before runs are made.
    question, measured = question_of(target, gain, ceiling, lower, upper, items, replicates), unit_of(unit)
    if points is not None and points.startswith("reference:") and target is None and not chosen:
        runs = {"--scaling": scaling, "--unit": unit != "parameters", "--split": split, "--rate": rate}
        given = [option for option, value in {**runs, "--items": items != "these"}.items() if value]
        if given:
            raise SpecError(f"{points}: {given[0]} is for the curves of one task: choose it with --where task=gsm8k")
        shown = published(points.removeprefix("reference:"), question)
        print_json(shown.to_json()) if json else print_blocks(shown.blocks)
        return
    made = None if file is None else _made(file, out, workers, allow_mixed=allow_mixed, quiet=json)
    source = str(made.study.folder) if made is not None else points or ""
    found = capacity.thresholds(
        source, target=target, gain=gain, ceiling=ceiling, lower=lower, upper=upper, items=items,
        replicates=replicates, unit=measured, where=chosen, split=split, rates=rates, seed=seed,
        null=(NULL if details or json else 0) if null is None else null, scaling=scaling, allow_mixed=allow_mixed,
        progress=ModuleProgress,
    )  # fmt: skip
    print_json(found.to_json()) if json else print_result(found, details=details)
    if made is not None:
        made.check()


def _check_source(points: str | None, study: Path | None, out: Path | None, workers: int | None) -> None:
    """Checks that the runs to answer from are named once.

    Raises:
        SpecError: if they are not, or an option of studies stands without one.
    """
    if (points is None) == (study is None):
        raise SpecError("give either POINTS, or a study file by --study")
    stray = [name for name, value in (("--out", out), ("--workers", workers)) if value is not None]
    if study is None and stray:
        raise SpecError(f"{stray[0]} belongs to --study: add that, or leave {stray[0]} out")


def _made(
    file: "StudyFile | AdaptiveFile", out: Path | None, workers: int | None, *, allow_mixed: bool, quiet: bool
) -> "MadeStudy":
    """Makes what is missing of a study, as `capacity sweep` does. Tells what it came to, unless it is to be quiet."""
    from capacity_cli.output import print_reused
    from capacity_cli.progress import RunProgress
    from capacity_reports.blocks import duration

    swept = capacity.sweep(file, workers=workers, out=out, allow_mixed=allow_mixed, observe=RunProgress)
    if not quiet:
        print_reused(swept.made)
        for remark in swept.made.remarks:
            say(remark)
        say(f"{swept.line}; {duration(swept.made.wall_seconds)}\n")
        for failure in swept.made.failures:
            say(f"failed: {failure.label}: {failure.message}")
    return swept.made


def rates_of(text: str | None) -> dict[str, float] | None:
    """Reads `0.001` (for all) or `sft=0.001,grpo=0.003`.

    Raises:
        SpecError: not a positive number.
    """
    if text is None:
        return None
    found = {}
    for part in text.split(","):
        method, _, value = part.rpartition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not rate > 0:
            raise SpecError(f"--rate {text!r}: {value!r} is not a positive number; write 0.001 or sft=0.001,grpo=0.003")
        if method.strip() in found:
            raise SpecError(f"--rate {text!r}: gives {method.strip() or 'all methods'} two rates: give one")
        found[method.strip()] = rate
    return found
