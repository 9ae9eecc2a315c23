"""Tiny random models of the architectures that users bring, with a gap between their leading singular values."""

from typing import Any

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from capacity.spec.adapters import Adapter, BitFit, FullUpdate, Lora, LoraXs, TinyLora, UniLora, VbLora, Vera

_COMMON = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GPT2 = {
    "vocab_size": 61,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2Config", _COMMON),
    "qwen3": ("Qwen3Config", {**_COMMON, "head_dim": 16}),
    "llama": ("LlamaConfig", _COMMON),
    "gemma": ("GemmaConfig", {**_COMMON, "head_dim": 16}),
    "gemma2": ("Gemma2Config", {**_COMMON, "head_dim": 16}),
    "gemma3_text": ("Gemma3TextConfig", {**_COMMON, "head_dim": 16}),
    "mistral": ("MistralConfig", _COMMON),
    "smollm3": ("SmolLM3Config", _COMMON),
    "phi": ("PhiConfig", _COMMON),
    "phi3": ("Phi3Config", _COMMON),
    "gpt2": ("GPT2Config", _GPT2),
    "mixtral": ("MixtralConfig", {**_COMMON, "num_local_experts": 4, "head_dim": 12}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_COMMON, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
    ),
}
MIXTURES = ("mixtral", "qwen3_moe")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
IDS = torch.tensor([[1, 4, 5, 13, 6, 7, 40, 8, 9, 13, 60, 11, 14, 18], [0, 0, 1, 4, 5, 13, 6, 7, 33, 8, 9, 13, 3, 4]])
MASK = (IDS != 0).long()


def tiny(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A random model of this architecture whose linears have well separated leading singular values.

    `changes` are settings of its config beside the usual ones.
    """
    kind, settings = CONFIGS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**{**settings, **changes}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | Conv1D):
                weight = module.weight
                d, k = weight.shape
                u, v = (torch.linalg.qr(torch.randn(n, 8, generator=generator)).Q for n in (d, k))
                weight.copy_(0.05 * torch.randn(d, k, generator=generator) + u * 1.5 * 0.8 ** torch.arange(8.0) @ v.T)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype).eval()


def logits(model: nn.Module) -> torch.Tensor:
    """Logits of two padded sequences, (2, T, V), where a token is real."""
    with torch.no_grad():
        out = model(input_ids=IDS, attention_mask=MASK).logits.float()
    return out[MASK.bool()]


def adapters(targets: tuple[str, ...] | None = None) -> dict[str, Adapter]:
    """One spec of every kind of adapter that sits on linear modules."""
    return {
        "tinylora": TinyLora(groups=3, u=2, projection_seed=5, targets=targets),
        "tinylora-split": TinyLora(
            groups=8, u=1, sharing="structured", scaling="split", projection_seed=5, targets=targets
        ),
        "lora-xs": LoraXs(rank=3, targets=targets),
        "lora": Lora(rank=2, init_seed=5, targets=targets),
        "vera": Vera(rank=6, projection_seed=5, targets=targets),
        "vb-lora": VbLora(rank=2, vectors=5, vector_length=8, init_seed=5, targets=targets),
        "uni-lora": UniLora(rank=2, length=50, projection_seed=5, targets=targets),
    }


WEIGHTS: dict[str, Adapter] = {"bitfit": BitFit(), "full": FullUpdate()}
