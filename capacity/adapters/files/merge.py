"""The base's weights with an update merged into them, and what rounding them has left of it.

W + ΔW is computed in fp32 and rounded once, to the dtype of the merged weights. The realised ΔW is round(W + ΔW) −
round(W), so what rounding does to W itself does not count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capacity.adapters.linears import inner_linear, is_conv1d, is_quantised
from capacity.adapters.model import AdaptedModel
from capacity.errors import DataError, SpecError
from capacity.models.loading import DTYPES

_PEFT_PARAMETERS = ("lora_", "vera_", "vblora_", "unilora_")  # how the names begin that PEFT adds to a model


@dataclass(frozen=True)
class MergeReport:
    """What became of ΔW when W + ΔW was rounded.

    Attributes:
        cosine: cosine of the realised and the intended ΔW of all adapted weights together.
        worst_cosine: the same of the weight that lost most.
        worst_module: the name of that weight.
        moved: share of adapted weights that changed at all.
        relative_norm: ‖realised‖ / ‖intended‖.
    """

    cosine: float
    worst_cosine: float
    worst_module: str
    moved: float
    relative_norm: float


@dataclass
class MergeTally:
    """Realised against intended ΔW, summed up weight by weight in float64 while weights are merged.

    Attributes:
        products: name of a weight, ⟨realised, intended⟩, ‖realised‖², ‖intended‖².
        moved: how many adapted weights changed.
        adapted: how many there are.
        bytes: size of all merged weights, the others included.
    """

    products: list[tuple[str, float, float, float]] = field(default_factory=list)
    moved: int = 0
    adapted: int = 0
    bytes: int = 0

    def add(self, name: str, base: Tensor, intended: Tensor, merged: Tensor) -> None:
        """Counts one weight in: W rounded, ΔW, and W + ΔW rounded."""
        realised, wanted = (merged.double() - base.double()).cpu(), intended.double().cpu()
        sums = ((realised * wanted).sum(), (realised**2).sum(), (wanted**2).sum())
        self.products.append((name, float(sums[0]), float(sums[1]), float(sums[2])))
        self.moved += int((realised != 0).sum())
        self.adapted += realised.numel()

    @property
    def cosine(self) -> float | None:
        """Cosine of the realised and the intended ΔW; 0 if nothing was realised, None if nothing was intended."""
        return _cosine(*self._sums()) if self.products else None

    def report(self) -> MergeReport:
        """What became of ΔW; an update that is zero counts as realised exactly."""
        cosines = [(_cosine(*numbers), name) for name, *numbers in self.products]
        worst, name = min((1.0 if cosine is None else cosine, name) for cosine, name in cosines)
        _, realised, intended = self._sums()
        norm = float(np.sqrt(realised / intended)) if intended > 0 else 1.0
        overall = self.cosine
        return MergeReport(1.0 if overall is None else overall, worst, name, self.moved / self.adapted, norm)

    def _sums(self) -> tuple[float, float, float]:
        dot, realised, intended = np.array([numbers for _, *numbers in self.products]).sum(axis=0)
        return dot, realised, intended


def _cosine(dot: float, realised: float, intended: float) -> float | None:
    if intended == 0:
        return None
    return float(dot / np.sqrt(realised * intended)) if realised * intended > 0 else 0.0


@torch.no_grad()
def merged_weights(adapted: AdaptedModel, dtype: str, tally: MergeTally) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the base by its name in the checkpoint, with the update merged and rounded to `dtype`.

    One dense ΔW at a time is formed: together they are as large as the model. `adapted` stays as it is.

    Args:
        adapted: the model with its update.
        dtype: "fp32", "bf16" or "fp16".
        tally: what counts the weights in.

    Raises:
        SpecError: the base is quantised, or the update is none of weights.
        DataError: a weight left the range of `dtype`.
    """
    adapted.check_mergeable()
    if any(is_quantised(module) for module in adapted.bare.modules()):
        raise SpecError(
            "a quantised base cannot be merged into: keep the update apart (export --to peft, or rollouts by "
            "hot-swap), or load the base unquantised"
        )
    pairs = {f"{shape.name}.weight": (a, b) for shape, a, b in adapted.pairs()}
    untrained = adapted.base_state or {}
    for name, parameter in bare_parameters(adapted.bare):
        before = untrained.get(name, parameter.detach()).float()
        delta = parameter.detach() - before if name in untrained else None
        if name in pairs:
            a, b = pairs[name]
            layer = adapted.bare.get_submodule(name.removesuffix(".weight"))
            delta = (b @ a).T if is_conv1d(inner_linear(layer)) else b @ a
        merged = (before if delta is None else before + delta).to(DTYPES[dtype])
        if not bool(merged.isfinite().all()):
            raise DataError(f"merged weight {name} does not fit {dtype}: merge into fp32 or bf16")
        if delta is not None:
            tally.add(name, before.to(merged.dtype), delta, merged)
        tally.bytes += merged.numel() * merged.element_size()
        yield name, merged


def base_weights(adapted: AdaptedModel, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the untrained model, rounded to `dtype`."""
    state = adapted.base_state or {}
    for name, parameter in bare_parameters(adapted.bare):
        yield name, state.get(name, parameter.detach()).to(DTYPES[dtype])


@torch.no_grad()
def merge(adapted: AdaptedModel, dtype: str) -> tuple[nn.Module, MergeReport]:
    """The bare model with the update merged into it; `adapted` is used up.

    Raises:
        SpecError: the base is quantised, or the update is none of weights.
        DataError: a weight left the range of `dtype`.
    """
    tally = MergeTally()
    parameters = dict(bare_parameters(adapted.bare))
    for name, weight in merged_weights(adapted, dtype, tally):
        parameters[name].data = weight
    bare: Any = adapted.detach()
    bare.config.dtype = DTYPES[dtype]
    return bare, tally.report()


def bare_parameters(bare: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The base's own parameters by their names in the checkpoint, whatever PEFT has wrapped around its modules."""
    for name, parameter in bare.named_parameters():
        if not any(part.startswith(_PEFT_PARAMETERS) or part == "theta" for part in name.split(".")):
            yield name.replace(".base_layer.", "."), parameter
