"""Thresholds without a curve: isotonic fit for the estimate, inversion of tests for the interval.

Two numbers matter where a curve is not monotone. The *first crossing* is the smallest tested size that reaches the
target. From the second size on, the curve *stays above* it. The interval here holds both, whatever the shape:

- its low end is the largest size x_j such that accuracy is significantly below the target at x_j and at every smaller
  size. Testing goes up from the smallest size and stops at the first that is not rejected. So all tests run at the full
  level (fixed sequence: Maurer et al. 1995), and an end above the first crossing needs one false rejection.
- its high end is the smallest x_k such that accuracy is significantly at the target or above it at x_k and at every
  larger size.

Ends are tested sizes, because nothing is known between them: a step may be anywhere. The isotonic fit is not
bootstrapped, because that is inconsistent on plateaus (Kosorok 2008; Sen, Banerjee & Woodroofe, Annals of Statistics
2010).

Sizes are log10. The first axis of arrays is the data set (N), the second the size (K).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity_analysis.types import Array


@dataclass(frozen=True)
class Brackets:
    """The estimate and the interval of each data set, N-vectors of log10 sizes.

    Attributes:
        size: where the isotonic fit passes the target, interpolated on the log axis. It is −inf if the fit is at or
            above the target at the smallest size, and inf if it stays below.
        low, high: ends of the interval, −inf and inf where it is open.
    """

    size: Array
    low: Array
    high: Array


def isotonic(values: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """The sequence that never falls and is nearest to each row of `values` in weighted squares, for all rows at once.

    It is the maximum over lower ends of the minimum over upper ends of weighted block means (Barlow et al. 1972;
    Robertson, Wright & Dykstra 1988, section 1.4).

    Args:
        values: rows along the last axis, (…, K).
        weights: positive, in a shape that can be broadcast to that of `values`; None: equal.
    """
    y = np.asarray(values, dtype=float)
    w = np.ones_like(y) if weights is None else np.broadcast_to(np.asarray(weights, dtype=float), y.shape)
    zero = np.zeros((*y.shape[:-1], 1))
    sums = np.concatenate([zero, np.cumsum(w * y, axis=-1)], axis=-1)
    totals = np.concatenate([zero, np.cumsum(w, axis=-1)], axis=-1)
    k = y.shape[-1]
    best = np.full(y.shape, -np.inf)
    for first in range(k):
        # Block means from `first` to every later end, then the smallest over ends from each place on.
        means = (sums[..., first + 1 :] - sums[..., first : first + 1]) / (
            totals[..., first + 1 :] - totals[..., first : first + 1]
        )
        lowest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        np.maximum(best[..., first:], lowest, out=best[..., first:])
    return best


def passing(log_sizes: Array, fit: Array) -> Array:
    """log10 of the size at which each row of `fit` reaches 0, N; rows never fall, and ±inf is outside of the sizes."""
    reached = fit >= 0
    index = np.where(reached.any(1), reached.argmax(1), len(log_sizes))
    out = np.where(index == 0, -np.inf, np.inf)
    rows = np.flatnonzero((index > 0) & (index < len(log_sizes)))
    at = index[rows]
    below, above = fit[rows, at - 1], fit[rows, at]
    share = -below / (above - below)
    out[rows] = log_sizes[at - 1] + share * (log_sizes[at] - log_sizes[at - 1])
    return out


def brackets(log_sizes: Array, z: Array, deviations: Array, quantile: ArrayLike) -> Brackets:
    """The estimate and the interval of each data set.

    Args:
        log_sizes: log10 of the tested sizes, ascending, K.
        z: mean accuracies minus the target, N × K.
        deviations: their standard errors, N × K.
        quantile: one-sided quantiles of Student's t, N or one number; confidence 1 − α takes that of 1 − α/2.
    """
    t = np.broadcast_to(np.asarray(quantile, dtype=float), (len(z),))[:, None]
    fit = isotonic(z, 1.0 / deviations**2)
    below = np.logical_and.accumulate(z < -t * deviations, axis=1)
    above = np.logical_and.accumulate((z > t * deviations)[:, ::-1], axis=1)
    padded = np.concatenate([[-np.inf], log_sizes])
    low = padded[below.sum(1)]
    high = np.concatenate([[np.inf], log_sizes[::-1]])[above.sum(1)]
    return Brackets(passing(log_sizes, fit), low, high)


def first_crossing(sizes: Array, accuracies: Array, target: float) -> float | None:
    """The smallest tested size whose mean accuracy reaches the target; None if none does."""
    reached = np.flatnonzero(accuracies >= target)
    return float(sizes[reached[0]]) if len(reached) else None


def stays_above(sizes: Array, accuracies: Array, target: float) -> float | None:
    """The smallest tested size from which on every mean accuracy reaches the target; None if the last does not."""
    missed = np.flatnonzero(accuracies < target)
    after = missed[-1] + 1 if len(missed) else 0
    return float(sizes[after]) if after < len(sizes) else None


def not_reached(means: Array, targets: Array, weights: Array) -> float:
    """The share of replicates whose isotonic fit stays below the target at every size; their threshold counts as +∞.

    Args:
        means: mean accuracies, replicates × K.
        targets: the target of each replicate.
        weights: the weights of the fit, K.
    """
    # The isotonic fit at the largest size is its highest value: the smallest block mean that ends there reaches it or
    # not.
    top = isotonic(means, weights)[:, -1]
    return float(np.mean(top < targets))
