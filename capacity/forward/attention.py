"""Attention over packed tokens: by row, where completions look at their own tokens and at their shared prompt.

Linear layers, norms and MLPs never see padding. Attention alone works on rectangles, which are small beside them.
Shapes: H heads, N packed tokens, D numbers a head; the other letters are those of `capacity.forward.packing`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capacity.forward.packing import Packed, Ragged

NAME = "capacity-packed"  # of this attention among those of transformers
# Up to so many cells a row and head, scores are held whole: matrix products are fastest, and rows do not depend on how
# wide the others are. Longer rows go through torch's fused attention, which holds no scores.
_HELD = 128 * 256


class _Rearranged(torch.autograd.Function):
    """Takes entries along dimension 1, each of which has at most one taker that counts in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, takes: Tensor, taken_by: Tensor) -> Tensor:
        ctx.save_for_backward(taken_by)
        return x.index_select(1, takes)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (taken_by,) = ctx.saved_tensors
        return upstream[0].index_select(1, taken_by), None, None


def _rectangle(x: Tensor, ragged: Ragged) -> Tensor:
    """(H, tokens, D) → (H, rows, width, D). Cells behind the end of a row hold some token's numbers."""
    found: Tensor = _Rearranged.apply(x, ragged.source, ragged.cell)  # type: ignore[no-untyped-call]
    return found.view(x.shape[0], ragged.rows, ragged.width, x.shape[2])


class _Packing(torch.autograd.Function):
    """The tokens of a rectangle; its backward pass fills the cells without a token with zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cell: Tensor) -> Tensor:
        ctx.save_for_backward(cell)
        ctx.cells = x.shape[1]
        return x.index_select(1, cell)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (cell,) = ctx.saved_tensors
        (gradient,) = upstream
        whole = gradient.new_zeros(gradient.shape[0], ctx.cells, gradient.shape[2])
        return whole.index_copy_(1, cell, gradient), None


def _tokens(x: Tensor, ragged: Ragged) -> Tensor:
    """(H, rows, width, D) → (H, tokens, D)."""
    found: Tensor = _Packing.apply(x.reshape(x.shape[0], -1, x.shape[3]), ragged.cell)  # type: ignore[no-untyped-call]
    return found


class Sight:
    """Who sees whom among packed sequences: the masks of attention, made once for all layers of a pass.

    Args:
        packed: the sequences.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self._masks: dict[int | None, tuple[Tensor, Tensor]] = {}

    def masks(self, window: int | None) -> tuple[Tensor, Tensor]:
        """Returns the keys that are not seen: by prompts, (P, P), and by completions, (R, T, P + T).

        Args:
            window: a token sees only so many tokens, itself included; all earlier ones if None.
        """
        if window not in self._masks:
            self._masks[window] = self._made(window)
        return self._masks[window]

    def _made(self, window: int | None) -> tuple[Tensor, Tensor]:
        prompts, completions = self.packed.prompts, self.packed.completions
        device = prompts.lengths.device
        column, row = (torch.arange(n, device=device) for n in (prompts.width, completions.width))
        lengths = prompts.lengths.repeat_interleave(self.packed.k)[:, None, None]
        within_prompt = _unseen(column[:, None] - column, window)
        within_completion = _unseen(row[:, None] - row, window).expand(completions.rows, -1, -1)
        to_prompt = (column >= lengths) | _unseen(lengths + row[:, None] - column, window)
        return within_prompt, torch.cat([to_prompt, within_completion], 2)


