"""TinyLoRA: R = Σᵢ vᵢ Pᵢ between frozen factors, v tied over a group of modules (arXiv 2602.04118)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import nn

from capacity.adapters.kinds.factored import FactoredModel, put_factors
from capacity.adapters.kinds.low_rank import NAME
from capacity.adapters.layout import EVEN, Layout
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
        """ΔW, the factors, and the matrices P of every module."""
        return {**super().probed(), "projection": self._projections()}

    def choose(self, candidates: tuple[int, ...]) -> None:
        """Replaces every P by the candidate of this number, one number for each entry of θ."""
        assert isinstance(self.adapter, TinyLora)
        numbers = _numbers(self.adapter, Layout(candidates=candidates), self.trained_parameters)
        for shape in self.shapes:
            up = self.layer(shape).lora_B[NAME]
            own = numbers[up.start : up.stop]
            matrices = projections(self.adapter.projection_seed, shape.name, len(own), self.adapter.rank, own)
            up.p = torch.from_numpy(matrices).float().to(up.b.device)
        self.candidates = candidates

    def _projections(self) -> Products:
        for shape in self.shapes:
            yield f"{shape.name}.P", (self.layer(shape).lora_B[NAME].p.flatten(1),)


def build(model: nn.Module, adapter: TinyLora, source: FactorSource, layout: Layout = EVEN) -> TinyLoraModel:
    """Puts a TinyLoRA on a bare model.

    Args:
        model: bare transformers model; it is changed in place.
        adapter: its spec.
        source: of the SVD factors.
        layout: the entries of each group, and the candidate that each entry goes with.

    Raises:
        SpecError: the spec does not fit the model, or the layout does not fit the spec.
    """
    shapes, rank = adapted_modules(model, adapter.targets), adapter.rank
    check_rank(rank, shapes)
    types = [s.type for s in shapes]
    group = useful_groups(types, adapter.groups, adapter.sharing, u=adapter.u, rank=rank)
    even = (adapter.u,) * adapter.groups
    entries = even if layout.entries is None else _checked(layout.entries, even, rank, group)
    slices = list(pairwise(accumulate(entries, initial=0)))
    numbers = _numbers(adapter, layout, sum(entries))
    p = []
    for shape, g in zip(shapes, group, strict=True):
        own = numbers[slice(*slices[g])]
        p.append(torch.from_numpy(projections(adapter.projection_seed, shape.name, entries[g], rank, own)))
    peft_model = put_factors(model, adapter, shapes, source, [slices[g] for g in group], p)
    return TinyLoraModel(peft_model, adapter, model, shapes, entries, candidates=layout.candidates)


def _numbers(adapter: TinyLora, layout: Layout, parameters: int) -> tuple[int, ...]:
    """Returns the number of the candidate of each entry of θ, 0 for the random P.

    Raises:
        SpecError: if the spec says that P is chosen and the layout does not say how, or the other way round.
    """
    if adapter.choice is None:
        if layout.candidates is not None:
            raise SpecError("candidates belong to a tinylora whose projection is chosen, not to a random one")
        return (0,) * parameters
    found, limit = layout.candidates, 1 << adapter.choice.bits
    if found is None or len(found) != parameters or any(not 0 <= number < limit for number in found):
        raise SpecError(f"a chosen projection of {parameters} entries needs as many candidates below {limit}: {found}")
    return found


def _checked(entries: tuple[int, ...], even: tuple[int, ...], rank: int, group: Sequence[int]) -> tuple[int, ...]:
    """An uneven allocation, if it deals as many entries as planned and no group more than are of use."""
    largest = [rank * rank * size for size in group_sizes(group)]
    fits = len(entries) == len(even) and sum(entries) == sum(even)
    if not fits or any(not 0 <= n <= most for n, most in zip(entries, largest, strict=True)):
        raise SpecError(
            f"the allocation {entries} does not deal {sum(even)} entries to {len(even)} groups of at most {largest}"
        )
    return entries
