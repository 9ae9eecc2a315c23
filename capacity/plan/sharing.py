"""Sharing decides which modules share a trained vector. Modules that do so form a group.

The number of groups is g. Groups are contiguous and balanced. In the paper, `n_tie` is a shorthand for g = ⌈M / n_tie⌉
with M adapted modules (arXiv 2602.04118, section 4).
"""

from collections.abc import Sequence

from capacity.errors import SpecError
from capacity.spec.adapters import Sharing


def groups_from_n_tie(modules: int, n_tie: int) -> int:
    """Returns the number of groups, g = ⌈modules / n_tie⌉.

    Raises:
        SpecError: if `n_tie` is outside 1 … `modules`.
    """
    if not 1 <= n_tie <= modules:
        raise SpecError(f"n_tie {n_tie} is outside 1 … {modules}, the number of adapted modules")
    return -(-modules // n_tie)


def balanced_sizes(modules: int, groups: int) -> tuple[int, ...]:
    """Returns the sizes of `groups` contiguous groups. The first `modules mod groups` have one module more."""
    small, larger = divmod(modules, groups)
    return (small + 1,) * larger + (small,) * (groups - larger)


def _groups_per_type(counts: Sequence[int], groups: int) -> list[int]:
    """Deals `groups` over the types in turn. Each gets at least one, and never more than it has modules."""
    shares = [0] * len(counts)
    dealt = 0
    while dealt < groups:
        for index, count in enumerate(counts):
            if dealt < groups and shares[index] < count:
                shares[index] += 1
                dealt += 1
    return shares


def assign_groups(types: Sequence[str], groups: int, sharing: Sharing) -> tuple[int, ...]:
    """Returns the group index of every adapted module.

    Args:
        types: the module types ("q_proj", …) of the M adapted modules, ordered by depth.
        groups: the number of groups g, 1 … M.
        sharing: "tiled" groups neighbours by depth, whatever their type. "structured" groups only modules of one type.
            It splits g over the types in order of first appearance, at least one each.

    Returns:
        M group indices in 0 … g−1.

    Raises:
        SpecError: if g is outside 1 … M, or below the number of types when structured.
    """
    modules = len(types)
    if not 1 <= groups <= modules:
        raise SpecError(f"{groups} groups are outside 1 … {modules}, the number of adapted modules")
    if sharing == "tiled":
        sizes = balanced_sizes(modules, groups)
        return tuple(group for group, size in enumerate(sizes) for _ in range(size))
    names = list(dict.fromkeys(types))
    if groups < len(names):
        raise SpecError(
            f"structured sharing needs at least one group for each of the {len(names)} module types "
            f"({', '.join(names)}), not {groups}: use --groups {len(names)} or more, or --sharing tiled"
        )
    assignment = [-1] * modules
    first_group = 0
    counts = [types.count(name) for name in names]
    for name, count, share in zip(names, counts, _groups_per_type(counts, groups), strict=True):
        members = [index for index, module_type in enumerate(types) if module_type == name]
        labels = [group for group, size in enumerate(balanced_sizes(count, share)) for _ in range(size)]
        for index, label in zip(members, labels, strict=True):
            assignment[index] = first_group + label
        first_group += share
    return tuple(assignment)


def group_sizes(assignment: Sequence[int]) -> tuple[int, ...]:
    """Returns the number of modules in each group, given the group index of every module."""
    sizes = [0] * (max(assignment) + 1)
    for group in assignment:
        sizes[group] += 1
    return tuple(sizes)


def largest_useful_u(rank: int, assignment: Sequence[int]) -> int:
    """Returns the largest useful u, r² × (smallest group). More entries of v do not enlarge the space of updates."""
    return rank * rank * min(group_sizes(assignment))


def useful_groups(types: Sequence[str], groups: int, sharing: Sharing, *, u: int, rank: int) -> tuple[int, ...]:
    """Returns the group index of every adapted module, after it has checked that every group can use u entries.

    The arguments `types`, `groups` and `sharing` are those of `assign_groups`.

    Raises:
        SpecError: if `assign_groups` refuses its arguments, or u is outside 1 … largest useful u. The message names
            that.
    """
    assignment = assign_groups(types, groups, sharing)
    useful = largest_useful_u(rank, assignment)
    if not 1 <= u <= useful:
        raise SpecError(
            f"u {u} is outside 1 … {useful}, the largest useful u: r² × (smallest group) = "
            f"{rank}² × {min(group_sizes(assignment))}"
        )
    return assignment
