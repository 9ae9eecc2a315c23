"""Opens a model with an adapter on it, whatever form the adapter has: native artifact, run folder, PEFT folder."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from capacity.adapters.files.artifact import Artifact, read_file, rebuild
from capacity.adapters.files.peft_folder import CONFIG, load_peft_lora
from capacity.adapters.model import AdaptedModel
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.adapters.svd.source import OnModule
from capacity.cache import cache_folder
from capacity.errors import DataError, MissingPathError, SpecError
from capacity.models.loading import load, model_folder
from capacity.plan.model_names import parse_model
from capacity.plan.models import resolve
from capacity.runs.files import ARTIFACT


@dataclass(frozen=True)
class Opened:
    """A loaded model, ready to run.

    Attributes:
        model: what to call.
        tokenizer: its tokenizer.
        base: name or folder of the base.
        form: "base", "native" or "peft".
        adapted: the rebuilt update, for "native".
        artifact: its artifact.
    """

    model: nn.Module = field(repr=False)
    tokenizer: Any = field(repr=False)
    base: str
    form: str
    adapted: AdaptedModel | None = field(default=None, repr=False)
    artifact: Artifact | None = field(default=None, repr=False)


def checkpoint_of(name: str) -> WeightFolder | None:
    """Opens the checkpoint of a model, which has the factors and the fingerprint of its weights.

    It is None for a quantised model, whose factors are those of its dequantised weights.

    Raises:
        CapacityError: no such model, or its files cannot be read.
    """
    return None if parse_model(name).quantised else WeightFolder(model_folder(name))


def open_native(
    path: Path, model: str | None, device: str, cache: Path | None = None, on_module: OnModule | None = None
) -> Opened:
    """Rebuilds a native artifact on its base.

    Args:
        path: the artifact, or a run folder that holds one.
        model: alias or folder of the base; what the artifact names if None.
        device: "cpu" or "cuda".
        cache: of SVD factors; the default one if None.
        on_module: progress of the factors.

    Raises:
        DataError: unreadable, or made on another base; says which part differs.
        SpecError: no such model.
    """
    return open_artifact(read_file(path), model, device, cache, on_module)


def open_artifact(
    artifact: Artifact, model: str | None, device: str, cache: Path | None = None, on_module: OnModule | None = None
) -> Opened:
    """Rebuilds an artifact that was read already. Arguments and errors are those of `open_native`."""
    base = model or artifact.recipe.model
    bare, tokenizer = load(base, device)
    adapted = rebuild(
        artifact, bare, cache or cache_folder("factors"), weights=checkpoint_of(base), on_module=on_module
    )
    adapted.model.eval()
    return Opened(adapted.model, tokenizer, base, "native", adapted, artifact)


def open_model(
    model: str | None, adapter: Path | None, device: str, cache: Path | None = None, on_module: OnModule | None = None
) -> Opened:
    """A model by name or folder, with the adapter at `adapter` on it, if any.

    Raises:
        SpecError: neither is given, or no such model.
        DataError: the adapter is unreadable or does not belong to the model.
    """
    if adapter is None:
        if model is None:
            raise SpecError("give a model, or an adapter that names its model with --adapter")
        bare, tokenizer = load(model, device)
        return Opened(bare, tokenizer, model, "base")
    if not adapter.exists():
        raise MissingPathError(f"{adapter}: no such file or folder")
    if not (adapter / CONFIG).is_file():
        if adapter.is_dir() and not (adapter / ARTIFACT).is_file():
            raise DataError(f"{adapter}: neither a run folder ({ARTIFACT}) nor a PEFT folder ({CONFIG})")
        return open_native(adapter, model, device, cache, on_module)
    base = model or base_of(adapter)
    bare, tokenizer = load(base, device)
    return Opened(load_peft_lora(bare, adapter), tokenizer, base, "peft")


def base_of(adapter: Path) -> str:
    """The base that an adapter names: a native artifact, a run folder or a PEFT folder.

    Raises:
        DataError: no such adapter, or an unreadable one.
        SpecError: it names none.
    """
    if not adapter.exists():
        raise MissingPathError(f"{adapter}: no such file or folder")
    path = adapter / CONFIG
    if not path.is_file():
        return read_file(adapter).recipe.model
    try:
        name = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not name:
        raise SpecError(f"{path} names no base model: give it as MODEL")
    try:
        resolve(str(name))
    except SpecError:
        if not (adapter / str(name)).is_dir():
            raise SpecError(
                f"{path} names the base {name!r}: give it as MODEL, or put its folder into {adapter}"
            ) from None
        return str(adapter / str(name))
    return str(name)
