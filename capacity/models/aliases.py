"""Short names of models: what they stand for on the hub and their shapes. No torch, no network."""

from dataclasses import dataclass

from capacity.errors import SpecError, unknown
from capacity.models.shapes import ModelShape


@dataclass(frozen=True)
class Alias:
    """`source`: hub id, or "embedded" for a model shipped in the package."""

    source: str
    shape: ModelShape


def _qwen2(h: int, i: int, layers: int, heads: int, kv: int, vocabulary: int, *, tied: bool) -> ModelShape:
    return ModelShape("qwen2", h, i, layers, heads, kv, 64 if h == 896 else 128, vocabulary, tied, qkv_bias=True)


# Shapes: the config.json of each hub repository.
ALIASES: dict[str, Alias] = {
    "abacus-0.9m": Alias("embedded", ModelShape("abacus", 128, 384, 4, 4, 4, 32, 40, tied=True, qkv_bias=True)),
    "smollm2-135m": Alias(
        "HuggingFaceTB/SmolLM2-135M-Instruct", ModelShape("llama", 576, 1536, 30, 9, 3, 64, 49152, tied=True)
    ),
    "qwen2.5-0.5b": Alias("Qwen/Qwen2.5-0.5B-Instruct", _qwen2(896, 4864, 24, 14, 2, 151936, tied=True)),
    "qwen2.5-1.5b": Alias("Qwen/Qwen2.5-1.5B-Instruct", _qwen2(1536, 8960, 28, 12, 2, 151936, tied=True)),
    "qwen2.5-3b": Alias("Qwen/Qwen2.5-3B-Instruct", _qwen2(2048, 11008, 36, 16, 2, 151936, tied=True)),
    "qwen2.5-7b": Alias("Qwen/Qwen2.5-7B-Instruct", _qwen2(3584, 18944, 28, 28, 4, 152064, tied=False)),
    "qwen2.5-math-7b": Alias("Qwen/Qwen2.5-Math-7B", _qwen2(3584, 18944, 28, 28, 4, 152064, tied=False)),
    "qwen3-8b": Alias(
        "Qwen/Qwen3-8B", ModelShape("qwen3", 4096, 12288, 36, 32, 8, 128, 151936, tied=False, qk_norm=True)
    ),
    "llama-3.2-1b": Alias(
        "meta-llama/Llama-3.2-1B-Instruct", ModelShape("llama", 2048, 8192, 16, 32, 8, 64, 128256, tied=True)
    ),
    "llama-3.2-3b": Alias(
        "meta-llama/Llama-3.2-3B-Instruct", ModelShape("llama", 3072, 8192, 28, 24, 8, 128, 128256, tied=True)
    ),
    "llama-3.1-8b": Alias(
        "meta-llama/Llama-3.1-8B-Instruct",
        ModelShape("llama", 4096, 14336, 32, 32, 8, 128, 128256, tied=False),
    ),
}
# "abacus" alone means the one that `capacity compare` uses by default.
SYNONYMS: dict[str, str] = {"abacus": "abacus-0.9m"}


def resolve(name: str) -> str:
    """The alias that `name` means, in lower case.

    Raises:
        SpecError: no such model; the nearest names are offered.
    """
    lowered = name.lower()
    lowered = SYNONYMS.get(lowered, lowered)
    by_source = {alias.source.lower(): key for key, alias in ALIASES.items() if alias.source != "embedded"}
    lowered = by_source.get(lowered, lowered)
    if lowered not in ALIASES:
        raise unknown("model", name, [*ALIASES, *SYNONYMS])
    return lowered


def check_trainable(alias: str) -> None:
    """Whether runs of this alias can be made.

    Raises:
        SpecError: only `capacity plan` knows it.
    """
    if ALIASES[alias].source != "embedded":
        trainable = ", ".join(a for a, entry in ALIASES.items() if entry.source == "embedded")
        raise SpecError(f"model {alias} can be planned (capacity plan) but not trained yet: train {trainable}")
