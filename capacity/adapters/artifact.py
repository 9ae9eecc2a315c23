"""The native artifact: the stored update and the recipe that rebuilds it, in one safetensors file.

Payload = the numbers of the update in its storage dtype; header = everything else in the file (recipe, fingerprint
of the base, tensor names). The two are counted apart.
"""

import hashlib
import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from capacity.adapters.factors import content_hash
from capacity.config import RunSpec, canonical_json
from capacity.errors import DataError

FORMAT = "capacity-update-1"
TORCH_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def base_fingerprint(model: nn.Module) -> str:
    """SHA-256 over names and contents of all weights of a bare, untrained model, 64 hex digits."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name}|{content_hash(parameter)}|".encode())
    return digest.hexdigest()


def store(update: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """The update rounded to its storage dtype."""
    return {name: tensor.detach().to("cpu", TORCH_DTYPES[dtype]).contiguous() for name, tensor in update.items()}


def save(stored: dict[str, Tensor], spec: RunSpec, base: str) -> bytes:
    """The artifact as bytes.

    Args:
        stored: the update in its storage dtype, from `store`.
        spec: the run that made it; model, adapter and storage dtype are the recipe.
        base: `base_fingerprint` of the untrained model.
    """
    recipe = {
        "format": FORMAT,
        "model": spec.model,
        "base": base,
        "adapter": spec.adapter.model_dump(mode="json"),
        "storage_dtype": spec.storage_dtype,
        "run": spec.identity,
    }
    data: bytes = save_tensors(stored, metadata={"capacity": canonical_json(recipe)})
    return data


def header_bytes(artifact: bytes, stored: dict[str, Tensor]) -> int:
    """Bytes of the artifact that are not payload."""
    return len(artifact) - sum(t.numel() * t.element_size() for t in stored.values())


def load(data: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The stored update and its recipe.

    Raises:
        DataError: truncated, not an artifact, or of another format version.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        recipe = json.loads(metadata.get("capacity", "null"))
        tensors: dict[str, Tensor] = load_tensors(data)
    except (ValueError, AttributeError, SafetensorError) as error:
        raise DataError(f"{where}: not a readable update artifact: {error}") from None
    if not isinstance(recipe, dict) or recipe.get("format") != FORMAT:
        found = recipe.get("format") if isinstance(recipe, dict) else None
        raise DataError(f"{where}: artifact format {found!r}, this program reads {FORMAT!r}")
    return tensors, recipe
