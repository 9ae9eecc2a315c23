"""LoRA: two trained factors of each module (arXiv 2106.09685)."""

from capacity.plan.kinds.kind import AdapterKind, Site, Size, Told
from capacity.spec.adapters import Lora

_RANK = 2


class LoraKind(AdapterKind):
    """Σ r (d + k) parameters."""

    spec = Lora
    options = ("rank", "targets")
    decided = ("rank",)

    def chosen(self, told: Told, site: Site) -> Size:
        """Of rank 2 unless told otherwise."""
        rank = site.rank(told, _RANK)
        return Size(Lora(targets=site.targets, rank=rank, init_seed=0), rank * site.sides, site.modules)

    def largest(self, told: Told, site: Site, limit: int) -> Told:
        """r = ⌊limit / Σ (d + k)⌋, at most the smallest side of a module."""
        return {"rank": min(max(limit // site.sides, 1), site.narrowest)}
