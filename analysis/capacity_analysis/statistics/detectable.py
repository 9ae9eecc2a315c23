"""The smallest true difference that a design shows: its seeds, its items, and the scatter that it found."""

import math

import numpy as np
from scipy import optimize
from scipy.special import ndtr

from capacity_analysis.statistics.estimate import Estimate, least_half_width
from capacity_analysis.statistics.seed_tests import scaled_chi

POWER = 0.8


def smallest_detectable(difference: Estimate, power: float = POWER, *, one_seed: bool = False) -> float | None:
    """The smallest true difference whose interval lies on its side of 0 with probability `power`.

    The interval is that of `difference_estimate`, made by a study of the same design with the variances that this one
    found. The difference is taken as normal. Each study estimates the variance between seeds anew, and decides anew
    whether it is dropped. The other variances are taken as known.

    Args:
        difference: a paired difference of accuracies, from `difference_estimate`.
        power: the probability that is wanted.
        one_seed: one seed is enough, for differences that hold for the runs that were made.

    Returns:
        A share of 1. None without two seeds unless one is enough, or if even a difference of 1 is not shown.
    """
    if difference.seeds < (1 if one_seed else 2) or difference.items is None or difference.crossed is None:
        return None
    if difference.crossed.variance == 0:
        return least_half_width(difference.items, difference.confidence)

    def lacking(true: float) -> float:
        return power_for(difference, true) - power

    return None if lacking(1.0) < 0 else float(optimize.brentq(lacking, 0.0, 1.0, xtol=1e-6))


def power_for(difference: Estimate, true: float) -> float:
    """The probability that a study of the same design tells a true difference from 0, on its side.

    Args:
        difference: what this study found, with its mean squares; its variance is not 0.
        true: the true difference, a share of 1.

    Raises:
        ValueError: nothing is known of the variance.
    """
    crossed = difference.crossed
    if crossed is None or difference.items is None or crossed.variance == 0:
        raise ValueError("a difference without a variance has no power")
    least = least_half_width(difference.items, difference.confidence)
    error = math.sqrt(crossed.variance)
    expected = crossed.residual if crossed.dropped else crossed.seeds
    if expected == 0:
        return float(ndtr((true - max(least, crossed.half_width(difference.confidence))) / error))
    s, weight = scaled_chi(crossed.seed_df, math.sqrt(crossed.dropped_below / expected))
    half = np.maximum(least, crossed.half_widths(expected * s * s, difference.confidence))
    return float(weight @ ndtr((true - half) / error))
