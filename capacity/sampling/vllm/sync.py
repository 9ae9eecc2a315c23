"""What is sent to an engine so that it follows an update: a LoRA folder, or all weights with the update merged."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from capacity.adapters.files.peft_folder import EXPORT_DTYPES, save_peft_lora
from capacity.adapters.linears import is_conv1d, is_quantised
from capacity.adapters.model import AdaptedModel
from capacity.errors import SpecError

_TENSORS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


class LoraWriter:
    """Writes an update as a PEFT LoRA folder, again and again. Only the tensors change from one to the next.

    Args:
        adapted: the model with its update.
        folder: an existing, empty folder for all of them.
        dtype: of A and B: the engine's, which casts them to it anyway.
        base: name of the base.
    """

    def __init__(self, adapted: AdaptedModel, folder: Path, dtype: str, base: str) -> None:
        self.adapted, self.folder, self.dtype = adapted, folder, dtype
        first = folder / "first"
        first.mkdir()
        self.rank = save_peft_lora(adapted, first, "fp32", base)
        self.config = first / _CONFIG

    def write(self, name: str) -> tuple[Path, int]:
        """The folder of the update as it is now, called `name`, and its bytes."""
        folder = self.folder / name
        folder.mkdir()
        shutil.copyfile(self.config, folder / _CONFIG)
        tensors: dict[str, Tensor] = {}
        for shape, a, b in self.adapted.pairs():
            for half, matrix in (("lora_A", a), ("lora_B", b)):
                key = f"base_model.model.{shape.name}.{half}.weight"
                tensors[key] = matrix.to("cpu", EXPORT_DTYPES[self.dtype]).contiguous().clone()
        save_file(tensors, folder / _TENSORS, metadata={"format": "pt"})
        return folder, sum(path.stat().st_size for path in folder.iterdir())


@dataclass
class Realised:
    """How much of ΔW survived the rounding of W + ΔW: sums over all adapted weights, float64.

    Realised is round(W + ΔW) − round(W), as in `capacity.adapters.files.peft_folder.MergeReport`.
    """

    products: list[tuple[float, float, float]] = field(default_factory=list)
    count: int = 0

    @torch.no_grad()
    def add(self, base: Tensor, intended: Tensor, merged: Tensor) -> None:
        """One matrix: W rounded, ΔW, and W + ΔW rounded."""
        realised = (merged.double() - base.double()).cpu()
        wanted = intended.double().cpu()
        sums = ((realised * wanted).sum(), (realised**2).sum(), (wanted**2).sum())
        self.products.append((float(sums[0]), float(sums[1]), float(sums[2])))

    @property
    def cosine(self) -> float | None:
        """Between the realised and the intended ΔW; 0 if nothing was realised, None if nothing was intended."""
        if not self.products:
            return None
        dot, realised, intended = np.array(self.products).sum(axis=0)
        if intended == 0:
            return None
        return float(dot / np.sqrt(realised * intended)) if realised > 0 else 0.0


@torch.no_grad()
def merged_weights(adapted: AdaptedModel, dtype: str, realised: Realised) -> Iterator[tuple[str, Tensor]]:
    """Every weight by its name in the checkpoint, W + ΔW in fp32 arithmetic and rounded once to `dtype`.

    One dense ΔW at a time is formed, and `adapted` stays as it is. `realised` and its `count` of bytes are added to.

    Raises:
        SpecError: the base is quantised, or the update is none of weights.
    """
    adapted.check_mergeable()
    if any(is_quantised(module) for module in adapted.bare.modules()):
        raise SpecError("a quantised base cannot be merged into: sync by hot-swap, or load the base unquantised")
    pairs = {shape.name: (a, b) for shape, a, b in adapted.pairs()}
    state = adapted.base_state or {}
    for name, parameter in bare_parameters(adapted.bare):
        before = state.get(name, parameter.detach()).float()
        delta = parameter.detach().float() - before if name in state else None
        module = name.removesuffix(".weight")
        if module in pairs and name.endswith(".weight"):
            a, b = pairs[module]
            delta = (b @ a).T if is_conv1d(_linear(adapted.bare, module)) else b @ a
        merged = (before if delta is None else before + delta).to(EXPORT_DTYPES[dtype])
        if delta is not None:
            realised.add(before.to(merged.dtype), delta, merged)
        realised.count += merged.numel() * merged.element_size()
        yield name, merged


def base_weights(adapted: AdaptedModel, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the untrained model, rounded to `dtype`."""
    state = adapted.base_state or {}
    for name, parameter in bare_parameters(adapted.bare):
        yield name, state.get(name, parameter.detach()).to(EXPORT_DTYPES[dtype])


def bare_parameters(bare: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The base's own parameters by their names in the checkpoint, whatever PEFT has wrapped around its modules."""
    for name, parameter in bare.named_parameters():
        parts = name.split(".")
        if not any(part.startswith(("lora_", "vera_", "vblora_", "unilora_")) or part == "theta" for part in parts):
            yield name.replace(".base_layer.", "."), parameter


def _linear(bare: nn.Module, name: str) -> nn.Module:
    layer = bare.get_submodule(name)
    inside: nn.Module = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer  # type: ignore[operator]
    return inside
