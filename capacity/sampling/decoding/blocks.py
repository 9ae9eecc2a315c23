"""Decodes models of Qwen2's and Llama's kind without their modules: fewer, larger products, and a cache in place.

Queries, keys and values come from one product, gate and up from another, each with the adapter's A among its rows.
Shapes: B sequences, H heads, K heads of keys and values, D numbers a head, L tokens so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from capacity.adapters.linears import inner_linear
from capacity.adapters.model import AdaptedModel
from capacity.forward.rollout import positions

_FAMILIES = ("qwen2", "llama", "qwen3")
_FIXED_ROPES = ("default", "linear", "llama3", "yarn")  # whose frequencies do not depend on the length
_LARGEST = 2 * 1024**3  # bytes of weights that are copied into stacked products

Pairs = dict[str, tuple[Tensor, Tensor]]  # A (r, k) and B (d, r) of adapted modules, by name


@dataclass(frozen=True)
class Product:
    """Several linears of one input in one product, with the low-rank updates of any of them.

    Attributes:
        weight: the weights and then the A's, one below the other, (Σd + Σr, k).
        bias: of shape (Σd + Σr,), zero for the A's; None if no linear has one.
        up: the B's, transposed, as a block-diagonal matrix (Σr, Σd); None without updates.
        sides: the d of each linear.
    """

    weight: Tensor
    bias: Tensor | None
    up: Tensor | None
    sides: tuple[int, ...]

    @classmethod
    def of(cls, linears: Sequence[tuple[str, Any]], pairs: Pairs) -> "Product":
        """Stacks linears, given with their names in the bare model."""
        weights = [linear.weight for _, linear in linears]
        sides = tuple(len(w) for w in weights)
        found = [pairs.get(name) for name, _ in linears]
        downs = [pair[0].to(weights[0]) for pair in found if pair is not None]
        up = None
        if downs:
            ups = [
                w.new_zeros(0, d) if pair is None else pair[1].to(w).T
                for w, d, pair in zip(weights, sides, found, strict=True)
            ]
            up = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
        bias = None
        if any(linear.bias is not None for _, linear in linears):
            parts = [
                w.new_zeros(len(w)) if linear.bias is None else linear.bias
                for w, (_, linear) in zip(weights, linears, strict=True)
            ]
            bias = torch.cat([*parts, *(d.new_zeros(len(d)) for d in downs)])
        weight = torch.cat([*weights, *downs]) if len(weights) + len(downs) > 1 else weights[0]
        return cls(weight, bias, up, sides)

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, k) → (n, Σd)."""
        y = F.linear(x, self.weight, self.bias)
        if self.up is None:
            return y
        d = sum(self.sides)
        return torch.addmm(y[:, :d], y[:, d:], self.up)


@dataclass(frozen=True)
class _Block:
    """One block of a model: its norms and its four products."""

    before_attention: Any
    before_mlp: Any
    heads_in: Product
    heads_out: Product
    gate_up: Product
    down: Product
    query_norm: Any
    key_norm: Any


def takes(adapted: AdaptedModel) -> bool:
    """Tells whether a model with its update can be decoded here."""
    bare: Any = adapted.bare
    if not isinstance(bare, PreTrainedModel) or any(m._forward_hooks or m._forward_pre_hooks for m in bare.modules()):
        return False
    tuned = {name for name, module in bare.named_modules() if isinstance(module, BaseTunerLayer)}
    if tuned != {shape.name for shape in adapted.shapes}:
        return False
    config: Any = bare.config
    rope = getattr(config, "rope_parameters", None) or {}
    plain = (
        config.model_type in _FAMILIES
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in _FIXED_ROPES
        and not any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())
    )
    weights = list(bare.parameters())
    return plain and all(w.dtype == torch.float32 for w in weights) and sum(4 * w.numel() for w in weights) <= _LARGEST


