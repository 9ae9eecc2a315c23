"""PEFT's small adapters beside ours: VeRA, VB-LoRA and Uni-LoRA. Their defaults are PEFT's own."""

from math import gcd

from capacity.errors import SpecError
from capacity.plan.kinds.kind import AdapterKind, Site, Size, Told
from capacity.spec.adapters import UniLora, VbLora, Vera

_MIXED = 2  # vectors of the bank that VB-LoRA mixes, `topk`


class VeraKind(AdapterKind):
    """Two scaling vectors of each module: Σ (d + r) parameters (arXiv 2310.11454)."""

    spec = Vera
    options = ("rank", "targets")
    decided = ("rank",)

    def chosen(self, told: Told, site: Site) -> Size:
        """Of rank 256 unless told otherwise. The random factors are shared, and may be wider than a module."""
        rank = told.get("rank", 256)
        if rank < 1:
            raise SpecError(f"rank {rank} is below 1")
        adapter = Vera(targets=site.targets, rank=rank, projection_seed=0)
        return Size(adapter, sum(m.d + rank for m in site.modules), site.modules)

    def largest(self, told: Told, site: Site, limit: int) -> Told:
        """r = ⌊(limit − Σ d) / M⌋."""
        return {"rank": max((limit - sum(m.d for m in site.modules)) // len(site.modules), 1)}


class VbLoraKind(AdapterKind):
    """A bank of vectors, and a logit for each of its h vectors and each piece of length L of the factors.

    h L + h r Σ (d + k) / L parameters (arXiv 2405.15179).
    """

    spec = VbLora
    options = ("rank", "vectors", "vector_length", "targets")
    decided = ("vectors",)

    def chosen(self, told: Told, site: Site) -> Size:
        """Of rank 4 and 256 vectors, as long as the modules allow up to 256, unless told otherwise."""
        rank, length, vectors = *_bank(told, site), told.get("vectors", 256)
        if vectors < _MIXED:
            raise SpecError(f"a bank of {vectors} vectors is below {_MIXED}, the number that vb-lora mixes")
        adapter = VbLora(
            targets=site.targets, rank=rank, vectors=vectors, vector_length=length, topk=_MIXED, init_seed=0
        )
        return Size(adapter, vectors * (length + rank * site.sides // length), site.modules)

    def largest(self, told: Told, site: Site, limit: int) -> Told:
        """h = ⌊limit / (L + r Σ (d + k) / L)⌋."""
        rank, length = _bank(told, site)
        return {"vectors": max(limit // (length + rank * site.sides // length), _MIXED)}


def _bank(told: Told, site: Site) -> tuple[int, int]:
    """Rank and length of the vectors.

    Raises:
        SpecError: the length does not divide a side of a module.
    """
    rank = site.rank(told, 4)
    # The largest power of two up to 256 that divides every side of every module.
    longest = gcd(256, *(side for m in site.modules for side in (m.d, m.k)))
    length = told.get("vector_length", longest)
    for module in site.modules:
        if length < 1 or module.d % length or module.k % length:
            raise SpecError(
                f"vector length {length} does not divide both sides of {module.name}, {module.d}×{module.k}: "
                f"{longest} does"
            )
    return rank, length


class UniLoraKind(AdapterKind):
    """One vector of any length up to the size of LoRA, Σ r (d + k) (arXiv 2506.00799)."""

    spec = UniLora
    options = ("rank", "length", "targets")
    decided = ("length",)

    def chosen(self, told: Told, site: Site) -> Size:
        """Of rank 4 and 256 entries unless told otherwise."""
        rank, length = site.rank(told, 4), told.get("length", 256)
        if not 1 <= length <= rank * site.sides:
            longest = f"{rank * site.sides:,}"
            raise SpecError(f"length {length} is outside 1 … {longest}, the entries of LoRA of rank {rank}")
        return Size(UniLora(targets=site.targets, rank=rank, length=length, projection_seed=0), length, site.modules)

    def largest(self, told: Told, site: Site, limit: int) -> Told:
        """The limit itself, at most Σ r (d + k)."""
        return {"length": min(limit, site.rank(told, 4) * site.sides)}
