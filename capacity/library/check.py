"""A study against its baseline: made from nothing if it is wanted fresh, then judged."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from capacity.errors import Interrupted, SpecError
from capacity.library.answers.check import check_answer
from capacity.library.shown import Shown
from capacity.runs import study as folders
from capacity.runs.fingerprint import Trainer, parse_trainer
from capacity.studies.make import Observer, unobserved
from capacity.studies.sweep import make_fresh, planned_specs
from capacity_analysis.check import result
from capacity_analysis.check.baseline import Baseline, read_baseline
from capacity_analysis.check.guard import ALARMS_PER_100, ALPHA, MARGIN, check_options, guard
from capacity_analysis.check.matching import check_plan
from capacity_reports.blocks import Block
from capacity_reports.check_report import check_blocks


@dataclass(frozen=True, repr=False)
class Checked(Shown):
    """A study that was compared with its baseline.

    Attributes:
        study: its folder.
        found: what the check found: `found.outcome` is "identical", "non-inferior", "worse" or "inconclusive".
    """

    study: Path
    found: result.Check

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; shares of 1 throughout."""
        return {**self.found.to_json(), "study": str(self.study)}

    @property
    def line(self) -> str:
        """The outcome and the verdict."""
        return f"{self.found.outcome}: {self.found.verdict}"

    @property
    def answer(self) -> Sequence[Block]:
        """The verdict, and a row a curve."""
        return check_answer(self.found)

    @property
    def blocks(self) -> Sequence[Block]:
        """A table of each curve, what else was found, and the verdict."""
        return check_blocks(self.found)


def check(
    study: str | Path | None = None,
    baseline: str | Path = "baseline.json",
    *,
    run: str | Path | None = None,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    history: str | Path | None = None,
    alarms_per_100: float = ALARMS_PER_100,
    out: str | Path | None = None,
    trainer: Trainer | None = None,
    workers: int | None = None,
    observe: Observer = unobserved,
) -> Checked:
    """Compares a study with its baseline.

    Args:
        study: study folder; None if `run` makes one.
        baseline: file of `capacity baseline`.
        run: study file whose study is made first, from nothing.
        margin: largest tolerated drop of the mean accuracy over sizes, as a share of 1.
        alpha: one-sided error of each claim.
        history: file that remembers checks and limits false alarms; None for none.
        alarms_per_100: with a history, false alarms in 100 checks of an unchanged project, on average at most.
        out: with `run`, the folder of the study; a new one under capacity-studies/ if None.
        trainer: with `run`, what makes the steps: "loop" or "trl"; the loop if None.
        workers: with `run`, processes that make the runs.
        observe: with `run`, watches the runs.

    Raises:
        SpecError: numbers that make no sense, or both a study and a study file.
        DataError: study and baseline cannot be compared.
        RunsFailedError: runs of `run` failed.
    """
    if (study is None) == (run is None):
        raise SpecError("give either a study folder, or --run with a study file")
    if run is None and (out is not None or trainer is not None or workers is not None):
        raise SpecError("--out, --trainer and --workers belong to --run")
    chosen = parse_trainer(trainer or "loop")
    remembered = None if history is None else Path(history)
    check_options(margin, alpha, remembered, alarms_per_100)
    old = read_baseline(Path(baseline))
    if study is not None:
        made = folders.Study(Path(study))
    else:
        assert run is not None
        where = None if out is None else Path(out)
        made = fresh_study(Path(run), old, where, trainer=chosen, workers=workers, observe=observe)
    found = guard(made, old, margin=margin, alpha=alpha, history=remembered, alarms_per_100=alarms_per_100)
    return Checked(made.folder, found)


def fresh_study(
    run: Path,
    baseline: Baseline,
    out: Path | None = None,
    *,
    trainer: Trainer = "loop",
    workers: int | None = None,
    observe: Observer = unobserved,
) -> folders.Study:
    """Makes the study of a file from nothing, after a look at whether it can match the baseline.

    Args:
        run: the study file.
        baseline: what the study is meant to be compared with.
        out: the folder of the study; a new one under capacity-studies/ if None.
        trainer: what makes the steps of the runs.
        workers: processes that make the runs.
        observe: watches the runs.

    Raises:
        DataError: it cannot match the baseline, or `out` has runs already.
        RunsFailedError: runs failed.
    """
    planned = planned_specs(run)
    if planned is not None:
        check_plan(planned, baseline)
    folder = out or _new_folder(run.stem)
    try:
        return make_fresh(run, folder, workers=workers, trainer=trainer, observe=observe)
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
