"""A model with one update on it, whatever the kind of the update."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capacity.plan.model_shapes import ModuleShape
from capacity.spec.adapters import Adapter

Products = Iterable[tuple[str, tuple[Tensor, ...]]]  # matrices by name, each as factors from left to right


@dataclass
class AdaptedModel:
    """A model with one update on it: the base class of what each kind builds, and itself a model without any.

    Attributes:
        model: what to call and to train; a PEFT model for adapters on modules, the bare transformers model otherwise.
        adapter: the spec that it was built from.
        bare: the bare transformers model inside.
        shapes: the adapted modules; empty for kinds that sit on no modules.
        entries: for tinylora, how many entries of θ each group has.
        base_state: for full and bitfit, the untrained values by name.
        candidates: for tinylora with a chosen P, the number of the candidate of each entry of θ.
    """

    model: nn.Module
    adapter: Adapter
    bare: nn.Module
    shapes: tuple[ModuleShape, ...] = ()
    entries: tuple[int, ...] = ()
    base_state: dict[str, Tensor] | None = None
    candidates: tuple[int, ...] | None = None

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name; their sizes add up to the planned count."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def trained_parameters(self) -> int:
        """Number of scalars that the optimiser changes."""
        return sum(p.numel() for p in self.trained.values())

    def short_name(self, name: str) -> str:
        """The name in the update of the trained parameter `name`."""
        return name

    def update(self) -> dict[str, Tensor]:
        """The update in fp32 by name: what is trained, or for full and bitfit its difference to the untrained model."""
        return {self.short_name(name): p.detach().clone() for name, p in self.trained.items()}

    @torch.no_grad()
    def set_update(self, update: dict[str, Tensor]) -> None:
        """Replaces the update by `update`, as `update()` gives it, in any float dtype."""
        for name, parameter in self.trained.items():
            parameter.copy_(update[self.short_name(name)].to(parameter))

    def vector(self) -> Tensor:
        """The update as one flat fp32 vector on the CPU, its tensors one after the other."""
        return torch.cat([t.reshape(-1).float().cpu() for t in self.update().values()])

    def set_vector(self, vector: Tensor) -> None:
        """Replaces the update by `vector`, as `vector()` gives it."""
        update = self.update()
        parts = torch.split(vector, [t.numel() for t in update.values()])
        self.set_update({n: part.view(t.shape) for (n, t), part in zip(update.items(), parts, strict=True)})

    def pairs(self) -> Iterator[tuple[ModuleShape, Tensor, Tensor]]:
        """Each adapted module with its A (r, k) and B (d, r) in fp32: ΔW = B A. Nothing for other kinds."""
        yield from ()

    def probed(self) -> dict[str, Products]:
        """What a stored update is held against when it is rebuilt: matrices of its parts.

        The parts are "update", "factors" (frozen, of the base's weights) and "projection" (frozen, drawn at random).
        """
        return {"update": ((name, (tensor,)) for name, tensor in self.update().items())}

    def check_mergeable(self) -> None:
        """Raises a SpecError unless the update is one of weights, which can be added to those of the base."""

    @contextmanager
    def switched_off(self) -> Iterator[nn.Module]:
        """The untrained model, for the time of the context."""
        yield self.model

    def detach(self) -> nn.Module:
        """Takes the adapter off and gives the bare model back, untrained. Not for full and bitfit."""
        return self.bare
