"""Puts an update of a given spec onto a loaded model, equal to the model bit for bit until it is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from capacity.adapters.budget import ModuleShape
from capacity.adapters.factors import Factors, cached_svd
from capacity.adapters.modules import FrozenDown, TiedUp, Update
from capacity.adapters.projection import projections
from capacity.adapters.sharing import assign_groups, check_u
from capacity.config import Adapter, FullUpdate, TinyLora
from capacity.errors import SpecError

_ADAPTER = "default"


@dataclass
class AdaptedModel:
    """A model with one update on it.

    Attributes:
        model: what to call and to train; a PEFT model for tinylora, the bare transformers model otherwise.
        adapter: the spec that it was built from.
        bare: the bare transformers model inside.
        base_state: for `full` only, the untrained weights by name.
    """

    model: nn.Module
    adapter: Adapter
    bare: nn.Module
    base_state: dict[str, Tensor] | None = None

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name; their sizes add up to the planned count."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def trained_parameters(self) -> int:
        """Number of scalars that the optimiser changes."""
        return sum(p.numel() for p in self.trained.values())

    def update(self) -> dict[str, Tensor]:
        """The update in fp32: θ, or for `full` the difference of every weight to the untrained model."""
        if self.base_state is not None:
            return {n: (p.detach() - self.base_state[n]) for n, p in self.trained.items()}
        return {_short(name): p.detach().clone() for name, p in self.trained.items()}

    @torch.no_grad()
    def set_update(self, update: dict[str, Tensor]) -> None:
        """Replaces the update by `update`, as `update()` gives it, in any float dtype."""
        for name, parameter in self.trained.items():
            if self.base_state is not None:
                parameter.copy_(self.base_state[name] + update[name].to(parameter))
            else:
                parameter.copy_(update[_short(name)].to(parameter))

    @contextmanager
    def switched_off(self) -> Iterator[nn.Module]:
        """The untrained model, for the time of the context."""
        if self.base_state is not None:
            trained = {n: p.detach().clone() for n, p in self.trained.items()}
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(self.base_state[name])
            try:
                yield self.model
            finally:
                with torch.no_grad():
                    for name, parameter in self.trained.items():
                        parameter.copy_(trained[name])
        elif isinstance(self.adapter, TinyLora):
            with self.model.disable_adapter():  # type: ignore[operator]
                yield self.model
        else:
            yield self.model


def _short(name: str) -> str:
    """The name of θ without the path of its owner."""
    return name.rpartition(".")[2]


def adapted_modules(model: nn.Module) -> tuple[ModuleShape, ...]:
    """The linear modules of all blocks of a bare transformers model, ordered by depth, named canonically.

    The output head is not adapted.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return tuple(
        ModuleShape(name, module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    )


def check_tinylora(spec: TinyLora, shapes: tuple[ModuleShape, ...]) -> tuple[int, ...]:
    """The group of every module, if `spec` makes sense on these modules.

    Raises:
        SpecError: too many or too few groups, u above its useful maximum, rank above a module's smaller side.
    """
    assignment = assign_groups([s.type for s in shapes], spec.groups, spec.sharing)
    check_u(spec.u, spec.rank, assignment)
    smallest = min(shapes, key=lambda s: min(s.d, s.k))
    if spec.rank > min(smallest.d, smallest.k):
        raise SpecError(f"rank {spec.rank} is above the smaller side of {smallest.name}, {smallest.d}×{smallest.k}")
    return assignment


def attach(model: nn.Module, adapter: Adapter, factor_cache: Path | None) -> AdaptedModel:
    """Puts the update of `adapter` onto `model`, which is changed in place.

    Args:
        model: bare transformers model in fp32.
        adapter: what to put on it.
        factor_cache: folder of cached SVD factors, None for no cache.

    Raises:
        SpecError: the spec does not fit the model.
    """
    if isinstance(adapter, FullUpdate):
        model.requires_grad_(True)
        base = {name: p.detach().clone() for name, p in model.named_parameters()}
        return AdaptedModel(model, adapter, model, base)
    model.requires_grad_(False)
    if not isinstance(adapter, TinyLora):
        return AdaptedModel(model, adapter, model)
    shapes = adapted_modules(model)
    assignment = check_tinylora(adapter, shapes)
    weights: dict[str, Tensor] = {s.name: model.get_parameter(f"{s.name}.weight") for s in shapes}
    factors = {name: cached_svd(weight, adapter.rank, name, factor_cache) for name, weight in weights.items()}
    # alpha = r makes PEFT's scaling 1; `init_lora_weights=False` skips an initialisation that is thrown away.
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.rank,
        target_modules=[s.name for s in shapes],
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    peft_model = get_peft_model(model, config, adapter_name=_ADAPTER)
    owner = Update(adapter.groups, adapter.u)
    for shape, group in zip(shapes, assignment, strict=True):
        layer: Any = model.get_submodule(shape.name)
        a, b = _frozen_factors(factors[shape.name], adapter)
        p = torch.from_numpy(projections(adapter.projection_seed, shape.name, adapter.u, adapter.rank))
        layer.lora_A[_ADAPTER] = FrozenDown(a.float())
        layer.lora_B[_ADAPTER] = TiedUp(b.float(), p.float(), owner, group)
    peft_model.add_module("capacity_update", owner)
    device = next(model.parameters()).device
    return AdaptedModel(peft_model.to(device), adapter, model)


def _frozen_factors(factors: Factors, adapter: TinyLora) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r), float64: Σ on the left as in the paper, or √Σ on both sides."""
    u, sigma, vt = (torch.from_numpy(x) for x in (factors.u, factors.sigma, factors.vt))
    if adapter.scaling == "paper":
        return vt, u * sigma
    root = sigma.sqrt()
    return root[:, None] * vt, u * root
