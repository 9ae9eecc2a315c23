"""What TinyLoRA and LoRA-XS share: frozen SVD factors of each weight around an R that follows one trained θ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capacity.adapters.kinds.frozen import FrozenDown, TiedUp, check_loaded
from capacity.adapters.kinds.fused import FusedLinear
from capacity.adapters.kinds.low_rank import NAME, LowRankModel, inject, lora_config
from capacity.adapters.linears import is_quantised
from capacity.adapters.model import Products
from capacity.adapters.svd.factors import Factors
from capacity.adapters.svd.source import FactorSource
from capacity.plan.model_shapes import ModuleShape
from capacity.spec.adapters import Factored, Scaling


@dataclass
class FactoredModel(LowRankModel):
    """A model whose adapted modules hold `FrozenDown` and `TiedUp`."""

    def probed(self) -> dict[str, Products]:
        """ΔW, and the factors of every module."""
        return {**super().probed(), "factors": self._factors()}

    def _factors(self) -> Products:
        for shape in self.shapes:
            layer = self.layer(shape)
            yield f"{shape.name}.A", (layer.lora_A[NAME].weight,)
            yield f"{shape.name}.B", (layer.lora_B[NAME].b,)


def put_factors(
    model: nn.Module,
    adapter: Factored,
    shapes: Sequence[ModuleShape],
    source: FactorSource,
    slices: Sequence[tuple[int, int]],
    p: Sequence[Tensor | None],
) -> Any:
    """PEFT's model around `model`, with frozen factors around R on every module of `shapes`.

    Args:
        model: bare transformers model; it is changed in place.
        adapter: rank and scaling.
        shapes: the modules.
        source: of the factors.
        slices: of each module, where its entries of θ start and stop.
        p: of each module, its fixed random matrices, shape (entries, r, r); None for a free R.
    """
    halves = []
    for shape, factors in zip(shapes, source.of(model, shapes, adapter.rank), strict=True):
        weight: Any = model.get_submodule(shape.name).weight
        halves.append([t.float().to(weight.device) for t in _scaled(factors, adapter.scaling)])
    config = lora_config(model, adapter.rank, shapes, initialise=False)
    if not any(is_quantised(module) for module in model.modules()):  # whose linears are PEFT's to handle
        config._register_custom_module({nn.Linear: FusedLinear})
    peft_model = inject(model, config, seed=None)
    owner: TiedUp | int = max(stop for _, stop in slices)
    for shape, (a, b), (start, stop), matrices in zip(shapes, halves, slices, p, strict=True):
        layer: Any = model.get_submodule(shape.name)
        layer.lora_A[NAME] = FrozenDown(a)
        fixed = None if matrices is None else matrices.float().to(b.device)
        layer.lora_B[NAME] = up = TiedUp(b, fixed, owner, start, stop)
        owner = owner if isinstance(owner, TiedUp) else up
    peft_model.register_load_state_dict_post_hook(check_loaded)
    return peft_model


def _scaled(factors: Factors, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r), float64: Σ on the left as in the paper, or √Σ on both sides."""
    u, sigma, vt = (torch.from_numpy(x) for x in (factors.u, factors.sigma, factors.vt))
    if scaling == "paper":
        return vt, u * sigma
    root = sigma.sqrt()
    return root[:, None] * vt, u * root
