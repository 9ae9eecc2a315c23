"""A linear with frozen factors beside its frozen weight, in as few operations as there are matrix products.

PEFT's own layer adds the adapter's output by operations of their own, which cost more than the adapter's products when
the rank is small. See `capacity.adapters.lanes`: here one run has all tokens.
"""

from typing import Any

from peft.tuners.lora.layer import Linear
from torch import Tensor

from capacity.adapters.kinds.frozen import FrozenDown, TiedUp
from capacity.adapters.linear import Lane, adapted_linear, fuses


class FusedLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer around an `nn.Linear`, with a forward pass of its own where one frozen A and one B·R(θ) are on.

    Everything else, such as a second adapter, a merged one or other dtypes, takes PEFT's forward pass.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the adapted output for inputs x (…, k)."""
        halves = None if args or kwargs else self._halves()
        if halves is None:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        flat = x.reshape(-1, x.shape[-1])
        lanes = [Lane(0, len(flat), *halves)]
        weight, bias = self.base_layer.weight, self.base_layer.bias
        if not fuses(weight, bias, flat, lanes):
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        return adapted_linear(flat, weight, bias, lanes).view(*x.shape[:-1], len(weight))

    def _halves(self) -> tuple[Tensor, Tensor] | None:
        """Returns A and B·R(θ) if they are all that is switched on, and of the dtype of the weight."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.scaling[name] != 1:
            return None
        down, up = self.lora_A[name], self.lora_B[name]
        if not isinstance(down, FrozenDown) or not isinstance(up, TiedUp):
            return None
        if down.weight.dtype != self.base_layer.weight.dtype:  # PEFT's forward pass makes B·R(θ) itself
            return None
        return down.weight, up.weight
