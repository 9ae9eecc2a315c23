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

from capacity.errors import CapacityError, DataError, RunsFailedError, SpecError
from capacity.runs.files import write_atomically
from capacity.runs.study import Study
from capacity_analysis.check.alarms import AlarmBudget, Entry, History, Level
from capacity_analysis.check.baseline import Baseline, read_baseline
from capacity_analysis.check.judge import check_levels, check_study, evidence_digest, same_answers
from capacity_analysis.check.matching import check_plan
from capacity_analysis.check.result import Check
from capacity_analysis.check.snapshot import snapshot
from capacity_cli.interrupted import Interrupted
from capacity_reports.check_report import check_junit, check_markdown, check_view

EXIT_CODES = {"identical": 0, "non-inferior": 0, "worse": 1, "inconclusive": 3}
INCONCLUSIVE = ("fail", "warn")
_LEAST_ALARMS = 1e-4  # of 100 checks


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
        _check_options(options)
        _check_outputs(baseline, options.history, run, out, markdown, junit)
        if options.history is not None:
            with History(options.history).held():  # reads it: a broken one is not to be found after the training
                pass
        old = read_baseline(baseline)
        if run is not None:
            made = _made(run, old, out, workers)
        else:
            assert study is not None
            made = Study(study)
        check, level = judge_study(snapshot(made), old, options)
        notes = () if level is None else (_history_note(level, options),)
        if markdown is not None:
            write_atomically(markdown, check_markdown(check, notes))
        if junit is not None:
            write_atomically(junit, check_junit(check, inconclusive_fails=options.inconclusive == "fail"))
        code = EXIT_CODES[check.outcome]
        if check.outcome == "inconclusive" and options.inconclusive == "warn":
            code = 0
        if as_json:
            past = None if level is None else {"check": level.number, "level": level.level, "repeated": level.repeated}
            result = {**check.to_json(), "exit_code": code, "history": past, "study": str(made.folder)}
            _say(json.dumps(result, indent=1, allow_nan=False) + "\n")
        else:
            console = Console()
            with console.capture() as capture:
                console.print(check_view(check, notes), highlight=False, soft_wrap=not console.is_terminal)
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


def _made(run: Path, baseline: Baseline, out: Path | None, workers: int | None) -> Study:
    """The study of a study file, made from nothing, after a look at whether it can match the baseline."""
    from capacity_cli.sweep import planned_specs, run_sweep

    planned = planned_specs(run)
    if planned is not None:
        check_plan(planned, baseline)
    folder = out or _new_folder(run.stem)
    try:
        return run_sweep(run, folder, workers, fresh=True)
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


def judge_study(study: Baseline, baseline: Baseline, options: CheckOptions) -> tuple[Check, Level | None]:
    """The check, and its level by the history if there is one, in which it is then recorded."""

    def judged(level: float | None) -> Check:
        return check_study(study, baseline, margin=options.margin, alpha=options.alpha, level=level)

    if options.history is None:
        return judged(None), None
    history = History(options.history)
    evidence = evidence_digest(study, baseline, options.margin, options.alpha)
    budget = AlarmBudget(options.alpha, options.alarms_per_100 / 100)
    with history.held() as past:
        level = budget.next_level(past, evidence)
        check = judged(level.level)
        spends = not (level.repeated or same_answers(study, baseline))
        history.append(
            Entry(
                baseline=baseline.checksum[:16],
                evidence=evidence,
                verdict=check.outcome,
                earned=budget.rate,
                spent=level.level if spends else 0.0,
            )
        )
    return check, level


def _check_options(options: CheckOptions) -> None:
    check_levels(options.margin, options.alpha)
    if options.inconclusive not in INCONCLUSIVE:
        raise SpecError(f"--inconclusive {options.inconclusive}: choose fail or warn")
    if options.history is None:
        return
    if not _LEAST_ALARMS <= options.alarms_per_100 <= 100 * options.alpha:
        raise SpecError(
            f"--alarms-per-100 {options.alarms_per_100:g}: must not lie below {_LEAST_ALARMS:g} nor above 100 × alpha "
            f"({100 * options.alpha:g})"
        )


def _check_outputs(
    baseline: Path, history: Path | None, run: Path | None, out: Path | None, markdown: Path | None, junit: Path | None
) -> None:
    """Whether results can be written, and where nothing else stands.

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


def _history_note(level: Level, options: CheckOptions) -> str:
    again = ", the same outcomes as before" if level.repeated else ""
    return (
        f"Check {level.number} of {options.history}{again}: worse is claimed at level {level.level:.3g}, so that on "
        f"average at most {options.alarms_per_100:g} of 100 checks of an unchanged project raise a false alarm."
    )


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
