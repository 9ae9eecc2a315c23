"""Every kind of update trains, by sft and by grpo, and leaves a whole record."""

import math
from collections.abc import Iterator
from functools import partial
from math import gcd

from capacity.plan.model_shapes import ModelShape
from capacity.spec.adapters import Adapter, BitFit, FullUpdate, Lora, LoraXs, Steering, TinyLora, UniLora, VbLora, Vera
from capacity.spec.methods import Method
from capacity.spec.run import RunSpec
from capacity.training.base import Bases
from capacity.training.run import RunRecord, execute
from proofs.gpu_check.finding import Finding, tried
from proofs.gpu_check.world import Sizes, run_spec

PART = "training"
METHODS: tuple[Method, ...] = ("sft", "grpo")
_ALWAYS = ("loss", "mean_length", "trained_tokens", "entropy_bits", "code_length_bits")  # in every step
_OF_METHOD = {
    "sft": ("kl_to_base_bits", "base_code_length_bits"),
    "grpo": ("reward", "group_hits", "reward_bits", "kl_to_sampler_bits"),
}


def adapters(shape: ModelShape) -> dict[str, Adapter]:
    """Returns a small update of every kind for a model."""
    length = gcd(64, *(side for m in shape.linears for side in (m.d, m.k)))
    return {
        "tinylora": TinyLora(groups=min(13, len(shape.linears)), u=2, projection_seed=0),
        "lora-xs": LoraXs(rank=4),
        "lora": Lora(rank=8, init_seed=0),
        "vera": Vera(rank=16, projection_seed=0),
        "vb-lora": VbLora(rank=2, vectors=16, vector_length=length, init_seed=0),
        "uni-lora": UniLora(rank=2, length=256, projection_seed=0),
        "steering": Steering(),
        "bitfit": BitFit(),
        "full": FullUpdate(),
    }


def every_kind(folder: str, shape: ModelShape, loaded: Bases, sizes: Sizes, dtype: str) -> Iterator[Finding]:
    """Trains every kind of update. Updates of the weights themselves have a base in fp32, others in `dtype`."""
    for kind, adapter in adapters(shape).items():
        held = "fp32" if adapter.form == "weights" else dtype
        for method in METHODS:
            spec = run_spec(f"{folder}?dtype={held}", method, adapter, sizes)
            yield from tried(
                PART, f"{kind} {method} {held}", partial(_trained, spec, loaded, f"{kind} {method} {held}")
            )


def _trained(spec: RunSpec, loaded: Bases, what: str) -> list[Finding]:
    record = execute(spec, loaded.device, bases=loaded)
    found = faults(spec, record)
    measured = "; ".join(found) or f"|Δθ| {math.sqrt(record.result.update_square_sum or 0.0):.2g}"
    return [Finding(PART, what, measured, "θ moves, record whole", "fault" if found else "ok")]


def faults(spec: RunSpec, record: RunRecord) -> list[str]:
    """Returns what is wrong with the record of a run."""
    assert spec.training is not None
    result, steps = record.result, record.steps
    found = []
    if not (result.update_square_sum and math.isfinite(result.update_square_sum)):
        found.append(f"θ has moved by {result.update_square_sum}")
    if len(steps) != spec.training.steps:
        found.append(f"{len(steps)} steps")
    for name in (*_ALWAYS, *_OF_METHOD[spec.method]):
        values = [getattr(step, name) for step in steps]
        numbers = [v for v in values if isinstance(v, float | int)]
        absent = name not in ("kl_to_base_bits", "base_code_length_bits") and None in values
        if absent or not all(map(math.isfinite, numbers)):
            found.append(f"{name} is {values}")
    if record.artifact is None or result.update_bytes == 0:
        found.append("no artifact")
    if len(record.outcomes) != spec.evaluation.items:
        found.append(f"{len(record.outcomes)} answers")
    if not (result.flops and result.trained_tokens and result.wall_seconds):
        found.append("no costs")
    return found
