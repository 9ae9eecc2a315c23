"""A bundle holds many updates of one base and one recipe in a single safetensors file, with one header for all.

The recipes may differ in their projection seed alone. Every tensor of a payload is stacked over the updates, as raw
bytes. So an update takes its payload. Where seeds differ, it takes one to eight bytes for its own. Names, probes of ΔW
and run identities are left out: an update is known by its place. One digest covers the recipe and all updates, and one
probe covers the factors of the base.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from capacity.adapters.files.artifact import BUNDLE as FORMAT
from capacity.adapters.files.artifact import Artifact, Recipe, read_metadata, recipe_from, recipe_text
from capacity.errors import DataError
from capacity.spec.frozen import canonical_json

SEEDS = "seeds"
_WIDTHS = (1, 2, 4, 8)  # bytes of a seed
_OF_ONE = {"run": "", "probes": {}}  # what a bundle does not keep of each recipe


def bundle(artifacts: Sequence[Artifact]) -> bytes:
    """Returns the bytes of a bundle of updates, in the given order.

    Raises:
        DataError: if there is none, if their recipes differ in more than the projection seed, or if their payloads have
            several sizes. The message names the first that differs.
    """
    if not artifacts:
        raise DataError("a bundle needs at least one update")
    first = artifacts[0]
    shared = _shared(first.recipe)
    for artifact in artifacts[1:]:
        apart = _difference(shared, _shared(artifact.recipe))
        if apart is not None:
            raise DataError(
                f"{artifact.where}: its recipe differs from that of {first.where} in {apart}; the updates of a bundle "
                "differ in their seeds alone"
            )
        if _shapes(artifact) != _shapes(first):
            raise DataError(f"{artifact.where}: its payload has another size than that of {first.where}")
    tensors = {name: torch.stack([_bytes(a.payload[name]) for a in artifacts]) for name in first.payload}
    seeds = [_seed(a.recipe) for a in artifacts]
    if len(set(seeds)) > 1:
        tensors[SEEDS] = _packed(seeds)
    kept = {**shared, "probes": {name: probe for name, probe in first.recipe.probes.items() if name == "factors"}}
    layout = {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in first.payload.items()}
    header = {"recipe": kept, "seed": seeds[0], "layout": layout}
    text = recipe_text({**header, "digest": _digest(header, tensors)})
    return bytes(save_tensors(tensors, metadata={"capacity": json.dumps({"format": FORMAT, "recipe": text})}))


def unbundle(data: bytes, where: str) -> list[Artifact]:
    """Returns the updates of a bundle, in its order. Each can be rebuilt; only the factors are probed.

    Raises:
        DataError: if it is truncated, edited, no bundle, or of another format.
    """
    try:
        found, tensors = read_metadata(data), load_tensors(data)
    except (ValueError, RecursionError, AttributeError, SafetensorError) as error:
        raise DataError(f"{where}: not a readable bundle, or truncated: {error}") from None
    version = found.get("format") if isinstance(found, dict) else None
    if version != FORMAT:
        raise DataError(f"{where}: bundle format {version!r}, this program reads {FORMAT!r}")
    raw = recipe_from(found.get("recipe"), where)
    try:
        if raw.pop("digest", None) != _digest(raw, tensors):
            raise DataError(f"{where}: the bundle was edited or damaged: it does not match its digest")
        return _updates(raw, tensors, where)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise DataError(f"{where}: not a valid bundle: {error}") from None


def member(path: Path, number: int) -> Artifact:
    """Returns one update of a bundle's file, counted from 0.

    Raises:
        DataError: as `unbundle`, or if there is no such file or number.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    updates = unbundle(data, str(path))
    if not 0 <= number < len(updates):
        raise DataError(f"{path}: no update {number}: it holds 0 to {len(updates) - 1}")
    return updates[number]


def _updates(raw: dict[str, Any], tensors: dict[str, Tensor], where: str) -> list[Artifact]:
    packed = tensors.pop(SEEDS, None)
    count = min(len(stacked) for stacked in tensors.values())
    seeds = [raw["seed"]] * count if packed is None else _unpacked(packed)
    recipe = Recipe.model_validate(raw["recipe"])
    artifacts = []
    for place in range(count):
        payload = {}
        for name, (dtype, shape) in raw["layout"].items():
            payload[name] = tensors[name][place].clone().view(getattr(torch, dtype)).view(shape)
        own = recipe.model_copy(update={"adapter": recipe.adapter.seeded(seeds[place])})
        artifacts.append(Artifact(own, payload, f"{where}, update {place}", probed=tuple(recipe.probes)))
    return artifacts


def _shared(recipe: Recipe) -> dict[str, Any]:
    """Returns what all recipes of a bundle have in common, as JSON."""
    alike = recipe.model_copy(update={**_OF_ONE, "adapter": recipe.adapter.seeded(0)})
    return alike.model_dump(mode="json")


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Returns the name of the first field in which two recipes differ, "adapter.groups"; None if they are equal."""
    for name in sorted({*one, *other}):
        mine, theirs = one.get(name), other.get(name)
        if mine != theirs:
            inner = _difference(mine, theirs) if isinstance(mine, dict) and isinstance(theirs, dict) else None
            return name if inner is None else f"{name}.{inner}"
    return None


def _seed(recipe: Recipe) -> int:
    """Returns the seed of the adapter's random parts, 0 if it has none."""
    field = recipe.adapter.seed_field
    return 0 if field is None else int(getattr(recipe.adapter, field))


def _packed(seeds: Sequence[int]) -> Tensor:
    """Returns seeds as little-endian bytes, shape (n, width), in the smallest width that holds the largest.

    Raises:
        DataError: if a seed is 2^64 or more.
    """
    width = next((w for w in _WIDTHS if max(seeds) < 1 << 8 * w), None)
    if width is None:
        raise DataError(f"the seed {max(seeds)} is too large for a bundle")
    return torch.from_numpy(np.array(seeds, dtype=f"<u{width}").view(np.uint8).reshape(len(seeds), width).copy())


def _unpacked(packed: Tensor) -> list[int]:
    seeds: list[int] = packed.numpy().reshape(-1).view(f"<u{packed.shape[1]}").tolist()
    return seeds


def _shapes(artifact: Artifact) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in artifact.payload.items()}


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over the header and all stacked tensors, first 32 hex digits."""
    digest = hashlib.sha256(canonical_json(header).encode())
    for name in sorted(tensors):
        digest.update(f"|{name}|{tuple(tensors[name].shape)}|".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
