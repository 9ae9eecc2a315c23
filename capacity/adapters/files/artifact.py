"""The native artifact: the stored update and the recipe that rebuilds it, in one safetensors file.

The payload is the numbers of the update in its storage dtype, with their scales. If the projection was chosen, the
payload has the choice too. The header is everything else in the file: recipe, fingerprints, tensor names. The two are
counted apart. The recipe is compressed JSON without the fields that have their defaults.

A rebuilt update has a relative error of ΔW of at most 1e-4 on any machine. To make sure of that the recipe carries the
fingerprint of the base's weights, and sketches (`capacity.adapters.files.sketch`) of the factors, of the projections
and of ΔW. What differs by 1e-4 passes them, what differs by 1e-3 is refused.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from capacity.adapters.attach import attach
from capacity.adapters.files import codec
from capacity.adapters.files.choice_bits import pack_candidates, unpack_candidates
from capacity.adapters.files.levels import Levels
from capacity.adapters.files.sketch import Sketch, sketch
from capacity.adapters.layout import Layout
from capacity.adapters.linears import is_quantised, weight_matrix
from capacity.adapters.model import AdaptedModel
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.adapters.svd.content_hash import content_hash
from capacity.adapters.svd.factors import Factors
from capacity.adapters.svd.source import OnModule
from capacity.errors import DataError
from capacity.runs.files import ARTIFACT
from capacity.spec.adapters import Adapter, StorageDtype, TinyLora
from capacity.spec.faults import fault_of
from capacity.spec.frozen import Frozen, canonical_json

FORMAT: Literal["capacity-update-3"] = "capacity-update-3"
BUNDLE = "capacity-bundle-2"  # many updates in one file, see `capacity.adapters.files.bundle`
_OLDER = "capacity-update-2"  # its recipe is plain JSON, with whole hashes
_HASH = 32  # hex digits of a hash in a recipe, 128 bits
_LARGEST = 1 << 20  # bytes of a recipe
CHOICE = "choice"  # the tensor of the choice of the projection


class Recipe(Frozen):
    """How to rebuild the update.

    Attributes:
        format: name and version of the file format.
        model: alias or folder of the base.
        base: the first 32 digits of the `base_fingerprint` of the base.
        adapter: the adapter that holds the update.
        entries: an uneven allocation of θ over the groups; None if it is even.
        storage_dtype: dtype of the payload, if it has no levels.
        levels: the few values that the numbers of the update have; None if they have any.
        parameters: how many numbers the update has.
        probes: sketches of "factors", "projection" (where there are any) and "update", base64.
        run: the first 32 digits of the identity of the run that made it, empty if none did.
    """

    format: Literal["capacity-update-3"] = FORMAT
    model: str
    base: str
    adapter: Adapter
    entries: tuple[int, ...] | None = None
    storage_dtype: StorageDtype
    levels: Levels | None = None
    parameters: int
    probes: dict[str, str]
    run: str = ""


@dataclass(frozen=True)
class Artifact:
    """An artifact as read: its recipe and payload, where it came from, and which of its parts have probes."""

    recipe: Recipe
    payload: dict[str, Tensor]
    where: str
    probed: tuple[str, ...] = ("factors", "projection", "update")


def base_fingerprint(model: nn.Module, digests: Mapping[str, str] | None = None) -> str:
    """SHA-256 over names and content hashes of all weights of a bare, untrained model, 64 hex digits.

    Weights are hashed as fp32 values, so a bf16 checkpoint has one fingerprint in bf16 and in fp32. Those of a
    quantised module are hashed dequantised.

    Args:
        model: the model.
        digests: content hashes by name, where they are known already. They are those of the checkpoint that the model
            was loaded from without rounding (`capacity.adapters.svd.checkpoint.WeightFolder.digests`).
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        quantised = name.endswith(".weight") and is_quantised(owner)  # a checkpoint of codes knows their hash only
        known = digests.get(name) if digests is not None and not quantised else None
        if known is None:
            known = content_hash(weight_matrix(owner) if quantised else parameter)
        digest.update(f"{name}|{known}|".encode())
    return digest.hexdigest()


def store(adapted: AdaptedModel, dtype: str, levels: Levels | None = None) -> dict[str, Tensor]:
    """The update as stored in `dtype`. The model is given the stored numbers, so that they are what is evaluated.

    Where there are `levels`, their numbers are stored instead.

    Raises:
        DataError: the update does not fit the dtype, or has other values than the levels.
    """
    payload = codec.encode(adapted.vector(), dtype) if levels is None else levels.encode(adapted.vector())
    bits = adapted.adapter.choice_bits
    if bits:
        assert adapted.candidates is not None
        payload[CHOICE] = pack_candidates(adapted.candidates, bits)
    stored = _decoded(payload, dtype, levels, adapted.trained_parameters)
    if not bool(stored.isfinite().all()):
        raise DataError(f"the update does not fit {dtype}: use --storage-dtype bf16 or fp32")
    adapted.set_vector(stored)
    return payload


