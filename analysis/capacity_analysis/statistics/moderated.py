"""Variances of several sizes, each between that of its own seeds and one that is pooled over sizes.

With a few seeds, the variance of a single size is known badly, and a pooled one is wrong where sizes differ. The
moderated variance is the mean of both by their degrees of freedom (Smyth, Statistical Applications in Genetics and
Molecular Biology 2004). Those of the pooled one are estimated: they are the fewer, the more the sizes differ.
"""

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.types import Array

# Sizes count as different if Bartlett's test of equal variances rejects at this level. Chance would make them worse.
LEVEL = 0.001
# The mean and the variance of the logarithm of a variance need so many sizes with several seeds.
_LEAST_SIZES = 3


def unpooled_share(squares: Array, pooled: Array, df: NDArray[np.intp], error: Array) -> Array:
    """The weight of each size's own variance, N × K; 0 for all sizes whose variances do not differ beyond chance.

    Args:
        squares: the sum of squared deviations at each size, N × K.
        pooled: the variance of one run by the other sizes too, N × K. The ratios of variances to it are compared.
        df: the seeds of each size less one, K.
        error: the variance of rounding to whole answers, h²/12 for a step of h, N × K. Seeds that scatter over few
            counts have variances that differ by chance more than normal ones do. So h² is added to each.
    """
    from scipy.special import chdtrc, polygamma, psi

    share = np.zeros_like(pooled)
    several = df > 0
    k = int(several.sum())
    if k < _LEAST_SIZES:
        return share
    nu = df[several].astype(float)
    step = 12 * error[:, several]
    ratio = (squares[:, several] / nu + step) / (pooled[:, several] + step)
    log_ratio = np.log(ratio)
    # Bartlett's statistic with his correction (Proceedings of the Royal Society A 1937).
    statistic = nu.sum() * np.log((nu * ratio).sum(1) / nu.sum()) - (nu * log_ratio).sum(1)
    statistic = statistic / (1 + ((1 / nu).sum() - 1 / nu.sum()) / (3 * (k - 1)))
    centred = log_ratio - psi(nu / 2) + np.log(nu / 2)
    excess = centred.var(1, ddof=1) - polygamma(1, nu / 2).mean()
    differ = (chdtrc(k - 1, statistic) < LEVEL) & (excess > 0)
    prior = 2 * _inverse_trigamma(excess[differ])
    share[np.ix_(differ, several)] = nu / (nu + prior[:, None])
    return share


def _inverse_trigamma(value: Array) -> Array:
    """The x with ψ'(x) = value, by Newton's method on 1 / ψ'(x), which is nearly linear (Smyth 2004)."""
    from scipy.special import polygamma

    x = 0.5 + 1.0 / value
    for _ in range(20):
        trigamma = polygamma(1, x)
        x = x + trigamma * (1 - trigamma / value) / polygamma(2, x)
    return np.asarray(x)
