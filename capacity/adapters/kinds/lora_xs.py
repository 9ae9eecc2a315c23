"""LoRA-XS: a free r × r matrix R between the frozen factors of each module (arXiv 2405.17604)."""

from torch import nn

from capacity.adapters.kinds.factored import FactoredModel, put_factors
from capacity.adapters.layout import EVEN, Layout
from capacity.adapters.linears import adapted_modules, check_rank
from capacity.adapters.svd.source import FactorSource
from capacity.spec.adapters import LoraXs


def build(model: nn.Module, adapter: LoraXs, source: FactorSource, layout: Layout = EVEN) -> FactoredModel:
    """Puts a LoRA-XS on a bare model, which is changed in place.

    Raises:
        SpecError: the spec does not fit the model.
    """
    shapes, size = adapted_modules(model, adapter.targets), adapter.rank**2
    check_rank(adapter.rank, shapes)
    slices = [(i * size, (i + 1) * size) for i in range(len(shapes))]
    peft_model = put_factors(model, adapter, shapes, source, slices, [None] * len(shapes))
    return FactoredModel(peft_model, adapter, model, shapes)