def _decoded(payload: dict[str, Tensor], dtype: str, levels: Levels | None, count: int) -> Tensor:
    """Returns the numbers of a payload beside the choice of the projection, in fp32, shape (count,)."""
    numbers = {name: tensor for name, tensor in payload.items() if name != CHOICE}
    return codec.decode(numbers, dtype, count) if levels is None else levels.decode(numbers, count)


def pack(
    adapted: AdaptedModel,
    payload: dict[str, Tensor],
    *,
    model: str,
    base: str,
    dtype: str,
    levels: Levels | None = None,
    run: str = "",
) -> bytes:
    """The bytes of the artifact of a trained update.

    Args:
        adapted: the model with its stored update, after `store`.
        payload: the tensors that `store` gave.
        model: alias or folder of the base.
        base: `base_fingerprint` of the untrained model.
        dtype: storage dtype of the payload.
        levels: the levels that `store` was given.
        run: identity of the run that made it.
    """
    even = len(set(adapted.entries)) <= 1
    recipe = Recipe(
        model=model,
        base=base[:_HASH],
        adapter=adapted.adapter,
        entries=None if even else adapted.entries,
        storage_dtype=dtype,
        levels=levels,
        parameters=adapted.trained_parameters,
        probes={name: found.encode() for name, found in probes(adapted).items()},
        run=run[:_HASH],
    )
    raw = recipe.model_dump(mode="json", exclude_defaults=True)
    raw["adapter"]["kind"] = recipe.adapter.kind
    # One entry of metadata: safetensors writes several in no fixed order, and equal runs should give equal files.
    header = {"format": FORMAT, "recipe": recipe_text({**raw, "digest": _digest(raw, payload)})}
    data: bytes = save_tensors(payload, metadata={"capacity": canonical_json(header)})
    return data


