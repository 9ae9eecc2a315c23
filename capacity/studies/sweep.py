"""Makes the runs of a study file: tuning first, then what is reported. Continues where it stopped. No torch here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capacity.errors import DataError, RunsFailedError
from capacity.plan.adaptive_file import AdaptiveFile
from capacity.plan.executors import ExecutorChoice
from capacity.plan.grid import (
    GridPoint,
    Key,
    arm_name,
    extended,
    first_rates,
    grid_points,
    key,
    result_specs,
    shipped_remarks,
    trial_specs,
    tuned_points,
    unique,
)
from capacity.plan.rates import best_rate, edge_remark
from capacity.plan.study_file import StudyFile, Tuning, read_study_file
from capacity.runs import files
from capacity.runs.fingerprint import Trainer
from capacity.runs.points import points, to_csv
from capacity.runs.study import Study
from capacity.spec.methods import Method
from capacity.spec.run import RunSpec
from capacity.studies.adaptive import AdaptiveStudy
from capacity.studies.device import check_libraries
from capacity.studies.executors.executor import opened
from capacity.studies.make import MadeStudy, Make, Observer, Wanted, make_study, unobserved

POINTS = "points.csv"  # the points table of a study that a sweep has made


@dataclass(frozen=True)
class TunedArm:
    """How the rate of one method of one grid point was found.

    Attributes:
        key: what the rate belongs to.
        name: the same in words.
        learning_rate: the best on validation; None if every trial failed.
        at_edge: it is the smallest or the largest of those tried.
        trials: rate and mean validation accuracy of each, None if it failed.
    """

    key: Key
    name: str
    learning_rate: float | None
    at_edge: bool
    trials: tuple[tuple[float, float | None], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        model, task, size, match, tokens_per_step, _, method = self.key
        return {
            "model": model,
            "task": task,
            "adapter": size.tuned_as,
            "trained_parameters": size.trained_parameters,
            "match": match,
            "tokens_per_step": tokens_per_step,
            "method": method,
            "learning_rate": self.learning_rate,
            "at_edge": self.at_edge,
            "trials": [{"rate": rate, "accuracy": accuracy} for rate, accuracy in self.trials],
        }


def tune(file: StudyFile, study: Study, make: Make) -> list[TunedArm]:
    """Finds the rates of all grid points that want tuned ones; `tuning.json` in the study says how.

    All grid points are tuned at once, so that workers are never idle. In each round every grid point tries the rates
    of its grid.
    """
    if file.tuning is None:
        return []
    wanted = dict(enumerate(tuned_points(file)))
    grids = {k: first_rates(point, file.tuning) for k, point in wanted.items()}
    for left in range(file.tuning.extend, -1, -1):
        specs = [s for k, point in wanted.items() for s in _trials(point, grids[k], file.tuning)]
        make(unique(specs), "tuning")
        wider = {}
        for k, point in wanted.items():
            best = [best_rate(_accuracies(study, point, m, grids[k], file.tuning)) for m in point.tuned_methods]
            wider[k] = extended(grids[k], [b for b in best if b is not None])
        if wider == grids or left == 0:
            break
        grids = wider
    arms: dict[Key, TunedArm] = {}
    for k, point in wanted.items():
        for method in point.tuned_methods:
            arm = _tuned(study, point, method, grids[k], file.tuning)
            # An arm without demonstrations belongs to the grid points of several tasks: that with most trials counts.
            if arm.key not in arms or len(arms[arm.key].trials) < len(arm.trials):
                arms[arm.key] = arm
    found = list(arms.values())
    text = json.dumps([arm.to_json() for arm in found], indent=1)
    files.write_atomically(study.folder / "tuning.json", text + "\n")
    return found


def sweep(file: StudyFile, study: Study, make: Make) -> Wanted:
    """Makes all runs of a study; the caller holds its lock.

    Args:
        file: what to run.
        study: where to.
        make: makes the runs that are missing.

    Returns:
        The reported runs; arms whose tuning failed at every rate are not among them.
    """
    text = file.model_dump_json(indent=1)
    files.write_atomically(study.folder / "study.json", text + "\n")
    tuned = tune(file, study, make)
    rates = {arm.key: arm.learning_rate for arm in tuned if arm.learning_rate is not None}
    specs = result_specs(file, rates)
    make(specs, "results")
    edges = [edge_remark(arm.name) for arm in tuned if arm.learning_rate is not None and arm.at_edge]
    without = [f"{arm.name} failed at every rate and has no results." for arm in tuned if arm.learning_rate is None]
    return Wanted(tuple(specs), (*shipped_remarks(file), *edges, *without))


def planned_specs(path: Path) -> list[RunSpec] | None:
    """The runs that a study file reports; None if that depends on a tuning."""
    file = read_study_file(path)
    return None if any(grid_points(file, tuned=True)) else result_specs(file, {})


def default_folder(file: StudyFile | AdaptiveFile) -> Path:
    """Where the study of a file goes unless another folder is named."""
    return Path("capacity-studies") / file.name


def make_sweep(
    file: StudyFile | AdaptiveFile,
    folder: Path,
    *,
    workers: int | None = None,
    together: int | None = None,
    trainer: Trainer = "loop",
    observe: Observer = unobserved,
    allow_mixed: bool = False,
    reuse: bool = False,
    checkpoint_minutes: float | None = None,
    executor: ExecutorChoice | None = None,
) -> MadeStudy:
    """Makes what is missing of a study file's study in `folder`, and writes its points table, `points.csv`.

    `together` says how many runs share their passes, and `executor` says where runs are made. If one of them is None,
    the study file says it. `reuse` copies runs that a study beside this one has.

    Raises:
        CapacityError: as `capacity.studies.make.make_study`; runs that fail are in what is returned.
    """
    check_libraries(trainer)
    with opened(executor or file.executor_choice(), workers) as there:
        produce = partial(sweep, file) if isinstance(file, StudyFile) else AdaptiveStudy(file, there.workers).produce
        made = make_study(
            folder, produce, executor=there, together=together or file.together, trainer=trainer,
            observe=observe, allow_mixed=allow_mixed, reuse=reuse, checkpoint_minutes=checkpoint_minutes,
        )  # fmt: skip
    files.write_atomically(folder / POINTS, to_csv(points(file.name, made.study.runs())))
    return made


def make_fresh(
    path: Path,
    folder: Path,
    *,
    workers: int | None = None,
    trainer: Trainer = "loop",
    observe: Observer = unobserved,
) -> Study:
    """Makes all runs of a study file in a study that has none: what a check judges.

    Raises:
        DataError: there are runs already.
        RunsFailedError: runs failed, or an arm failed at every rate of its tuning.
    """
    file = read_study_file(path)
    if (folder / "runs").is_dir() and any((folder / "runs").iterdir()):
        raise DataError(f"{folder}: has runs already, and a check starts an empty study: choose another folder")
    made = make_sweep(file, folder, workers=workers, trainer=trainer, observe=observe)
    arms = files.read_json(folder / "tuning.json") if any(grid_points(file, tuned=True)) else []
    untuned = sum(arm["learning_rate"] is None for arm in arms)
    if untuned:
        raise RunsFailedError(
            f"{untuned} of {len(arms)} arms failed at every rate; the diagnoses: capacity runs {folder}"
        )
    made.check()
    return made.study


def _trials(point: GridPoint, rates: Sequence[float], tuning: Tuning) -> list[RunSpec]:
    return [s for m in point.tuned_methods for rate in rates for s in trial_specs(point, m, rate, tuning)]


def _accuracies(
    study: Study, point: GridPoint, method: Method, rates: Sequence[float], tuning: Tuning
) -> list[float | None]:
    """Mean validation accuracy at each rate; None where a run failed."""
    means: list[float | None] = []
    for rate in rates:
        folders = [study.held(s) for s in trial_specs(point, method, rate, tuning)]
        made = [study.read(folder).result.accuracy for folder in folders if folder is not None]
        means.append(float(np.mean(made)) if len(made) == len(folders) else None)
    return means


def _tuned(study: Study, point: GridPoint, method: Method, rates: Sequence[float], tuning: Tuning) -> TunedArm:
    accuracies = _accuracies(study, point, method, rates, tuning)
    best = best_rate(accuracies)
    rate = None if best is None else rates[best]
    return TunedArm(
        key(point, method),
        arm_name(point, method),
        rate,
        best in (0, len(rates) - 1),
        tuple(zip(rates, accuracies, strict=True)),
    )
