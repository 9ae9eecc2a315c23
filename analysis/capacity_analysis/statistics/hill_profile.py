"""Where a Hill curve passes the target: least-squares fits and profile intervals, for many data sets at once.

Data enter relative to the target, z = mean accuracy − target, with their full covariance. So an estimated target, a
share of the way up to a measured ceiling, carries its error along. For every size T the best curve that passes the
target just there is fitted. T belongs to the interval while the curve's sum of squares exceeds the smallest one by at
most the squared quantile of Student's t. This is the profile likelihood (Venzon & Moolgavkar, Applied Statistics 1988).
Unlike a delta interval, this one holds the whole gap where accuracy steps up between two sizes, and it may be open.

Sizes are log10 throughout. The first axis of arrays is the data set (N), the second the size (K).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.statistics.hill import LN10, curve_and_derivatives
from capacity_analysis.statistics.least_squares import Residuals, Rows, least_squares
from capacity_analysis.types import Array

# Slopes beyond these are lines or steps as far as tested sizes can tell.
LOG_SLOPES = (np.log(0.1), np.log(1000.0))
# Midpoints lie at most this many decades beyond the tested sizes.
_BEYOND = 3.0
# A curve that passes the target lies at least this far on both sides of it.
CLEAR = 1e-5
# Ends are searched until they are known to this, in decades.
_PRECISE = 0.004
# A curve that rises by more than this share of its height between two tested sizes is a step as far as they can tell.
_STEP = 0.9


@dataclass(frozen=True)
class Limits:
    """The ranges of each curve's lower and upper limit, relative to the target, N-vectors; equal ends fix a limit."""

    lower: tuple[Array, Array]
    upper: tuple[Array, Array]

    @property
    def free(self) -> int:
        """The number of parameters that are fitted, 2 to 4."""
        return 2 + sum(bool((low != high).any()) for low, high in (self.lower, self.upper))

    def take(self, rows: Rows) -> "Limits":
        """The limits of some of the data sets."""
        lower, upper = ((low[rows], high[rows]) for low, high in (self.lower, self.upper))
        return Limits(lower, upper)


@dataclass(frozen=True)
class Crossings:
    """Where the best curve of each data set passes the target, with its interval: N-vectors, sizes as log10.

    Attributes:
        size: where the best curve passes the target; −inf or inf if that is below or above the tested sizes, or
            nowhere.
        low, high: ends of the interval, within the tested sizes; −inf and inf where it is open.
        critical: the critical value that `low` and `high` belong to.
        sum_of_squares: that of the best curve, for the test of fit.
        influence: the change of `size` with each mean, N × K; NaN where `size` is not between tested sizes.
    """

    size: Array
    low: Array
    high: Array
    critical: Array
    sum_of_squares: Array
    influence: Array


def limits_around(targets: Array, lower: float | None, upper: float | None) -> Limits:
    """The limits of accuracies around targets, N: from 0 to 1, or fixed at `lower` and `upper`."""
    floor, roof = -targets, 1.0 - targets
    below = (floor, roof) if lower is None else (lower - targets, lower - targets)
    above = (floor, roof) if upper is None else (upper - targets, upper - targets)
    return Limits(below, above)


