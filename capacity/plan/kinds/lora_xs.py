"""LoRA-XS: a free r × r matrix of each module between its frozen factors (arXiv 2405.17604)."""

from math import isqrt

from capacity.plan.kinds.kind import AdapterKind, Site, Size, Told
from capacity.spec.adapters import LoraXs

_RANK = 2


class LoraXsKind(AdapterKind):
    """M r² parameters."""

    spec = LoraXs
    options = ("rank", "scaling", "targets")
    decided = ("rank",)

    def chosen(self, told: Told, site: Site) -> Size:
        """Of rank 2 unless told otherwise."""
        rank = site.rank(told, _RANK)
        adapter = LoraXs(targets=site.targets, rank=rank, scaling=told.get("scaling", "paper"))
        return Size(adapter, len(site.modules) * rank**2, site.modules)

    def largest(self, told: Told, site: Site, limit: int) -> Told:
        """r = ⌊√(limit / M)⌋, at most the smallest side of a module."""
        return {"rank": min(max(isqrt(limit // len(site.modules)), 1), site.narrowest)}
