"""`capacity check`: a study against its baseline, for CI."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import capacity
from capacity.errors import CapacityError, DataError, Interrupted, RunsFailedError, SpecError, by_interruption
from capacity_cli.options import Details, Json

if TYPE_CHECKING:
    from capacity_reports.blocks import Block

EXIT_CODES = {"identical": 0, "non-inferior": 0, "worse": 1, "inconclusive": 3}


def check(
    study: Annotated[
        Path | None,
        typer.Argument(help="Study folder, or results of other programs.", show_default="--run makes one"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Make this study first, from nothing.")] = None,
    baseline: Annotated[Path, typer.Option(help="File of `capacity baseline`, or earlier results.")] = Path(
        "baseline.json"
    ),
    metric: Annotated[
        str | None, typer.Option(help="Of results of other programs: which grade.", show_default="the only one")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a table of another program: how it calls a column, item=question_id. Repeatable.",
            show_default="their own names",
        ),
    ] = None,
    margin: Annotated[float, typer.Option(help="Largest tolerated drop of the mean over sizes: 0.02 is 2 points.")] = (
        0.02
    ),
    alpha: Annotated[float, typer.Option(help="Error of each claim, one-sided.")] = 0.05,
    inconclusive: Annotated[str, typer.Option(help="fail (exit code 3) or warn (0).")] = "fail",
    history: Annotated[Path | None, typer.Option(help="File that remembers checks and limits false alarms.")] = None,
    alarms_per_100: Annotated[
        float | None,
        typer.Option(help="With --history: false alarms in 100 checks, on average at most.", show_default="0.5"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --run: study folder.", show_default="capacity-studies/check-…")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="With --run: what makes the steps, loop or trl.", show_default="loop")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --run: worker processes.", show_default="cores, at most 4")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the result as Markdown.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the result as JUnit XML.")] = None,
    details: Details = False,
    json: Json = False,
) -> None:
    """Compare a study with its baseline: identical, non-inferior (0), worse (1) or inconclusive (3)."""
    with _as_usage():  # exit code 1 means "worse", or runs of `--run` that failed; all else that goes wrong ends with 2
        from capacity_analysis.evaluations.read import holds_answers
        from capacity_cli.choices import columns_choice

        if inconclusive not in ("fail", "warn"):
            raise SpecError(f"--inconclusive {inconclusive}: choose fail or warn")
        if alarms_per_100 is not None and history is None:
            raise SpecError(
                f"--alarms-per-100 {alarms_per_100:g}: goes with --history FILE, which remembers the checks"
            )
        _check_outputs(baseline, history, run, out, markdown, junit)
        shown = _Shown(inconclusive, markdown, junit, details, json)
        if holds_answers(baseline):
            ours = {"--run": run, "--history": history, "--out": out, "--trainer": trainer, "--workers": workers}
            given = [option for option, value in ours.items() if value is not None]
            if study is None or given:
                without = f", without {' and '.join(given)}" if given else ""
                raise SpecError(f"{baseline}: results of other programs: give a candidate{without}")
            code = _check_results(study, baseline, margin, alpha, metric, columns_choice(column or []), shown)
        else:
            if metric is not None:
                raise SpecError(f"--metric {metric}: chooses a grade of results of other programs: leave it out")
            if column:
                raise SpecError(f"--column {column[0]}: names a column of results of other programs: leave it out")
            code = _check_study(
                study, baseline, run, margin, alpha, history, alarms_per_100, out, trainer, workers, shown
            )
    raise typer.Exit(code)


@dataclass(frozen=True)
class _Shown:
    """How a result is shown, and written beside."""

    inconclusive: str
    markdown: Path | None
    junit: Path | None
    details: bool
    as_json: bool

    @property
    def inconclusive_fails(self) -> bool:
        return self.inconclusive == "fail"

    def show(
        self,
        outcome: str,
        result: dict[str, Any],
        blocks: "Sequence[Block]",
        page: str,
        cases: str,
        *,
        more: bool = False,
    ) -> int:
        """Writes and prints a result, and returns its exit code. `more`: --details shows more."""
        from rich.console import Console

        from capacity.runs.files import write_atomically
        from capacity_cli.output import MORE
        from capacity_reports.blocks import Text
        from capacity_reports.render.terminal import show

        for path, text in ((self.markdown, page), (self.junit, cases)):
            if path is not None:
                write_atomically(path, text)
        code = 0 if outcome == "inconclusive" and not self.inconclusive_fails else EXIT_CODES[outcome]
        if self.as_json:
            _say(dumps({**result, "exit_code": code}, indent=1, allow_nan=False) + "\n")
        else:
            console = Console()
            with console.capture() as capture:
                show([*blocks, *([Text((MORE,))] if more else [])], console)
            _say(capture.get())
        return code


def _check_results(
    candidate: Path,
    baseline: Path,
    margin: float,
    alpha: float,
    metric: str | None,
    columns: Mapping[str, str],
    shown: _Shown,
) -> int:
    from capacity.library.check_results import check_results
    from capacity_reports.sections.results_check import results_check_junit, results_check_markdown

    checked = check_results(candidate, baseline, margin=margin, alpha=alpha, metric=metric, columns=columns)
    cases = results_check_junit(checked.found, inconclusive_fails=shown.inconclusive_fails)
    page = results_check_markdown(checked.found)
    return shown.show(checked.found.outcome, checked.to_json(), checked.blocks, page, cases)


def _check_study(
    study: Path | None,
    baseline: Path,
    run: Path | None,
    margin: float,
    alpha: float,
    history: Path | None,
    alarms_per_100: float | None,
    out: Path | None,
    trainer: str | None,
    workers: int | None,
    shown: _Shown,
) -> int:
    from capacity.runs.fingerprint import parse_trainer
    from capacity_analysis.check.guard import ALARMS_PER_100
    from capacity_cli.progress import RunProgress
    from capacity_reports.check_report import check_junit, check_markdown

    checked = capacity.check(
        study, baseline, run=run, margin=margin, alpha=alpha, history=history,
        alarms_per_100=ALARMS_PER_100 if alarms_per_100 is None else alarms_per_100, out=out,
        trainer=None if trainer is None else parse_trainer(trainer), workers=workers, observe=RunProgress,
    )  # fmt: skip
    cases = check_junit(checked.found, inconclusive_fails=shown.inconclusive_fails)
    page, blocks = check_markdown(checked.found), (*checked.answer, *(checked.blocks if shown.details else ()))
    return shown.show(checked.found.outcome, checked.to_json(), blocks, page, cases, more=not shown.details)


def _say(text: str) -> None:
    """Prints a result. A reader who has had enough, or a closed stdout, changes nothing of the exit code."""
    if sys.stdout is None:
        return
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would flush again at its end


def _check_outputs(
    baseline: Path, history: Path | None, run: Path | None, out: Path | None, markdown: Path | None, junit: Path | None
) -> None:
    """Checks that results can be written, and where nothing else stands.

    Raises:
        DataError: a folder is missing, or two of the files are one.
    """
    named = {"--baseline": baseline, "--history": history, "--run": run, "--markdown": markdown, "--junit": junit}
    seen: dict[Path, str] = {}
    for option, path in named.items():
        if path is None:
            continue
        if not path.name:
            raise DataError(f"{option} {str(path)!r}: not the name of a file")
        if path.resolve() in seen:
            raise DataError(f"{option} {path}: the same file as {seen[path.resolve()]}")
        seen[path.resolve()] = option
    for path in (markdown, junit):
        if path is None:
            continue
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: cannot be written: not a file")
        if not path.parent.is_dir() and path.parent != out:
            raise DataError(f"{path}: cannot be written: there is no folder {path.parent}")


@contextmanager
def _as_usage() -> Iterator[None]:
    """Whatever else goes wrong ends with exit code 2: 1 would say that the curves are worse, or that runs failed."""
    try:
        yield
    except (SpecError, RunsFailedError, Interrupted):
        raise
    except ImportError as error:  # a dependency that is broken says nothing of the curves
        raise SpecError(f"a library cannot be imported: {error}") from None
    except CapacityError as error:
        raise SpecError(str(error)) from None
    except OSError as error:
        raise SpecError(f"{error.filename or 'output'}: {error.strerror}") from None
    except Exception as error:
        if by_interruption(error):
            raise
        from traceback import print_exc

        print_exc()
        raise SpecError(f"the check itself failed, which says nothing of the study: {error!r}") from None
