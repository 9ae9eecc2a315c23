"""Dealing the entries of a TinyLoRA vector over its groups by score. No torch."""

from collections.abc import Sequence
from math import isfinite

from capacity.errors import SpecError


def deal(scores: Sequence[float], total: int, largest: Sequence[int]) -> tuple[int, ...]:
    """Deals `total` entries in proportion to `scores`, no group more than it can use; a group may get none.

    The method of Sainte-Laguë: each entry in turn goes to the group with the largest score / (2n + 1), n being
    what it has. Ties go to the earlier group.

    Args:
        scores: one a group, ≥ 0.
        total: entries to deal.
        largest: the most entries that are of use to each group.

    Returns:
        Entries of each group; they add up to `total`.

    Raises:
        SpecError: a score that is no such number, or more entries than all groups can use.
    """
    if any(not isfinite(s) or s < 0 for s in scores):
        raise SpecError(f"allocation by gradient needs scores ≥ 0, not {min(scores)}")
    if total > sum(largest):
        raise SpecError(f"{total} entries are more than the {sum(largest)} that all groups together can use")
    entries = [0] * len(scores)
    for _ in range(total):
        # Groups without any gradient come last, but still before nothing at all is left to deal to.
        open_groups = (g for g in range(len(scores)) if entries[g] < largest[g])
        best = max(open_groups, key=lambda g: (scores[g] / (2 * entries[g] + 1), -entries[g], -g))
        entries[best] += 1
    return tuple(entries)
