"""`capacity check`: a study against its baseline, for CI."""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import typer
from rich.console import Console

from capacity.errors import CapacityError, DataError, Interrupted, RunsFailedError, SpecError
from capacity.runs.files import write_atomically
from capacity.runs.study import Study
from capacity.studies.sweep import make_fresh, planned_specs
from capacity_analysis.check.baseline import Baseline, read_baseline
from capacity_analysis.check.guard import check_options, guard
from capacity_analysis.check.matching import check_plan
from capacity_cli.progress import RunProgress
from capacity_reports.check_report import check_blocks, check_junit, check_markdown
from capacity_reports.render.terminal import show

EXIT_CODES = {"identical": 0, "non-inferior": 0, "worse": 1, "inconclusive": 3}
INCONCLUSIVE = ("fail", "warn")


@dataclass(frozen=True)
class CheckOptions:
    """What the command line asks of a check. `alarms_per_100` counts only with a history."""

    margin: float
    alpha: float
    inconclusive: str
    history: Path | None
    alarms_per_100: float


def check_command(
    study: Path | None,
    run: Path | None,
    baseline: Path,
    options: CheckOptions,
    out: Path | None,
    workers: int | None,
    markdown: Path | None,
    junit: Path | None,
    *,
    as_json: bool,
) -> None:
    """Judges a study, made first if `run` says so, and ends with the exit code of the outcome.

    Exit code 1 means "worse", or runs of `--run` that failed; all else that goes wrong ends with 2.
    """
    if (study is None) == (run is None):
        raise SpecError("give either a study folder, or --run with a study file")
    if run is None and (out is not None or workers is not None):
        raise SpecError("--out and --workers belong to --run")
    with _as_usage():
        if options.inconclusive not in INCONCLUSIVE:
            raise SpecError(f"--inconclusive {options.inconclusive}: choose fail or warn")
        _check_outputs(baseline, options.history, run, out, markdown, junit)
        check_options(options.margin, options.alpha, options.history, options.alarms_per_100)
        old = read_baseline(baseline)
        if run is not None:
            made = fresh_study(run, old, out, workers)
        else:
            assert study is not None
            made = Study(study)
        check = guard(
            made,
            old,
            margin=options.margin,
            alpha=options.alpha,
            history=options.history,
            alarms_per_100=options.alarms_per_100,
        )
        if markdown is not None:
            write_atomically(markdown, check_markdown(check))
        if junit is not None:
            write_atomically(junit, check_junit(check, inconclusive_fails=options.inconclusive == "fail"))
        warned = check.outcome == "inconclusive" and options.inconclusive == "warn"
        code = 0 if warned else EXIT_CODES[check.outcome]
        if as_json:
            result = {**check.to_json(), "exit_code": code, "study": str(made.folder)}
            _say(json.dumps(result, indent=1, allow_nan=False) + "\n")
        else:
            console = Console()
            with console.capture() as capture:
                show(check_blocks(check), console)
            _say(capture.get())
    raise typer.Exit(code)


def _say(text: str) -> None:
    """Prints a result. A reader who has had enough, or a closed stdout, changes nothing of the exit code."""
    if sys.stdout is None:
        return
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would flush again at its end


def fresh_study(run: Path, baseline: Baseline, out: Path | None = None, workers: int | None = None) -> Study:
    """Makes the study of a file from nothing, after a look at whether it can match the baseline.

    Args:
        run: the study file.
        baseline: what the study is meant to be compared with.
        out: the folder of the study; a new one under capacity-studies/ if None.
        workers: processes that make the runs.

    Raises:
        DataError: it cannot match the baseline, or `out` has runs already.
        RunsFailedError: runs failed.
    """
    planned = planned_specs(run)
    if planned is not None:
        check_plan(planned, baseline)
    folder = out or _new_folder(run.stem)
    try:
        return make_fresh(run, folder, workers=workers, observe=RunProgress)
    except Interrupted:  # what a sweep says, that the same command continues, is not so here
        raise Interrupted(f"interrupted: a check starts anew each time; {folder} has the runs that were made") from None


def _new_folder(name: str) -> Path:
    """Makes the first of check-NAME, check-NAME-2, … that is not there: a check always starts an empty study."""
    studies = Path("capacity-studies")
    studies.mkdir(exist_ok=True)
    for folder in chain([f"check-{name}"], (f"check-{name}-{number}" for number in count(2))):
        with suppress(FileExistsError):
            (studies / folder).mkdir()
            break
    return studies / folder


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
    except CapacityError as error:
        raise SpecError(str(error)) from None
    except OSError as error:
        raise SpecError(f"{error.filename or 'output'}: {error.strerror}") from None
    except Exception as error:
        traceback.print_exc()
        raise SpecError(f"the check itself failed, which says nothing of the study: {error!r}") from None
