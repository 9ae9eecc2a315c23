"""Shapes of decoder-only transformers, from which adapted modules and parameter counts follow without weights."""

from dataclasses import dataclass

from capacity.adapters.budget import ModuleShape


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a Qwen2-, Qwen3- or Llama-like decoder with separate q/k/v and gate/up projections.

    `qkv_bias`: biases on q, k and v (Qwen2). `qk_norm`: RMS norms on each head's q and k (Qwen3).
    `tied`: output embedding shares the input embedding.
    """

    family: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    def adapted_modules(self) -> tuple[ModuleShape, ...]:
        """The linear modules of all blocks ordered by depth; embeddings and output head are not adapted."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        block = (
            ("self_attn.q_proj", q, self.hidden),
            ("self_attn.k_proj", kv, self.hidden),
            ("self_attn.v_proj", kv, self.hidden),
            ("self_attn.o_proj", self.hidden, q),
            ("mlp.gate_proj", self.intermediate, self.hidden),
            ("mlp.up_proj", self.intermediate, self.hidden),
            ("mlp.down_proj", self.hidden, self.intermediate),
        )
        return tuple(
            ModuleShape(f"model.layers.{layer}.{name}", d, k) for layer in range(self.layers) for name, d, k in block
        )

    @property
    def parameters(self) -> int:
        """Parameters of the whole model, tied embeddings counted once."""
        linear = sum(m.d * m.k for m in self.adapted_modules())
        per_block = 2 * self.hidden
        if self.qkv_bias:
            per_block += (self.heads + 2 * self.kv_heads) * self.head_dim
        if self.qk_norm:
            per_block += 2 * self.head_dim
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return linear + self.layers * per_block + self.hidden + embeddings
