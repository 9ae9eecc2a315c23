"""Turns adapters of any form into PEFT LoRA folders, which vLLM loads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from capacity.adapters.controls import save_zero_lora
from capacity.adapters.files.artifact import read_file, rebuild
from capacity.adapters.files.peft_folder import CONFIG, save_peft_lora
from capacity.adapters.open import base_of, checkpoint_of
from capacity.cache import cache_folder
from capacity.errors import DataError, SpecError
from capacity.models.loading import load
from capacity.plan.model_names import parse_model


@dataclass(frozen=True)
class Folders:
    """A loaded base and the adapters that belong to it.

    Attributes:
        model, tokenizer: the base and its tokenizer.
        base: name of the base.
        dtype: dtype of the base's weights.
        folders: PEFT LoRA folders by the paths that were given.
        rank: the largest rank of the adapters; None if there are none.
    """

    model: nn.Module
    tokenizer: Any
    base: str
    dtype: str
    folders: dict[str, Path]
    rank: int | None


def peft_folders(model: str | None, adapters: Sequence[Path], scratch: Path, device: str) -> Folders:
    """Opens the base of some adapters and writes those that are native artifacts as PEFT folders.

    Args:
        model: name of the base; the one that the first adapter names if None.
        adapters: native artifacts, run folders or PEFT folders.
        scratch: an existing, empty folder.
        device: "cpu" or "cuda".

    Raises:
        DataError: an adapter that is unreadable or was made for another base.
        SpecError: no base is named, or an update that is no LoRA adapter.
    """
    base = model or base_of(adapters[0])
    bare, tokenizer = load(base, device)
    folders: dict[str, Path] = {}
    for index, path in enumerate(adapters):
        if (path / CONFIG).is_file():
            folders[str(path)] = path
            continue
        artifact = read_file(path)
        adapted = rebuild(artifact, bare, cache_folder("factors"), weights=checkpoint_of(base))
        if not adapted.shapes:
            raise SpecError(f"{path}: an update of kind {adapted.adapter.kind} is no LoRA adapter: vLLM cannot load it")
        folder = scratch / str(index)
        folder.mkdir()
        save_peft_lora(adapted, folder, "fp32", base)
        bare = adapted.detach()
        folders[str(path)] = folder
    ranks = [int(_config(folder)["r"]) for folder in folders.values()]
    return Folders(bare, tokenizer, base, parse_model(base).dtype, folders, max(ranks, default=None))


def zero_folder(folders: Mapping[str, Path], scratch: Path) -> Path:
    """Makes a folder of zeros with the modules and the rank of the first folder of the largest rank.

    Args:
        folders: PEFT LoRA folders by name, at least one.
        scratch: where the folder of zeros is made.

    Raises:
        SpecError: an adapter that has no zero.
    """
    largest = max(folders.values(), key=lambda folder: int(_config(folder)["r"]))
    out = scratch / "zero"
    out.mkdir()
    save_zero_lora(largest, out)
    return out


def _config(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        int(found["r"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: not a PEFT LoRA folder: {error}") from None
    return found
