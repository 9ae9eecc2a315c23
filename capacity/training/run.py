"""Makes runs from their specs: load, adapt, train, round to the storage dtype, evaluate."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch

from capacity.adapters.files.artifact import pack, store
from capacity.adapters.files.codec import payload_bytes
from capacity.adapters.kinds.low_rank import LowRankModel
from capacity.adapters.model import AdaptedModel
from capacity.errors import CapacityError, DataError, TrainingError
from capacity.models.device_memory import total_memory
from capacity.plan.memory import check_memory
from capacity.plan.models import model_shape
from capacity.runs.fingerprint import Trainer
from capacity.runs.items import ItemText
from capacity.runs.resources import peak_memory
from capacity.sampling.evaluate import Evaluation, evaluate, evaluate_at
from capacity.sampling.sampler import Sampler
from capacity.sampling.vllm.start import opened_sampler
from capacity.spec.result import Outcome, Result, Step
from capacity.spec.run import RunSpec
from capacity.tasks.task import Item, Task
from capacity.training.arm import Arm
from capacity.training.base import Base, Bases
from capacity.training.batch import Cost, OnStep, Recorder
from capacity.training.checkpoints import Checkpoints, unkept
from capacity.training.first_gradient import layout_of
from capacity.training.loop import Trainee, train
from capacity.training.measure.effect import output_change, remarks_of
from capacity.training.measure.heldout import heldout_code_length
from capacity.training.phases import phases
from capacity.training.together import Together
from capacity.training.trainers import train_by

OnStepOf = Callable[[RunSpec, Step], None]


@dataclass(frozen=True)
class RunRecord:
    """A run record holds all of a finished run that `capacity.runs.study.Study.add` writes.

    `artifact` is the trained update as stored, with the recipe that rebuilds it. It is None if nothing is trained.
    `items` are the items of the outcomes. `remarks` say what to know of the run, a sentence each.
    """

    result: Result
    steps: Sequence[Step]
    outcomes: Sequence[Outcome]
    artifact: bytes | None
    items: Sequence[ItemText] = ()
    remarks: Sequence[str] = ()


def execute(
    spec: RunSpec,
    device: str,
    on_step: OnStep | None = None,
    cache: Path | None = None,
    bases: Bases | None = None,
    trainer: Trainer = "loop",
    checkpoints: Checkpoints | None = None,
) -> RunRecord:
    """Makes one run. One machine, one thread and one set of library versions always give the same result.

    The update is rounded to its storage dtype before it is evaluated. So the accuracy is that of the bytes reported.

    Args:
        spec: the spec of the run.
        device: "cpu" or "cuda".
        on_step: a function that is called after each training step with its metrics.
        cache: the folder of cached SVD factors; the default one if None.
        bases: what earlier runs have loaded already.
        trainer: what makes the steps. The update is the same by each trainer, up to rounding.
        checkpoints: keeps checkpoints of the training, and lets it continue from one; nothing is kept if None.

    Raises:
        TrainingError: if the run cannot give an honest result. The message is the diagnosis.
        EngineError: if the engine that samples does not start, or has ended.
        CapacityError: if the spec does not fit the model or the task.
    """
    bases = bases or Bases(device, cache)
    making = _Making(spec, bases, on_step)
    with opened_sampler(spec, making.adapted, making.base.tokenizer, device) as sampler:
        if spec.training is not None:
            keep = unkept if checkpoints is None else partial(checkpoints.keeping, [making])
            making.gradient_steps = train_by(trainer, making.phases(sampler), keep)
            making.store()
        return making.record(making.evaluation(sampler))


def execute_together(
    specs: Sequence[RunSpec], on_step: OnStepOf, bases: Bases, checkpoints: Checkpoints | None = None
) -> list[RunRecord | CapacityError]:
    """Makes runs that share a base, in common passes, and returns the record of each, or why it failed.

    Runs of the untrained model that differ in temperature and seed alone read each prompt once. Trained runs need
    low-rank updates and sample from their own model. `capacity.plan.together` says which runs go together.

    Args:
        specs: the runs, all on one model.
        on_step: a function that is called after each training step of each run.
        bases: what earlier runs have loaded already.
        checkpoints: as of `execute`.
    """
    made: list[_Making | CapacityError] = []
    for spec in specs:
        try:
            made.append(_Making(spec, bases, lambda step, spec=spec: on_step(spec, step)))  # type: ignore[misc]
        except CapacityError as error:
            made.append(error)
    making = [m for m in made if isinstance(m, _Making)]
    records = dict(zip(map(id, making), _made_together(making, checkpoints), strict=True))
    return [records[id(m)] if isinstance(m, _Making) else m for m in made]


def _made_together(making: Sequence["_Making"], checkpoints: Checkpoints | None) -> list[RunRecord | CapacityError]:
    """Trains and evaluates runs that have been prepared."""
    if not making:
        return []
    base = making[0].base
    if all(m.spec.method == "base" for m in making):
        protocols = [(m.spec.evaluation, m.spec.seed) for m in making]
        found = evaluate_at(base.model, base.tokenizer, making[0].task, protocols)
        return [m.record(evaluation) for m, evaluation in zip(making, found, strict=True)]
    with ExitStack() as stack:
        samplers = [stack.enter_context(opened_sampler(m.spec, m.adapted, base.tokenizer, m.device)) for m in making]
        trainees = [Trainee(m.phases(sampler)) for m, sampler in zip(making, samplers, strict=True)]
        keep = unkept if checkpoints is None else partial(checkpoints.keeping, making)
        together = Together(base.model, base.tokenizer, [cast(LowRankModel, m.adapted) for m in making])
        with keep(trainees) as after_step:
            train(trainees, together, after_step)
        ended = zip(making, samplers, trainees, strict=True)
        return [_finished(m, sampler, trainee) for m, sampler, trainee in ended]


def _finished(making: "_Making", sampler: Sampler, trainee: Trainee) -> RunRecord | CapacityError:
    if trainee.error is not None:
        return trainee.error
    making.gradient_steps = trainee.gradient_steps
    try:
        making.store()
        return making.record(making.evaluation(sampler))
    except CapacityError as found:
        return found


class _Making:
    """A run that is being made.

    Args:
        spec: the spec of the run.
        bases: what has been loaded already.
        on_step: a function that is called after each training step with its metrics.

    Raises:
        CapacityError: if the spec does not fit the model, the task or the memory.
    """

    def __init__(self, spec: RunSpec, bases: Bases, on_step: OnStep | None) -> None:
        self.began = time.monotonic()
        self.spec, self.device = spec, bases.device
        check_memory(spec, total_memory(bases.device))
        torch.manual_seed(spec.seed)
        self.base: Base = bases.of(spec.model)
        self.task: Task = bases.task(spec.task)
        bases.check(spec)
        layout, self.allocation, self.choice = layout_of(self.base, self.task, spec)
        self.adapted: AdaptedModel = self.base.adapted(spec.adapter, layout)
        if spec.method == "zero":  # some kinds start from an update that is not zero
            self.adapted.set_vector(torch.zeros_like(self.adapted.vector()))
        self.start = self.adapted.vector() if spec.training is not None else torch.empty(0)
        self.recorder = Recorder([], Cost(), on_step)
        self.artifact: bytes | None = None
        self.payload_bytes = 0
        self.square_sum: float | None = None
        self.trained_seconds = 0.0
        self.engine_name: str | None = None
        self.gradient_steps: int | None = None

    def phases(self, sampler: Sampler) -> Iterator[tuple[Arm, list[Item]]]:
        """Yields the arms of the run with the prompts of their steps, one after the other."""
        return phases(
            self.adapted, self.base.tokenizer, self.task, self.spec, self.recorder, sampler, self.base.lengths
        )

    def store(self) -> None:
        """Rounds the trained update to its storage dtype, and packs it.

        Raises:
            TrainingError: if the update does not fit the dtype.
        """
        self.square_sum = float((self.adapted.vector() - self.start).double().square().sum())
        try:
            payload = store(self.adapted, self.spec.storage_dtype)
        except DataError as error:
            raise TrainingError(str(error)) from None
        self.payload_bytes = payload_bytes(payload)
        self.artifact = pack(
            self.adapted,
            payload,
            model=self.spec.model,
            base=self.base.fingerprint,
            dtype=self.spec.storage_dtype,
            run=self.spec.identity,
        )

    def evaluation(self, sampler: Sampler) -> Evaluation:
        """Evaluates the update as it is now, by the engine that has sampled in training if there is one."""
        self.trained_seconds = time.monotonic() - self.began
        engine = sampler if self.spec.rollouts is not None else None
        self.engine_name = None if engine is None else engine.engine_name
        return evaluate(
            self.adapted, self.base.tokenizer, self.task, self.spec.evaluation, sampler=engine, run_seed=self.spec.seed
        )

    def record(self, evaluation: Evaluation) -> RunRecord:
        """Returns all that the run leaves behind.

        Raises:
            TrainingError: if the frozen weights have changed.
        """
        heldout, effect = {}, {}
        asked = self.task.items(self.spec.evaluation.split, self.spec.evaluation.items)
        if self.spec.training is not None:
            heldout = heldout_code_length(self.adapted, self.base.tokenizer, self.task, self.spec, self.base.lengths)
            effect["output_change"] = output_change(self.adapted, self.base.tokenizer, asked)
        if self.gradient_steps is not None:
            effect["gradient_steps"] = self.gradient_steps
        self.base.check_unchanged()
        _, shape = model_shape(self.spec.model)
        measured = {
            "model_parameters": shape.parameters,
            "family": shape.family,
            "base_fingerprint": self.base.fingerprint,
            **({} if self.base.files is None else {"base_files": self.base.files}),
            "trained_parameters": self.adapted.trained_parameters if self.spec.training is not None else 0,
            "update_bytes": self.payload_bytes,
            "header_bytes": len(self.artifact) - self.payload_bytes if self.artifact else 0,
            "allocation": self.allocation,
            "choice": self.choice,
            "update_square_sum": self.square_sum,
            "items_digest": evaluation.items_digest,
            "n_items": evaluation.n_items,
            "n_correct": evaluation.n_correct,
            "n_strict": evaluation.n_strict,
            "n_lenient": evaluation.n_lenient,
            "n_unfinished": evaluation.n_unfinished,
            "accuracy": evaluation.accuracy,
            "end_tokens": evaluation.end_tokens,
            "system_folded": evaluation.system_folded,
            **asdict(self.recorder.cost),
            **heldout,
            **effect,
            **({} if self.engine_name is None else {"engine": self.engine_name}),
            "training_seconds": round(self.trained_seconds, 3),
            "wall_seconds": round(time.monotonic() - self.began, 3),
            "worker_peak_memory_bytes": peak_memory(),
        }
        items = [ItemText(**asdict(item)) for item in asked]
        result = Result.model_validate(measured)
        return RunRecord(result, self.recorder.steps, evaluation.outcomes, self.artifact, items, remarks_of(result))
