"""Sizes of updates for tests, in one call."""

from collections.abc import Sequence
from typing import Any

from capacity.plan.kinds.kind import Site, Size
from capacity.plan.model_shapes import ModelShape, ModuleShape
from capacity.plan.sizes import SizeChoice, size_of


def within(model: str, budget: str, **options: Any) -> Size:
    """The largest update within a budget, stored in bf16."""
    return size_of(model, SizeChoice(budget=budget, **options), "bf16")


def chosen(model: str, adapter: str, **options: Any) -> Size:
    """The update that is chosen part by part."""
    return size_of(model, SizeChoice(adapter=adapter, **options), "fp32")


def site_of(modules: Sequence[ModuleShape], parameters: int = 10**12, biases: int = 0) -> Site:
    """A made-up model of which only the linear modules and the counts are known."""
    names = ("hidden", "intermediate", "layers", "heads", "kv_heads", "head_dim", "vocabulary", "context")
    sizes = dict.fromkeys(names, 1)
    shape = ModelShape(
        family="toy",
        tied=True,
        linears=tuple(modules),
        expert_tensors=(),
        parameters=parameters,
        biases=biases,
        **sizes,
    )
    return Site("toy", shape)
