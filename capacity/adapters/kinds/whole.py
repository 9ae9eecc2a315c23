"""Updates of the model's own weights: all of them, or its biases (arXiv 2106.10199)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capacity.adapters.layout import EVEN, Layout
from capacity.adapters.linears import is_quantised
from capacity.adapters.model import AdaptedModel
from capacity.adapters.svd.source import FactorSource
from capacity.errors import SpecError
from capacity.spec.adapters import BitFit, FullUpdate


@dataclass
class OwnWeightsModel(AdaptedModel):
    """A model whose own weights are trained, in place. The update is their difference to `base_state`."""

    @property
    def untrained(self) -> dict[str, Tensor]:
        """The untrained values by name."""
        assert self.base_state is not None
        return self.base_state

    def update(self) -> dict[str, Tensor]:
        """The difference to the untrained model in fp32, by name."""
        return {name: p.detach() - self.untrained[name] for name, p in self.trained.items()}

    @torch.no_grad()
    def set_update(self, update: dict[str, Tensor]) -> None:
        """Replaces the update by `update`, as `update()` gives it, in any float dtype."""
        for name, parameter in self.trained.items():
            parameter.copy_(self.untrained[name] + update[name].to(parameter))

    @contextmanager
    def switched_off(self) -> Iterator[nn.Module]:
        """The untrained model, for the time of the context."""
        trained = {name: p.detach().clone() for name, p in self.trained.items()}
        self._fill(self.untrained)
        try:
            yield self.model
        finally:
            self._fill(trained)

    @torch.no_grad()
    def _fill(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(values[name])


def build(
    model: nn.Module,
    adapter: FullUpdate | BitFit,
    source: FactorSource,
    layout: Layout = EVEN,
) -> OwnWeightsModel:
    """Trains the weights of a bare model (full), or its biases (bitfit), in place.

    Raises:
        SpecError: the model has no biases, or its weights are not fp32.
    """
    names = [n for n, _ in model.named_parameters() if adapter.every_weight or n.endswith("bias")]
    if not names:
        raise SpecError("this model has no biases, so adapter bitfit has nothing to train")
    coarse = any(model.get_parameter(n).dtype != torch.float32 for n in names)
    if coarse or any(is_quantised(m) for m in model.modules()):
        raise SpecError(f"adapter {adapter.kind} trains the model's own weights: load the model in fp32")
    for name in names:
        model.get_parameter(name).requires_grad_(True)
    base = {name: model.get_parameter(name).detach().clone() for name in names}
    return OwnWeightsModel(model, adapter, model, base_state=base)
