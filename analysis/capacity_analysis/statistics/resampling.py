"""Replicates of mean accuracies: fresh seeds for each arm, one draw of item weights for all of them.

Items are crossed with everything else, so a replicate weighs the items once and uses the weights for every run: one
matrix product of replicates × items with items × arms (the crossed or pigeonhole bootstrap: Owen, Annals of Applied
Statistics 2007). The seeds' part is drawn from Student's t with the variance pooled over sizes, not by drawing among
three seeds with replacement, which gives too little spread.
"""

import numpy as np

from capacity_analysis.statistics.monotone import isotonic
from capacity_analysis.types import Array

_BLOCK = 2000


def item_shifts(outcomes: Array, replicates: int, rng: np.random.Generator) -> Array:
    """Replicates × rows: how far fresh items move the mean of each row.

    Args:
        outcomes: rows × items, each row's share of right samples on each item (means over seeds).
        replicates: how many.
        rng: of the weights.
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
    """Replicates × sizes: how far fresh seeds move the mean of each size; multivariate t with a common scale.

    Args:
        variance: K, of each mean over seeds.
        df: of the pooled variance; inf for the normal distribution.
        replicates: how many.
        rng: of the draws.
    """
    noise = rng.normal(size=(replicates, len(variance))) * np.sqrt(variance)
    if np.isinf(df):
        return noise
    return np.asarray(noise * np.sqrt(df / rng.chisquare(df, size=(replicates, 1))))


def not_reached(means: Array, targets: Array, weights: Array) -> float:
    """Share of replicates whose isotonic fit stays below the target at every size: they count as +∞.

    Args:
        means: replicates × K.
        targets: replicates.
        weights: K, of the fit.
    """
    # The isotonic fit at the largest size is its highest value: the smallest block mean that ends there reaches it or
    # not.
    top = isotonic(means, weights)[:, -1]
    return float(np.mean(top < targets))
