"""Our side of every measurement. What starts the program's own engine stands here and nowhere else."""

import copy
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.bench.flops import step_flops
from benchmarks.bench.models import first_prompts, opened
from benchmarks.bench.optimiser import steps_in_turns
from benchmarks.bench.side import Gate
from benchmarks.bench.workloads import by_step, digest, written
from capacity.adapters.attach import attach
from capacity.adapters.files.artifact import base_fingerprint, pack, store
from capacity.adapters.model import AdaptedModel
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.cache import cache_folder
from capacity.models.loading import model_folder
from capacity.sampling.own_model import TransformersSampler
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.training.base_lengths import BaseLengths
from capacity.training.batch import Cost, Recorder
from capacity.training.batches import encode_prompts
from capacity.training.phases import phases
from capacity.training.trainers import train_by


def adapted_model(run: RunSpec, model: nn.Module) -> AdaptedModel:
    """Returns the model with its untrained update. Its factors are cached."""
    return attach(model, run.adapter, cache_folder("factors"), weights=WeightFolder(model_folder(run.model)))


def step(gate: Gate, spec: Mapping[str, Any], later: bool = False) -> dict[str, Any]:
    """Trains a run, a step a turn. A `later` run follows one of the same seed, which has measured the base for it."""
    run, model, tokenizer = opened(spec)
    task, training = open_task(run.task), run.training
    assert training is not None
    lengths = BaseLengths()
    if later:
        before = adapted_model(run, copy.deepcopy(model))
        train_by("loop", phases(before, tokenizer, task, run, Recorder([], Cost()), base_lengths=lengths))
    adapted = adapted_model(run, model)
    recorder = Recorder([], Cost())
    arm, schedule = next(iter(phases(adapted, tokenizer, task, run, recorder, base_lengths=lengths)))
    with steps_in_turns(gate, training.steps) as optimiser:
        train_by("loop", [(arm, schedule)])

    items = by_step(schedule, training.prompts_per_step)
    lengths = [step.mean_length for step in recorder.steps]
    alive = [[h not in (0, training.samples_per_prompt) for h in step.group_hits or ()] for step in recorder.steps]
    prompts = [[len(ids) for ids in encode_prompts(tokenizer, part)] for part in items]
    same: dict[str, Any] = {
        "trained_parameters": adapted.trained_parameters,
        "sequences": training.prompts_per_step * training.samples_per_prompt,
        "prompt_tokens": training.samples_per_prompt * sum(map(sum, prompts)),
        "prompts": [digest([written(item) for item in part]) for part in items],
        "longest": training.max_new_tokens,
        "optimiser": optimiser,
        "clipping": training.max_grad_norm,
    }
    if run.method == "sft":
        same |= {"trained_tokens": recorder.cost.trained_tokens, "first_loss": recorder.steps[0].loss}
    return {
        "same": same,
        "lengths": lengths,
        "rewards": [step.reward for step in recorder.steps],
        "flops": [
            step_flops(run, part, length, live or [True] * len(part))
            for part, length, live in zip(prompts, lengths, alive, strict=True)
        ],
    }


def rollouts(gate: Gate, spec: Mapping[str, Any], turns: int) -> dict[str, Any]:
    """Samples each prompt of the run's first step as often as the step does, once a turn."""
    run, model, tokenizer = opened(spec)
    assert run.training is not None
    prompts, longest = first_prompts(run, tokenizer), run.training.max_new_tokens
    sampler, rng = TransformersSampler(adapted_model(run, model), tokenizer), np.random.default_rng(0)
    tokens = []
    for _ in range(turns):
        gate.wait()
        drawn = sampler.sample(prompts, rng, temperature=1.0, max_new_tokens=longest)
        gate.done()
        tokens.append(int(drawn.completion_mask.sum()))
    return {"same": {"prompts": digest(prompts), "longest": longest}, "tokens": tokens}


def injection(gate: Gate, spec: Mapping[str, Any], turns: int, cached: bool) -> dict[str, Any]:
    """Puts the update onto a fresh copy of the model, once a turn: with its SVD factors cached, or computed anew."""
    run, base, _ = opened(spec)
    folder = model_folder(run.model)
    adapted = adapted_model(run, copy.deepcopy(base))  # first calls, and the cache
    with ExitStack() as stack:
        for _ in range(turns):
            model = copy.deepcopy(base)
            cache = cache_folder("factors") if cached else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            gate.wait()
            adapted = attach(model, run.adapter, cache, weights=WeightFolder(folder))
            gate.done()
    base_id = base_fingerprint(base)
    sizes = {
        dtype: len(pack(adapted, store(adapted, dtype), model=run.model, base=base_id, dtype=dtype, run=run.identity))
        for dtype in ("fp32", "bf16")
    }
    return {"same": {"trained_parameters": adapted.trained_parameters}, "bytes": sizes}
