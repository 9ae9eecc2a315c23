"""Standard forms of an adapted model: a PEFT LoRA folder, or merged weights."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from capacity.adapters.linears import is_conv1d, is_quantised, linear_shapes
from capacity.adapters.model import AdaptedModel
from capacity.errors import DataError, SpecError

_LOSS = 0.02  # relative, of ΔW by the rounding of A and B; bf16 loses 0.3 %
EXPORT_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class MergeReport:
    """What became of ΔW when W + ΔW was rounded to the dtype of the merged weights.

    Realised is round(W + ΔW) − round(W), so that what rounding does to W itself does not count.

    Attributes:
        cosine: between the realised and the intended ΔW of all adapted modules together.
        worst_cosine: of the module that lost most.
        worst_module: its name.
        moved: share of adapted weights that changed at all.
        relative_norm: ‖realised‖ / ‖intended‖.
    """

    cosine: float
    worst_cosine: float
    worst_module: str
    moved: float
    relative_norm: float


def save_peft_lora(adapted: AdaptedModel, folder: Path, dtype: str, base: str) -> int:
    """Writes the update as a plain LoRA adapter that PEFT and vLLM load as it is.

    Args:
        adapted: the model with its update.
        folder: an existing, empty folder.
        dtype: of the stored A and B; ΔW is exact to its rounding.
        base: name of the base, for `adapter_config.json`.

    Returns:
        The rank of the adapter.

    Raises:
        SpecError: the update is not made of low-rank pairs, or `dtype` cannot hold it (a tiny one in fp16).
    """
    if not adapted.shapes:
        adapted.check_mergeable()
        raise SpecError(
            f"adapter {adapted.adapter.kind} is no low-rank update of linear modules: export it merged (--to merged)"
        )
    tensors: dict[str, Tensor] = {}
    rank = 0
    for shape, a, b in adapted.pairs():
        rank = a.shape[0]
        prefix = f"base_model.model.{shape.name}"
        tensors[f"{prefix}.lora_A.weight"] = a.to("cpu", EXPORT_DTYPES[dtype]).contiguous().clone()
        tensors[f"{prefix}.lora_B.weight"] = b.to("cpu", EXPORT_DTYPES[dtype]).contiguous().clone()
        kept = tensors[f"{prefix}.lora_B.weight"].float() @ tensors[f"{prefix}.lora_A.weight"].float()
        exact = (b @ a).cpu()
        if not float((kept - exact).norm()) <= _LOSS * float(exact.norm()):  # not a number fails too
            raise SpecError(f"{dtype} cannot hold the update of {shape.name}: export it with --dtype fp32 or bf16")
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=_targets(adapted),
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=is_conv1d(_module(adapted, adapted.shapes[0].name)),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text())
    written["target_modules"] = sorted(written["target_modules"])  # PEFT keeps a set, in no fixed order
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return rank


def _module(adapted: AdaptedModel, name: str) -> Any:
    """The linear itself, inside PEFT's layer."""
    layer: Any = adapted.bare.get_submodule(name)
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer


def _targets(adapted: AdaptedModel) -> list[str]:
    """Module types if they mean just the adapted modules (what vLLM expects), full names otherwise."""
    names = {s.name for s in adapted.shapes}
    types = {s.type for s in adapted.shapes}
    linears = {s.name.removesuffix(".base_layer") for s in linear_shapes(adapted.bare)}
    meant = {name for name in linears if name.rpartition(".")[2] in types}
    return sorted(types if meant == names else names)


