"""What the missing runs of a study take and what stands in their way, told once, before the first of them. No torch.

A worker checks the prompts: see `capacity.training.preflight`. All else is here: memory, room on the disk, folders that
can be written, the engine that samples, and devices.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capacity.cache import cache_folder
from capacity.errors import CapacityError, DataError, EngineError, raise_together
from capacity.models.base_files import base_digests
from capacity.plan.cost import run_estimate
from capacity.plan.machine import free_bytes, memory_bytes, writable
from capacity.plan.memory import advice, gigabytes, run_memory
from capacity.plan.sampling import SERVER
from capacity.runs import files, study_folder
from capacity.sampling.vllm.engine import installed_version
from capacity.spec.result import Result
from capacity.spec.run import RunSpec, load_spec

_MEASURED = 50  # runs of a study that tell how fast this machine is, at most
_STEP_BYTES, _ANSWER_BYTES, _RUN_BYTES = 700, 60, 6000  # of metrics.jsonl, of outcomes.jsonl beside texts, of the rest
_TOKEN_BYTES = 4
_USUAL = 0.25  # a completion's length as a share of the longest allowed


@dataclass(frozen=True)
class Room:
    """The memory that runs may take.

    Attributes:
        memory_bytes: of one device.
        workers: how many share it.
        owner: what has it, in words.
    """

    memory_bytes: int
    workers: int
    owner: str


@dataclass(frozen=True)
class Preflight:
    """What some runs take, and what stands in their way.

    Attributes:
        device: "cpu" or "cuda".
        workers: processes that make them.
        runs, steps, answers: their number, and that of all their training steps and answers to items.
        least_memory_bytes: the memory of the largest run, with one sequence at a time.
        disk_bytes: about how much they leave on the disk.
        hours: about how long they take, by runs that were made here; None if there is no such run of each model.
        downloads: the models whose weights are not on this machine.
        obstacles: why they cannot be made, a line each.
    """

    device: str
    workers: int
    runs: int
    steps: int
    answers: int
    least_memory_bytes: int
    disk_bytes: int
    hours: float | None
    downloads: tuple[str, ...]
    obstacles: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The same in words, a sentence each."""
        obstacles = [f"Obstacle: {obstacle}" for obstacle in self.obstacles]
        if not self.runs:
            return ["None of these runs is left to make.", *obstacles]
        if self.hours is None:
            time = "How long they take is not known before a run of each model has been made here."
        else:
            time = f"They take about {self.hours:.2g} hours, by the runs that were made here."
        return [
            f"{self.runs:,} runs to make on {self.device} by {self.workers} workers: {self.steps:,} training steps, "
            f"{self.answers:,} answers.",
            f"They leave about {gigabytes(self.disk_bytes)} on the disk.",
            time,
            *(f"The weights of {model} are downloaded first." for model in self.downloads),
            *obstacles,
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "downloads": list(self.downloads), "obstacles": list(self.obstacles)}


def preflight(folder: Path, specs: Sequence[RunSpec], device: str, workers: int, room: Room | None = None) -> Preflight:
    """Looks at what is to be made, before anything is.

    Args:
        folder: the study.
        specs: the runs that are missing.
        device: "cpu" or "cuda".
        workers: the number of processes.
        room: the memory that the runs may take; that of this machine if None.
    """
    room = room or Room(memory_bytes(), workers, "this machine")
    disk = sum(map(disk_bytes, specs))
    return Preflight(
        device=device,
        workers=min(workers, len(specs)),
        runs=len(specs),
        steps=sum(spec.training.steps for spec in specs if spec.training is not None),
        answers=sum(spec.evaluation.items * spec.evaluation.samples_per_item for spec in specs),
        least_memory_bytes=max((run_memory(spec).peak for spec in specs), default=0),
        disk_bytes=disk,
        hours=hours(folder, specs, workers),
        downloads=tuple(model for model, digest in base_digests(s.model for s in specs).items() if digest is None),
        obstacles=tuple(_obstacles(folder, specs, room, disk)),
    )


