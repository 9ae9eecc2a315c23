"""Seeds whose training collapsed: how many, what share of seeds that allows, and whether it became larger.

A run has collapsed if its accuracy lies 10 points or more below what is expected of it, and three binomial standard
errors or more. What is expected is the median of the seeds of its cell, or the accuracy of the untrained model if that
is higher. The median of a few seeds is not moved by one of them that collapsed; the mean is.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, betaincinv

from capacity_analysis.types import Array

FALL = 0.10
_ERRORS = 3.0
# A seed is apart from the others of a curve if it lies so many of their standard deviations below them.
_APART = 5.0
_LEAST_OTHERS = 3


@dataclass(frozen=True)
class CollapsedShare:
    """How many seeds collapsed.

    Attributes:
        count: of collapsed seeds.
        seeds: of all of them.
        low, high: ends of the exact two-sided interval of the share (Clopper & Pearson, Biometrika 1934).
    """

    count: int
    seeds: int
    low: float
    high: float

    @classmethod
    def of(cls, collapsed: NDArray[np.bool_], confidence: float = 0.95) -> "CollapsedShare":
        """From whether each seed collapsed, (S,)."""
        count, seeds = int(collapsed.sum()), len(collapsed)
        tail = (1 - confidence) / 2
        low = betaincinv(count, seeds - count + 1, tail) if count else 0.0
        high = betaincinv(count + 1, seeds - count, 1 - tail) if count < seeds else 1.0
        return cls(count, seeds, float(low), float(high))

    def __str__(self) -> str:
        """For example "1 of 5 (0.5–71.6 %)"."""
        return f"{self.count} of {self.seeds} ({100 * self.low:.1f}–{100 * self.high:.1f} %)"


def expected_accuracy(accuracies: Array, base: float | None = None) -> float:
    """What is expected of the seeds of a cell: their median, or the accuracy of the untrained model if it is higher."""
    return max(float(np.median(accuracies)), -math.inf if base is None else base)


def collapsed(
    accuracies: Array, expected: float | Array, answers: int | Array | NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """Which runs collapsed.

    Args:
        accuracies: of runs, seeds × sizes or (S,).
        expected: what is expected of each size, or of all.
        answers: behind an accuracy; None if that is not known, and then three errors are not asked for.
    """
    error = 0.0 if answers is None else np.sqrt(np.clip(expected * (1 - np.asarray(expected)), 0, None) / answers)
    return np.asarray(accuracies <= expected - np.maximum(FALL, _ERRORS * error))


def collapsed_of_curve(accuracies: Array, answers: Array | None) -> NDArray[np.bool_]:
    """Which seeds of a curve collapsed at some size, N × S, and can be told from seeds that scatter widely.

    Such a seed has a run that collapsed by the median of its size. That run also lies five standard deviations of the
    other seeds below their mean. Both their spread at this size and that pooled over sizes must say so. Fewer than
    three other seeds tell nothing.

    Args:
        accuracies: N data sets × K sizes × S seeds, NaN where a size lacks a seed.
        answers: behind an accuracy, K or N × K; None if that is not known.
    """
    middle = np.nanmedian(accuracies, axis=2, keepdims=True)
    fallen = collapsed(accuracies, middle, None if answers is None else answers[..., None])
    others = np.where(np.any(fallen, axis=1, keepdims=True), np.nan, accuracies)
    there = ~np.isnan(others)
    count = there.sum(2)
    mean = np.divide(np.where(there, others, 0.0).sum(2), count, out=np.full(count.shape, np.nan), where=count > 0)
    squares = np.where(there, (others - mean[:, :, None]) ** 2, 0.0).sum(2)
    df = np.maximum(count - 1, 0)
    pooled = np.divide(squares.sum(1), df.sum(1), out=np.zeros(len(df)), where=df.sum(1) > 0)
    here = np.divide(squares, df, out=np.full(df.shape, np.inf), where=count >= _LEAST_OTHERS)
    spread = np.sqrt(np.maximum(here, pooled[:, None]))[:, :, None]
    return np.asarray((fallen & (accuracies <= mean[:, :, None] - _APART * spread)).any(1))


def more_collapses_p(before: CollapsedShare, after: CollapsedShare, tolerated: float) -> float:
    """The p of "seeds collapse no more often than is tolerated, nor more often than before", one-sided and exact.

    It is the binomial probability of as many collapses or more at the tolerated share. If some seeds had collapsed
    before, it is no less than Fisher's exact p, which holds whatever the share is.

    Args:
        before, after: what was counted.
        tolerated: the share of seeds that may collapse, of 1.
    """
    at_tolerated = float(bdtrc(after.count - 1, after.seeds, tolerated)) if after.count else 1.0
    if before.count == 0:
        return at_tolerated
    both, seeds = before.count + after.count, before.seeds + after.seeds
    drawn = after.seeds
    counts = range(after.count, min(both, drawn) + 1)
    ways = sum(math.comb(both, k) * math.comb(seeds - both, drawn - k) for k in counts)
    return max(at_tolerated, ways / math.comb(seeds, drawn))
