"""Short names of models, what they stand for on the hub, and their shapes. No torch, and for aliases no network."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from capacity.errors import DataError, SpecError, unknown
from capacity.plan.model_names import ModelName, parse_model
from capacity.plan.model_shapes import ModelShape, shape_from_config


@dataclass(frozen=True)
class Alias:
    """What a short name stands for.

    Attributes:
        source: hub id, or "embedded" for a model shipped in the package.
        shape: shape of the model.
    """

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
    context: int,
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
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
    }
    return shape_from_config(config, "alias")


# Shapes: the config.json of each hub repository.
ALIASES: dict[str, Alias] = {
    "abacus-0.2m": Alias(
        "embedded", replace(_shape("qwen2", 64, 192, 4, 2, 2, 32, 57, 64, tied=True), family="abacus")
    ),
    "abacus-0.9m": Alias(
        "embedded", replace(_shape("qwen2", 128, 384, 4, 4, 4, 32, 57, 64, tied=True), family="abacus")
    ),
    "abacus-3m": Alias("embedded", replace(_shape("qwen2", 256, 640, 4, 8, 8, 32, 57, 64, tied=True), family="abacus")),
    "smollm2-135m": Alias(
        "HuggingFaceTB/SmolLM2-135M-Instruct", _shape("llama", 576, 1536, 30, 9, 3, 64, 49152, 8192, tied=True)
    ),
    "qwen2.5-0.5b": Alias(
        "Qwen/Qwen2.5-0.5B-Instruct", _shape("qwen2", 896, 4864, 24, 14, 2, 64, 151936, 32768, tied=True)
    ),
    "qwen2.5-1.5b": Alias(
        "Qwen/Qwen2.5-1.5B-Instruct", _shape("qwen2", 1536, 8960, 28, 12, 2, 128, 151936, 32768, tied=True)
    ),
    "qwen2.5-3b": Alias(
        "Qwen/Qwen2.5-3B-Instruct", _shape("qwen2", 2048, 11008, 36, 16, 2, 128, 151936, 32768, tied=True)
    ),
    "qwen2.5-7b": Alias(
        "Qwen/Qwen2.5-7B-Instruct", _shape("qwen2", 3584, 18944, 28, 28, 4, 128, 152064, 32768, tied=False)
    ),
    "qwen2.5-math-7b": Alias(
        "Qwen/Qwen2.5-Math-7B", _shape("qwen2", 3584, 18944, 28, 28, 4, 128, 152064, 4096, tied=False)
    ),
    "qwen3-8b": Alias("Qwen/Qwen3-8B", _shape("qwen3", 4096, 12288, 36, 32, 8, 128, 151936, 40960, tied=False)),
    "llama-3.2-1b": Alias(
        "meta-llama/Llama-3.2-1B-Instruct", _shape("llama", 2048, 8192, 16, 32, 8, 64, 128256, 131072, tied=True)
    ),
    "llama-3.2-3b": Alias(
        "meta-llama/Llama-3.2-3B-Instruct", _shape("llama", 3072, 8192, 28, 24, 8, 128, 128256, 131072, tied=True)
    ),
    "llama-3.1-8b": Alias(
        "meta-llama/Llama-3.1-8B-Instruct", _shape("llama", 4096, 14336, 32, 32, 8, 128, 128256, 131072, tied=False)
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
    """Returns the name under which runs of a model are kept. It is the alias in lower case, or the hub id, folder or
    GGUF file as given. Options that are not at their defaults follow.

    Raises:
        SpecError: the name is no alias and has not the form of the others; the nearest aliases are offered.
    """
    parsed = parse_model(name)
    alias = _known(parsed.base)
    if alias is None and not (parsed.is_gguf or parsed.may_be_hub_id or Path(parsed.base).is_dir()):
        raise _unknown(parsed)
    return str(replace(parsed, base=alias or parsed.base))


def _unknown(name: ModelName) -> SpecError:
    if name.base.startswith((".", "/", "~")):
        return SpecError(f"{name.base}: no such folder")
    return unknown("model", name.base, [*ALIASES, *SYNONYMS])


def model_shape(name: str) -> tuple[str, ModelShape]:
    """What to call the model `name`, without its options, and its shape.

    Args:
        name: alias, hub id, local folder with a `config.json`, or GGUF file, with or without options. An alias wins
            over a folder of the same name, which can be written `./name`, and a folder over a hub id. Only the config
            of a hub id that is no alias may have to be fetched.

    Raises:
        SpecError: the name is none of these, or the config is of a kind that is not supported.
        DataError: the config cannot be read, or cannot be fetched.
    """
    parsed = parse_model(name)
    alias = _known(parsed.base)
    if alias is not None:
        return alias, ALIASES[alias].shape
    if parsed.is_gguf:
        from capacity.plan.gguf_header import gguf_config

        return parsed.base, shape_from_config(gguf_config(Path(parsed.base)), parsed.base)
    folder = Path(parsed.base)
    if not folder.is_dir():
        if not parsed.may_be_hub_id:
            raise _unknown(parsed)
        from capacity.plan.hub_config import hub_config

        return parsed.base, shape_from_config(hub_config(parsed.base, parsed.revision), parsed.base)
    path = folder / "config.json"
    if not path.is_file():
        raise SpecError(f"{folder}: no model folder, it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{path}: not a JSON object")
    return str(folder), shape_from_config(config, str(path))


def check_trainable(name: str) -> None:
    """Checks that runs of this model can be made at all. Whether its weights are there is known when it is loaded.

    Raises:
        SpecError: the options of the name do not go together with the model.
    """
    parsed = parse_model(name)
    alias = _known(parsed.base)
    embedded = alias is not None and ALIASES[alias].source == "embedded"
    if parsed.quantised is not None and embedded:
        raise SpecError(f"model {name}: the embedded models are too small to quantise: leave out quantised=")
    if parsed.revision is not None and (embedded or alias == "smollm2-135m" or not _from_hub(parsed, alias)):
        raise SpecError(f"model {name}: revision= belongs to models of the hub")


def _from_hub(name: ModelName, alias: str | None) -> bool:
    return alias is not None or (not name.is_gguf and not Path(name.base).is_dir())
