"""The smallest true difference that a design shows: its seeds, its items, and the scatter that it found."""

import math

import numpy as np
from scipy import optimize
from scipy.special import ndtr, stdtrit

from capacity_analysis.statistics.estimate import Estimate, least_half_width
from capacity_analysis.statistics.seed_tests import scaled_chi

POWER = 0.8


def smallest_detectable(difference: Estimate, power: float = POWER) -> float | None:
    """The smallest true difference whose interval lies on its side of 0 with probability `power`.

    The interval is that of `difference_estimate`, made by a study of the same design with the variances that this one
    found. The difference is taken as normal, with the sum of both variances. The variance between seeds, which has few
    degrees of freedom, is found anew by each study. That between items is taken as known.

    Args:
        difference: a paired difference of accuracies, from `difference_estimate`.
        power: the probability that is wanted.

    Returns:
        A share of 1. None without two seeds, or if even a difference of 1 is not shown.
    """
    if difference.seeds < 2 or difference.items is None or not difference.terms:
        return None
    quantile = 0.5 + difference.confidence / 2
    squares = [variance * float(stdtrit(df, quantile)) ** 2 for variance, df in difference.terms]
    between_seeds, known = squares[0], sum(squares[1:])
    least = least_half_width(difference.items, difference.confidence)
    error = math.sqrt(sum(variance for variance, _ in difference.terms))
    if error == 0:
        return least
    floored = least * least > known and between_seeds > 0
    s, weight = scaled_chi(difference.terms[0][1], math.sqrt((least * least - known) / between_seeds) if floored else 0)
    half = np.maximum(least, np.sqrt(between_seeds * s * s + known))

    def lacking(true: float) -> float:
        return float(weight @ ndtr((true - half) / error)) - power

    return None if lacking(1.0) < 0 else float(optimize.brentq(lacking, 0.0, 1.0, xtol=1e-6))
