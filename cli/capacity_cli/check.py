"""`capacity check`: a study against its baseline, for CI."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import typer
from rich.console import Console

from capacity.errors import DataError, SpecError
from capacity.runs.files import write_atomically
from capacity.runs.study import Study
from capacity_analysis.baseline import Baseline, read_baseline, snapshot
from capacity_analysis.regression import Check, check_study, evidence_digest, same_answers
from capacity_analysis.sequential import AlarmBudget, Entry, History, Level
from capacity_reports.check_report import check_junit, check_markdown, check_view

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

    Exit code 1 means "worse", so all that is wrong with the input ends with 2.
    """
    if (study is None) == (run is None):
        raise SpecError("give either a study folder, or --run with a study file")
    if run is None and (out is not None or workers is not None):
        raise SpecError("--out and --workers belong to --run")
    _check_options(options)
    with _as_usage():
        old = read_baseline(baseline)
    if run is not None:
        from capacity_cli.sweep import run_sweep

        with _as_usage():
            made = run_sweep(run, out or _new_folder(run.stem), workers, fresh=True)
    else:
        assert study is not None
        made = Study(study)
    with _as_usage():
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
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        console = Console()
        console.print(check_view(check, notes), highlight=False, soft_wrap=not console.is_terminal)
    raise typer.Exit(code)


def _new_folder(name: str) -> Path:
    """The first of check-NAME, check-NAME-2, … that is not there: a check always starts an empty study."""
    names = chain([f"check-{name}"], (f"check-{name}-{number}" for number in count(2)))
    return next(path for path in (Path("capacity-studies") / name for name in names) if not path.exists())


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
    if options.inconclusive not in INCONCLUSIVE:
        raise SpecError(f"--inconclusive {options.inconclusive}: choose fail or warn")
    if not 0 < options.alarms_per_100 <= 100 * options.alpha:
        raise SpecError(
            f"--alarms-per-100 {options.alarms_per_100:g}: must lie above 0 and not above 100 × alpha "
            f"({100 * options.alpha:g})"
        )


def _history_note(level: Level, options: CheckOptions) -> str:
    again = ", the same outcomes as before" if level.repeated else ""
    return (
        f"Check {level.number} of {options.history}{again}: worse is claimed at level {level.level:.3g}, so that on "
        f"average at most {options.alarms_per_100:g} of 100 checks of an unchanged project raise a false alarm."
    )


@contextmanager
def _as_usage() -> Iterator[None]:
    """What is wrong with the data that was given is the user's input: exit code 2."""
    try:
        yield
    except DataError as error:
        raise SpecError(str(error)) from None
