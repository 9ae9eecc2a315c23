"""`capacity check`: a study against its baseline, for CI."""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

import capacity
from capacity.errors import CapacityError, DataError, Interrupted, RunsFailedError, SpecError
from capacity.runs.files import write_atomically
from capacity_cli.progress import RunProgress
from capacity_reports.check_report import check_junit, check_markdown
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
        checked = capacity.check(
            study, baseline, run=run, margin=options.margin, alpha=options.alpha, history=options.history,
            alarms_per_100=options.alarms_per_100, out=out, workers=workers, observe=RunProgress,
        )  # fmt: skip
        check = checked.found
        if markdown is not None:
            write_atomically(markdown, check_markdown(check))
        if junit is not None:
            write_atomically(junit, check_junit(check, inconclusive_fails=options.inconclusive == "fail"))
        warned = check.outcome == "inconclusive" and options.inconclusive == "warn"
        code = 0 if warned else EXIT_CODES[check.outcome]
        if as_json:
            result = {**check.to_json(), "exit_code": code, "study": str(checked.study)}
            _say(json.dumps(result, indent=1, allow_nan=False) + "\n")
        else:
            console = Console()
            with console.capture() as capture:
                show(checked.blocks, console)
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
        traceback.print_exc()
        raise SpecError(f"the check itself failed, which says nothing of the study: {error!r}") from None
