"""Study files that ship, planned as they stand and answered with made-up outcomes: nothing is trained."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from fakes import FINGERPRINT, outcomes

from capacity.plan.grid import grid_points, key, result_specs, trial_specs, unique
from capacity.plan.study_file import StudyFile, read_study_file
from capacity.runs.study import Study
from capacity.spec.adapters import TinyLora
from capacity.spec.result import Result, Step
from capacity.spec.run import RunSpec

STUDIES = Path(__file__).parents[1] / "studies"
BASE, ITEMS = 0.3, 120
MODEL_PARAMETERS = {"qwen2.5-3b?dtype=bf16": 3_085_938_688, "qwen2.5-7b?dtype=bf16": 7_615_616_512}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
# The rates that are tried; the middle one is the best, unless an adapter asks for another.
RATES = (1e-6, 1e-5, 1e-4)


def size(spec: RunSpec) -> int:
    return spec.adapter.groups * spec.adapter.u if isinstance(spec.adapter, TinyLora) else 0


def smaller(name: str) -> StudyFile:
    """A study file that ships, with fewer items."""
    file = read_study_file(STUDIES / f"{name}.toml")
    grids = tuple(
        grid.model_copy(
            update={"protocol": grid.protocol.model_copy(update={"test_items": ITEMS, "validation_items": ITEMS // 2})}
        )
        for grid in file.grids
    )
    return file.model_copy(update={"grids": grids})


def best_rate(spec: RunSpec) -> float:
    """Groups of one type each want a larger rate."""
    return RATES[2] if isinstance(spec.adapter, TinyLora) and spec.adapter.sharing == "structured" else RATES[1]


def answered(name: str, folder: Path, midpoint: Callable[[TinyLora], float]) -> Study:
    """All runs of a study file: trials at three rates on validation, and results at the best of them.

    `midpoint`: the size at which an adapter is halfway to an accuracy of 0.9.
    """
    file, study, rng = smaller(name), Study(folder), np.random.default_rng(0)
    assert file.tuning is not None
    chosen = {
        key(cell, method): best_rate(cell.spec(method, 0, {method: RATES[0]}, validation=False))
        for cell in grid_points(file)
        for method in cell.tuned_methods
    }
    trials = [
        spec
        for cell in grid_points(file)
        for method in cell.tuned_methods
        for rate in RATES
        for spec in trial_specs(cell, method, rate, file.tuning)
    ]
    with study.locked():
        for spec in unique([*result_specs(file, chosen), *trials]):
            _add(study, spec, midpoint, rng)
    return study


def _add(study: Study, spec: RunSpec, midpoint: Callable[[TinyLora], float], rng: np.random.Generator) -> None:
    share, items = BASE, spec.evaluation.items
    if isinstance(spec.adapter, TinyLora):
        assert spec.training is not None
        share = BASE + 0.6 / (1 + midpoint(spec.adapter) / size(spec)) + rng.normal(0, 0.005)
        share -= 0.1 * (spec.training.learning_rate != best_rate(spec))
    easy = np.random.default_rng(7).permutation(items)  # the same items are easy for every run
    right = [int(place < round(share * items)) for place in easy]
    trained = spec.training is not None
    result = Result(
        model_parameters=MODEL_PARAMETERS[spec.model],
        family="qwen2.5",
        trained_parameters=size(spec),
        update_bytes=BYTES[spec.storage_dtype] * size(spec),
        n_items=items,
        n_correct=sum(right),
        accuracy=sum(right) / items,
        prompts=100 if trained else 0,
        sequences=400 if trained else 0,
    )
    steps = [Step(step=step, loss=1.0, reward=share) for step in range(2)] if trained else []
    split = spec.evaluation.split
    study.add(spec, FINGERPRINT, result, steps, outcomes(right, 0, split), b"theta" if trained else None)
