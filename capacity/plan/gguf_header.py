"""Reads the shape of a model in a GGUF file from the file's header alone. No torch."""

from pathlib import Path
from typing import Any

from capacity.errors import CapacityError, DataError, MissingPathError

# GGUF architecture → model type in transformers, for those whose header says all that the shape needs.
_ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def gguf_config(path: Path) -> dict[str, Any]:
    """What a config.json of the model would say about its shape.

    Raises:
        DataError: there is no such file, it is not GGUF, or of an architecture that is not read here.
        CapacityError: the package gguf is not installed.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such file")
    try:
        from gguf import GGUFReader
    except ImportError:
        raise CapacityError(f"{path}: reading GGUF needs a package: pip install gguf") from None
    try:
        reader = GGUFReader(path)
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise DataError(f"{path}: not a GGUF file: {error}") from None
    values = {name: field.contents() for name, field in reader.fields.items() if name != "tokenizer.ggml.merges"}
    kind = str(values.get("general.architecture"))
    if kind not in _ARCHITECTURES:
        raise DataError(f"{path}: architecture {kind} is not read from GGUF here; {', '.join(_ARCHITECTURES)} are")

    def value(name: str, default: Any = None) -> Any:
        found = values.get(f"{kind}.{name}", default)
        if found is None:
            raise DataError(f"{path}: its header has no {kind}.{name}")
        return found

    heads = value("attention.head_count")
    tensors = {tensor.name for tensor in reader.tensors}
    return {
        "model_type": _ARCHITECTURES[kind],
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", value("embedding_length") // heads),
        "vocab_size": len(values["tokenizer.ggml.tokens"]),
        "max_position_embeddings": value("context_length"),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
