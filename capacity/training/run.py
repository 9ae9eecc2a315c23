"""Makes one run from its spec: load, adapt, train, round to the storage dtype, evaluate."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from capacity.adapters.attach import attach
from capacity.adapters.files.artifact import base_fingerprint, pack, store
from capacity.adapters.files.codec import payload_bytes
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.cache import cache_folder
from capacity.errors import DataError, TrainingError
from capacity.models.base_files import base_digest
from capacity.models.device_memory import total_memory
from capacity.models.loading import load, model_folder
from capacity.plan.memory import check_memory
from capacity.plan.model_names import parse_model
from capacity.plan.models import model_shape
from capacity.runs.resources import peak_memory
from capacity.sampling.evaluate import evaluate
from capacity.sampling.vllm.start import opened_sampler
from capacity.spec.adapters import TinyLora
from capacity.spec.result import Allocation, Outcome, Result, Step
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.training import trl_trainer
from capacity.training.gradient_allocation import gradient_allocation
from capacity.training.measure.heldout import heldout_code_length
from capacity.training.phases import phases
from capacity.training.step import Cost, OnStep, Recorder


@dataclass(frozen=True)
class RunRecord:
    """A run record holds all of a finished run that `capacity.runs.study.Study.add` writes.

    `artifact` is the trained update as stored, with the recipe that rebuilds it. It is None if nothing is trained.
    """

    result: Result
    steps: Sequence[Step]
    outcomes: Sequence[Outcome]
    artifact: bytes | None


def execute(spec: RunSpec, device: str, on_step: OnStep | None = None, cache: Path | None = None) -> RunRecord:
    """Makes one run. One machine, one thread and one set of library versions always give the same result.

    The update is rounded to its storage dtype before it is evaluated. So the accuracy is that of the bytes reported.

    Args:
        spec: the spec of the run.
        device: "cpu" or "cuda".
        on_step: a function that is called after each training step with its metrics.
        cache: the folder of cached SVD factors; the default one if None.

    Raises:
        TrainingError: if the run cannot give an honest result. The message is the diagnosis.
        EngineError: if the engine that samples does not start, or has ended.
        CapacityError: if the spec does not fit the model or the task.
    """
    began = time.monotonic()
    _, shape = model_shape(spec.model)
    check_memory(spec, total_memory(device))
    torch.manual_seed(spec.seed)
    cache = cache or cache_folder("factors")
    files = base_digest(spec.model)
    model, tokenizer = load(spec.model, device)
    files = files or base_digest(spec.model)  # which loading may have fetched
    # The factors of a quantised base are those of its dequantised weights, not of the checkpoint's.
    weights = None if parse_model(spec.model).quantised else WeightFolder(model_folder(spec.model))
    base = base_fingerprint(model, weights.digests(cache) if weights else None)
    task = open_task(spec.task)
    allocation: Allocation | None = None
    if isinstance(spec.adapter, TinyLora) and spec.adapter.allocation == "gradient":
        allocation = gradient_allocation(model, tokenizer, task, spec, cache, weights)
    entries = allocation.entries if allocation else None
    adapted = attach(model, spec.adapter, cache, entries=entries, weights=weights)
    recorder, artifact, payload, square_sum = Recorder([], Cost(), on_step), None, {}, None
    with opened_sampler(spec, adapted, tokenizer, device) as sampler:
        if spec.training is not None:
            start = adapted.vector()
            for arm, schedule in phases(adapted, tokenizer, task, spec, recorder, sampler):
                with tempfile.TemporaryDirectory() as scratch:
                    trl_trainer.train(arm, schedule, device, scratch)
                arm.diagnose()
            square_sum = float((adapted.vector() - start).double().square().sum())
            try:
                payload = store(adapted, spec.storage_dtype)
            except DataError as error:
                raise TrainingError(str(error)) from None
            artifact = pack(adapted, payload, model=spec.model, base=base, dtype=spec.storage_dtype, run=spec.identity)
        trained_seconds = time.monotonic() - began
        engine = sampler if spec.rollouts is not None else None
        evaluation = evaluate(adapted.model, tokenizer, task, spec.evaluation, sampler=engine)
    heldout = heldout_code_length(adapted, tokenizer, task, spec) if spec.training is not None else {}
    measured = {
        "model_parameters": shape.parameters,
        "family": shape.family,
        "base_fingerprint": base,
        **({} if files is None else {"base_files": files}),
        "trained_parameters": adapted.trained_parameters,
        "update_bytes": payload_bytes(payload),
        "header_bytes": len(artifact) - payload_bytes(payload) if artifact else 0,
        "allocation": allocation,
        "update_square_sum": square_sum,
        "items_digest": evaluation.items_digest,
        "n_items": evaluation.n_items,
        "n_correct": evaluation.n_correct,
        "n_strict": evaluation.n_strict,
        "n_lenient": evaluation.n_lenient,
        "n_unfinished": evaluation.n_unfinished,
        "accuracy": evaluation.accuracy,
        **asdict(recorder.cost),
        **heldout,
        **({} if engine is None else {"engine": engine.engine_name}),
        "training_seconds": round(trained_seconds, 3),
        "wall_seconds": round(time.monotonic() - began, 3),
        "worker_peak_memory_bytes": peak_memory(),
    }
    return RunRecord(Result.model_validate(measured), recorder.steps, evaluation.outcomes, artifact)
