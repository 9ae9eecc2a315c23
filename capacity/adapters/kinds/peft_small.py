"""PEFT's small adapters beside ours: VeRA, VB-LoRA, Uni-LoRA. Their configs, and the LoRA pair that each amounts to."""

from collections.abc import Sequence
from typing import Any

from peft import PeftConfig, UniLoraConfig, VBLoRAConfig, VeraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.vera.layer import VeraLayer
from torch import Tensor

from capacity.errors import SpecError
from capacity.plan.budget import ModuleShape
from capacity.spec.adapters import UniLora, VbLora, Vera


def peft_config(adapter: Vera | VbLora | UniLora, shapes: Sequence[ModuleShape], *, conv1d: bool) -> PeftConfig:
    """PEFT's config for one of these adapters on `shapes`, without dropout and biases.

    Raises:
        SpecError: a side of a module that VB-LoRA's vector length does not divide; more vectors mixed than there are.
    """
    common: dict[str, Any] = {
        "target_modules": [s.name for s in shapes],
        "fan_in_fan_out": conv1d,
        "task_type": "CAUSAL_LM",
    }
    match adapter:
        case Vera():
            return VeraConfig(r=adapter.rank, projection_prng_key=adapter.projection_seed, **common)
        case UniLora():
            return UniLoraConfig(
                r=adapter.rank, theta_d_length=adapter.length, proj_seed=adapter.projection_seed, **common
            )
        case VbLora():
            odd = next((s for s in shapes if s.d % adapter.vector_length or s.k % adapter.vector_length), None)
            if odd is not None:
                raise SpecError(
                    f"vector length {adapter.vector_length} does not divide the sides of {odd.name}, {odd.d}×{odd.k}"
                )
            if adapter.topk > adapter.vectors:
                raise SpecError(f"vb-lora mixes {adapter.topk} vectors but its bank has {adapter.vectors}")
            return VBLoRAConfig(
                r=adapter.rank,
                num_vectors=adapter.vectors,
                vector_length=adapter.vector_length,
                topk=adapter.topk,
                save_only_topk_weights=False,
                **common,
            )


def lora_pair(layer: Any, name: str) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r) with ΔW = B A of the adapter `name` on a PEFT layer, differentiable."""
    if isinstance(layer, LoraLayer):
        return layer.lora_A[name].weight, layer.lora_B[name].weight * layer.scaling[name]
    if isinstance(layer, VeraLayer):
        assert layer.vera_A is not None
        assert layer.vera_B is not None
        a, b = layer.vera_A[name][:, : layer.in_features], layer.vera_B[name][: layer.out_features]
        return layer.vera_lambda_d[name][:, None] * a, layer.vera_lambda_b[name][:, None] * b
    a, b = layer._get_lora_matrices(name)  # VB-LoRA and Uni-LoRA
    return a, b
