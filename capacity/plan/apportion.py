"""Deals the entries of a TinyLoRA vector over its groups by score. It does not import torch."""

from collections.abc import Sequence
from math import isfinite

from capacity.errors import SpecError


def deal(scores: Sequence[float], total: int, largest: Sequence[int]) -> tuple[int, ...]:
    """Deals `total` entries in proportion to `scores`. No group gets more than it can use, and a group may get none.

    The method is that of Sainte-Laguë. Each entry in turn goes to the group with the largest score / (2n + 1), where n
    counts its entries so far. Ties go to the earlier group.

    Args:
        scores: one score per group, ≥ 0.
        total: the number of entries to deal.
        largest: the largest number of entries that each group can use.

    Returns:
        The number of entries of each group. These numbers add up to `total`.

    Raises:
        SpecError: if a score is negative or not finite, or `total` is more than all groups can use.
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
