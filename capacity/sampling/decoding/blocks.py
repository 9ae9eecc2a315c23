"""Decodes models of Qwen2's and Llama's kind without their modules: fewer, larger products, and a cache in place.

Queries, keys and values come from one product, gate and up from another, each with the adapter's A among its rows.
Shapes: B sequences, H heads, K heads of keys and values, D numbers a head, L tokens so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from capacity.adapters.kinds.low_rank import NAME
from capacity.adapters.lanes import Pairs
from capacity.adapters.linears import inner_linear
from capacity.adapters.model import AdaptedModel
from capacity.forward.rollout import positions

_MODELS = (Qwen2ForCausalLM, LlamaForCausalLM, Qwen3ForCausalLM)
_FIXED_ROPES = ("default", "linear", "llama3", "yarn")  # whose frequencies do not depend on the length
_LARGEST = 2 * 1024**3  # bytes of weights that are copied into stacked products


@dataclass(frozen=True)
class Product:
    """Several linears of one input in one product, with the low-rank updates of any of them.

    One run's A's stand among the rows of the weight, so that one product serves both. Several runs have theirs apart.

    Attributes:
        weight: the weights, one below the other, then the A's of a single run, (Σd + Σr, k).
        bias: of shape (Σd + Σr,), zero for the A's; None if no linear has one.
        downs: the A's of each of several runs, one below the other, (Σr, k); empty for a single run.
        ups: the B's of each run, transposed, as a block-diagonal matrix (Σr, Σd); None without an update.
        side: Σd.
    """

    weight: Tensor
    bias: Tensor | None
    downs: tuple[Tensor | None, ...]
    ups: tuple[Tensor | None, ...]
    side: int

    @classmethod
    def of(cls, linears: Sequence[tuple[str, Any]], updates: Sequence[Pairs]) -> "Product":
        """Stacks linears, given with their names in the bare model, and the updates of each run."""
        weights = [linear.weight for _, linear in linears]
        names = [name for name, _ in linears]
        halves = [_stacked([pairs.get(name) for name in names], weights) for pairs in updates]
        within = [down for down, _ in halves if down is not None] if len(updates) == 1 else []
        bias = None
        if any(linear.bias is not None for _, linear in linears):
            own = [
                w.new_zeros(len(w)) if linear.bias is None else linear.bias
                for w, (_, linear) in zip(weights, linears, strict=True)
            ]
            bias = torch.cat([*own, *(down.new_zeros(len(down)) for down in within)])
        parts = [*weights, *within]
        return cls(
            torch.cat(parts) if len(parts) > 1 else parts[0],
            bias,
            () if len(updates) == 1 else tuple(down for down, _ in halves),
            tuple(up for _, up in halves),
            sum(len(w) for w in weights),
        )

    def __call__(self, x: Tensor, rows: Sequence[slice]) -> Tensor:
        """x (n, k) → (n, Σd), where the rows of each run stand in a slice of their own."""
        y = F.linear(x, self.weight, self.bias)
        if not self.downs:
            (up,) = self.ups
            return y if up is None else torch.addmm(y[:, : self.side], y[:, self.side :], up)
        for run, down, up in zip(rows, self.downs, self.ups, strict=True):
            if down is not None and up is not None:
                y[run].addmm_(F.linear(x[run], down), up)
        return y


def _stacked(
    pairs: Sequence[tuple[Tensor, Tensor] | None], weights: Sequence[Tensor]
) -> tuple[Tensor | None, Tensor | None]:
    """The A's of some linears one below the other, and their B's, transposed, in a block-diagonal matrix."""
    downs = [pair[0].to(weights[0]) for pair in pairs if pair is not None]
    if not downs:
        return None, None
    ups = [w.new_zeros(0, len(w)) if p is None else p[1].to(w).T for p, w in zip(pairs, weights, strict=True)]
    up: Tensor = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    return torch.cat(downs), up


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
    if type(bare) not in _MODELS or any(m._forward_hooks or m._forward_pre_hooks for m in bare.modules()):
        return False
    tuned = {name: module for name, module in bare.named_modules() if isinstance(module, BaseTunerLayer)}
    if tuned.keys() != {shape.name for shape in adapted.shapes}:
        return False
    linears = [inner_linear(m) for m in bare.modules() if isinstance(m, nn.Linear | BaseTunerLayer)]
    others = any(layer.merged or layer.active_adapters != [NAME] for layer in tuned.values())
    if others or any(type(linear) is not nn.Linear for linear in linears):
        return False
    config: Any = bare.config
    rope = getattr(config, "rope_parameters", None) or {}
    plain = (
        config.hidden_act == "silu"
        and rope.get("rope_type", "default") in _FIXED_ROPES
        and not any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())
    )
    weights = list(bare.parameters())
    return plain and all(w.dtype == torch.float32 for w in weights) and sum(4 * w.numel() for w in weights) <= _LARGEST


class BlockDecoder:
    """A decoder for models that `takes` accepts. It copies the weights when it is made, as they are then.

    Args:
        model: the bare model. It may have adapters around its modules, which do not count.
        updates: the update of each run, one for a single run.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, updates: Sequence[Pairs]) -> None:
        bare: Any = model
        self.config = bare.config
        self.body, self.head = bare.model, bare.lm_head
        self.heads, self.kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        self.size = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.heads
        self.blocks = [_block(layer, f"model.layers.{i}", updates) for i, layer in enumerate(self.body.layers)]
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.filled = 0
        self.run = torch.empty(0)
        self.runs = len(updates)
        self.ends: list[int] = []
        self.position = self.cos = self.sin = torch.empty(0)
        self.unseen: Tensor | None = None

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor, run_of: Tensor, row_of: Tensor, longest: int) -> Tensor:
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
        self._of_runs(run_of)
        rows = self._rows(width)
        for block in self.blocks:
            q, k, v = self._heads(block, x, turn, rows)
            q, k, v = (t.view(groups, width, -1, self.size).transpose(1, 2) for t in (q, k, v))
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=self.heads != self.kv_heads)
            for cache, t in ((self.keys, k), (self.values, v)):
                room = t.new_empty(len(row_of), self.kv_heads, capacity, self.size)
                room[:, :, :width] = t[row_of]
                cache.append(room)
            x = self._after_attention(block, x, found.transpose(1, 2).reshape(groups * width, -1), rows)
        self.filled = width
        self._of_runs(run_of[row_of])
        self.position = position[row_of, -1]
        padded = not bool(prompt_mask.all())
        self.unseen = (1 - prompt_mask[row_of]).bool()[:, None, None] if padded else None
        last = x.view(groups, width, -1)[:, -1]
        return self._logits(last)[row_of]

    def step(self, tokens: Tensor) -> Tensor:
        """Appends a token to each sequence. See `Decoder`."""
        count, at, rows = len(tokens), self.filled, self._rows(1)
        self.filled += 1
        self.position = self.position + 1
        turn = (self.cos[self.position][:, None], self.sin[self.position][:, None])
        x = self.body.embed_tokens(tokens)
        for block, keys, values in zip(self.blocks, self.keys, self.values, strict=True):
            q, k, v = self._heads(block, x, turn, rows)
            keys[:, :, at], values[:, :, at] = k, v
            q = q.reshape(count * self.kv_heads, -1, self.size)
            k, v = (t[:, :, : at + 1].flatten(0, 1) for t in (keys, values))
            scores = torch.bmm(q, k.transpose(1, 2))
            if self.unseen is not None:
                width = self.unseen.shape[-1]
                grouped = scores.view(count, self.kv_heads, -1, at + 1)
                grouped[..., :width].masked_fill_(self.unseen, float("-inf"))
            found = torch.bmm(scores.mul_(self.size**-0.5).softmax(-1), v)
            x = self._after_attention(block, x, found.view(count, -1), rows)
        return self._logits(x)

    def keep(self, rows: Tensor) -> None:
        """Keeps some sequences. See `Decoder`."""
        count = len(rows)
        for cache in (self.keys, self.values):
            for i, room in enumerate(cache):
                room[:count, :, : self.filled] = room[rows, :, : self.filled]
                cache[i] = room[:count]
        self.position = self.position[rows]
        self._of_runs(self.run[rows])
        if self.unseen is not None:
            self.unseen = self.unseen[rows]

    def _of_runs(self, run: Tensor) -> None:
        """Remembers the run of each sequence, (B,), and where the sequences of each run end."""
        self.run = run
        self.ends = [] if self.runs == 1 else torch.bincount(run, minlength=self.runs).cumsum(0).tolist()

    def _rows(self, width: int) -> list[slice]:
        """The rows of each run, `width` for each of its sequences; none for a single run."""
        return [slice(start * width, stop * width) for start, stop in pairwise([0, *self.ends])]

    def _heads(
        self, block: _Block, x: Tensor, turn: tuple[Tensor, ...], rows: Sequence[slice]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (n, H, D), and keys and values (n, K, D), of hidden states (n, hidden), turned by their positions."""
        all_heads = block.heads_in(block.before_attention(x), rows).view(len(x), -1, self.size)
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

    def _after_attention(self, block: _Block, x: Tensor, attended: Tensor, rows: Sequence[slice]) -> Tensor:
        """The hidden states that a block gives on, (n, hidden)."""
        x = x + block.heads_out(attended, rows)
        gate, up = block.gate_up(block.before_mlp(x), rows).chunk(2, 1)
        return x + block.down(F.silu(gate) * up, rows)

    def _logits(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body.norm(x))
        return found


def _block(layer: Any, name: str, updates: Sequence[Pairs]) -> _Block:
    attention, mlp = layer.self_attn, layer.mlp

    def product(parent: nn.Module, where: str, *names: str) -> Product:
        linears = [(f"{name}.{where}.{n}", inner_linear(getattr(parent, n))) for n in names]
        return Product.of(linears, updates)

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
