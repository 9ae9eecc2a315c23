"""LoRA: two trained factors of each module (arXiv 2106.09685); PEFT's build."""

from torch import nn

from capacity.adapters.kinds.low_rank import LowRankModel, inject, lora_config
from capacity.adapters.layout import EVEN, Layout
from capacity.adapters.linears import adapted_modules, check_rank
from capacity.adapters.svd.source import FactorSource
from capacity.spec.adapters import Lora


def build(model: nn.Module, adapter: Lora, source: FactorSource, layout: Layout = EVEN) -> LowRankModel:
    """Puts a LoRA on a bare model, which is changed in place.

    Raises:
        SpecError: the spec does not fit the model.
    """
    shapes = adapted_modules(model, adapter.targets)
    check_rank(adapter.rank, shapes)
    peft_model = inject(model, lora_config(model, adapter.rank, shapes), adapter.init_seed)
    return LowRankModel(peft_model, adapter, model, shapes)
