"""The Hill curve of accuracy against size, fitted to one arm or to parallel arms by least squares.

The curve is p(x) = c + (d − c) / (1 + (e/x)^h). c and d are its limits at small and large sizes. At e half the way is
gone, and h is the slope on the log axis. It is the four-parameter log-logistic of dose–response (Ritz et al.,
"Dose-response analysis using R", PLoS ONE 2015; LL.4 of R's drc with b = −h). The untrained base, size 0, is no part of
a curve, because an arm may start below it.

`hill_profile` fits the same curve with the same minimiser and asks where it passes a target. There limits are
accuracies, the means are correlated, and no curve falls. Here limits are free and a curve may fall. The minimum is
found to the last digits, because its second derivatives and differences of minima are used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity.errors import DataError
from capacity_analysis.statistics.least_squares import Residuals, least_squares
from capacity_analysis.types import Array

LN10 = math.log(10.0)
# Slopes beyond these are lines or steps as far as any table of sizes can tell.
_SLOPES = (0.05, 50.0)
# Midpoints lie at most this many decades beyond the sizes.
_BEYOND = 12.0 / LN10
# With so many iterations the bottom of nearly every valley is reached.
_ITERATIONS = 3000
_PRECISION = 1e-13


def curve_and_derivatives(theta: Array, log_sizes: Array) -> tuple[Array, Array]:
    """Accuracies of N curves at K sizes, N × K, and their derivatives with respect to `theta`, N × K × 4.

    Args:
        theta: lower limit, upper limit, log10 midpoint and ln slope of each curve, N × 4.
        log_sizes: log10 of the sizes, K.
    """
    lower, upper, middle, log_slope = theta.T[:, :, None]
    slope = np.exp(log_slope)
    away = LN10 * (log_sizes - middle)
    share = 1.0 / (1.0 + np.exp(-np.clip(slope * away, -60, 60)))
    steep = (upper - lower) * share * (1.0 - share)
    derivatives = np.stack([1.0 - share, share, -steep * slope * LN10, steep * slope * away], axis=2)
    return lower + (upper - lower) * share, derivatives


@dataclass(frozen=True)
class Hill:
    """One curve; its slope is positive, and it falls where `lower` is above `upper`."""

    lower: float
    upper: float
    midpoint: float
    slope: float

    @property
    def theta(self) -> Array:
        """The parameters as they are fitted: lower, upper, log10 midpoint, ln slope."""
        return np.array([self.lower, self.upper, math.log10(self.midpoint), math.log(self.slope)])

    def accuracy(self, sizes: ArrayLike) -> Array:
        """The curve's accuracy at positive sizes, in the shape of `sizes`."""
        return curve_and_derivatives(self.theta[None], np.log10(sizes).ravel())[0].reshape(np.shape(sizes))


@dataclass(frozen=True)
class HillFit:
    """A fitted curve with the covariance of its free parameters.

    Attributes:
        curve: the estimate.
        covariance: of (lower, upper, log10 midpoint, ln slope), 4 × 4, from the observed Hessian; 0 for fixed ones.
        sum_of_squares: the weighted one at the minimum.
        df: the number of observations minus that of free parameters.
    """

    curve: Hill
    covariance: Array
    sum_of_squares: float
    df: int

    def standard_errors(self, sizes: Array) -> Array:
        """The standard error of the fitted accuracy at each size, K: √(∇pᵀ Σ ∇p), as in drc's `predict`."""
        _, (gradient,) = curve_and_derivatives(self.curve.theta[None], np.log10(sizes))
        variance = np.einsum("ki,ij,kj->k", gradient, self.covariance, gradient)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def fit_hill(
    sizes: ArrayLike,
    values: ArrayLike,
    variances: ArrayLike | None = None,
    *,
    lower: float | None = None,
    upper: float | None = None,
) -> HillFit:
    """Fits a Hill curve by weighted least squares.

    Args:
        sizes: the size of each observation, positive.
        values: the accuracy, or any other response, of each observation.
        variances: the known variance of each value; None: equal variances, estimated from the residuals.
        lower, upper: limits that are fixed; None: fitted.

    Raises:
        DataError: there are fewer sizes than free parameters, all values are equal, or a variance is not positive.
    """
    x, y = np.log10(np.asarray(sizes, dtype=float)), np.asarray(values, dtype=float)
    free = np.array([lower is None, upper is None, True, True])
    if len(np.unique(x)) < free.sum():
        raise DataError(f"a Hill curve of {free.sum()} free parameters needs as many sizes, not {len(np.unique(x))}")
    if np.ptp(y) == 0:
        raise DataError("a Hill curve cannot be fitted: all values are equal")
    if variances is not None and not np.all(np.asarray(variances) > 0):
        raise DataError("a Hill curve cannot be fitted: the variance of a value is not known, or not above 0")
    weight = np.ones_like(y) if variances is None else 1.0 / np.sqrt(np.asarray(variances, dtype=float))

    def residuals(theta: Array) -> tuple[Array, Array]:
        accuracies, derivatives = curve_and_derivatives(theta, x)
        return weight * (accuracies - y), weight[:, None] * derivatives

    first, last = y[np.argmin(x)], y[np.argmax(x)]
    if first == last:  # a level curve has no midpoint to start from
        last += np.ptp(y)
    starts = [
        np.array([[first, last, x.min() + place * np.ptp(x), math.log(slope)]])
        for place in (0.1, 0.35, 0.6, 0.85)
        for slope in (0.7, 2.5, 8.0, 25.0)
    ]
    (theta,), (rss,) = least_squares(starts, _box(x, lower, upper), lambda _: residuals, _ITERATIONS, _PRECISION)
    df = len(y) - int(free.sum())
    scale = 1.0 if variances is not None else float(rss) / df if df > 0 else math.nan
    covariance = np.zeros((4, 4))
    covariance[np.ix_(free, free)] = np.linalg.pinv(_hessian(residuals, theta)[np.ix_(free, free)]) * scale
    return HillFit(_curve(theta), covariance, float(rss), df)


