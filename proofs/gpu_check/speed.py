"""A step and a sampled token take less time than with stock TRL and PEFT."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from capacity.plan.model_shapes import ModelShape
from capacity.sampling.own_model import TransformersSampler
from capacity.spec.adapters import TinyLora
from capacity.spec.run import RunSpec
from capacity.training.base import Bases
from capacity.training.batches import encode_prompts
from capacity.training.loop import Alone, train
from proofs.gpu_check.clock import Clocked, now
from proofs.gpu_check.finding import Finding, tried, within
from proofs.gpu_check.stock import Stock
from proofs.gpu_check.trainees import trainee
from proofs.gpu_check.training import METHODS
from proofs.gpu_check.world import Sizes, run_spec

PART = "speed"
# The attention's linears alone: PEFT decomposes whole weights, and those of the MLPs would take it minutes.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def against_stock(
    model: str, shape: ModelShape, loaded: Bases, sizes: Sizes, step: float, sampling: float
) -> Iterator[Finding]:
    """Times steps and sampling of both sides, one after the other.

    Args:
        model: the name of the model.
        shape: its shape.
        loaded: what has been loaded.
        sizes: the sizes of a run of at least three steps.
        step: how long a step may take, relative to stock.
        sampling: how many tokens a second must be sampled at least, relative to `generate`.
    """
    adapter = TinyLora(groups=8, u=2, projection_seed=0, targets=TARGETS)
    specs = {method: run_spec(model, method, adapter, sizes) for method in METHODS}
    stock: list[Stock] = []

    def prepared() -> list[Finding]:
        stock.append(Stock(specs["grpo"], shape, loaded.device))
        return []

    yield from tried(PART, "stock TinyLoRA", prepared)
    if not stock:
        return
    for spec in specs.values():
        yield from tried(PART, f"{spec.method} step", partial(_steps, spec, stock[0], loaded, step))
    yield from tried(PART, "sampling", partial(_sampling, specs["grpo"], stock[0], loaded, sizes, sampling))


def _steps(spec: RunSpec, stock: Stock, loaded: Bases, bound: float) -> list[Finding]:
    passes = Clocked(Alone(), loaded.device)
    train([trainee(spec, loaded.of(spec.model), loaded)], passes)
    ours, theirs = passes.seconds(), stock.step_seconds(spec, loaded)
    what = f"{spec.method} step, {ours:.3g} s ÷ stock's {theirs:.3g} s"
    return [within(PART, what, ours / theirs, -math.inf, bound)]


def _sampling(spec: RunSpec, stock: Stock, loaded: Bases, sizes: Sizes, bound: float) -> list[Finding]:
    base, task = loaded.of(spec.model), loaded.task(spec.task)
    prompts = encode_prompts(base.tokenizer, task.items("train", sizes.prompts))
    wanted = [prompt for prompt in prompts for _ in range(sizes.samples)]
    sampler = TransformersSampler(base.adapted(spec.adapter), base.tokenizer)

    def ours() -> int:
        rng = np.random.default_rng(0)
        rollout = sampler.sample(wanted, rng, temperature=1.0, max_new_tokens=sizes.new_tokens)
        return int(rollout.completion_mask.sum())

    rates = []
    for sample in (ours, partial(stock.generated, wanted, sizes.new_tokens)):
        sample()
        began = now(loaded.device)
        tokens = sample()
        rates.append(tokens / (now(loaded.device) - began))
    what = f"sampling, {rates[0]:,.0f} tokens/s ÷ generate's {rates[1]:,.0f}"
    return [within(PART, what, rates[0] / rates[1], bound, math.inf)]
