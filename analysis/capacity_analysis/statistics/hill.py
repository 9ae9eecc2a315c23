"""The Hill curve of accuracy against size, fitted to one arm: least squares, delta intervals, sizes at a target.

p(x) = c + (d − c) / (1 + (e/x)^h): c and d are the limits at small and large sizes, e is where half the way is gone,
h is the slope on the log axis. It is the four-parameter log-logistic of dose–response (Ritz et al., "Dose-response
analysis using R", PLoS ONE 2015; LL.4 of R's drc with b = −h). The untrained base, size 0, is no part of a curve: an
arm may start below it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from scipy.special import stdtrit

from capacity.errors import DataError
from capacity_analysis.types import Array

# Slopes beyond these are lines or steps as far as any table of sizes can tell.
_SLOPES = (0.05, 50.0)


@dataclass(frozen=True)
class Hill:
    """One curve. `lower` > `upper` is a falling curve; the slope is positive."""

    lower: float
    upper: float
    midpoint: float
    slope: float

    def accuracy(self, sizes: ArrayLike) -> Array:
        """p(x) at sizes ≥ 0; `lower` at 0."""
        return self.lower + (self.upper - self.lower) * self.share(sizes)

    def share(self, sizes: ArrayLike) -> Array:
        """1 / (1 + (e/x)^h), the share of the way from `lower` to `upper`."""
        x = np.asarray(sizes, dtype=float)
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(self.slope * (math.log(self.midpoint) - np.log(x)))))

    def size_at(self, target: float) -> float | None:
        """x(y*) = e [(y* − c)/(d − y*)]^(1/h); None if y* is not strictly between c and d."""
        way, left = target - self.lower, self.upper - target
        if way * left <= 0:
            return None
        return self.midpoint * float((way / left) ** (1.0 / self.slope))


@dataclass(frozen=True)
class HillFit:
    """A fitted curve with the covariance of its free parameters.

    Attributes:
        curve: the estimate.
        covariance: of (lower, upper, ln midpoint, ln slope), from the observed Hessian; 0 for fixed parameters.
        sum_of_squares: weighted, at the minimum.
        df: observations − free parameters.
        free: which of the four were fitted.
    """

    curve: Hill
    covariance: NDArray[np.float64]
    sum_of_squares: float
    df: int
    free: tuple[bool, bool, bool, bool]

    def log_size_at(self, target: float) -> tuple[float, float] | None:
        """ln x(y*) and its delta-method standard error; None if the curve does not pass the target."""
        size = self.curve.size_at(target)
        if size is None:
            return None
        gradient = self._gradient_of_log_size(target)
        return math.log(size), math.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0))

    def _gradient_of_log_size(self, target: float) -> Array:
        c, d, h = self.curve.lower, self.curve.upper, self.curve.slope
        way, left = target - c, d - target
        return np.array([-1 / (h * way), -1 / (h * left), 1.0, -math.log(way / left) / h])

    def share_interval(self, share: float, confidence: float = 0.95) -> tuple[float, float, float]:
        """The size at a share of the curve's own way (.5: the midpoint): estimate, and its delta interval.

        The interval is symmetric on the size axis, as in drc's `ED(…, interval = "delta")`; Student's t on `df`.
        """
        h = self.curve.slope
        logit = math.log(share / (1 - share))
        size = self.curve.midpoint * math.exp(logit / h)
        gradient = size * np.array([0.0, 0.0, 1.0, -logit / h])
        half = float(stdtrit(self.df, 0.5 + confidence / 2)) * math.sqrt(gradient @ self.covariance @ gradient)
        return size, size - half, size + half


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
        sizes: ≥ 0, one an observation.
        values: accuracies, or any response.
        variances: of each value, known; None: equal and estimated from the residuals.
        lower, upper: fixed limits.

    Raises:
        DataError: fewer sizes than free parameters, or equal values everywhere.
    """
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    free = (lower is None, upper is None, True, True)
    if len(np.unique(x)) < sum(free):
        raise DataError(f"a Hill curve of {sum(free)} free parameters needs as many sizes, not {len(np.unique(x))}")
    if np.ptp(y) == 0:
        raise DataError("a Hill curve cannot be fitted: all values are equal")
    weight = np.ones_like(y) if variances is None else 1.0 / np.sqrt(np.asarray(variances, dtype=float))
    fixed = (lower, upper)
    best: optimize.OptimizeResult | None = None
    for start in _starts(x, y, fixed):
        found = optimize.least_squares(
            lambda t: weight * (_curve(_spread_out(t, fixed)).accuracy(x) - y),
            start,
            jac=lambda t: weight[:, None] * _derivatives(_spread_out(t, fixed), x)[:, free],
            bounds=_bounds(x, fixed),
            x_scale="jac",
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    df = len(y) - sum(free)
    rss = 2.0 * float(best.cost)
    unscaled = np.linalg.pinv(_hessian(best.x, x, y, weight, fixed))
    scale = 1.0 if variances is not None else rss / df if df > 0 else math.nan
    covariance = np.zeros((4, 4))
    covariance[np.ix_(free, free)] = unscaled * scale
    return HillFit(_curve(_spread_out(best.x, fixed)), covariance, rss, df, free)


def fit_parallel(
    arms: list[tuple[Array, Array, Array]],
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
    fixed = (lower, upper)
    k = sum(f is None for f in fixed)
    x, y = (np.concatenate([arm[i] for arm in arms]) for i in (0, 1))
    starts = [fit.curve for fit in apart or [fit_hill(*arm, lower=lower, upper=upper) for arm in arms]]

    def curves(t: Array) -> list[Hill]:
        shared = _curve(_spread_out(np.concatenate([t[:k], t[-2:-1], t[-1:]]), fixed))
        return [replace(shared, midpoint=math.exp(m)) for m in t[k : k + len(arms)]]

    def residuals(t: Array) -> Array:
        t = np.concatenate([t[: k + len(arms)], [0.0], t[-1:]])
        return np.concatenate([(c.accuracy(a[0]) - a[1]) / np.sqrt(a[2]) for c, a in zip(curves(t), arms, strict=True)])

    low, high = _bounds(x, fixed)
    bounds = [np.concatenate([b[:k], np.repeat(b[k], len(arms)), b[-1:]]) for b in (low, high)]
    best = None
    for slope in (0.5, 1.0, 2.0, 8.0):
        limits = [v for v, f in zip((y.min(), y.max()), fixed, strict=True) if f is None]
        start = np.array([*limits, *(math.log(s.midpoint) for s in starts), math.log(slope)])
        found = optimize.least_squares(residuals, np.clip(start, *bounds), bounds=bounds, x_scale="jac")
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    full = np.concatenate([best.x[: k + len(arms)], [0.0], best.x[-1:]])
    return tuple(curves(full)), 2.0 * float(best.cost)


def _hessian(free: Array, x: Array, y: Array, weight: Array, fixed: tuple[float | None, float | None]) -> Array:
    """Second derivatives of half the sum of squares, by central differences of its gradient.

    The observed, not the Gauss–Newton matrix: it is what drc's standard errors come from.
    """

    def residuals(t: Array) -> Array:
        return weight * (_curve(_spread_out(t, fixed)).accuracy(x) - y)

    def gradient(t: Array) -> Array:
        steps = 1e-5 * np.eye(len(t))
        jacobian = np.stack([(residuals(t + s) - residuals(t - s)) / 2e-5 for s in steps], axis=1)
        return np.asarray(jacobian.T @ residuals(t))

    steps = 1e-4 * np.eye(len(free))
    hessian = np.stack([(gradient(free + s) - gradient(free - s)) / 2e-4 for s in steps])
    return np.asarray((hessian + hessian.T) / 2)


def _derivatives(theta: Array, x: Array) -> Array:
    """Of the accuracies at sizes x with respect to lower, upper, ln midpoint and ln slope; observations × 4."""
    curve = _curve(theta)
    share = curve.share(x)
    away = np.log(np.where(x > 0, x, curve.midpoint) / curve.midpoint)  # at size 0 the curve is level
    steep = (curve.upper - curve.lower) * share * (1.0 - share) * curve.slope
    return np.stack([1.0 - share, share, -steep, steep * away], axis=1)


def _curve(theta: Array) -> Hill:
    return Hill(float(theta[0]), float(theta[1]), math.exp(theta[2]), math.exp(theta[3]))


def _spread_out(free: Array, fixed: tuple[float | None, float | None]) -> Array:
    """All four parameters from the free ones."""
    values = iter(free)
    limits = [next(values) if f is None else f for f in fixed]
    return np.array([*limits, *values])


def _bounds(x: Array, fixed: tuple[float | None, float | None]) -> tuple[Array, Array]:
    positive = x[x > 0]
    k = sum(f is None for f in fixed)
    low = [-np.inf] * k + [math.log(positive.min()) - 12.0, math.log(_SLOPES[0])]
    high = [np.inf] * k + [math.log(positive.max()) + 12.0, math.log(_SLOPES[1])]
    return np.array(low), np.array(high)


def _starts(x: Array, y: Array, fixed: tuple[float | None, float | None]) -> list[Array]:
    """Limits from the first and last sizes; the midpoint at several places, several slopes."""
    order = np.argsort(x)
    limits = [v for v, f in zip((y[order[0]], y[order[-1]]), fixed, strict=True) if f is None]
    if len(limits) == 2 and limits[0] == limits[1]:
        limits[1] += float(np.ptp(y))
    positive = np.log(x[x > 0])
    middles = np.quantile(positive, [0.2, 0.5, 0.8])
    return [np.array([*limits, m, math.log(s)]) for m in middles for s in (0.6, 1.5, 5.0)]
