"""The Hill curve of accuracy against size, fitted to one arm: least squares, delta intervals, parallel curves.

p(x) = c + (d − c) / (1 + (e/x)^h): c and d are the limits at small and large sizes, e is where half the way is gone,
h is the slope on the log axis. It is the four-parameter log-logistic of dose–response (Ritz et al., "Dose-response
analysis using R", PLoS ONE 2015; LL.4 of R's drc with b = −h). The untrained base, size 0, is no part of a curve: an
arm may start below it.

`hill_profile` has the same curve and the same minimiser, and asks for something else: where the curve passes a target,
for thousands of data sets, with correlated means and with limits that are accuracies. Here the limits are free, a
curve may fall, and the minimum is found to the last digits, because derivatives of it are taken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from capacity.errors import DataError
from capacity_analysis.types import Array

LN10 = math.log(10.0)
# Slopes beyond these are lines or steps as far as any table of sizes can tell.
_SLOPES = (0.05, 50.0)
# Midpoints lie within so many decades of the sizes.
_BEYOND = 12.0 / LN10
Residuals = Callable[[Array], tuple[Array, Array]]  # parameters P → residuals K and their derivatives K × P


def curve_and_derivatives(theta: Array, log_sizes: Array) -> tuple[Array, Array]:
    """Accuracies of N curves at K sizes, N × K, and their derivatives, N × K × 4.

    Args:
        theta: N × 4: lower, upper, log10 midpoint, ln slope. The derivatives are with respect to these.
        log_sizes: log10, K, or N × K.
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
    """One curve. `lower` > `upper` is a falling curve; the slope is positive."""

    lower: float
    upper: float
    midpoint: float
    slope: float

    @property
    def theta(self) -> Array:
        """The parameters as they are fitted: lower, upper, log10 midpoint, ln slope."""
        return np.array([self.lower, self.upper, math.log10(self.midpoint), math.log(self.slope)])

    def accuracy(self, sizes: ArrayLike) -> Array:
        """p(x) at positive sizes, in the shape of `sizes`."""
        return curve_and_derivatives(self.theta[None], np.log10(sizes).ravel())[0].reshape(np.shape(sizes))


@dataclass(frozen=True)
class HillFit:
    """A fitted curve with the covariance of its free parameters.

    Attributes:
        curve: the estimate.
        covariance: of (lower, upper, log10 midpoint, ln slope), from the observed Hessian; 0 for fixed parameters.
        sum_of_squares: weighted, at the minimum.
        df: observations − free parameters.
    """

    curve: Hill
    covariance: Array
    sum_of_squares: float
    df: int

    def standard_errors(self, sizes: Array) -> Array:
        """Delta-method standard error of the fitted accuracy at each size, K: √(∇pᵀ Σ ∇p) (drc's `predict`)."""
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
    """Least-squares fit of a Hill curve.

    Args:
        sizes: positive, one an observation.
        values: accuracies, or any response.
        variances: of each value, known; None: equal and estimated from the residuals.
        lower, upper: fixed limits.

    Raises:
        DataError: fewer sizes than free parameters, or equal values everywhere.
    """
    x, y = np.log10(np.asarray(sizes, dtype=float)), np.asarray(values, dtype=float)
    free = np.array([lower is None, upper is None, True, True])
    if len(np.unique(x)) < free.sum():
        raise DataError(f"a Hill curve of {free.sum()} free parameters needs as many sizes, not {len(np.unique(x))}")
    if np.ptp(y) == 0:
        raise DataError("a Hill curve cannot be fitted: all values are equal")
    weight = np.ones_like(y) if variances is None else 1.0 / np.sqrt(np.asarray(variances, dtype=float))

    def residuals(theta: Array) -> tuple[Array, Array]:
        (accuracies,), (derivatives,) = curve_and_derivatives(theta[None], x)
        return weight * (accuracies - y), weight[:, None] * derivatives

    first, last = y[np.argmin(x)], y[np.argmax(x)]
    if first == last:  # a level curve has no midpoint to start from
        last += np.ptp(y)
    limits = (first if lower is None else lower, last if upper is None else upper)
    starts = [
        np.array([*limits, middle, math.log(slope)])
        for middle in np.quantile(x, [0.2, 0.5, 0.8])
        for slope in (0.6, 1.5, 5.0)
    ]
    theta, rss = _minimum(residuals, starts, _box(x), free, tolerance=1e-12)  # as it is differentiated below
    df = len(y) - int(free.sum())
    scale = 1.0 if variances is not None else rss / df if df > 0 else math.nan
    covariance = np.zeros((4, 4))
    covariance[np.ix_(free, free)] = np.linalg.pinv(_hessian(residuals, theta)[np.ix_(free, free)]) * scale
    return HillFit(_curve(theta), covariance, rss, df)


