"""How much a further run is expected to shorten the interval of a threshold (a c-optimal design, run by run).

The variance of log10 of the threshold is that of the delta method, for runs of equal weight and a weak prior. It is
taken for each curve of a posterior, and averaged (Chaloner & Verdinelli, "Bayesian experimental design: a review",
Statistical Science 1995).
"""

from dataclasses import dataclass

import numpy as np

from capacity_analysis.design.posterior import Curves, run_variance
from capacity_analysis.types import Array

_LN10 = float(np.log(10))
_PRIOR = np.array([0.5, 0.5, 2.0, 1.5]) ** -2.0  # precision of lower, upper, midpoint and log slope
_NEAR = 0.5  # decades beyond the candidates in which a threshold still counts


@dataclass(frozen=True)
class Precision:
    """What runs at each candidate size say of one threshold.

    Attributes:
        reduction: by how much one more run at a size reduces the variance of log10 of the threshold, K.
        deviation: the standard deviation of log10 of the threshold with the runs that there are.
    """

    reduction: Array
    deviation: float


def gradient(curves: Curves, log_sizes: Array) -> Array:
    """The derivative of accuracy by lower limit, upper limit, midpoint and log slope, D × K × 4.

    Args:
        curves: D of them.
        log_sizes: K, or D × K where each curve has sizes of its own.
    """
    share, height = curves.share(log_sizes), (curves.upper - curves.lower)[:, None]
    bend = height * share * (1 - share) * _LN10 * curves.slope[:, None]
    return np.stack([1 - share, share, -bend, bend * (log_sizes - curves.midpoint[:, None])], axis=-1)


def precision(curves: Curves, target: Array, moves: float, log_sizes: Array, counts: Array, items: int) -> Precision:
    """What the runs at each candidate size say, and what one more would add.

    Args:
        curves: of the posterior, D.
        target: the accuracy to reach under each curve, D.
        moves: how far the target moves with the accuracy at the largest size; 0 for a given accuracy.
        log_sizes: of the candidates, K.
        counts: the number of runs at each, K.
        items: how many items a run answers.
    """
    threshold = curves.threshold(target)
    inside = (threshold > log_sizes[0] - _NEAR) & (threshold < log_sizes[-1] + _NEAR)
    if not inside.any():
        end = len(log_sizes) - 1 if np.median(threshold) > 0 else 0
        return Precision(np.eye(len(log_sizes))[end] / (1 + counts), np.inf)
    kept = Curves(*(part[inside] for part in (curves.lower, curves.upper, curves.midpoint, curves.slope)))
    at = np.clip(threshold[inside], log_sizes[0], log_sizes[-1])
    slopes = gradient(kept, log_sizes)
    noise = run_variance(np.clip(kept.accuracy(log_sizes), 0.02, 0.98), items)
    information = np.einsum("dki,dkj,dk->dij", slopes, slopes, counts / noise) + np.diag(_PRIOR)
    covariance = np.linalg.inv(information)
    own = gradient(kept, at[:, None])[:, 0]
    steep = np.maximum(-own[:, 2], 1e-3)  # accuracy per decade at the threshold
    moved = (own - moves * slopes[:, -1]) / steep[:, None]
    through = np.einsum("di,dij,dkj->dk", moved, covariance, slopes)
    spread = np.einsum("dki,dij,dkj->dk", slopes, covariance, slopes)
    variance = np.einsum("di,dij,dj->d", moved, covariance, moved)
    return Precision((through**2 / (noise + spread)).mean(0), float(np.sqrt(np.median(variance))))
