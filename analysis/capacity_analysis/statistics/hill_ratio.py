"""How far apart two Hill curves pass the target: a joint least-squares fit and its profile, for many data sets at once.

Both curves are fitted to all means together, with the full covariance of their errors. For every distance of the two
thresholds the best pair of curves with that distance is found. A distance belongs to the interval while its sum of
squares exceeds the smallest one by at most the critical value. This is the profile likelihood (Venzon & Moolgavkar,
Applied Statistics 1988).

Sizes are log10. Data sets are N, sizes of the first and the second curve K and L.
"""

from dataclasses import dataclass

import numpy as np

from capacity_analysis.statistics.hill import curve_and_derivatives
from capacity_analysis.statistics.hill_profile import (
    CLEAR,
    LOG_SLOPES,
    Crossings,
    Fits,
    Limits,
    interval_ends,
    pinned_curve,
    stacked,
)
from capacity_analysis.statistics.least_squares import Residuals, Rows, least_squares
from capacity_analysis.types import Array

# The slopes of curves that are steps, or nearly so, as far as tested sizes can tell.
_STEEP = (300.0, 20.0)


@dataclass(frozen=True)
class Pair:
    """Two curves on common data.

    Attributes:
        log_sizes: the sizes of the first and of the second curve.
        z: the means of both minus the target, N × (K + L).
        white: W with Wᵀ W the inverse of their covariance, N × (K + L) × (K + L).
        limits: the ranges of the limits of both curves.
        ends: of the intervals of the single thresholds, within the tested sizes, N × 4. They are low and high of the
            first, low and high of the second. Steps are searched for there.
    """

    log_sizes: tuple[Array, Array]
    z: Array
    white: Array
    limits: Limits
    ends: Array

    def take(self, rows: Rows) -> "Pair":
        """Some of the data sets."""
        return Pair(self.log_sizes, self.z[rows], self.white[rows], self.limits.take(rows), self.ends[rows])

    def _whitened(
        self, values: tuple[Array, Array], slopes: tuple[Array, Array], parameters: Array
    ) -> tuple[Array, Array]:
        n, count = len(self.z), int(parameters.max()) + 1
        residual = np.concatenate(values, axis=1) - self.z
        k = values[0].shape[1]
        jacobian = np.zeros((n, residual.shape[1], count))
        for place, (rows, slope) in enumerate(zip((slice(0, k), slice(k, None)), slopes, strict=True)):
            jacobian[:, rows, parameters[place]] = slope
        out = self.white @ np.concatenate([residual[:, :, None], jacobian], axis=2)
        return out[:, :, 0], out[:, :, 1:]

    def smallest(self, first: Fits, second: Fits) -> Array:
        """The sum of squares of the best pair of curves, N. The search begins at the best single curves."""
        n = len(self.z)
        parameters = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])

        def curves(rows: Rows) -> Residuals:
            part = self.take(rows)

            def residuals(theta: Array) -> tuple[Array, Array]:
                found = [curve_and_derivatives(theta[:, p], x) for p, x in zip(parameters, self.log_sizes, strict=True)]
                return part._whitened((found[0][0], found[1][0]), (found[0][1], found[1][1]), parameters)

            return residuals

        low, high = zip(*(fits.box for fits in (first, second)), strict=True)
        start = np.concatenate([first.theta, second.theta], axis=1)
        box = np.concatenate(low, axis=1), np.concatenate(high, axis=1)
        return least_squares([start], box, curves, 40)[1] if n else np.zeros(0)

    def _steps(self, start: Array, half: Array, slope: float) -> Array:
        """A start with steps of both curves at the middle of the sizes where both thresholds may lie."""
        one_low, one_high, two_low, two_high = self.ends.T
        found = start.copy()
        found[:, [2, 5]] = np.log(slope)
        found[:, 6] = (np.maximum(one_low - half, two_low + half) + np.minimum(one_high - half, two_high + half)) / 2
        return found

    def best_through(self, distance: Array, *starts: Array) -> tuple[Array, Array]:
        """The smallest sum of squares of curves that pass the target `distance` apart, N, and their parameters, N × 7.

        The parameters are lower limit, upper limit and ln slope of each curve. The last one is the middle between the
        two sizes at which they pass the target.
        """
        n, (one, two) = len(self.z), self.log_sizes
        (l0, l1), (u0, u1) = self.limits.lower, self.limits.upper
        lower = (np.minimum(l0, -CLEAR), np.minimum(l1, -CLEAR))
        upper = (np.maximum(u0, CLEAR), np.maximum(u1, CLEAR))
        half = distance / 2
        place = np.maximum(two[0] + half, one[0] - half), np.minimum(two[-1] + half, one[-1] - half)
        own = [lower, upper, LOG_SLOPES]
        bounds = stacked(n, *own, *own, (np.minimum(place[0], place[1]), place[1]))
        parameters = np.array([[0, 1, 2, 6], [3, 4, 5, 6]])

        def through(rows: Rows) -> Residuals:
            part, apart = self.take(rows), half[rows]

            def residuals(theta: Array) -> tuple[Array, Array]:
                first, first_slopes = pinned_curve(theta[:, :3], theta[:, 6] + apart, one)
                second, second_slopes = pinned_curve(theta[:, 3:6], theta[:, 6] - apart, two)
                return part._whitened((first, second), (first_slopes, second_slopes), parameters)

            return residuals

        starts = (*starts, *(self._steps(starts[0], half, slope) for slope in _STEEP))
        best, cost = least_squares(starts, bounds, through, 25)
        return cost, best


def distances(
    pair: Pair, fits: tuple[Fits, Fits], found: tuple[Crossings, Crossings], critical: Array
) -> tuple[Array, Array]:
    """The interval of the distance of two thresholds, N each; −inf and inf where it is open.

    An end is open where the end of a single threshold is: then the distance has no limit. Where the best pair of curves
    lies beyond the tested sizes and no tested distance is left, the ends are those of the single thresholds.

    Args:
        pair: the data.
        fits: the best single curves.
        found: their thresholds with intervals.
        critical: the largest excess of the sum of squares inside the interval, N.
    """
    (a_first, a_last), (b_first, b_last) = ((x[0], x[-1]) for x in pair.log_sizes)
    one, two = found
    a, b = np.clip(one.size, a_first, a_last), np.clip(two.size, b_first, b_last)
    anchor = a - b
    theta = [
        np.stack([np.minimum(f.theta[:, 0], -0.01), np.maximum(f.theta[:, 1], 0.01), f.theta[:, 3]], axis=1)
        for f in fits
    ]
    at_anchor, start = pair.best_through(anchor, np.concatenate([*theta, (a + b)[:, None] / 2], axis=1))
    both = np.isfinite(one.size) & np.isfinite(two.size)
    smallest = np.minimum(pair.smallest(*fits), np.where(both, at_anchor, np.inf))
    excess = np.maximum(at_anchor - smallest, 0.0)
    n = len(anchor)
    rows = np.tile(np.arange(n), 2)
    direction = np.repeat([-1.0, 1.0], n)
    bound = np.repeat([a_first - b_last, a_last - b_first], n)
    given = anchor[rows], excess[rows], smallest[rows], critical[rows], bound, direction, start[rows]
    low, high = interval_ends(pair.take(rows), *given).reshape(2, n)
    # An interval of a single threshold is open, or empty inside the tested sizes: it limits the distance as it stands.
    apart = one.low - two.high, one.high - two.low
    shut = (excess > critical) | ~both
    return (
        np.where(np.isinf(apart[0]) | shut, apart[0], low),
        np.where(np.isinf(apart[1]) | shut, apart[1], high),
    )
