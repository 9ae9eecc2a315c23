"""The smallest true difference that a design shows: its seeds, its items, and the scatter that it found."""

import math

import numpy as np
from scipy import optimize
from scipy.special import ndtr

from capacity_analysis.statistics.estimate import Estimate, least_half_width
from capacity_analysis.statistics.seed_tests import scaled_chi

POWER = 0.8


def smallest_detectable(difference: Estimate, power: float = POWER) -> float | None:
    """The smallest true difference whose interval lies on its side of 0 with probability `power`.

    The interval is that of `difference_estimate`, made by a study of the same design with the variances that this one
    found. The difference is taken as normal. Each study estimates the variance between seeds anew, and decides anew
    whether it is dropped. The other variances are taken as known.

    Args:
        difference: a paired difference of accuracies, from `difference_estimate`.
        power: the probability that is wanted.

    Returns:
        A share of 1. None without two seeds, or if even a difference of 1 is not shown.
    """
    crossed = difference.crossed
    if difference.seeds < 2 or difference.items is None or crossed is None:
        return None
    least = least_half_width(difference.items, difference.confidence)
    error = math.sqrt(crossed.variance)
    if error == 0:
        return least
    expected = crossed.residual if crossed.dropped else crossed.seeds
    kink = math.sqrt(crossed.dropped_below / expected) if expected > 0 else 0.0
    s, weight = scaled_chi(crossed.seed_df, kink)
    half = np.maximum(least, crossed.half_widths(expected * s * s, difference.confidence))

    def lacking(true: float) -> float:
        return float(weight @ ndtr((true - half) / error)) - power

    return None if lacking(1.0) < 0 else float(optimize.brentq(lacking, 0.0, 1.0, xtol=1e-6))
