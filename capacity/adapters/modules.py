"""The two halves of an adapted linear: frozen A, and B · R(θ) that follows the one trained θ.

They sit in the `lora_A` and `lora_B` slots of PEFT's LoRA layer, so its forward pass, merging and on/off switch
apply unchanged. Neither holds a parameter: `requires_grad_`, which PEFT calls on these slots whenever an adapter
is switched, can make nothing trainable but θ.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Update(nn.Module):
    """The owner of everything that is trained: θ of shape (g, u), fp32, zero at the start."""

    def __init__(self, groups: int, u: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(groups, u, dtype=torch.float32))


class FrozenDown(nn.Module):
    """A, shape (r, k): Vᵀ of the weight's truncated SVD (times √Σ in the split parameterisation)."""

    weight: Tensor

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", a)

    def forward(self, x: Tensor) -> Tensor:
        """Input x (…, k) → (…, r)."""
        return F.linear(x, self.weight)


class TiedUp(nn.Module):
    """B · R with R = Σᵢ θ[group, i] Pᵢ.

    Args:
        b: frozen B, shape (d, r): UΣ (or U√Σ in the split parameterisation).
        p: fixed random matrices P, shape (u, r, r).
        owner: holds θ; referred to, not registered, so that θ has one owner in `named_parameters`.
        group: the row of θ that this module follows.
    """

    b: Tensor
    p: Tensor

    def __init__(self, b: Tensor, p: Tensor, owner: Update, group: int) -> None:
        super().__init__()
        self.register_buffer("b", b, persistent=False)
        self.register_buffer("p", p, persistent=False)
        self.group = group
        self._owner = (owner,)

    @property
    def theta(self) -> Tensor:
        """The row of θ that this module follows, shape (u,)."""
        return self._owner[0].theta[self.group]

    @property
    def weight(self) -> Tensor:
        """B · R(θ), shape (d, r): what PEFT merges."""
        r = self.p.shape[-1]
        return self.b @ (self.theta @ self.p.view(-1, r * r)).view(r, r)

    def forward(self, h: Tensor) -> Tensor:
        """Input h (…, r) → (…, d)."""
        return F.linear(h, self.weight)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # PEFT saves the slots it knows by key; without this one, its folder would reload as a zero adapter.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight if keep_vars else self.weight.detach()
