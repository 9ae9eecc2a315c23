"""Puts an update of a given spec onto a loaded model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from capacity.adapters.kinds import lora, lora_xs, peft_small, steering, tinylora, whole
from capacity.adapters.layout import EVEN, Layout
from capacity.adapters.model import AdaptedModel
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.adapters.svd.factors import Factors
from capacity.adapters.svd.source import FactorSource, OnModule
from capacity.models.loading import without_repacking
from capacity.spec.adapters import Adapter, NoAdapter

Build = Callable[[nn.Module, Any, FactorSource, Layout], AdaptedModel]


def _nothing(model: nn.Module, adapter: NoAdapter, source: FactorSource, layout: Layout) -> AdaptedModel:
    """The model as it is."""
    return AdaptedModel(model, adapter, model)


# How each kind is put on a model, by the names of `capacity.plan.kinds.table.KINDS`.
BUILDS: dict[str, Build] = {
    "none": _nothing,
    "tinylora": tinylora.build,
    "lora-xs": lora_xs.build,
    "lora": lora.build,
    "vera": peft_small.build_vera,
    "vb-lora": peft_small.build_vb_lora,
    "uni-lora": peft_small.build_uni_lora,
    "steering": steering.build,
    "bitfit": whole.build,
    "full": whole.build,
}


def attach(
    model: nn.Module,
    adapter: Adapter,
    factor_cache: Path | None,
    *,
    layout: Layout = EVEN,
    weights: WeightFolder | None = None,
    factors: dict[str, Factors] | None = None,
    on_module: OnModule | None = None,
) -> AdaptedModel:
    """Puts the update of `adapter` onto `model`, which is changed in place.

    All kinds but vb-lora and uni-lora equal the model bit for bit until they are trained. What is trained is fp32
    whatever the dtype of the model.

    Args:
        model: bare transformers model, in fp32, bf16, fp16, or quantised by bitsandbytes.
        adapter: what to put on it.
        factor_cache: folder of cached SVD factors, None for no cache.
        layout: what completes the spec of a tinylora.
        weights: the checkpoint that `model` was loaded from without rounding: its factors are found in the cache
            without hashing the model, or streamed from it.
        factors: SVD factors by module name, if they are known already.
        on_module: called with (done, all, name) after each module's factors.

    Raises:
        SpecError: the spec does not fit the model.
        CapacityError: the model's 4-bit weights have been repacked for a CPU by their first use.
    """
    model.requires_grad_(False)
    without_repacking(model)
    source = FactorSource(factor_cache, weights, factors, on_module)
    return BUILDS[adapter.kind](model, adapter, source, layout)