def _digest(recipe: dict[str, Any], payload: dict[str, Tensor]) -> str:
    """SHA-256 of recipe and payload, first 32 hex digits: tells an edited file from a faithful one."""
    digest = hashlib.sha256(canonical_json(recipe).encode())
    for name in sorted(payload):
        data = payload[name].contiguous()
        digest.update(f"|{name}|{data.dtype}|".encode())
        digest.update(data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def read(data: bytes, where: str) -> Artifact:
    """An artifact from its bytes.

    Raises:
        DataError: truncated, not an artifact, of another format version, or edited.
    """
    try:
        raw: Any = read_metadata(data)
        payload: dict[str, Tensor] = load_tensors(data)
    except (ValueError, RecursionError, AttributeError, SafetensorError) as error:
        raise DataError(f"{where}: not a readable update artifact, or truncated: {error}") from None
    found = raw.get("format") if isinstance(raw, dict) else None
    if found == BUNDLE:
        raise DataError(f"{where}: a bundle of many updates: take one with capacity export {where} --number N")
    if found not in (FORMAT, _OLDER):
        raise DataError(f"{where}: artifact format {found!r}, this program reads {FORMAT!r}")
    if found == FORMAT:
        raw = recipe_from(raw.get("recipe"), where)
    try:
        faithful = raw.pop("digest", None) == _digest(raw, payload)
    except (ValueError, RuntimeError, RecursionError):  # a number or a tensor that no artifact holds
        faithful = False
    if not faithful:
        raise DataError(f"{where}: the artifact was edited or damaged: its recipe and payload do not match its digest")
    if found == _OLDER:
        raw |= {"format": FORMAT, "base": str(raw.get("base"))[:_HASH], "run": str(raw.get("run"))[:_HASH]}
    try:
        return Artifact(Recipe.model_validate(raw), payload, where)
    except ValidationError as error:
        raise DataError(f"{where}: not a valid recipe: {fault_of(error, Recipe)}") from None


def read_metadata(data: bytes, name: str = "capacity") -> Any:
    """Returns what this program wrote into the metadata of a safetensors file; None if there is nothing.

    Args:
        data: the bytes of the file.
        name: the name of the entry, whose value is JSON.

    Raises:
        ValueError, AttributeError, RecursionError: if the bytes are not of such a file.
    """
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    return json.loads(metadata.get(name, "null"))


def recipe_text(recipe: dict[str, Any]) -> str:
    """Returns a recipe as compressed JSON in base 85, whose characters JSON does not escape."""
    return base64.b85encode(zlib.compress(canonical_json(recipe).encode(), 9)).decode()


def recipe_from(recipe: object, where: str) -> dict[str, Any]:
    """Returns the JSON object that `recipe_text` compressed.

    Raises:
        DataError: if it cannot be read, or is larger than any recipe.
    """
    try:
        unpacking = zlib.decompressobj()
        raw = json.loads(unpacking.decompress(base64.b85decode(str(recipe)), _LARGEST))
    except (ValueError, zlib.error, RecursionError) as error:
        raise DataError(f"{where}: not a readable update artifact, or truncated: its recipe: {error}") from None
    if not isinstance(raw, dict):
        raise DataError(f"{where}: not a readable update artifact: its recipe is no JSON object")
    return raw


def read_file(path: Path) -> Artifact:
    """An artifact from its file, or from the run folder that holds it.

    Raises:
        DataError: as `read`, or there is no such file.
    """
    path = path / ARTIFACT if path.is_dir() else path
    try:
        return read(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def rebuild(
    artifact: Artifact,
    model: nn.Module,
    factor_cache: Path | None,
    *,
    weights: WeightFolder | None = None,
    factors: dict[str, Factors] | None = None,
    on_module: OnModule | None = None,
) -> AdaptedModel:
    """Puts the artifact's update onto `model`, its untrained base, which is changed in place.

    Args:
        artifact: what `read` gave.
        model: the bare base.
        factor_cache: folder of cached SVD factors and hashes, None for no cache.
        weights: the checkpoint that `model` was loaded from without rounding: saves hashing and factoring it again.
        factors: SVD factors by module name, if they are known already.
        on_module: called after the factors of each module.

    Raises:
        DataError: names the part that differs: the base, the number of parameters, factors, projections or the update.
        SpecError: the adapter does not fit the model at all.
    """
    recipe, where = artifact.recipe, artifact.where
    base = base_fingerprint(model, weights.digests(factor_cache) if weights is not None else None)
    if base[:_HASH] != recipe.base and weights is not None:
        # The update of somebody else's trainer belongs to the weights as they were loaded, which may be rounded.
        base, weights = base_fingerprint(model), None
    if base[:_HASH] != recipe.base:
        raise DataError(
            f"{where}: made on another base: its weights have the fingerprint {recipe.base[:16]}, these {base[:16]}; "
            f"load the very {recipe.model} that it was made on"
        )
    adapted = attach(
        model,
        recipe.adapter,
        factor_cache,
        layout=Layout(recipe.entries, _candidates(artifact)),
        weights=weights,
        factors=factors,
        on_module=on_module,
    )
    if adapted.trained_parameters != recipe.parameters:
        raise DataError(
            f"{where}: holds {recipe.parameters:,} parameters, its adapter has {adapted.trained_parameters:,} here"
        )
    try:
        adapted.set_vector(_decoded(artifact.payload, recipe.storage_dtype, recipe.levels, recipe.parameters))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    found = probes(adapted)
    for part in artifact.probed:
        _check_probe(part, recipe.probes.get(part), found.get(part), where)
    return adapted


def _candidates(artifact: Artifact) -> tuple[int, ...] | None:
    """Returns the candidate of each entry of θ; None if the projection is random.

    Raises:
        DataError: the choice is not stored, or damaged.
    """
    adapter, count = artifact.recipe.adapter, artifact.recipe.parameters
    if not isinstance(adapter, TinyLora) or adapter.choice is None:
        if CHOICE in artifact.payload:
            raise DataError(f"{artifact.where}: it holds the choice of a projection, but its projection is random")
        return None
    if adapter.choice.bits == 0:
        return (0,) * count
    try:
        return unpack_candidates(artifact.payload.get(CHOICE), count, adapter.choice.bits)
    except DataError as error:
        raise DataError(f"{artifact.where}: {error}") from None


def _check_probe(part: str, stored: str | None, found: Sketch | None, where: str) -> None:
    words = {"factors": "the SVD factors of the base", "projection": "the projections", "update": "ΔW"}[part]
    if (stored is None) != (found is None):
        raise DataError(f"{where}: the artifact's recipe {'lacks' if stored is None else 'has'} a probe of {words}")
    if stored is None or found is None:
        return
    try:
        expected = Sketch.decode(stored)
    except ValueError as error:
        raise DataError(f"{where}: the probe of {words} cannot be read: {error}") from None
    if not found.agrees(expected):
        raise DataError(
            f"{where}: {words} differ from those of the artifact by about {found.distance(expected):.1e} (relative); "
            "it was made with other arithmetic, or its singular values are too close to rebuild it here"
        )


def probes(adapted: AdaptedModel) -> dict[str, Sketch]:
    """Sketches of the frozen parts of an adapter and of ΔW."""
    return {part: sketch(matrices) for part, matrices in adapted.probed().items()}
