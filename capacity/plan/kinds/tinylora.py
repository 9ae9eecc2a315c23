"""TinyLoRA: a few vectors, each shared by a group of modules (arXiv 2602.04118)."""

from capacity.errors import SpecError
from capacity.plan.kinds.kind import AdapterKind, Site, Size, Told
from capacity.plan.sharing import groups_from_n_tie, useful_groups
from capacity.spec.adapters import ProjectionChoice, TinyLora

# The paper's rank is for large models, whose weights have a few leading directions. The spectra of the embedded models
# are flat, and two directions of many alike change little.
_RANK, _RANKS_OF_FAMILIES = 2, {"abacus": 8}

# Bits that choose the P of an entry, unless told otherwise. At equal accuracy, 12 bits took the fewest bytes in
# the mean of those that were tried, 4, 8 and 12 (docs/abacus-message.md).
CHOICE_BITS = 12
# The largest update of an embedded model whose P is chosen by default. At 448 parameters of abacus-0.9m no method was
# shown to gain from it (docs/abacus-sizes.md).
LARGEST_CHOSEN = 168


class TinyLoraKind(AdapterKind):
    """g vectors of u entries: g u parameters."""

    spec = TinyLora
    options = (
        "rank",
        "u",
        "groups",
        "n_tie",
        "sharing",
        "scaling",
        "allocation",
        "targets",
        "projection",
        "projection_bits",
        "projection_by",
    )
    decided = ("u", "groups", "n_tie")

    def chosen(self, told: Told, site: Site) -> Size:
        """Every module has a vector of its own, of one entry, unless told otherwise."""
        rank, u, groups = self._rank(told, site), told.get("u", 1), _groups(told, len(site.modules))
        ways = {name: told[name] for name in ("sharing", "scaling", "allocation") if name in told}
        types = [m.type for m in site.modules]
        assignment = useful_groups(types, groups, told.get("sharing", "tiled"), u=u, rank=rank)
        choice = choice_of(told)
        adapter = TinyLora(
            targets=site.targets, rank=rank, u=u, groups=groups, projection_seed=0, choice=choice, **ways
        )
        return Size(adapter, groups * u, site.modules, assignment)

    def largest(self, told: Told, site: Site, limit: int) -> Told:
        """The paper's guideline, lower u to 1 before tying more.

        A limit below M modules gives u = 1 and g = limit, any other g = M and u = min(⌊limit / M⌋, r²).
        """
        modules = len(site.modules)
        if limit < modules:
            return {"u": 1, "groups": limit}
        return {"u": min(limit // modules, self._rank(told, site) ** 2), "groups": modules}

    def _rank(self, told: Told, site: Site) -> int:
        return site.rank(told, _RANKS_OF_FAMILIES.get(site.shape.family, _RANK))


def choice_of(told: Told) -> ProjectionChoice | None:
    """Returns how P is chosen; None if it is random.

    Raises:
        SpecError: if an option of a chosen P is given for a random one.
    """
    if told.get("projection") == "chosen":
        return ProjectionChoice(bits=told.get("projection_bits", CHOICE_BITS), by=told.get("projection_by", "grpo"))
    for option in ("projection_bits", "projection_by"):
        if option in told:
            raise SpecError(f"--{option.replace('_', '-')} goes with --projection chosen: add that")
    return None


def _groups(told: Told, modules: int) -> int:
    """The number of groups, told as such or as modules a group."""
    if "groups" in told and "n_tie" in told:
        raise SpecError("--groups and --n-tie say the same thing in two ways: give one of them")
    if "n_tie" in told:
        return groups_from_n_tie(modules, told["n_tie"])
    groups: int = told.get("groups", modules)
    return groups
