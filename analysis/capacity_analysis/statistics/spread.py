"""How far the mean accuracy of each size may be from its expectation over seeds, with the spread pooled over sizes.

Arrays are N data sets × K sizes × S seeds, with NaN where a size has fewer seeds than others.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from capacity_analysis.types import Array

Basis = Literal["seeds", "counts", "nothing"]


@dataclass(frozen=True)
class Spread:
    """The mean accuracies over seeds, and how far they may be from their expectation.

    Attributes:
        mean: the mean over seeds, N × K.
        variance: the variance of that mean, N × K; NaN if neither counts nor a second seed say how large it is.
        df: the degrees of freedom of the pooled variance, N; inf where it is not estimated from seeds.
        deviations: the deviation of each run from its mean, N × K × S.
        basis: what the variance rests on: several seeds of some size, the counts of one seed each, or nothing.
    """

    mean: Array
    variance: Array
    df: Array
    deviations: Array
    basis: Basis

    @property
    def known(self) -> bool:
        """Whether every mean has a variance."""
        return bool(np.isfinite(self.variance).all())


def spread_of_seeds(accuracy: Array, answers: Array | None) -> Spread:
    """The means over seeds with their pooled variances and degrees of freedom.

    With two seeds or more anywhere the variance between seeds is pooled over the sizes twice, as one number for all
    sizes and as one multiple of the binomial variance p (1 − p). Each size gets the mean of the two: the first is right
    where training makes the spread, the second where sampling of answers does. The pooling makes three seeds enough for
    Student's t; a normal-theory bootstrap of three seeds covers 75 % instead of 95.

    With one seed everywhere the binomial variance of its answers is taken, and the spread between seeds is unknown.

    Args:
        accuracy: the accuracy of each run, N × K × S.
        answers: the number of answers that an accuracy of each size is a share of, K; None: unknown.
    """
    seeds = (~np.isnan(accuracy)).sum(2)
    mean = np.nanmean(accuracy, axis=2)
    deviations = accuracy - mean[:, :, None]
    df = int((seeds[0] - 1).sum())
    unknown = np.full(len(mean), np.inf)
    if df == 0:
        if answers is None:
            none = np.full_like(mean, np.nan)
            return Spread(mean, none, unknown, deviations, "nothing")
        share = (mean * answers + 0.5) / (answers + 1.0)
        return Spread(mean, share * (1 - share) / answers, unknown, deviations, "counts")
    squares = np.nansum(deviations**2, axis=2).sum(1)
    binomial = mean * (1 - mean)
    total = ((seeds - 1) * binomial).sum(1)
    one = squares / df
    multiple = np.divide(squares, total, out=np.zeros_like(total), where=total > 0)
    variance = (one[:, None] + multiple[:, None] * binomial) / 2
    # Accuracies are whole counts: even seeds that agree are known no better than to the next count.
    step = 1e-6 if answers is None else 1.0 / answers
    variance = np.maximum(variance, step * step / 12.0) / seeds
    return Spread(mean, variance, np.full(len(mean), float(df)), deviations, "seeds")


def seed_correlation(first: Array, second: Array) -> Array:
    """The correlation of two arms' deviations at equal seeds and sizes, pooled over sizes and shrunk towards 0, N.

    It is moved towards 0 by 1.28 standard errors on Fisher's scale, so that a correlation that is noise neither narrows
    nor widens an interval. It is 0 where the arms share no seeds, or too few.

    Args:
        first, second: deviations of the same sizes with the same seed in the same place, N × K × S; NaN where a run is
            missing.
    """
    both = ~(np.isnan(first) | np.isnan(second))
    a, b = np.where(both, first, 0.0), np.where(both, second, 0.0)
    df = float((np.maximum(both[0].sum(1) - 1, 0)).sum())
    if df <= 4:
        return np.zeros(len(first))
    scale = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    raw = np.divide((a * b).sum(axis=(1, 2)), scale, out=np.zeros(len(first)), where=scale > 0)
    fisher = np.arctanh(np.clip(raw, -0.999, 0.999))
    return np.asarray(np.tanh(np.sign(fisher) * np.maximum(np.abs(fisher) - 1.28 / np.sqrt(df - 2), 0.0)))


def residual_variance(outcomes: Array) -> float:
    """The part of the variance of a mean over S seeds × I items that is neither the seeds' nor the items', σ²/(S I).

    It is in the variance between seed means and in that between item means, so in their sum it is counted twice.

    Args:
        outcomes: shares of right samples of one size, S × I.
    """
    seeds, items = outcomes.shape
    if seeds < 2:
        return 0.0
    rest = outcomes - outcomes.mean(0) - outcomes.mean(1, keepdims=True) + outcomes.mean()
    return float((rest**2).sum() / ((seeds - 1) * (items - 1)) / (seeds * items))
