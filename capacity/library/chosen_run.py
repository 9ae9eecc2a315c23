"""One trained run of a study: the one that a prefix of its name means, or the most accurate one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity.errors import SpecError, unknown
from capacity.runs.study import Run, Study
from capacity_analysis.data.where import runs_where


@dataclass(frozen=True)
class ChosenRun:
    """A run, and how it was chosen.

    Attributes:
        run: the run.
        remark: a sentence; "" where nothing was chosen among several.
    """

    run: Run
    remark: str


def chosen_run(
    folder: Path, *, method: str | None = None, best: bool = False, prefix: str | None = None, where: Sequence[str] = ()
) -> ChosenRun:
    """Chooses one trained run of a study.

    Args:
        folder: of the study.
        method: only runs of this method.
        best: take the run that is most accurate on the test items; the first seed of several.
        prefix: how the name of the run begins, as `capacity runs` lists it.
        where: conditions on runs, each `field=value`.

    Raises:
        SpecError: no run is meant, or several.
        DataError: the study cannot be read.
    """
    study = Study(folder)
    trained = [run for run in study.runs() if run.spec.training is not None]
    if prefix is not None:
        trained = _named(trained, prefix, folder)
    elif best:  # a trial of a tuning is no result
        trained = [run for run in trained if run.spec.evaluation.split == "test"]
    if where:
        trained = [run for run in runs_where(folder, trained, where) if run.spec.training is not None]
    methods = {run.spec.method for run in trained}
    if method is not None and method not in methods and methods:
        raise unknown("method of this study", method, methods)
    found = [run for run in trained if method in (None, run.spec.method)]
    if not found:
        raise SpecError(f"{folder}: no trained run is meant; `capacity runs {folder}` lists them")
    if len(found) == 1:
        return ChosenRun(found[0], "")
    if not best:
        raise SpecError(
            f"{folder}: {len(found)} runs are meant: add --best, or --run with how one begins; "
            f"`capacity runs {folder}` lists them"
        )
    run = max(found, key=lambda run: (run.result.accuracy, -run.spec.seed))
    accuracy = f"{100 * run.result.accuracy:.1f} %"
    return ChosenRun(
        run,
        f"{run.spec.label} is the best of {len(found)} runs on the test items, {accuracy}. "
        "The best of several scores too high: the mean of its seeds says what to expect.",
    )


def _named(runs: Sequence[Run], prefix: str, folder: Path) -> list[Run]:
    """The run whose name begins so.

    Raises:
        SpecError: none does, or several do.
    """
    found = [run for run in runs if prefix and run.spec.identity.startswith(prefix.lower())]
    if not found:
        raise SpecError(f"--run {prefix!r}: no trained run begins so; `capacity runs {folder}` lists them")
    if len(found) > 1:
        names = ", ".join(run.spec.short_id for run in found[:3])
        raise SpecError(f"--run {prefix!r}: {len(found)} runs begin so, {names} among them: give more digits")
    return found
