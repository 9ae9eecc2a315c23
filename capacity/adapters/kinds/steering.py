"""Steering vectors: one trained vector for each of some blocks, added to what the block gives on (arXiv 2505.18706).

A forward hook of each steered block adds its vector to the residual stream, so the weights stay as they are. One
parameter θ, shape (steered blocks, width), holds all vectors; it starts at zero and stays fp32 on every base.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capacity.adapters.layout import EVEN, Layout
from capacity.adapters.linears import is_quantised
from capacity.adapters.model import AdaptedModel
from capacity.adapters.svd.source import FactorSource
from capacity.errors import SpecError
from capacity.plan.kinds.steering import steered_blocks
from capacity.spec.adapters import Steering

_NAME = "steering"  # of the vectors among the model's modules


class Vectors(nn.Module):
    """The vectors of all steered blocks, shape (steered blocks, width), and whether they are added."""

    def __init__(self, count: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(count, width, dtype=torch.float32, device=device))
        self.on = True


@dataclass
class _AddVector:
    """Forward hook of the block that vector `index` belongs to."""

    vectors: Vectors
    index: int

    def __call__(self, block: nn.Module, inputs: Any, output: Any) -> Any:
        """The block's output with the vector added to its hidden states, shape (…, width)."""
        if not self.vectors.on:
            return output
        if isinstance(output, tuple):  # hidden states first, then what else some blocks give on
            return (self._steered(output[0]), *output[1:])
        return self._steered(output)

    def _steered(self, hidden: Tensor) -> Tensor:
        return hidden + self.vectors.theta[self.index].to(hidden)


@dataclass
class SteeredModel(AdaptedModel):
    """A model some of whose blocks are steered."""

    @property
    def vectors(self) -> Vectors:
        """The trained vectors."""
        found: Any = self.bare.get_submodule(_NAME)
        assert isinstance(found, Vectors)
        return found

    def check_mergeable(self) -> None:
        """Refuses: there is no ΔW.

        Raises:
            SpecError: always.
        """
        raise SpecError(
            "adapter steering changes hidden states, no weights: it can be neither exported as a LoRA adapter nor "
            "merged; keep its native artifact"
        )

    @contextmanager
    def switched_off(self) -> Iterator[nn.Module]:
        """The untrained model, for the time of the context."""
        self.vectors.on = False
        try:
            yield self.model
        finally:
            self.vectors.on = True

    def detach(self) -> nn.Module:
        """Takes vectors and hooks off and gives the bare model back, untrained."""
        for block in blocks_of(self.bare):
            hooks = block._forward_hooks
            for key in [key for key, hook in hooks.items() if isinstance(hook, _AddVector)]:
                del hooks[key]
        delattr(self.bare, _NAME)
        return self.bare


def build(model: nn.Module, adapter: Steering, source: FactorSource, layout: Layout = EVEN) -> SteeredModel:
    """Puts steering vectors on a bare model, which is changed in place.

    Raises:
        SpecError: the model has no list of blocks, or not all that are named, or its base is quantised.
    """
    if any(is_quantised(module) for module in model.modules()):
        raise SpecError("adapter steering does not work on a quantised base: load it in fp32, bf16 or fp16")
    blocks, config = blocks_of(model), model.config
    chosen = steered_blocks(adapter.blocks, len(blocks))
    device = next(model.parameters()).device
    vectors = Vectors(len(chosen), int(config.hidden_size), device)  # type: ignore[union-attr, arg-type]
    model.add_module(_NAME, vectors)
    for index, block in enumerate(chosen):
        blocks[block].register_forward_hook(_AddVector(vectors, index))
    return SteeredModel(model, adapter, model)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The blocks of a bare transformers model, whose outputs are the residual stream.

    Raises:
        SpecError: it keeps them in no list of its own.
    """
    inner = getattr(model, "base_model", model)
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    lists = [child for child in inner.children() if isinstance(child, nn.ModuleList) and len(child) == count]
    if len(lists) != 1:
        raise SpecError(
            f"adapter steering needs the list of a model's blocks, and {type(model).__name__} has none: "
            "choose another adapter"
        )
    return lists[0]