def check_obstacles(folder: Path, specs: Sequence[RunSpec], room: Room) -> None:
    """Checks that runs can be made, before the first of them is.

    Args:
        folder: the study.
        specs: the runs that are missing.
        room: the memory that they may take.

    Raises:
        CapacityError: the obstacles, a line each.
    """
    found = _obstacles(folder, specs, room, sum(map(disk_bytes, specs)))
    raise_together([CapacityError(obstacle) for obstacle in found])


def disk_bytes(spec: RunSpec) -> int:
    """Returns about how many bytes a run leaves, with completions a quarter as long as they may be."""
    evaluation, training = spec.evaluation, spec.training
    answers = evaluation.items * evaluation.samples_per_item
    found = _RUN_BYTES + answers * (_ANSWER_BYTES + int(_USUAL * _TOKEN_BYTES * evaluation.max_new_tokens))
    return found + (0 if training is None else training.steps * _STEP_BYTES)


def _obstacles(folder: Path, specs: Sequence[RunSpec], room: Room, disk: int) -> Iterator[str]:
    for place, what in ((folder, "study folder"), (cache_folder("factors"), "cache")):
        if not writable(place):
            yield f"the {what} {place} cannot be written: choose another folder, or change its permissions"
    if specs and disk > free_bytes(folder):
        yield (
            f"the runs leave about {gigabytes(disk)}, and the disk of {folder} has room for "
            f"{gigabytes(free_bytes(folder))}: make room, or choose another --out"
        )
    if any(spec.rollouts is not None for spec in specs) and SERVER not in os.environ:
        try:
            installed_version()
        except EngineError as error:
            yield str(error)
    yield from _memory_obstacles(specs, room)


def _memory_obstacles(specs: Sequence[RunSpec], room: Room) -> Iterator[str]:
    """Yields a line for each model whose runs do not fit, and one if so many workers do not."""
    available, together = room.memory_bytes, min(room.workers, len(specs))
    largest: dict[str, RunSpec] = {}
    for spec in specs:
        if spec.model not in largest or run_memory(spec).peak > run_memory(largest[spec.model]).peak:
            largest[spec.model] = spec
    refused = {model: advice(run_memory(spec), available) for model, spec in largest.items()}
    yield from (f"{model}: {why}" for model, why in refused.items() if why is not None)
    fitting = [run_memory(spec).peak for model, spec in largest.items() if refused[model] is None]
    if fitting and together * max(fitting) > available:
        most = max(1, available // max(fitting))
        what = f"--workers {most}" if room.owner == "this machine" else f"at most {most} workers for each"
        yield (
            f"{together} workers need {gigabytes(together * max(fitting))} of memory, "
            f"and {room.owner} has {gigabytes(available)}: use {what}"
        )


def hours(folder: Path, specs: Sequence[RunSpec], workers: int) -> float | None:
    """Estimates how long runs take, by the seconds for each planned FLOP of runs in this study and beside it.

    Args:
        folder: the study. Studies in the same folder count too.
        specs: the runs.
        workers: the number of processes that make them.

    Returns:
        Hours; None if no run of one of the models has been made there.
    """
    seconds: dict[str, float] = {}
    flops: dict[str, float] = {}
    for spec, result in _made(folder):
        if result.wall_seconds is not None:
            seconds[spec.model] = seconds.get(spec.model, 0.0) + result.wall_seconds
            flops[spec.model] = flops.get(spec.model, 0.0) + _flops(spec)
    if not all(spec.model in seconds for spec in specs):
        return None
    work = sum(_flops(spec) * seconds[spec.model] / flops[spec.model] for spec in specs)
    return work / max(1, min(workers, len(specs))) / 3600


def _flops(spec: RunSpec) -> float:
    estimate = run_estimate(spec)
    return estimate.sampling_flops + estimate.training_flops


def _made(folder: Path) -> Iterator[tuple[RunSpec, Result]]:
    """Yields runs of this study and of its neighbours. What cannot be read is left out, because it is for a guess."""
    beside = sorted(path for path in folder.parent.glob("*") if study_folder.is_marked(path))
    for study in beside:
        runs = sorted((study / study_folder.RUNS).glob("*"))[:_MEASURED]
        for run in runs:
            try:
                path = run / "spec.json"
                yield load_spec(files.read_json(path), str(path)), files.read_record(run / "result.json", Result)
            except (DataError, CapacityError):
                continue