def _unseen(distance: Tensor, window: int | None) -> Tensor:
    """Tells which keys a query does not see, by how far back they are: those that come later, or are too far away."""
    later = distance < 0
    return later if window is None else later | (distance >= window)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sight: Sight,
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Returns what each packed token attends to, of shape (H, N, D).

    Args:
        query: of shape (H, N, D).
        key, value: of shape (H, N, D), already repeated for grouped queries.
        sight: the sequences, and who sees whom.
        scaling: the factor of the scores.
        window: a token sees only so many tokens, itself included; all earlier ones if None.
        softcap: scores s become softcap · tanh(s / softcap); they stay as they are if None.
    """
    prompts, completions = sight.packed.prompts, sight.packed.completions
    sizes = [prompts.tokens, completions.tokens]
    of_prompts, of_completions = zip(*(torch.split(x, sizes, dim=1) for x in (query, key, value)), strict=True)
    within_prompt, from_completion = sight.masks(window)
    q, k, v = (_rectangle(x, prompts) for x in of_prompts)
    parts = [_tokens(_by_row(q, k, v, within_prompt, scaling, softcap), prompts)]
    if completions.tokens:
        q, k_own, v_own = (_rectangle(x, completions) for x in of_completions)
        parts.append(_tokens(_continued(q, k_own, v_own, k, v, from_completion, scaling, softcap), completions))
    return torch.cat(parts, 1)


def _by_row(q: Tensor, k: Tensor, v: Tensor, unseen: Tensor, scaling: float, softcap: float | None) -> Tensor:
    """Attention within rows: (H, rows, queries, D) and (H, rows, keys, D) → (H, rows, queries, D).

    Args:
        q, k, v: queries, keys and values.
        unseen: which keys a query does not see, broadcast to (H, rows, queries, keys).
        scaling, softcap: as in `attend`.
    """
    if softcap is None and (q.is_cuda or q.shape[2] * k.shape[2] > _HELD):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=~unseen, scale=scaling)
    return _weights(q @ k.transpose(-1, -2), unseen, scaling, softcap).to(v) @ v


def _weights(scores: Tensor, unseen: Tensor, scaling: float, softcap: float | None) -> Tensor:
    """Softmax over the seen keys, in fp32."""
    scores = scores.float() * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return scores.masked_fill(unseen, float("-inf")).softmax(-1)


def _continued(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_prompt: Tensor,
    v_prompt: Tensor,
    unseen: Tensor,
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """Attention of completions to their prompts and to themselves, (H, R, T, D).

    Args:
        q, k, v: of the completions, (H, R, T, D).
        k_prompt, v_prompt: of the prompts, (H, G, P, D).
        unseen: which keys a query does not see, (R, T, P + T).
        scaling, softcap: as in `attend`.
    """
    heads, rows, width, size = q.shape
    groups, prompt_width = k_prompt.shape[1:3]
    if softcap is None and (q.is_cuda or width * unseen.shape[2] > _HELD):
        keys, values = (
            torch.cat([shared.repeat_interleave(rows // groups, 1), own], 2)
            for shared, own in ((k_prompt, k), (v_prompt, v))
        )
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=~unseen, scale=scaling)
    # All samples of a prompt look at it in one product, so its keys are not repeated.
    together = q.reshape(heads, groups, -1, size)
    to_prompt = (together @ k_prompt.transpose(-1, -2)).view(heads, rows, width, prompt_width)
    weights = _weights(torch.cat([to_prompt, q @ k.transpose(-1, -2)], 3), unseen, scaling, softcap).to(v)
    on_prompt, on_own = torch.split(weights, [prompt_width, width], 3)
    from_prompt = on_prompt.reshape(heads, groups, -1, prompt_width) @ v_prompt
    return from_prompt.view(heads, rows, width, -1) + on_own @ v


def window_as_mask(local_size: int | None = None, **_: Any) -> Tensor | None:
    """Stands for a mask of transformers, which a model hands on to `packed_attention`: the window alone, or nothing.

    Args:
        local_size: the number of tokens that a layer sees, or the size of its chunks; all earlier tokens if None.
    """
    return None if local_size is None else torch.tensor(local_size)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed: Sequence[Sight] | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers' models call, by its `AttentionInterface`.

    Args:
        module: the attention module.
        query: of shape (1, H, N, D).
        key, value: of shape (1, KV heads, N, D).
        attention_mask: what `window_as_mask` gives. Some models tell their window to the mask alone.
        scaling: the factor of the scores; 1/√D if None.
        dropout: none, since the model is in evaluation mode.
        sliding_window, softcap: of the layer, if it has any.
        packed: the sequences of one or several runs, which stand one after the other among the N tokens. The model's
            forward pass hands them on.
        others: what else a model hands on.

    Returns:
        The result of shape (1, N, H, D), and no weights.

    Raises:
        NotImplementedError: if the model does not hand on the sequences, or its attention has parts that are not
            known here.
    """
    masked = None if attention_mask is None else int(attention_mask)
    unknown = others.get("s_aux") is not None or others.get("position_bias") is not None
    if packed is None or unknown or masked != (sliding_window or None):
        raise NotImplementedError(f"{type(module).__name__} has an attention that packed tokens cannot go through")
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts, start = [], 0
    for sight in packed:  # by run, so that the widths of one run do not move the sums of another
        run = slice(start, start := start + sight.packed.tokens)
        parts.append(
            attend(
                query[0, :, run],
                key[0, :, run],
                value[0, :, run],
                sight,
                scaling=scale,
                window=sliding_window or None,
                softcap=softcap,
            )
        )
    found = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return found.transpose(0, 1)[None], None
