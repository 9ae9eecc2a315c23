"""Steering vectors: one trained vector for each of some blocks, added to what the block gives on (arXiv 2505.18706)."""

from collections.abc import Sequence

from capacity.errors import SpecError
from capacity.plan.kinds.kind import AdapterKind, Site, Size, Told
from capacity.spec.adapters import Steering


class SteeringKind(AdapterKind):
    """As many parameters as the model is wide, for each steered block."""

    spec = Steering
    options = ("blocks",)
    decided = ("blocks",)

    def chosen(self, told: Told, site: Site) -> Size:
        """Every block is steered unless told otherwise."""
        layers = site.shape.layers
        blocks = steered_blocks(told.get("blocks"), layers)
        adapter = Steering(blocks=None if len(blocks) == layers else blocks)
        return Size(adapter, len(blocks) * site.shape.hidden)

    def largest(self, told: Told, site: Site, limit: int) -> Told:
        """As many blocks as fit, spread evenly: of n blocks each is the middle one of an n-th of the depth."""
        layers = site.shape.layers
        count = min(max(limit // site.shape.hidden, 1), layers)
        return {"blocks": tuple((2 * i + 1) * layers // (2 * count) for i in range(count))}


def steered_blocks(blocks: Sequence[int] | None, layers: int) -> tuple[int, ...]:
    """The blocks that are steered, rising; all `layers` of them if None.

    Raises:
        SpecError: a block that the model does not have, or one that is named twice, or none.
    """
    if blocks is None:
        return tuple(range(layers))
    outside = [block for block in blocks if not 0 <= block < layers]
    if outside:
        raise SpecError(f"block {outside[0]} is outside 0 … {layers - 1}, the blocks of this model")
    if not blocks or len(set(blocks)) < len(blocks):
        raise SpecError(f"blocks {list(blocks)}: name one or more, each once")
    return tuple(sorted(blocks))
