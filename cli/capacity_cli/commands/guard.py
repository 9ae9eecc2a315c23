"""Commands that hold a study against its baseline."""

from pathlib import Path
from typing import Annotated

import typer

from capacity.errors import SpecError
from capacity_cli.commands.options import Json


def baseline(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; commit it.")] = Path("baseline.json"),
    force: Annotated[bool, typer.Option("--force", help="Replace an older baseline.")] = False,
    json: Json = False,
) -> None:
    """Write what a study measured to a baseline file, for `capacity check`."""
    from capacity_cli.baseline import baseline_command

    baseline_command(study, out, force=force, as_json=json)


def check(
    study: Annotated[Path | None, typer.Argument(help="Study folder.", show_default="--run makes one")] = None,
    run: Annotated[Path | None, typer.Option(help="Make this study first, from nothing.", show_default="none")] = None,
    baseline: Annotated[Path, typer.Option(help="File of `capacity baseline`.")] = Path("baseline.json"),
    margin: Annotated[float, typer.Option(help="Largest tolerated drop of the mean over sizes: 0.02 is 2 points.")] = (
        0.02
    ),
    alpha: Annotated[float, typer.Option(help="Error of each claim, one-sided.")] = 0.05,
    inconclusive: Annotated[str, typer.Option(help="fail (exit code 3) or warn (0).")] = "fail",
    history: Annotated[
        Path | None, typer.Option(help="File that remembers checks and limits false alarms.", show_default="none")
    ] = None,
    alarms_per_100: Annotated[
        float, typer.Option(help="With --history: false alarms in 100 checks, on average at most.")
    ] = 0.5,
    out: Annotated[
        Path | None, typer.Option(help="With --run: study folder.", show_default="capacity-studies/check-…")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --run: worker processes.", show_default="cores, at most 4")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the result as Markdown.", show_default="none")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the result as JUnit XML.", show_default="none")] = None,
    json: Json = False,
) -> None:
    """Compare a study with its baseline: identical, non-inferior (0), worse (1) or inconclusive (3)."""
    try:
        from capacity_cli.check import CheckOptions, check_command
    except ImportError as error:  # a dependency that is broken says nothing of the curves
        raise SpecError(f"a library cannot be imported: {error}") from None

    options = CheckOptions(margin, alpha, inconclusive, history, alarms_per_100)
    check_command(study, run, baseline, options, out, workers, markdown, junit, as_json=json)