def fit_parallel(
    arms: Sequence[tuple[Array, Array, Array]],
    *,
    lower: float | None = None,
    upper: float | None = None,
    apart: Sequence[HillFit] | None = None,
) -> tuple[tuple[Hill, ...], float]:
    """Curves with common limits and slope and their own midpoints: estimates and weighted sum of squares.

    Args:
        arms: (sizes, values, variances) of each.
        lower, upper: fixed limits.
        apart: the fits of the single arms, to start from; made here if None.
    """
    count = len(arms)
    own = [[0, 1, 2 + i, 2 + count] for i in range(count)]  # an arm's parameters among all
    log_sizes = [np.log10(sizes) for sizes, _, _ in arms]
    y, deviations = (np.concatenate(column) for column in ([a[1] for a in arms], [np.sqrt(a[2]) for a in arms]))

    def residuals(theta: Array) -> tuple[Array, Array]:
        accuracies, derivatives = [], []
        for place, x in zip(own, log_sizes, strict=True):
            (values,), (slopes,) = curve_and_derivatives(theta[None, place], x)
            accuracies.append(values)
            derivatives.append(np.zeros((len(x), len(theta))))
            derivatives[-1][:, place] = slopes
        return (np.concatenate(accuracies) - y) / deviations, np.concatenate(derivatives) / deviations[:, None]

    singles = [fit.curve for fit in apart or [fit_hill(*arm, lower=lower, upper=upper) for arm in arms]]
    limits = (y.min() if lower is None else lower, y.max() if upper is None else upper)
    middles = [math.log10(curve.midpoint) for curve in singles]
    starts = [np.array([*limits, *middles, math.log(slope)]) for slope in (0.5, 1.0, 2.0, 8.0)]
    every = [0, 1, *[2] * count, 3]
    low, high = _box(np.concatenate(log_sizes))
    free = np.array([lower is None, upper is None, *[True] * count, True])
    theta, rss = _minimum(residuals, starts, (low[every], high[every]), free)
    return tuple(_curve(theta[place]) for place in own), rss


def _curve(theta: Array) -> Hill:
    return Hill(float(theta[0]), float(theta[1]), 10.0 ** float(theta[2]), math.exp(theta[3]))


def _box(log_sizes: Array) -> tuple[Array, Array]:
    """The least and the greatest parameters of a curve, each 4."""
    low = np.array([-math.inf, -math.inf, log_sizes.min() - _BEYOND, math.log(_SLOPES[0])])
    high = np.array([math.inf, math.inf, log_sizes.max() + _BEYOND, math.log(_SLOPES[1])])
    return low, high


def _minimum(
    residuals: Residuals,
    starts: Sequence[Array],
    box: tuple[Array, Array],
    free: NDArray[np.bool_],
    tolerance: float = 1e-8,
) -> tuple[Array, float]:
    """The best of the minima from several starts, and its sum of squares. What is not free stays as it starts."""
    low, high = box
    best, smallest = starts[0], math.inf
    for start in starts:

        def whole(some: Array, start: Array = start) -> Array:
            theta = start.copy()
            theta[free] = some
            return theta

        found = optimize.least_squares(
            lambda some: residuals(whole(some))[0],
            np.clip(start, low, high)[free],
            jac=lambda some: residuals(whole(some))[1][:, free],
            bounds=(low[free], high[free]),
            x_scale="jac",
            xtol=tolerance,
            ftol=tolerance,
            gtol=tolerance,
        )
        if found.cost < smallest:
            best, smallest = whole(found.x), found.cost
    return best, 2.0 * float(smallest)


def _hessian(residuals: Residuals, theta: Array) -> Array:
    """Second derivatives of half the sum of squares, by central differences of its gradient; P × P.

    It is the observed, not the Gauss–Newton matrix: drc's standard errors come from it.
    """

    def gradient(at: Array) -> Array:
        residual, derivatives = residuals(at)
        return np.asarray(residual @ derivatives)

    steps = 1e-4 * np.eye(len(theta))
    hessian = np.stack([(gradient(theta + s) - gradient(theta - s)) / 2e-4 for s in steps])
    return np.asarray((hessian + hessian.T) / 2)
