"""TinyLoRA: R = Σᵢ vᵢ Pᵢ between frozen factors, v tied over a group of modules (arXiv 2602.04118)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import nn

from capacity.adapters.kinds.factored import FactoredModel, put_factors
from capacity.adapters.kinds.low_rank import NAME
from capacity.adapters.linears import adapted_modules, check_rank
from capacity.adapters.model import Products
from capacity.adapters.projection import projections
from capacity.adapters.svd.source import FactorSource
from capacity.errors import SpecError
from capacity.plan.sharing import group_sizes, useful_groups
from capacity.spec.adapters import TinyLora


@dataclass
class TinyLoraModel(FactoredModel):
    """A model with a TinyLoRA on it."""

    def probed(self) -> dict[str, Products]:
        """ΔW, the factors, and the random matrices P of every module."""
        return {**super().probed(), "projection": self._projections()}

    def _projections(self) -> Products:
        for shape in self.shapes:
            yield f"{shape.name}.P", (self.layer(shape).lora_B[NAME].p.flatten(1),)


def build(
    model: nn.Module, adapter: TinyLora, source: FactorSource, entries: tuple[int, ...] | None = None
) -> TinyLoraModel:
    """Puts a TinyLoRA on a bare model.

    Args:
        model: bare transformers model; it is changed in place.
        adapter: its spec.
        source: of the SVD factors.
        entries: of θ for each group if they are not even.

    Raises:
        SpecError: the spec does not fit the model, or `entries` do not fit the spec.
    """
    shapes, rank = adapted_modules(model, adapter.targets), adapter.rank
    check_rank(rank, shapes)
    types = [s.type for s in shapes]
    group = useful_groups(types, adapter.groups, adapter.sharing, u=adapter.u, rank=rank)
    even = (adapter.u,) * adapter.groups
    entries = even if entries is None else _checked(entries, even, rank, group)
    slices = list(pairwise(accumulate(entries, initial=0)))
    seed = adapter.projection_seed
    p = [torch.from_numpy(projections(seed, s.name, entries[g], rank)) for s, g in zip(shapes, group, strict=True)]
    peft_model = put_factors(model, adapter, shapes, source, [slices[g] for g in group], p)
    return TinyLoraModel(peft_model, adapter, model, shapes, entries)


def _checked(entries: tuple[int, ...], even: tuple[int, ...], rank: int, group: Sequence[int]) -> tuple[int, ...]:
    """An uneven allocation, if it deals as many entries as planned and no group more than are of use."""
    largest = [rank * rank * size for size in group_sizes(group)]
    fits = len(entries) == len(even) and sum(entries) == sum(even)
    if not fits or any(not 0 <= n <= most for n, most in zip(entries, largest, strict=True)):
        raise SpecError(
            f"the allocation {entries} does not deal {sum(even)} entries to {len(even)} groups of at most {largest}"
        )
    return entries
