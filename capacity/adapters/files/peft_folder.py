"""An update as a PEFT LoRA folder, which PEFT and vLLM load as it is."""

import json
import re
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from capacity.adapters.files.peft_kinds import check_kind
from capacity.adapters.linears import inner_linear, is_conv1d, linear_shapes
from capacity.adapters.model import AdaptedModel
from capacity.errors import DataError, SpecError
from capacity.models.loading import DTYPES

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"  # the files of such a folder
_LOSS = 0.02  # relative, of ΔW by the rounding of A and B; bf16 loses 0.3 %


def save_peft_lora(adapted: AdaptedModel, folder: Path, dtype: str, base: str) -> int:
    """Writes the update as a plain LoRA adapter that PEFT and vLLM load as it is.

    Args:
        adapted: the model with its update.
        folder: an existing, empty folder.
        dtype: dtype of the stored A and B; ΔW is exact to its rounding.
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
    tensors = lora_tensors(adapted, dtype)
    rank = 0
    for shape, a, b in adapted.pairs():
        rank = a.shape[0]
        kept_a, kept_b = (tensors[_key(shape.name, half)].float() for half in ("A", "B"))
        kept, exact = kept_b @ kept_a, (b @ a).cpu()
        if not float((kept - exact).norm()) <= _LOSS * float(exact.norm()):  # not a number fails too
            raise SpecError(f"{dtype} cannot hold the update of {shape.name}: export it with --dtype fp32 or bf16")
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=_targets(adapted),
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=is_conv1d(inner_linear(adapted.bare.get_submodule(adapted.shapes[0].name))),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    path = folder / CONFIG
    written = json.loads(path.read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])  # PEFT keeps a set, in no fixed order
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_tensors(tensors, folder)
    return rank


def lora_tensors(adapted: AdaptedModel, dtype: str) -> dict[str, Tensor]:
    """A and B of every adapted module, rounded to `dtype`, on the CPU, by their names in a PEFT LoRA folder."""
    return {
        _key(shape.name, half): matrix.to("cpu", DTYPES[dtype]).contiguous().clone()
        for shape, a, b in adapted.pairs()
        for half, matrix in (("A", a), ("B", b))
    }


def save_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    """Writes the tensors of a PEFT LoRA folder."""
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})


def _key(module: str, half: str) -> str:
    return f"base_model.model.{module}.lora_{half}.weight"


def _targets(adapted: AdaptedModel) -> list[str]:
    """Module types if they mean just the adapted modules (what vLLM expects), full names otherwise."""
    names = {s.name for s in adapted.shapes}
    types = {s.type for s in adapted.shapes}
    linears = {s.name.removesuffix(".base_layer") for s in linear_shapes(adapted.bare)}
    meant = {name for name in linears if name.rpartition(".")[2] in types}
    return sorted(types if meant == names else names)


def load_peft_lora(model: nn.Module, folder: Path) -> nn.Module:
    """Puts a PEFT adapter folder on its base, and makes sure that every stored tensor arrived and that none is lacking.

    Raises:
        DataError: not a PEFT folder, unreadable, or of a kind that is not supported. So are tensors that this model has
            no place for or that it misses. PEFT itself would leave them out and run as if there were no adapter.
    """
    path = folder / TENSORS
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        stored = load_file(path)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: not a PEFT adapter folder: it has no {Path(error.filename or path).name}") from None
    except (ValueError, RecursionError, SafetensorError) as error:
        raise DataError(f"{folder}: the PEFT adapter cannot be read: {error}") from None
    check_kind(config if isinstance(config, dict) else {}, folder)
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
