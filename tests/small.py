"""Runs small enough for tests: the real code path with fewer steps and items."""

from dataclasses import replace
from typing import Any

from sizes import chosen, within

from capacity.plan import protocols
from capacity.plan.kinds.kind import Size
from capacity.plan.specs import base_spec, trained_spec, zero_specs
from capacity.spec.methods import METHODS, Method
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec

MODEL = "abacus-0.9m"
SMALLEST = "abacus-0.2m"
# Of commands and library calls that choose their protocol by the task: 11 runs for two seeds of three methods.
PROTOCOL = replace(
    protocols.PROTOCOLS["abacus"],
    steps=3, warmup_steps=0, prompts_per_step=2, samples_per_prompt=4, test_items=8, validation_items=8,
    temperatures=(0.0, 1.0),
)  # fmt: skip
TASK = TaskSpec(name="abacus", demonstrations="worked", options={"style_bits": 4.0, "style_shift": 4.0})


def _size(model: str, budget: str) -> Size:
    return chosen(model, "full") if budget == "full" else within(model, budget, rank=2)


def small_spec(
    method: Method,
    budget: str = "100",
    seed: int = 0,
    rate: float = 0.01,
    *,
    model: str = MODEL,
    task: TaskSpec = TASK,
    rates: dict[Method, float] | None = None,
    items: int = 16,
    **training: Any,
) -> RunSpec:
    """Two steps of 4 prompts × 4 sequences without warm-up, 16 test items. `rates`: by method, where they differ."""
    if method == "base":
        spec = base_spec(model, task)
    elif method == "zero":
        (spec,) = zero_specs(model, task, _size(model, budget), "bf16", seeds=[seed])
    else:
        size = _size(model, budget)
        spec = trained_spec(model, task, method, size, seed, "bf16", rates=rates or dict.fromkeys(METHODS, rate))
        sizes = {"steps": 2, "warmup_steps": 0, "prompts_per_step": 4, "samples_per_prompt": 4, **training}
        assert spec.training is not None
        spec = spec.model_copy(update={"training": spec.training.model_copy(update=sizes)})
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"items": items})})
