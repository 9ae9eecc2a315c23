"""A frozen linear with low-rank updates beside it, in as few operations as there are matrix products."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Lane:
    """The tokens of one run, and its update of one linear.

    Attributes:
        start, stop: the first token and the one after the last.
        a, b: A (r, k) and B (d, r) of the update ΔW = B A.
    """

    start: int
    stop: int
    a: Tensor
    b: Tensor


class _Adapted(torch.autograd.Function):
    """x (n, k) → x Wᵀ + bias, and (x Aᵀ) Bᵀ added to each lane: (n, d), with gradients for x and the B's alone.

    No input is kept for the backward pass, and nothing is added by operations of its own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, bounds: Sequence[slice], *halves: Tensor
    ) -> Tensor:
        downs, ups = halves[: len(bounds)], halves[len(bounds) :]
        y = F.linear(x, weight, bias)
        inner = []
        for lane, a, b in zip(bounds, downs, ups, strict=True):
            inner.append(F.linear(x[lane], a))
            y[lane].addmm_(inner[-1], b.T)
        ctx.bounds = bounds
        ctx.save_for_backward(weight, *halves, *inner)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        count = len(ctx.bounds)
        weight, *saved = ctx.saved_tensors
        downs, ups, inner = saved[:count], saved[count : 2 * count], saved[2 * count :]
        wants_x, wants_b = ctx.needs_input_grad[0], ctx.needs_input_grad[4 + count :]
        for_x = upstream @ weight if wants_x else None
        for_b: list[Tensor | None] = []
        for lane, a, b, h, wanted in zip(ctx.bounds, downs, ups, inner, wants_b, strict=True):
            own = upstream[lane]
            # Thin products are several times faster in these orders.
            for_b.append((h.T @ own).T if wanted else None)
            if for_x is not None:
                for_x[lane].addmm_(F.linear(own, b.T.contiguous()), a)
        return for_x, None, None, None, *(None for _ in downs), *for_b


def fuses(weight: Tensor, bias: Tensor | None, x: Tensor, lanes: Sequence[Lane]) -> bool:
    """Tells whether `adapted_linear` computes these in its fused way: frozen W, bias and A, all of one dtype."""
    fixed = [weight, *([] if bias is None else [bias]), *(lane.a for lane in lanes)]
    return all(not t.requires_grad and t.dtype == x.dtype for t in fixed) and all(
        lane.b.dtype == x.dtype for lane in lanes
    )


def adapted_linear(x: Tensor, weight: Tensor, bias: Tensor | None, lanes: Sequence[Lane]) -> Tensor:
    """Returns x Wᵀ + bias with the updates of the lanes, (n, d), for what `fuses` accepts.

    Args:
        x: inputs, (n, k).
        weight: W, (d, k).
        bias: of shape (d,), or None.
        lanes: the lanes. Tokens in none of them have no update.
    """
    bounds = [slice(lane.start, lane.stop) for lane in lanes]
    found: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, bounds, *(lane.a for lane in lanes), *(lane.b for lane in lanes)
    )
    return found