def whitener(covariance: Array) -> Array:
    """The matrices W with Wᵀ W = covariance⁻¹, N × K × K."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)))


@dataclass(frozen=True)
class Fits:
    """The best curves of many data sets, before any interval; `size` and `influence` are those of `Crossings`."""

    problem: "_Problem"
    theta: Array
    box: tuple[Array, Array]
    sum_of_squares: Array
    size: Array
    influence: Array

    @property
    def steps(self) -> NDArray[np.bool_]:
        """Whether a curve is a step as far as tested sizes can tell, or does not pass the target there; N."""
        accuracies, _ = curve_and_derivatives(self.theta, self.problem.log_sizes)
        height = self.theta[:, 1] - self.theta[:, 0]
        return np.asarray(~np.isfinite(self.size) | (np.diff(accuracies, axis=1).max(1) > _STEP * height))


def fit_curves(log_sizes: Array, z: Array, covariance: Array, limits: Limits) -> Fits:
    """The best rising curve of each data set.

    Args:
        log_sizes: log10 of the tested sizes, ascending, K.
        z: mean accuracies minus the target, N × K.
        covariance: the covariance of `z`, N × K × K.
        limits: the ranges of the curves' limits.
    """
    problem = _Problem(log_sizes, z, whitener(covariance), limits)
    box = problem.box()
    theta, smallest = problem.best(box)
    size = problem.crossing(theta)
    inside = (size >= log_sizes[0]) & (size <= log_sizes[-1])
    influence = np.where(inside[:, None], problem.influence(theta, size), np.nan)
    size = np.where(inside, size, np.where(size > log_sizes[-1], np.inf, -np.inf))
    return Fits(problem, theta, box, smallest, size, influence)


def crossings(fits: Fits, critical: Array) -> Crossings:
    """Adds the intervals to the best curves by inverting the test of each crossing.

    Args:
        fits: the best curves.
        critical: the largest excess of the sum of squares inside the interval, N: t² at the wanted confidence.
    """
    problem, theta, size = fits.problem, fits.theta, fits.size
    first, last = float(problem.log_sizes[0]), float(problem.log_sizes[-1])
    anchor = np.clip(size, first, last)
    start = np.stack([np.minimum(theta[:, 0], -0.01), np.maximum(theta[:, 1], 0.01), theta[:, 3]], axis=1)
    at_anchor, start = problem.best_through(anchor, start)
    smallest = np.minimum(fits.sum_of_squares, np.where(np.isfinite(size), at_anchor, np.inf))
    excess = np.maximum(at_anchor - smallest, 0.0)

    # Both ends of all data sets are rows of one search.
    rows = np.tile(np.arange(len(size)), 2)
    direction = np.repeat([-1.0, 1.0], len(size))
    bound = np.where(direction < 0, first, last)
    given = anchor[rows], excess[rows], smallest[rows], critical[rows], bound, direction, start[rows]
    low, high = interval_ends(problem.take(rows), *given).reshape(2, len(size))
    # The best curve lies beyond the tested sizes, and no curve through them is left: the outermost size is the end.
    shut = excess > critical
    low = np.where(size == -np.inf, -np.inf, np.where(shut, last, low))
    high = np.where(size == np.inf, np.inf, np.where(shut, first, high))
    return Crossings(size, low, high, critical, smallest, fits.influence)


@dataclass(frozen=True)
class _Problem:
    log_sizes: Array
    z: Array
    white: Array
    limits: Limits

    def take(self, rows: Rows) -> "_Problem":
        return _Problem(self.log_sizes, self.z[rows], self.white[rows], self.limits.take(rows))

    def _whitened(self, residual: Array, jacobian: Array) -> tuple[Array, Array]:
        stacked = np.concatenate([residual[:, :, None], jacobian], axis=2)
        out = self.white @ stacked
        return out[:, :, 0], out[:, :, 1:]

    def box(self) -> tuple[Array, Array]:
        """The least and the greatest parameters, N × 4 each."""
        middle = self.log_sizes[0] - _BEYOND, self.log_sizes[-1] + _BEYOND
        return stacked(len(self.z), self.limits.lower, self.limits.upper, middle, LOG_SLOPES)

    def best(self, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        """The parameters of the best rising curve in a box, N × 4, and its sum of squares, N."""
        n = len(self.z)
        first, last = self.log_sizes[0], self.log_sizes[-1]
        starts = []
        for place in (0.1, 0.35, 0.6, 0.85):
            for slope in (0.7, 2.5, 12.0, 200.0):
                start = np.empty((n, 4))
                start[:, 0], start[:, 1] = self.z[:, 0], self.z[:, -1]
                start[:, 2], start[:, 3] = first + place * (last - first), np.log(slope)
                starts.append(start)
        theta, smallest = least_squares(starts, bounds, lambda rows: self.take(rows)._free_curve, 25)
        # A falling curve rises nowhere: the flat one is the best that does not fall.
        falling = theta[:, 1] < theta[:, 0]
        if falling.any():
            theta[falling] = self._flat(theta[falling], np.flatnonzero(falling))
            smallest = np.where(falling, (self._free_curve(theta)[0] ** 2).sum(1), smallest)
        return theta, smallest

    def _flat(self, theta: Array, rows: Rows) -> Array:
        weights = np.einsum("nkl,nkm->nlm", self.white[rows], self.white[rows]).sum(1)
        level = (weights * self.z[rows]).sum(1) / weights.sum(1)
        flat = theta.copy()
        flat[:, 0] = np.clip(level, *(b[rows] for b in self.limits.lower))
        flat[:, 1] = np.clip(level, *(b[rows] for b in self.limits.upper))
        return flat

    def _free_curve(self, theta: Array) -> tuple[Array, Array]:
        accuracies, derivatives = curve_and_derivatives(theta, self.log_sizes)
        return self._whitened(accuracies - self.z, derivatives)

    def crossing(self, theta: Array) -> Array:
        """log10 of the size at which a curve is 0, N; inf where it stays below 0, −inf where it stays above."""
        lower, upper, middle, log_slope = theta.T
        with np.errstate(divide="ignore", invalid="ignore"):
            size = middle + np.log10(-lower / upper) / np.exp(log_slope)
        return np.where((lower < 0) & (upper > 0), size, np.where(upper <= 0, np.inf, -np.inf))

    def influence(self, theta: Array, size: Array) -> Array:
        """The derivative of the crossing with respect to each datum by the delta method, N × K."""
        _, jacobian = self._free_curve(theta)
        lower, upper, middle, log_slope = theta.T
        with np.errstate(all="ignore"):
            slope, share = np.exp(log_slope), -lower / (upper - lower)
            away = LN10 * (size - middle)
            steep = (upper - lower) * share * (1.0 - share)
            at = np.stack([1.0 - share, share, -steep * slope * LN10, steep * slope * away], axis=1)
            at = np.nan_to_num(at / (steep * slope * LN10)[:, None], nan=0.0, posinf=0.0, neginf=0.0)
        # A direction that the data do not show (the slope of a step) gets no say.
        normal = np.swapaxes(jacobian, 1, 2) @ jacobian
        ridge = 1e-8 * np.einsum("npp->n", normal)[:, None, None] * np.eye(4) + 1e-300 * np.eye(4)
        solved = np.linalg.solve(normal + ridge, at[:, :, None])
        return np.asarray(-np.einsum("nkp,npq,nkl->nl", jacobian, solved, self.white))

    def best_through(self, sizes: Array, *starts: Array) -> tuple[Array, Array]:
        """The smallest sum of squares of a curve that is 0 at log10 `sizes`, N, and its parameters, N × 3.

        The parameters are lower limit, upper limit and ln slope. The search begins at the given starts, and at some of
        its own if only one is given.
        """
        n = len(self.z)
        (l0, l1), (u0, u1) = self.limits.lower, self.limits.upper
        lower = (np.minimum(l0, -CLEAR), np.minimum(l1, -CLEAR))
        upper = (np.maximum(u0, CLEAR), np.maximum(u1, CLEAR))
        bounds = stacked(n, lower, upper, (LOG_SLOPES[0], LOG_SLOPES[1]))
        span = np.maximum(np.ptp(self.z, axis=1), 0.02)
        own = [
            np.stack([-share * span, (1 - share) * span, np.full(n, np.log(slope))], axis=1)
            for share, slope in ((0.5, 1.0), (0.5, 8.0), (0.5, 300.0), (0.15, 2.0), (0.85, 2.0))
        ]

        def through(rows: Rows) -> Residuals:
            part, at = self.take(rows), sizes[rows]
            return lambda theta: part._pinned_curve(theta, at)

        best, cost = least_squares([*starts, *(own if len(starts) == 1 else ())], bounds, through, 15)
        return cost, best

    def _pinned_curve(self, theta: Array, sizes: Array) -> tuple[Array, Array]:
        accuracies, derivatives = pinned_curve(theta, sizes, self.log_sizes)
        return self._whitened(accuracies - self.z, derivatives[:, :, :3])


def pinned_curve(theta: Array, sizes: Array, log_sizes: Array) -> tuple[Array, Array]:
    """Curves that are 0 at given sizes, N × K, and their derivatives, N × K × 4.

    Args:
        theta: lower limit, upper limit and ln slope, N × 3.
        sizes: where each curve is 0, N; the last derivative is the one by it.
        log_sizes: where the curves are evaluated, K.
    """
    lower, upper, log_slope = theta.T[:, :, None]
    slope = np.exp(log_slope)
    away = LN10 * (log_sizes - sizes[:, None])
    # share = 1 / (1 + (upper / −lower) exp(−slope · away)): it is −lower / (upper − lower) at the crossing.
    logit = np.clip(slope * away - np.log(upper / -lower), -60, 60)
    share = 1.0 / (1.0 + np.exp(-logit))
    steep = (upper - lower) * share * (1.0 - share)
    derivatives = [(1.0 - share) + steep / lower, share - steep / upper, steep * slope * away, -steep * slope * LN10]
    return lower + (upper - lower) * share, np.stack(derivatives, axis=2)


class Profiled(Protocol):
    """A least-squares problem in which one number can be held fixed."""

    def take(self, rows: Rows) -> "Profiled":
        """Some of the data sets."""

    def best_through(self, value: Array, *starts: Array) -> tuple[Array, Array]:
        """The smallest sum of squares with the number held at `value`, N, and the other parameters, N × P."""


def interval_ends(
    problem: Profiled,
    anchor: Array,
    excess: Array,
    smallest: Array,
    critical: Array,
    bound: Array,
    direction: Array,
    start: Array,
) -> Array:
    """One end of each row's interval, between `anchor` and the outermost tested size `bound`; ±inf if it is open.

    `direction` is −1 for a low end and 1 for a high one.
    """
    out = direction * np.inf
    rows = np.flatnonzero((excess <= critical) & (np.abs(anchor - bound) > 1e-9))
    if not len(rows):
        return out
    part, wanted = problem.take(rows), np.sqrt(critical[rows])
    at_bound, theta = part.best_through(bound[rows], start[rows])
    closed = np.sqrt(np.maximum(at_bound - smallest[rows], 0.0)) > wanted
    rows, part, wanted, far = rows[closed], part.take(np.flatnonzero(closed)), wanted[closed], theta[closed]
    if not len(rows):
        return out
    inner, outer, up = anchor[rows].copy(), bound[rows].copy(), direction[rows] > 0
    f_inner = np.sqrt(excess[rows]) - wanted
    f_outer = np.sqrt(np.maximum(at_bound[closed] - smallest[rows], 0.0)) - wanted
    near = start[rows]
    for turn in range(14):
        live = np.flatnonzero(np.abs(outer - inner) >= _PRECISE)
        if not len(live):
            break
        # Regula falsi on the root of the excess, with halvings in between, as the excess may level off.
        a, b, f_a, f_b = inner[live], outer[live], f_inner[live], f_outer[live]
        middle = a - f_a * (b - a) / (f_b - f_a)
        margin = 0.02 * (b - a)
        least, most = np.where(up[live], a + margin, b - margin), np.where(up[live], b - margin, a + margin)
        middle = (a + b) / 2 if turn % 3 == 2 else np.clip(middle, least, most)
        cost, theta = part.take(live).best_through(middle, near[live], far[live])
        value = np.sqrt(np.maximum(cost - smallest[rows[live]], 0.0)) - wanted[live]
        within = value <= 0
        inside, outside = live[within], live[~within]
        inner[inside], f_inner[inside], near[inside] = middle[within], value[within], theta[within]
        outer[outside], f_outer[outside], far[outside] = middle[~within], value[~within], theta[~within]
    out[rows] = outer
    return out


def stacked(n: int, *ranges: tuple[Array | float, Array | float]) -> tuple[Array, Array]:
    """The lower and the upper bounds of all parameters, N × P each."""
    low, high = (np.stack([np.broadcast_to(r[i], (n,)) for r in ranges], axis=1) for i in (0, 1))
    return low.astype(float), high.astype(float)
