"""Whether a run fits the memory of its device, asked before anything is loaded."""

import os

import torch

from capacity.errors import TrainingError
from capacity.plan.memory import PROMPT_TOKENS, advice, memory_plan
from capacity.plan.model_names import parse_model
from capacity.plan.model_shapes import ModelShape
from capacity.spec.run import RunSpec


def device_memory(device: str) -> int:
    """Bytes of the GPU, or of the machine."""
    if device == "cpu":
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    return int(torch.cuda.mem_get_info()[1])


def check_memory(spec: RunSpec, shape: ModelShape, available: int) -> None:
    """Estimates the run with one sequence at a time; updates on modules are small beside the weights and left out.

    Raises:
        TrainingError: says what to change.
    """
    name, training = parse_model(spec.model), spec.training
    full = spec.adapter.every_weight
    least = memory_plan(
        shape,
        trained=shape.parameters if full else 0,
        sequences=1,
        micro_batch=0 if training is None else 1,
        prompt_tokens=PROMPT_TOKENS,
        new_tokens=spec.evaluation.max_new_tokens if training is None else training.max_new_tokens,
        dtype=name.dtype,
        quantised=name.quantised,
        full=full,
    )
    what = advice(least, available)
    if what is not None:
        raise TrainingError(f"{name}: {what}")