@torch.no_grad()
def merge(adapted: AdaptedModel, dtype: str) -> tuple[nn.Module, MergeReport]:
    """The bare model with the update merged in fp32 arithmetic and rounded once, to `dtype`; `adapted` is used up.

    Raises:
        SpecError: the base is quantised, or the update is none of weights.
        DataError: a weight left the range of `dtype`.
    """
    adapted.check_mergeable()
    if any(is_quantised(m) for m in adapted.bare.modules()):
        raise SpecError("a quantised base cannot be merged into: export a LoRA adapter, or load the base unquantised")
    # Dense ΔW are formed one at a time: together they are as large as the model.
    pairs = {f"{shape.name}.weight": (a, b) for shape, a, b in adapted.pairs()}
    base_state = adapted.base_state or {}
    bare: Any = adapted.detach()
    tally = _Tally()
    for name, parameter in bare.named_parameters():
        before = base_state.get(name, parameter.detach()).float()
        delta = parameter.detach() - before if name in base_state else None
        if name in pairs:
            a, b = pairs[name]
            delta = (b @ a).T if is_conv1d(bare.get_submodule(name.removesuffix(".weight"))) else b @ a
        parameter.data = (before if delta is None else before + delta).to(EXPORT_DTYPES[dtype])
        if delta is not None:
            tally.add(name, before.to(EXPORT_DTYPES[dtype]), delta, parameter)
        if not bool(parameter.isfinite().all()):
            raise DataError(f"merged weight {name} does not fit {dtype}: merge with --dtype fp32 or bf16")
    bare.config.dtype = EXPORT_DTYPES[dtype]
    return bare, tally.report()


class _Tally:
    """Sums up realised against intended ΔW, module by module, in float64."""

    def __init__(self) -> None:
        # name, ⟨realised, intended⟩, ‖realised‖², ‖intended‖²
        self.products: list[tuple[str, float, float, float]] = []
        self.moved = self.count = 0

    def add(self, name: str, base: Tensor, intended: Tensor, merged: Tensor) -> None:
        base, intended, merged = (t.detach().to("cpu", torch.float64) for t in (base, intended, merged))
        realised = merged - base
        self.products.append(
            (name, float((realised * intended).sum()), float((realised**2).sum()), float((intended**2).sum()))
        )
        self.moved += int((realised != 0).sum())
        self.count += realised.numel()

    def report(self) -> MergeReport:
        def cosine(dot: float, realised: float, intended: float) -> float:
            if realised == intended == 0:
                return 1.0  # nothing was intended and nothing happened
            return float(dot / np.sqrt(realised * intended)) if realised * intended > 0 else 0.0

        cosines = [(cosine(*numbers), name) for name, *numbers in self.products]
        dot, realised, intended = np.array([numbers for _, *numbers in self.products]).sum(axis=0)
        worst, module = min(cosines)
        norm = float(np.sqrt(realised / intended)) if intended > 0 else 1.0
        return MergeReport(cosine(dot, realised, intended), worst, module, self.moved / self.count, norm)


def load_peft_lora(model: nn.Module, folder: Path) -> nn.Module:
    """Puts a PEFT adapter folder on its base, and makes sure that every stored tensor arrived and that none is lacking.

    Raises:
        DataError: not a PEFT folder, unreadable, or tensors that this model has no place for or that it misses (PEFT
            itself would leave them out and run as if there were no adapter).
    """
    path = folder / "adapter_model.safetensors"
    try:
        json.loads((folder / "adapter_config.json").read_text())
        stored = load_file(path)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: not a PEFT adapter folder: it has no {Path(error.filename or path).name}") from None
    except (ValueError, SafetensorError) as error:
        raise DataError(f"{folder}: the PEFT adapter cannot be read: {error}") from None
    try:
        loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (ValueError, RuntimeError, KeyError, TypeError, re.error) as error:
        raise DataError(f"{folder}: this adapter does not fit the model: {' '.join(str(error).split())}") from None
    # By their names in a file; what PEFT puts into a file only if asked to, such as embeddings, by those in the model.
    arrived = get_peft_model_state_dict(loaded, save_embedding_layers=False)
    state = loaded.state_dict()
    for key, tensor in stored.items():
        here = arrived.get(key, state.get(key))
        if here is None or here.shape != tensor.shape:
            raise DataError(f"{folder}: the model has no place for {key}: was the adapter made for another model?")
        if not torch.equal(here.cpu().float(), tensor.float()):
            raise DataError(f"{folder}: {key} did not arrive in the model")
    absent = sorted(set(arrived) - set(stored))
    if absent:
        raise DataError(f"{folder}: the adapter lacks {absent[0]}: was it made for another model?")
    result: nn.Module = loaded.eval()
    return result
