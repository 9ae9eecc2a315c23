"""How many further results a study makes, and at which sizes, so that its next look is expected to be the last one.

The number follows from the look before it. That is the two-stage rule of Stein (Annals of Mathematical Statistics 16,
1945, p. 243). All of these runs are made before the next look. A study that looks after every run would stop where its
variance happens to be estimated too small.
"""

from collections.abc import Callable

import numpy as np

from capacity_analysis.design.information import Precision
from capacity_analysis.types import Array

NEW_SIZE = 1.1  # a new size must tell so many times more than another seed of a size that is there
SEEDS = 2  # of a size that is new
_TINY = 1e-9

Tells = Callable[[Array], Precision]  # what runs say of a threshold, by the number of runs at each size


def enough(tells: Tells, counts: Array, factor: float) -> list[int]:
    """The places of the runs that are expected to shorten an interval by a factor, at most as many as there are.

    Args:
        tells: of the method.
        counts: its results at each candidate size, K.
        factor: what the half-width is to be multiplied by; 1 or more: nothing is needed.
    """
    counts, picked = counts.copy(), list[int]()
    wanted = tells(counts).deviation * factor
    most = int(counts.sum())
    while factor < 1 and len(picked) < most:
        place = best(tells(counts), counts)
        counts[place] += 1
        picked.append(place)
        if tells(counts).deviation <= wanted:
            break
    return picked


def best(says: Precision, counts: Array) -> int:
    """The place where one more run is expected to tell most."""
    return int(np.argmax(says.reduction * np.where(counts > 0, NEW_SIZE, 1.0)))


def bisected(log_sizes: Array, counts: Array, interval: tuple[float, float]) -> int | None:
    """The candidate in the middle of the widest gap between tested sizes in an interval; None if no gap has one.

    Args:
        log_sizes: of the candidates, K.
        counts: the number of results at each, K.
        interval: of the threshold, in log10 of a size. Where it is open, it ends with the candidates.
    """
    low, high = np.clip(interval, log_sizes[0], log_sizes[-1])
    inside = (log_sizes > low + _TINY) & (log_sizes < high - _TINY)
    ends = np.unique(np.concatenate([[low], log_sizes[inside & (counts > 0)], [high]]))
    for gap in np.argsort(-np.diff(ends), kind="stable"):
        free = np.flatnonzero((log_sizes > ends[gap] + _TINY) & (log_sizes < ends[gap + 1] - _TINY))
        if len(free):
            return int(free[np.argmin(np.abs(log_sizes[free] - (ends[gap] + ends[gap + 1]) / 2))])
    return None


def is_gap(log_sizes: Array, counts: Array, interval: tuple[float, float]) -> bool:
    """Whether no tested size lies inside an interval. Then only a new size can shorten it."""
    low, high = interval
    return not bool(((log_sizes > low + _TINY) & (log_sizes < high - _TINY) & (counts > 0)).any())


def nearest_new(log_sizes: Array, counts: Array, interval: tuple[float, float]) -> int | None:
    """The candidate without results that is nearest to the middle of an interval; None if all have some."""
    middle = float(np.mean(np.clip(interval, log_sizes[0], log_sizes[-1])))
    away = np.where(counts > 0, np.inf, np.abs(log_sizes - middle))
    return int(np.argmin(away)) if np.isfinite(away).any() else None
