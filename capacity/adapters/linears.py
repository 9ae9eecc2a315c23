"""The linear modules of a loaded model, and their weights as matrices W of shape (d, k).

Covers `nn.Linear`, GPT-2's Conv1D (which stores Wᵀ) and bitsandbytes' 8- and 4-bit linears (which store codes).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from capacity.errors import CapacityError, SpecError, unknown
from capacity.plan.model_shapes import ModuleShape


def is_conv1d(module: nn.Module) -> bool:
    """True for GPT-2's Conv1D, a linear that stores its weight transposed."""
    return isinstance(module, Conv1D)


def inner_linear(layer: Any) -> nn.Module:
    """The linear module itself, where `layer` may be what PEFT has put around it."""
    inside: nn.Module = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    return inside


def is_quantised(module: nn.Module) -> bool:
    """True if a module holds codes of bitsandbytes instead of weights."""
    return type(getattr(module, "weight", None)).__name__ in ("Int8Params", "Params4bit")


def linear_shapes(model: nn.Module) -> tuple[ModuleShape, ...]:
    """All linear modules of a bare transformers model but its output head and those inside experts, by depth."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    found = []
    for name, module in model.named_modules():
        if module is head or ".experts." in name:
            continue
        if isinstance(module, nn.Linear):
            found.append(ModuleShape(name, module.out_features, module.in_features))
        elif isinstance(module, Conv1D):
            k, d = module.weight.shape
            found.append(ModuleShape(name, d, k))
    return tuple(found)


def adapted_modules(model: nn.Module, targets: tuple[str, ...] | None = None) -> tuple[ModuleShape, ...]:
    """The modules that an adapter sits on, ordered by depth, named by their path in the bare transformers model.

    Args:
        model: bare transformers model; weights are not read, so it may be on the meta device.
        targets: module types ("q_proj", …); every linear module of every block if None.

    Raises:
        SpecError: no such type; or no targets for a model with experts, whose tensors no adapter here can share.
    """
    shapes = linear_shapes(model)
    if targets is None:
        experts = next((n for n, _ in model.named_modules() if n.endswith(".experts")), None)
        if experts is not None:
            names = ",".join(dict.fromkeys(s.type for s in shapes))
            raise SpecError(
                f"this model keeps experts in fused tensors ({experts}), which no adapter here can share: "
                f"name the other modules with --targets {names}"
            )
        return shapes
    types = {s.type for s in shapes}
    for target in targets:
        if target not in types:
            raise unknown("module type", target, types)
    return tuple(s for s in shapes if s.type in targets)


def check_rank(rank: int, shapes: Sequence[ModuleShape]) -> None:
    """Checks that every module has `rank` singular values.

    Raises:
        SpecError: names the smallest module.
    """
    smallest = min(shapes, key=lambda s: min(s.d, s.k))
    if rank > min(smallest.d, smallest.k):
        raise SpecError(f"rank {rank} is above the smaller side of {smallest.name}, {smallest.d}×{smallest.k}")


def weight_matrix(module: Any) -> Tensor:
    """W, shape (d, k), as the module applies it: transposed for Conv1D, dequantised for bitsandbytes. Detached.

    Raises:
        CapacityError: bitsandbytes has repacked the weight, so that it cannot be read exactly any more.
    """
    if is_quantised(module):
        if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
            raise CapacityError(
                "bitsandbytes repacks 4-bit weights at their first forward pass on a CPU, with a loss: "
                "load the model anew and read its weights before it is used"
            )
        from peft.utils.integrations import dequantize_bnb_weight

        dequantised: Tensor = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
        return dequantised.detach().float()
    weight: Tensor = module.weight.detach()
    return weight.T if is_conv1d(module) else weight
