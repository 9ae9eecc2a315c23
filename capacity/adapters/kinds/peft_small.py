"""PEFT's small adapters beside ours: VeRA, VB-LoRA and Uni-LoRA, without dropout and biases."""

from dataclasses import dataclass
from typing import Any

from peft import UniLoraConfig, VBLoRAConfig, VeraConfig
from torch import Tensor, nn

from capacity.adapters.kinds.low_rank import NAME, LowRankModel, inject, placed
from capacity.adapters.layout import EVEN, Layout
from capacity.adapters.linears import adapted_modules, is_quantised
from capacity.adapters.model import Products
from capacity.adapters.svd.source import FactorSource
from capacity.errors import SpecError
from capacity.spec.adapters import UniLora, VbLora, Vera


@dataclass
class VeraModel(LowRankModel):
    """A model with a VeRA on it, whose random A and B all modules share."""

    def pair(self, layer: Any) -> tuple[Tensor, Tensor]:
        """Λ_d A and Λ_b B, cut to the module's sides."""
        a, b = layer.vera_A[NAME][:, : layer.in_features], layer.vera_B[NAME][: layer.out_features]
        return layer.vera_lambda_d[NAME][:, None] * a, layer.vera_lambda_b[NAME][:, None] * b

    def probed(self) -> dict[str, Products]:
        """ΔW, and the random matrices."""
        layer = self.layer(self.shapes[0])
        random = [("vera.A", (layer.vera_A[NAME],)), ("vera.B", (layer.vera_B[NAME],))]
        return {**super().probed(), "projection": random}


@dataclass
class ComposedModel(LowRankModel):
    """A model whose layers compose A and B of the entries of one trained tensor, as those of VB-LoRA do."""

    def pair(self, layer: Any) -> tuple[Tensor, Tensor]:
        """A and B as the layer composes them."""
        a, b = layer._get_lora_matrices(NAME)
        return a, b


@dataclass
class UniLoraModel(ComposedModel):
    """A model with a Uni-LoRA on it, which deals the entries at random."""

    def probed(self) -> dict[str, Products]:
        """ΔW, and the entries of the vector that every entry of A and B takes."""
        return {**super().probed(), "projection": self._indices()}

    def _indices(self) -> Products:
        for shape in self.shapes:
            layer = self.layer(shape)
            yield f"{shape.name}.A", (layer.unilora_indices_A[NAME],)
            yield f"{shape.name}.B", (layer.unilora_indices_B[NAME],)


def build_vera(model: nn.Module, adapter: Vera, source: FactorSource, layout: Layout = EVEN) -> VeraModel:
    """Puts a VeRA on a bare model, which is changed in place.

    Raises:
        SpecError: the spec does not fit the model.
    """
    shapes, seed = adapted_modules(model, adapter.targets), adapter.projection_seed
    config = VeraConfig(r=adapter.rank, projection_prng_key=seed, **placed(model, shapes))
    return VeraModel(inject(model, config, seed), adapter, model, shapes)


def build_vb_lora(model: nn.Module, adapter: VbLora, source: FactorSource, layout: Layout = EVEN) -> ComposedModel:
    """Puts a VB-LoRA on a bare model, which is changed in place.

    Raises:
        SpecError: a side of a module that the vector length does not divide; more vectors mixed than there are.
    """
    shapes, length = adapted_modules(model, adapter.targets), adapter.vector_length
    odd = next((s for s in shapes if s.d % length or s.k % length), None)
    if odd is not None:
        raise SpecError(f"vector length {length} does not divide the sides of {odd.name}, {odd.d}×{odd.k}")
    if adapter.topk > adapter.vectors:
        raise SpecError(f"vb-lora mixes {adapter.topk} vectors but its bank has {adapter.vectors}")
    config = VBLoRAConfig(
        r=adapter.rank,
        num_vectors=adapter.vectors,
        vector_length=length,
        topk=adapter.topk,
        save_only_topk_weights=False,
        **placed(model, shapes),
    )
    return ComposedModel(inject(model, config, adapter.init_seed), adapter, model, shapes)


def build_uni_lora(model: nn.Module, adapter: UniLora, source: FactorSource, layout: Layout = EVEN) -> UniLoraModel:
    """Puts a Uni-LoRA on a bare model, which is changed in place.

    Raises:
        SpecError: the spec does not fit the model, or its base is quantised.
    """
    shapes, seed = adapted_modules(model, adapter.targets), adapter.projection_seed
    if is_quantised(model.get_submodule(shapes[0].name)):
        # PEFT casts its scales to the dtype of the base's weights, here integers: they would all be zero.
        raise SpecError("adapter uni-lora does not work on a quantised base: load it in fp32, bf16 or fp16")
    config = UniLoraConfig(r=adapter.rank, theta_d_length=adapter.length, proj_seed=seed, **placed(model, shapes))
    return UniLoraModel(inject(model, config, seed), adapter, model, shapes)
