"""Tells what making a study would take, and which of its runs are there. Nothing is made, copied or downloaded."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from capacity.errors import CapacityError
from capacity.runs.fingerprint import Trainer
from capacity.runs.study import State, Study
from capacity.spec.run import RunSpec
from capacity.studies.device import check_libraries
from capacity.studies.executors.executor import Executor
from capacity.studies.executors.local import local_executor
from capacity.studies.make import environment, found_runs
from capacity.studies.preflight import Preflight, preflight
from capacity.studies.siblings import found_beside
from capacity.studies.workers import prompt_obstacles

PlannedState = State | Literal["copied"]


def planned_states(
    folder: Path,
    specs: Sequence[RunSpec],
    trainer: Trainer = "loop",
    executor: Executor | None = None,
    *,
    reuse: bool,
) -> list[tuple[RunSpec, PlannedState]]:
    """Tells the state of each run of a study; "copied" if a study beside it has the run. Nothing is made or copied.

    Args:
        folder: the study, which need not exist.
        specs: what is wanted.
        trainer: what makes the steps.
        executor: what makes them; workers on this machine if None.
        reuse: copy runs that a study beside this one has.
    """
    executor = executor or local_executor()
    study, fingerprint = Study(folder), environment(trainer, executor.device)
    beside = {spec.identity for spec, _, _ in found_beside(study, specs, fingerprint)} if reuse else set()
    found = found_runs(study, specs, fingerprint)
    return [(spec, "copied" if spec.identity in beside else state) for spec, state, _ in found]


def look_ahead(
    folder: Path,
    planned: Sequence[tuple[RunSpec, PlannedState]],
    trainer: Trainer = "loop",
    executor: Executor | None = None,
) -> Preflight:
    """Tells what the missing runs of a study take and what stands in their way. Nothing is made or downloaded.

    Args:
        folder: the study, which need not exist.
        planned: what is wanted, as `planned_states` tells it. Runs that will be copied take nothing.
        trainer: what makes the steps.
        executor: what makes them; workers on this machine if None.
    """
    executor = executor or local_executor()
    study, fingerprint = Study(folder), environment(trainer, executor.device)
    missing = [spec for spec, state in planned if state == "missing"]
    found = preflight(folder, missing, fingerprint.device, executor.workers, executor.room())
    try:
        check_libraries(trainer)
    except CapacityError as error:
        return replace(found, obstacles=(*found.obstacles, str(error)))
    here = [spec for spec in missing if spec.model not in found.downloads]
    return replace(found, obstacles=(*found.obstacles, *prompt_obstacles(study, here, fingerprint)))
