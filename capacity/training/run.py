"""One run from its spec: load, adapt, train, round to the storage dtype, evaluate, save."""

import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from capacity.adapters.artifact import base_fingerprint, pack, store
from capacity.adapters.codec import payload_bytes
from capacity.adapters.factors import default_cache
from capacity.adapters.inject import attach
from capacity.adapters.weights import WeightFolder
from capacity.config import RunSpec, TinyLora
from capacity.errors import DataError, TrainingError
from capacity.models.aliases import ALIASES
from capacity.models.loading import load, model_folder
from capacity.tasks.catalog import get_task
from capacity.training import trl_bridge
from capacity.training.allocation import Allocation, gradient_allocation
from capacity.training.arms import Cost, OnStep, arm_of
from capacity.training.batches import prompt_schedule
from capacity.training.evaluate import evaluate


@dataclass(frozen=True)
class RunRecord:
    """What a run leaves behind; `capacity.runs.study.Study.add` writes it."""

    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]
    update: bytes | None


def execute(spec: RunSpec, device: str, on_step: OnStep | None = None, cache: Path | None = None) -> RunRecord:
    """Makes one run. Deterministic on one machine, one thread and one set of library versions.

    The update is rounded to its storage dtype before it is evaluated: the accuracy is that of the bytes reported.

    Args:
        spec: what to run.
        device: "cpu" or "cuda".
        on_step: called after each training step with its number and metrics.
        cache: folder of cached SVD factors; the default one if None.

    Raises:
        TrainingError: no honest result; the message is the diagnosis.
        CapacityError: the spec does not fit the model or the task.
    """
    began = time.monotonic()
    torch.manual_seed(spec.seed)
    cache = cache or default_cache()
    model, tokenizer = load(spec.model, device)
    weights = WeightFolder(model_folder(spec.model))
    base = base_fingerprint(model, weights.digests(cache))
    task = get_task(spec.task.name)
    schedule = prompt_schedule(task, spec) if spec.training is not None else []
    allocation: Allocation | None = None
    if isinstance(spec.adapter, TinyLora) and spec.adapter.allocation == "gradient":
        allocation = gradient_allocation(model, tokenizer, task, spec, schedule, cache, weights)
    entries = allocation.entries if allocation else None
    adapted = attach(model, spec.adapter, cache, entries=entries, weights=weights)
    cost, metrics, artifact, payload = Cost(), [], None, {}
    if spec.training is not None:
        arm = arm_of(adapted, tokenizer, task, spec, on_step)
        with tempfile.TemporaryDirectory() as scratch:
            trl_bridge.train(arm, schedule, device, scratch)
        arm.diagnose()
        cost, metrics = arm.cost, arm.metrics
        try:
            payload = store(adapted, spec.storage_dtype)
        except DataError as error:
            raise TrainingError(str(error)) from None
        artifact = pack(adapted, payload, model=spec.model, base=base, dtype=spec.storage_dtype, run=spec.identity)
    trained_seconds = time.monotonic() - began
    evaluation = evaluate(adapted.model, tokenizer, task, spec.evaluation)
    result = {
        "model_parameters": ALIASES[spec.model].shape.parameters,
        "family": ALIASES[spec.model].shape.family,
        "base_fingerprint": base,
        "trained_parameters": adapted.trained_parameters,
        "update_bytes": payload_bytes(payload),
        "header_bytes": len(artifact) - payload_bytes(payload) if artifact else 0,
        "allocation": asdict(allocation) if allocation else None,
        "n_items": evaluation.n_items,
        "n_correct": evaluation.n_correct,
        "accuracy": evaluation.accuracy,
        **asdict(cost),
        "training_seconds": round(trained_seconds, 3),
        "wall_seconds": round(time.monotonic() - began, 3),
        "worker_peak_memory_bytes": _peak_memory(),
    }
    return RunRecord(result, metrics, evaluation.outcomes, artifact)


def _peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