def fit_parallel(
    arms: Sequence[tuple[Array, Array, Array]],
    apart: Sequence[HillFit],
    *,
    lower: float | None = None,
    upper: float | None = None,
) -> tuple[tuple[Hill, ...], float]:
    """Fits curves that have their limits and slope in common and a midpoint each.

    Args:
        arms: the sizes, values and known variances of each arm.
        apart: the fits of the single arms, from whose midpoints the search starts.
        lower, upper: limits that are fixed; None: fitted.

    Returns:
        The curves of the arms and the weighted sum of squares of all of them.
    """
    count = len(arms)
    own = [[0, 1, 2 + i, 2 + count] for i in range(count)]  # an arm's parameters among all
    log_sizes = [np.log10(sizes) for sizes, _, _ in arms]
    y, deviations = (np.concatenate(column) for column in ([a[1] for a in arms], [np.sqrt(a[2]) for a in arms]))

    def residuals(theta: Array) -> tuple[Array, Array]:
        accuracies, derivatives = [], []
        for place, x in zip(own, log_sizes, strict=True):
            values, slopes = curve_and_derivatives(theta[:, place], x)
            accuracies.append(values)
            derivatives.append(np.zeros((*values.shape, theta.shape[1])))
            derivatives[-1][:, :, place] = slopes
        residual = np.concatenate(accuracies, axis=1) - y
        return residual / deviations, np.concatenate(derivatives, axis=1) / deviations[:, None]

    curves = [fit.curve for fit in apart]
    middles = np.array([math.log10(curve.midpoint) for curve in curves])
    starts = [
        np.array([[bottom, top, *(middles + shift), math.log(slope)]])
        for bottom, top in ((y.min(), y.max()), (min(c.lower for c in curves), max(c.upper for c in curves)))
        for shift in (np.zeros(count), *np.eye(count), *-np.eye(count), np.median(np.concatenate(log_sizes)) - middles)
        for slope in (0.5, 2.0, 8.0)
    ]
    every = [0, 1, *[2] * count, 3]
    low, high = _box(np.concatenate(log_sizes), lower, upper)
    box = low[:, every], high[:, every]
    (theta,), (rss,) = least_squares(starts, box, lambda _: residuals, _ITERATIONS, _PRECISION)
    return tuple(_curve(theta[place]) for place in own), float(rss)


def _curve(theta: Array) -> Hill:
    return Hill(float(theta[0]), float(theta[1]), 10.0 ** float(theta[2]), math.exp(theta[3]))


def _box(log_sizes: Array, lower: float | None, upper: float | None) -> tuple[Array, Array]:
    """The least and the greatest parameters of a curve, 1 × 4 each; a fixed limit has equal ends."""
    ends = []
    for sign, outermost, slope in ((-1.0, log_sizes.min(), _SLOPES[0]), (1.0, log_sizes.max(), _SLOPES[1])):
        limits = [sign * math.inf if limit is None else limit for limit in (lower, upper)]
        ends.append(np.array([[*limits, outermost + sign * _BEYOND, math.log(slope)]]))
    return ends[0], ends[1]


def _hessian(residuals: Residuals, theta: Array) -> Array:
    """Second derivatives of half the sum of squares, P × P, by central differences of its gradient.

    This is the observed matrix, from which drc takes its standard errors, not that of Gauss and Newton.
    """
    steps = 1e-4 * np.eye(len(theta))
    residual, jacobian = residuals(np.concatenate([theta + steps, theta - steps]))
    after, before = np.split(np.einsum("nkp,nk->np", jacobian, residual), 2)
    hessian = (after - before) / 2e-4
    return np.asarray((hessian + hessian.T) / 2)
