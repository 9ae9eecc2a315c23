"""What every kind of adapter says of itself, and the size that it comes to on a model. No torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from capacity.errors import SpecError
from capacity.plan.model_shapes import ModelShape, ModuleShape
from capacity.spec.adapters import Adapter, AdapterSpec

Told = Mapping[str, Any]  # the options that are chosen, by their names in `capacity.plan.sizes.SizeChoice`


@dataclass(frozen=True)
class Site:
    """The model that an update is planned for, and the modules that it may sit on.

    Attributes:
        model: its name, for errors.
        shape: of the whole model.
        chosen_targets: types of the modules; all linear modules if None.
    """

    model: str
    shape: ModelShape
    chosen_targets: tuple[str, ...] | None = None

    @cached_property
    def modules(self) -> tuple[ModuleShape, ...]:
        """The M adapted modules, ordered by depth.

        Raises:
            SpecError: a type that the model does not have, or experts.
        """
        return self.shape.adapted_modules(self.chosen_targets)

    @property
    def targets(self) -> tuple[str, ...] | None:
        """The chosen types in the order of the model, None if they are all: one adapter has one spec."""
        everything = self.modules == self.shape.linears and not self.shape.expert_tensors
        if self.chosen_targets is None or everything:
            return None
        return tuple(dict.fromkeys(m.type for m in self.modules))

    @property
    def sides(self) -> int:
        """Σ (d + k) over the modules: the size of LoRA of rank 1."""
        return sum(m.d + m.k for m in self.modules)

    @property
    def narrowest(self) -> int:
        """The smallest side of a module: the largest rank that the update of every module can have."""
        return min(min(m.d, m.k) for m in self.modules)

    def rank(self, told: Told, default: int) -> int:
        """The chosen rank, checked.

        Raises:
            SpecError: it is below 1 or above the smallest side of a module.
        """
        rank: int = told.get("rank", default)
        if not 1 <= rank <= self.narrowest:
            raise SpecError(f"rank {rank} is outside 1 … {self.narrowest} on {self.model}")
        return rank


@dataclass(frozen=True)
class Size:
    """An update on a model: what a `SizeChoice` comes to.

    Attributes:
        template: the spec of its adapter, with the seed 0.
        trained_parameters: scalars that are trained.
        modules: what it sits on, ordered by depth; empty for kinds that sit on no modules.
        group_of_module: the group of every module, whose vector it follows; None for all kinds but tinylora.
    """

    template: Adapter
    trained_parameters: int
    modules: tuple[ModuleShape, ...] = ()
    group_of_module: tuple[int, ...] | None = None

    @property
    def kind(self) -> str:
        """The kind of its adapter."""
        return self.template.kind

    @property
    def tuned_as(self) -> str:
        """The name under which its learning rate is looked up."""
        return self.template.tuned_as

    def adapter(self, seed: int) -> Adapter:
        """The adapter of a run with this seed, from which its projection or start is drawn."""
        return self.template.seeded(seed)


class AdapterKind(ABC):
    """One kind of adapter. Its object has no state; `capacity.plan.kinds.table.KINDS` holds them all.

    Class attributes:
        spec: the class of its specs.
        options: what it can be told, by the names of `SizeChoice`.
        decided: those of them that follow from a budget; none for a kind that has one size.
    """

    spec: ClassVar[type[AdapterSpec]]
    options: ClassVar[tuple[str, ...]] = ()
    decided: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """Its name in specs and options."""
        name: str = self.spec.model_fields["kind"].default
        return name

    @abstractmethod
    def chosen(self, told: Told, site: Site) -> Size:
        """The update that is chosen part by part; what is not told has its default.

        Raises:
            SpecError: an option is out of range, or the model has no such update.
        """

    def largest(self, told: Told, site: Site, limit: int) -> Told:
        """The decided options of the largest update of at most `limit` parameters, or else of the smallest there is.

        Raises:
            SpecError: an option is out of range.
        """
        return {}

    def within(self, told: Told, site: Site, limit: int) -> Size:
        """The largest update of at most `limit` parameters, or the smallest there is, which may be larger.

        Raises:
            SpecError: an option is out of range, or the model has no such update.
        """
        return self.chosen({**told, **self.largest(told, site, limit)}, site)
