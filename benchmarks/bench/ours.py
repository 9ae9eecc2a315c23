"""Our side of every measurement. What starts the program's own engine stands here and nowhere else."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from benchmarks.bench.clock import Clock, Watch, watched
from benchmarks.bench.flops import square_rate, step_flops
from benchmarks.bench.models import first_prompts, opened
from benchmarks.bench.optimiser import steps_in_turns
from benchmarks.bench.products import Calls, Log, floors
from benchmarks.bench.side import Gate
from benchmarks.bench.workloads import by_step, digest, written
from capacity.adapters.attach import attach
from capacity.adapters.files.artifact import base_fingerprint, pack, store
from capacity.adapters.model import AdaptedModel
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.cache import cache_folder
from capacity.errors import CapacityError
from capacity.forward.model import Forward
from capacity.models.ends import EndTokens
from capacity.models.loading import model_folder
from capacity.sampling.own_model import TransformersSampler
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.training.arm import Arm
from capacity.training.base_lengths import BaseLengths
from capacity.training.batch import Cost, Recorder
from capacity.training.batches import encode_prompts
from capacity.training.loop import Trainee
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


def step_parts(gate: Gate, spec: Mapping[str, Any], later: bool = False) -> dict[str, Any]:
    """Trains a run twice in one turn: the products of each step are written down first, then its parts are timed.

    After each timed step, its products are made by themselves. The parts of a `later` run are those of `step`.

    Returns:
        For each step the CPU seconds of its parts, and what their products take by themselves.
    """
    run, model, tokenizer = opened(spec)
    assert run.training is not None
    lengths = BaseLengths()
    if later:
        _in_parts(run, model, tokenizer, Clock(), lengths, lambda: None)
    log, clock = Log(), Clock()
    asked: list[dict[str, Calls]] = []
    taken: list[dict[str, dict[str, float]]] = []
    gate.wait()
    with log:
        written_down = _in_parts(run, model, tokenizer, log, _known(lengths), lambda: asked.append(log.cut()))

    def ended() -> None:
        cpu = clock.cut()
        alone = floors(asked[len(taken)], square_rate())
        taken.append({name: {"cpu": cpu.get(name, 0.0), **alone.get(name, {})} for name in {**cpu, **alone}})
        clock.restart()

    timed = _in_parts(run, model, tokenizer, clock, _known(lengths), ended)
    gate.done()
    if timed != written_down:
        raise CapacityError("the steps that were timed are not those whose products were written down")
    return {"steps": taken}


def _known(lengths: BaseLengths) -> BaseLengths:
    """Returns code lengths of their own, with those that are known so far."""
    return copy.deepcopy(lengths)


def _in_parts(
    run: RunSpec, model: nn.Module, tokenizer: Any, watch: Watch, lengths: BaseLengths, ended: Callable[[], None]
) -> list[float]:
    """Trains a run whose parts are watched, and returns the loss of each step. `ended` is called after each step."""
    adapted = adapted_model(run, copy.deepcopy(model))
    recorder, task = Recorder([], Cost()), open_task(run.task)
    with ExitStack() as stack:
        for owner, attribute, part in (
            (TransformersSampler, "sample", "sampling"),
            (EndTokens, "texts", "decoding to text and grading"),
            (type(task), "grade", "decoding to text and grading"),
            (Arm, "demonstrated", "demonstrations"),
            (Arm, "by_base", "measurement of the base"),
            (Arm, "_measured", "measurement of the base"),
            (Forward, "__call__", "training pass, forward"),
            (Arm, "look", "loss and measurements"),
            (torch.autograd, "backward", "training pass, backward"),
            (Trainee, "update", "clipping and Adam"),
        ):
            stack.enter_context(watched(watch, owner, attribute, part))
        update = Trainee.update

        def updated(trainee: Trainee) -> None:
            update(trainee)
            ended()

        stack.enter_context(patch.object(Trainee, "update", updated))
        train_by("loop", phases(adapted, tokenizer, task, run, recorder, base_lengths=lengths))
    return [step.loss for step in recorder.steps]


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
