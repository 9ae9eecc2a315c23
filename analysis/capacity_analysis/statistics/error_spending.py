"""Errors of the tests of a study that is looked at several times, and that may stop at any of the looks.

The error of the whole study is spent over the looks (Lan & DeMets, Biometrika 1983). The share of the seeds that are
there says how much may be spent. The intervals of all looks together then hold the truth with the confidence of the
study (repeated confidence intervals; Jennison & Turnbull, JRSS B 1989). So an interval is valid whatever made the study
stop.

Seeds are few and their variance is unknown. So the joint distribution of the looks is that of Student's t of nested
normal samples. It does not depend on the variance, and is simulated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import stdtr

from capacity_analysis.types import Array

PATHS = 200_000  # simulated studies: the Monte-Carlo error of an overall error of 5 % is 0.05 %
_SEED = 20_267


@dataclass(frozen=True)
class LookError:
    """The errors at one of the looks of a study.

    Attributes:
        seeds: the number of seeds at each look, rising, two or more each.
        place: which of the looks it is, counted from 0.
        together: the confidence of all looks together.
    """

    seeds: tuple[int, ...]
    place: int
    together: float

    @property
    def confidence(self) -> float:
        """The confidence of the intervals of this look."""
        return self.at(self.together)

    def at(self, together: float) -> float:
        """Returns the confidence of this look at which all looks have that confidence together."""
        return 1 - look_errors(self.seeds, 1 - together)[self.place]


def spent(share: float, error: float) -> float:
    """The error that may be spent until a share of the seeds is there, by a function like Pocock's (Lan & DeMets)."""
    return error * math.log1p((math.e - 1) * share)


@cache
def look_errors(seeds: tuple[int, ...], error: float) -> tuple[float, ...]:
    """The two-sided errors of the tests at each look.

    Args:
        seeds: the number of seeds at each look, rising, two or more each.
        error: of all looks together.
    """
    p = _nested_p_values(seeds, np.random.default_rng(_SEED))
    open_paths = np.ones(len(p), dtype=bool)
    found, before = [], 0.0
    for look, count in enumerate(seeds):
        now = spent(count / seeds[-1], error)
        among = np.sort(p[open_paths, look])
        level = float(among[max(round((now - before) * len(p)) - 1, 0)])
        open_paths &= p[:, look] > level
        found.append(level)
        before = now
    return tuple(found)


def _nested_p_values(seeds: Sequence[int], rng: np.random.Generator) -> Array:
    """Two-sided p values of Student's t of the first seeds of normal samples, paths × looks."""
    normal = rng.standard_normal((PATHS, seeds[-1]))
    found = np.empty((PATHS, len(seeds)))
    for look, count in enumerate(seeds):
        own = normal[:, :count]
        t = own.mean(1) / np.sqrt(own.var(1, ddof=1) / count)
        found[:, look] = 2 * stdtr(count - 1, -np.abs(t))
    return found
