"""The two halves of an adapted linear: frozen A, and B · R(θ) that follows its slice of the one trained θ.

They sit in the `lora_A` and `lora_B` slots of PEFT's LoRA layer, so its forward pass, quantised bases and on/off switch
apply unchanged. Neither holds a parameter: `requires_grad_`, which PEFT calls on these slots whenever an adapter
is switched, can make nothing trainable but θ.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capacity.errors import DataError

_TOLERANCE = 1e-4


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
    """B · R: R = Σᵢ vᵢ Pᵢ with v = θ[start : stop], or R = v itself, row by row, where there is no P.

    The first module of an adapter owns θ, so PEFT saves, loads, freezes and releases it with that module's slot. The
    other modules refer to it.

    Args:
        b: frozen B, shape (d, r): UΣ (or U√Σ in the split parameterisation).
        p: fixed random matrices P, shape (stop − start, r, r); None for a free R of r² entries.
        owner: the first module of the adapter, or for that module itself the number of entries of θ.
        start: first entry of θ that this module follows; modules of one group share their slice.
        stop: end of the slice.
    """

    b: Tensor
    p: Tensor | None

    def __init__(self, b: Tensor, p: Tensor | None, owner: "TiedUp | int", start: int, stop: int) -> None:
        super().__init__()
        self.register_buffer("b", b, persistent=False)
        self.register_buffer("p", p, persistent=False)
        self.start, self.stop = start, stop
        if isinstance(owner, int):
            # PEFT takes a LoRA tensor of one dimension for a shard, so θ has two: shape (1, entries).
            self.theta = nn.Parameter(torch.zeros(1, owner, dtype=torch.float32, device=b.device))
        self._owner = (owner,) if isinstance(owner, TiedUp) else ()  # a tuple, lest it be registered as a child
        self._loaded: Tensor | None = None

    @property
    def v(self) -> Tensor:
        """The entries of θ that this module follows, on this module's device."""
        owner = self._owner[0] if self._owner else self
        return owner.theta[0, self.start : self.stop].to(self.b.device)

    @property
    def weight(self) -> Tensor:
        """B · R(θ), shape (d, r): what PEFT merges and saves."""
        r = self.b.shape[1]
        core = self.v if self.p is None else self.v @ self.p.reshape(-1, r * r)
        return self.b @ core.view(r, r)

    def forward(self, h: Tensor) -> Tensor:
        """Input h (…, r) → (…, d)."""
        return F.linear(h, self.weight)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # PEFT saves the slots it knows by key; without this one, its folder would reload as a zero adapter.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight if keep_vars else self.weight.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # θ makes B · R, so a stored B · R is not loaded but, once all is loaded, compared: see `check_loaded`.
        self._loaded = state_dict.pop(prefix + "weight", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def check_loaded(model: nn.Module, incompatible_keys: Any) -> None:
    """After `load_state_dict`: refuses a state dict whose B · R is not what its θ makes.

    A plain LoRA folder has no θ; loaded here it would leave θ as it was, silently another update.

    Raises:
        DataError: names the first module that differs.
    """
    for name, module in model.named_modules():
        if not isinstance(module, TiedUp) or module._loaded is None:
            continue
        loaded, module._loaded = module._loaded.to(module.b), None
        with torch.no_grad():
            distance = torch.linalg.vector_norm(module.weight - loaded)
        if bool(distance > _TOLERANCE * torch.linalg.vector_norm(loaded)):
            raise DataError(
                f"{name}: the loaded LoRA pair is not what θ makes, so it is another adapter's: "
                "load it as a plain LoRA adapter, under a name of its own"
            )
