"""One run from its spec: load, adapt, train, round to the storage dtype, evaluate, save."""

import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from capacity.adapters.artifact import base_fingerprint, header_bytes, save, store
from capacity.adapters.factors import default_cache
from capacity.adapters.inject import attach
from capacity.config import RunSpec
from capacity.errors import TrainingError
from capacity.models.aliases import ALIASES
from capacity.models.loading import load
from capacity.tasks.catalog import get_task
from capacity.training import trl_bridge
from capacity.training.arms import Cost, GrpoArm, OnStep, SftArm
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
    model, tokenizer = load(spec.model, device)
    base = base_fingerprint(model)
    task = get_task(spec.task.name)
    adapted = attach(model, spec.adapter, cache or default_cache())
    cost, metrics, artifact, stored = Cost(), [], None, {}
    if spec.training is not None:
        arm = (GrpoArm if spec.method == "grpo" else SftArm)(adapted, tokenizer, task, spec, on_step)
        with tempfile.TemporaryDirectory() as scratch:
            trl_bridge.train(arm, prompt_schedule(task, spec), device, scratch)
        arm.diagnose()
        cost, metrics = arm.cost, arm.metrics
        stored = store(adapted.update(), spec.storage_dtype)
        if not all(bool(t.isfinite().all()) for t in stored.values()):
            raise TrainingError(f"the update does not fit {spec.storage_dtype}: use --storage-dtype bf16 or fp32")
        adapted.set_update(stored)
        artifact = save(stored, spec, base)
    trained_seconds = time.monotonic() - began
    evaluation = evaluate(adapted.model, tokenizer, task, spec.evaluation)
    result = {
        "model_parameters": ALIASES[spec.model].shape.parameters,
        "family": ALIASES[spec.model].shape.family,
        "base_fingerprint": base,
        "trained_parameters": adapted.trained_parameters,
        "update_bytes": sum(t.numel() * t.element_size() for t in stored.values()),
        "header_bytes": header_bytes(artifact, stored) if artifact else 0,
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
