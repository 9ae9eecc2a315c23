"""Replicates of mean accuracies: fresh seeds for each arm, one draw of item weights for all of them.

Items are crossed with everything else, so a replicate weighs the items once and uses the weights for every run. That is
one matrix product of replicates × items with items × arms (the crossed or pigeonhole bootstrap: Owen, Annals of Applied
Statistics 2007). The seeds' part is drawn from Student's t with the variance pooled over sizes. Drawing among three
seeds with replacement would give too little spread.
"""

import numpy as np

from capacity_analysis.statistics.monotone import isotonic
from capacity_analysis.types import Array

_BLOCK = 2000


def item_shifts(outcomes: Array, replicates: int, rng: np.random.Generator) -> Array:
    """How far fresh items move the mean of each row, replicates × rows.

    Args:
        outcomes: shares of correct samples, as means over seeds, rows × items.
        replicates: the number of replicates.
        rng: draws the weights.
    """
    rows, items = outcomes.shape
    centred = (outcomes - outcomes.mean(1, keepdims=True)).astype(np.float32)
    out = np.empty((replicates, rows))
    for start in range(0, replicates, _BLOCK):
        size = min(_BLOCK, replicates - start)
        weights = rng.multinomial(items, np.full(items, 1.0 / items), size=size).astype(np.float32)
        out[start : start + size] = weights @ centred.T / items
    return out


def seed_shifts(variance: Array, df: float, replicates: int, rng: np.random.Generator) -> Array:
    """How far fresh seeds move the mean of each size, replicates × K: multivariate t with a common scale.

    Args:
        variance: the variance of each mean over seeds, K.
        df: the degrees of freedom of the pooled variance; inf for the normal distribution.
        replicates: the number of replicates.
        rng: draws the shifts.
    """
    noise = rng.normal(size=(replicates, len(variance))) * np.sqrt(variance)
    if np.isinf(df):
        return noise
    return np.asarray(noise * np.sqrt(df / rng.chisquare(df, size=(replicates, 1))))


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
