"""Short names of models: what they stand for on the hub and their shapes. No torch, no network."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from capacity.errors import DataError, SpecError, unknown
from capacity.models.shapes import ModelShape, shape_from_config


@dataclass(frozen=True)
class Alias:
    """`source`: hub id, or "embedded" for a model shipped in the package."""

    source: str
    shape: ModelShape


def _shape(
    model_type: str,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    vocabulary: int,
    *,
    tied: bool,
) -> ModelShape:
    config = {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    return shape_from_config(config, "alias")


# Shapes: the config.json of each hub repository.
ALIASES: dict[str, Alias] = {
    "abacus-0.9m": Alias("embedded", replace(_shape("qwen2", 128, 384, 4, 4, 4, 32, 40, tied=True), family="abacus")),
    "smollm2-135m": Alias(
        "HuggingFaceTB/SmolLM2-135M-Instruct", _shape("llama", 576, 1536, 30, 9, 3, 64, 49152, tied=True)
    ),
    "qwen2.5-0.5b": Alias("Qwen/Qwen2.5-0.5B-Instruct", _shape("qwen2", 896, 4864, 24, 14, 2, 64, 151936, tied=True)),
    "qwen2.5-1.5b": Alias("Qwen/Qwen2.5-1.5B-Instruct", _shape("qwen2", 1536, 8960, 28, 12, 2, 128, 151936, tied=True)),
    "qwen2.5-3b": Alias("Qwen/Qwen2.5-3B-Instruct", _shape("qwen2", 2048, 11008, 36, 16, 2, 128, 151936, tied=True)),
    "qwen2.5-7b": Alias("Qwen/Qwen2.5-7B-Instruct", _shape("qwen2", 3584, 18944, 28, 28, 4, 128, 152064, tied=False)),
    "qwen2.5-math-7b": Alias("Qwen/Qwen2.5-Math-7B", _shape("qwen2", 3584, 18944, 28, 28, 4, 128, 152064, tied=False)),
    "qwen3-8b": Alias("Qwen/Qwen3-8B", _shape("qwen3", 4096, 12288, 36, 32, 8, 128, 151936, tied=False)),
    "llama-3.2-1b": Alias(
        "meta-llama/Llama-3.2-1B-Instruct", _shape("llama", 2048, 8192, 16, 32, 8, 64, 128256, tied=True)
    ),
    "llama-3.2-3b": Alias(
        "meta-llama/Llama-3.2-3B-Instruct", _shape("llama", 3072, 8192, 28, 24, 8, 128, 128256, tied=True)
    ),
    "llama-3.1-8b": Alias(
        "meta-llama/Llama-3.1-8B-Instruct", _shape("llama", 4096, 14336, 32, 32, 8, 128, 128256, tied=False)
    ),
}
# "abacus" alone means the one that `capacity compare` uses by default.
SYNONYMS: dict[str, str] = {"abacus": "abacus-0.9m"}


def _known(name: str) -> str | None:
    """The alias that `name` means, if it means one."""
    lowered = name.lower()
    lowered = SYNONYMS.get(lowered, lowered)
    by_source = {alias.source.lower(): key for key, alias in ALIASES.items() if alias.source != "embedded"}
    lowered = by_source.get(lowered, lowered)
    return lowered if lowered in ALIASES else None


def resolve(name: str) -> str:
    """The alias that `name` means, in lower case.

    Raises:
        SpecError: no such model; the nearest names are offered.
    """
    alias = _known(name)
    if alias is None:
        raise unknown("model", name, [*ALIASES, *SYNONYMS])
    return alias


def model_shape(name: str) -> tuple[str, ModelShape]:
    """What to call the model `name`, and its shape.

    Args:
        name: alias, hub id of an alias, or a local folder with a `config.json`. An alias wins over a folder of
            the same name, which can be written `./name`.

    Raises:
        SpecError: neither of these, or a config of a kind that is not supported.
        DataError: a config that cannot be read.
    """
    alias = _known(name)
    if alias is not None:
        return alias, ALIASES[alias].shape
    folder = Path(name)
    if not folder.is_dir():
        if name.startswith((".", "/")):
            raise SpecError(f"{name}: no such folder")
        raise unknown("model", name, [*ALIASES, *SYNONYMS])
    path = folder / "config.json"
    if not path.is_file():
        raise SpecError(f"{folder}: no model folder, it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{path}: not a JSON object")
    return str(folder), shape_from_config(config, str(path))


def check_trainable(alias: str) -> None:
    """Whether runs of this alias can be made.

    Raises:
        SpecError: only `capacity plan` knows it.
    """
    if ALIASES[alias].source != "embedded":
        trainable = ", ".join(a for a, entry in ALIASES.items() if entry.source == "embedded")
        raise SpecError(f"model {alias} can be planned (capacity plan) but not trained yet: train {trainable}")
