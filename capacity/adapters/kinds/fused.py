"""A linear with frozen factors beside its frozen weight, in as few operations as there are matrix products.

PEFT's own layer adds the adapter's output by operations of their own, which cost more than the adapter's products when
the rank is small. Here the products add to the base's output in place, and no input is kept for the backward pass.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor
from torch.nn import functional as F

from capacity.adapters.kinds.frozen import FrozenDown, TiedUp


class _Adapted(torch.autograd.Function):
    """x (n, k) → x Wᵀ + bias + (x Aᵀ) Cᵀ, of shape (n, d), with gradients for x and C alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, c: Tensor) -> Tensor:
        h = F.linear(x, a)
        ctx.save_for_backward(weight, a, c, h)
        return F.linear(x, weight, bias).addmm_(h, c.T)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None, Tensor | None]:
        weight, a, c, h = ctx.saved_tensors
        # Thin products are several times faster in these orders.
        for_c = (h.T @ upstream).T if ctx.needs_input_grad[4] else None
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, for_c
        for_x = (upstream @ weight).addmm_(F.linear(upstream, c.T.contiguous()), a)
        return for_x, None, None, None, for_c


class FusedLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer around an `nn.Linear`, with a forward pass of its own where one frozen A and one B·R(θ) are on.

    Everything else, such as a second adapter, a merged one or other dtypes, takes PEFT's forward pass.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the adapted output for inputs x (…, k)."""
        down, up = self._halves() if not (args or kwargs) else (None, None)
        weight = self.base_layer.weight
        if down is None or up is None or weight.requires_grad or not x.dtype == weight.dtype == down.weight.dtype:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        flat = x.reshape(-1, x.shape[-1])
        found: Tensor = _Adapted.apply(flat, weight, self.base_layer.bias, down.weight, up.weight)  # type: ignore[no-untyped-call]
        return found.view(*x.shape[:-1], -1)

    def _halves(self) -> tuple[FrozenDown | None, TiedUp | None]:
        """Returns A and B·R(θ) if they are all that is switched on."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None, None
        name = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.scaling[name] != 1:
            return None, None
        down, up = self.lora_A[name], self.lora_B[name]
        return (down, up) if isinstance(down, FrozenDown) and isinstance(up, TiedUp) else (None, None)
