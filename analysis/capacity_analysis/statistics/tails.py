"""Quantiles and tails of Student's t and of F, for arrays of degrees of freedom that may be infinite."""

import numpy as np

from capacity_analysis.types import Array


def t_quantile(confidence: float, df: Array) -> Array:
    """Student's two-sided quantile."""
    from scipy.special import ndtri, stdtrit

    level = 0.5 + confidence / 2
    return np.asarray(np.where(np.isinf(df), ndtri(level), stdtrit(np.where(np.isinf(df), 1.0, df), level)))


def f_tail(value: Array, numerator: float | Array, denominator: Array) -> Array:
    """P(F > value), chi-squared where the denominator is inf."""
    from scipy.special import chdtrc, fdtrc

    finite = np.where(np.isinf(denominator), 1.0, denominator)
    return np.asarray(
        np.where(np.isinf(denominator), chdtrc(numerator, value * numerator), fdtrc(numerator, finite, value))
    )