class BlockDecoder:
    """A decoder for models that `takes` accepts. It copies the weights when it is made, as they are then.

    Args:
        adapted: the model with its update, which counts unless it is switched off.
    """

    @torch.no_grad()
    def __init__(self, adapted: AdaptedModel) -> None:
        bare: Any = adapted.bare
        self.config = bare.config
        self.body, self.head = bare.model, bare.lm_head
        pairs = {} if adapted.is_off else {shape.name: (a, b) for shape, a, b in adapted.pairs()}
        self.heads, self.kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        self.size = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.heads
        self.blocks = [_block(layer, f"model.layers.{i}", pairs) for i, layer in enumerate(self.body.layers)]
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.filled = 0
        self.position = self.cos = self.sin = torch.empty(0)
        self.unseen: Tensor | None = None

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor, row_of: Tensor, longest: int) -> Tensor:
        """Reads each prompt once. See `Decoder`."""
        groups, width = prompt_ids.shape
        self.keys, self.values = [], []
        capacity = width + longest
        x = self.body.embed_tokens(prompt_ids.reshape(-1))
        cos, sin = self.body.rotary_emb(x[None], torch.arange(capacity, device=x.device)[None])
        self.cos, self.sin = cos[0], sin[0]
        position = positions(prompt_mask)
        turn = tuple(t[position.reshape(-1)][:, None] for t in (self.cos, self.sin))
        seen = torch.ones(width, width, dtype=torch.bool, device=x.device).tril() & prompt_mask.bool()[:, None, :]
        # A padding token sees nothing, which softmax cannot take: it looks at itself, and nobody looks at it.
        seen = (seen | torch.eye(width, dtype=torch.bool, device=x.device))[:, None]
        for block in self.blocks:
            q, k, v = self._heads(block, x, turn)
            q, k, v = (t.view(groups, width, -1, self.size).transpose(1, 2) for t in (q, k, v))
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=self.heads != self.kv_heads)
            for cache, t in ((self.keys, k), (self.values, v)):
                room = t.new_empty(len(row_of), self.kv_heads, capacity, self.size)
                room[:, :, :width] = t[row_of]
                cache.append(room)
            x = self._after_attention(block, x, found.transpose(1, 2).reshape(groups * width, -1))
        self.filled = width
        self.position = position[row_of, -1]
        padded = not bool(prompt_mask.all())
        self.unseen = (1 - prompt_mask[row_of]).bool()[:, None, None] if padded else None
        last = x.view(groups, width, -1)[:, -1]
        return self._logits(last)[row_of]

    def step(self, tokens: Tensor) -> Tensor:
        """Appends a token to each sequence. See `Decoder`."""
        rows, at = len(tokens), self.filled
        self.filled += 1
        self.position = self.position + 1
        turn = (self.cos[self.position][:, None], self.sin[self.position][:, None])
        x = self.body.embed_tokens(tokens)
        for block, keys, values in zip(self.blocks, self.keys, self.values, strict=True):
            q, k, v = self._heads(block, x, turn)
            keys[:, :, at], values[:, :, at] = k, v
            q = q.reshape(rows * self.kv_heads, -1, self.size)
            k, v = (t[:, :, : at + 1].flatten(0, 1) for t in (keys, values))
            scores = torch.bmm(q, k.transpose(1, 2))
            if self.unseen is not None:
                width = self.unseen.shape[-1]
                grouped = scores.view(rows, self.kv_heads, -1, at + 1)
                grouped[..., :width].masked_fill_(self.unseen, float("-inf"))
            found = torch.bmm(scores.mul_(self.size**-0.5).softmax(-1), v)
            x = self._after_attention(block, x, found.view(rows, -1))
        return self._logits(x)

    def keep(self, rows: Tensor) -> None:
        """Keeps some sequences. See `Decoder`."""
        count = len(rows)
        for cache in (self.keys, self.values):
            for i, room in enumerate(cache):
                room[:count, :, : self.filled] = room[rows, :, : self.filled]
                cache[i] = room[:count]
        self.position = self.position[rows]
        if self.unseen is not None:
            self.unseen = self.unseen[rows]

    def _heads(self, block: _Block, x: Tensor, turn: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (n, H, D), and keys and values (n, K, D), of hidden states (n, hidden), turned by their positions."""
        all_heads = block.heads_in(block.before_attention(x)).view(len(x), -1, self.size)
        q, k, v = torch.split(all_heads, [self.heads, self.kv_heads, self.kv_heads], 1)
        if block.query_norm is not None:
            q, k = block.query_norm(q), block.key_norm(k)
            both = torch.cat([q, k], 1)
        else:
            both = all_heads[:, : self.heads + self.kv_heads]
        cos, sin = turn
        half = self.size // 2
        turned = torch.cat([-both[..., half:], both[..., :half]], -1)
        q, k = torch.split(torch.addcmul(both * cos, turned, sin), [self.heads, self.kv_heads], 1)
        return q, k, v

    def _after_attention(self, block: _Block, x: Tensor, attended: Tensor) -> Tensor:
        """The hidden states that a block gives on, (n, hidden)."""
        x = x + block.heads_out(attended)
        gate, up = block.gate_up(block.before_mlp(x)).chunk(2, 1)
        return x + block.down(F.silu(gate) * up)

    def _logits(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body.norm(x))
        return found


def _block(layer: Any, name: str, pairs: Pairs) -> _Block:
    attention, mlp = layer.self_attn, layer.mlp

    def product(parent: nn.Module, where: str, *names: str) -> Product:
        linears = [(f"{name}.{where}.{n}", inner_linear(getattr(parent, n))) for n in names]
        return Product.of(linears, pairs)

    return _Block(
        layer.input_layernorm,
        layer.post_attention_layernorm,
        product(attention, "self_attn", "q_proj", "k_proj", "v_proj"),
        product(attention, "self_attn", "o_proj"),
        product(mlp, "mlp", "gate_proj", "up_proj"),
        product(mlp, "mlp", "down_proj"),
        getattr(attention, "q_norm", None),
        getattr(attention, "k_norm", None),
    )
