"""Makes the runs of a study file: tuning first, then what is reported. Continues where it stopped. No torch here."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capacity.plan.grid import Cell, Key, cells, extended, first_rates, key, result_specs, trial_specs, unique
from capacity.plan.study_file import StudyFile, Tuning
from capacity.runs import files
from capacity.runs.study import Study
from capacity.spec.methods import Method
from capacity.spec.run import RunSpec

# Makes those of the given runs that are missing; runs that fail stay missing.
Make = Callable[[Sequence[RunSpec], str], None]


@dataclass(frozen=True)
class TunedArm:
    """How the rate of one method of one cell was found. `trials`: rate and validation accuracy, None if it failed."""

    key: Key
    learning_rate: float | None
    at_edge: bool
    trials: tuple[tuple[float, float | None], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        model, task, size, match, tokens_per_step, _, method = self.key
        return {
            "model": model,
            "task": task,
            "adapter": size.kind,
            "trained_parameters": size.trained_parameters,
            "match": match,
            "tokens_per_step": tokens_per_step,
            "method": method,
            "learning_rate": self.learning_rate,
            "at_edge": self.at_edge,
            "trials": [{"rate": rate, "accuracy": accuracy} for rate, accuracy in self.trials],
        }


def tune(file: StudyFile, study: Study, make: Make) -> list[TunedArm]:
    """Finds the rates of all cells that want tuned ones; `tuning.json` in the study says how.

    All cells are tuned at once, so that workers are never idle: in each round every cell tries the rates of its grid.
    """
    if file.tuning is None:
        return []
    wanted = {(key(cell, "sft"), cell.tuned_methods): cell for cell in cells(file, tuned=True)}
    grids = {k: first_rates(cell, file.tuning) for k, cell in wanted.items()}
    for left in range(file.tuning.extend, -1, -1):
        specs = [s for k, cell in wanted.items() for s in _trials(cell, grids[k], file.tuning)]
        make(unique(specs), "tuning")
        wider = {}
        for k, cell in wanted.items():
            best = [_best(_accuracies(study, cell, m, grids[k], file.tuning)) for m in cell.tuned_methods]
            wider[k] = extended(grids[k], [b for b in best if b is not None])
        if wider == grids or left == 0:
            break
        grids = wider
    arms: dict[Key, TunedArm] = {}
    for k, cell in wanted.items():
        for method in cell.tuned_methods:
            arm = _tuned(study, cell, method, grids[k], file.tuning)
            # An arm without demonstrations belongs to the cells of several tasks; the one with most trials counts.
            if arm.key not in arms or len(arms[arm.key].trials) < len(arm.trials):
                arms[arm.key] = arm
    found = list(arms.values())
    text = json.dumps([arm.to_json() for arm in found], indent=1)
    files.write_atomically(study.folder / "tuning.json", text + "\n")
    return found


def sweep(file: StudyFile, study: Study, make: Make) -> list[RunSpec]:
    """Makes all runs of a study; the caller holds its lock.

    Args:
        file: what to run.
        study: where to.
        make: makes the runs that are missing and returns when all are made or have failed.

    Returns:
        The specs of the reported runs; arms whose tuning failed at every rate are not among them.
    """
    text = file.model_dump_json(indent=1)
    files.write_atomically(study.folder / "study.json", text + "\n")
    tuned = tune(file, study, make)
    rates = {arm.key: arm.learning_rate for arm in tuned if arm.learning_rate is not None}
    specs = result_specs(file, rates)
    make(specs, "results")
    return specs


def _trials(cell: Cell, rates: Sequence[float], tuning: Tuning) -> list[RunSpec]:
    return [s for m in cell.tuned_methods for rate in rates for s in trial_specs(cell, m, rate, tuning)]


def _accuracies(study: Study, cell: Cell, method: Method, rates: Sequence[float], tuning: Tuning) -> list[float | None]:
    """Mean validation accuracy at each rate; None where a run failed."""
    means: list[float | None] = []
    for rate in rates:
        folders = [study.path_of(s) for s in trial_specs(cell, method, rate, tuning)]
        if not all(folder.is_dir() for folder in folders):
            means.append(None)
            continue
        means.append(float(np.mean([study.read(folder).result.accuracy for folder in folders])))
    return means


def _best(accuracies: Sequence[float | None]) -> int | None:
    """Index of the highest accuracy, the first of equals."""
    known = [i for i, a in enumerate(accuracies) if a is not None]
    return max(known, key=lambda i: (accuracies[i], -i)) if known else None


def _tuned(study: Study, cell: Cell, method: Method, rates: Sequence[float], tuning: Tuning) -> TunedArm:
    accuracies = _accuracies(study, cell, method, rates, tuning)
    best = _best(accuracies)
    rate = None if best is None else rates[best]
    return TunedArm(key(cell, method), rate, best in (0, len(rates) - 1), tuple(zip(rates, accuracies, strict=True)))
