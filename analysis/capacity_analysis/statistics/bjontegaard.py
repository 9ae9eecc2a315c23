"""How much smaller one arm's updates are than another's at equal accuracy, averaged over the accuracies both reach.

This is Bjøntegaard's delta rate (ITU-T VCEG-M33, 2001) with update sizes in place of bit rates and accuracies in place
of signal-to-noise ratios. The ratio is 10 to the mean of log10 R_test − log10 R_anchor over the shared range of
accuracies. Curves must never fall: accuracies are noisy, so callers make them monotone first (`monotone.isotonic`).
Where a curve is level, its inverse jumps, and each side of the jump is interpolated by itself.

The interpolation is PCHIP (Fritsch & Butland, SIAM Journal on Scientific and Statistical Computing 1984). It is done
for all replicates of a curve at once. Shapes: a curve has K sizes, and leading axes (…) count replicates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity_analysis.types import Array


@dataclass(frozen=True)
class InverseCurves:
    """log10 size as a function of accuracy, a cubic between every two neighbouring points.

    Attributes:
        log_sizes: of the points, (K,).
        accuracies: of the points, (…, K). Where two are equal, the size jumps.
        rises, falls: the slopes of log10 size at the lower and the upper end of each piece, (…, K − 1).
    """

    log_sizes: Array
    accuracies: Array
    rises: Array
    falls: Array

    @property
    def low(self) -> Array:
        """The smallest accuracy of each curve, (…)."""
        return np.asarray(self.accuracies[..., 0])

    @property
    def high(self) -> Array:
        """The largest accuracy of each curve, (…). Where it equals `low`, the curve does not rise."""
        return np.asarray(self.accuracies[..., -1])

    def integral(self, low: ArrayLike, high: ArrayLike) -> Array:
        """The integrals of log10 size over accuracies, (…).

        Args:
            low, high: the ends for each curve, (…), inside the range of the curve.
        """
        below, above = self.accuracies[..., :-1], self.accuracies[..., 1:]
        width = above - below
        ends = (np.clip(np.asarray(end)[..., None], below, above) - below for end in (low, high))
        shares = (np.divide(end, width, out=np.zeros_like(width), where=width > 0) for end in ends)
        first, last = (self._antiderivative(share, width) for share in shares)
        return np.asarray((last - first).sum(-1))

    def _antiderivative(self, t: Array, width: Array) -> Array:
        """The integral of each cubic, in Hermite's form, from its lower end to the share `t` of its width."""
        x, t2, t3, t4 = self.log_sizes, t**2, t**3, t**4
        values = x[:-1] * (t - t3 + t4 / 2) + x[1:] * (t3 - t4 / 2)
        slopes = self.rises * (t2 / 2 - 2 * t3 / 3 + t4 / 4) + self.falls * (t4 / 4 - t3 / 3)
        return np.asarray(width * (values + width * slopes))


@dataclass(frozen=True)
class SizeRatios:
    """Sizes of `test` over sizes of `anchor`, averaged over equal accuracies; 0.5 means half.

    Attributes:
        ratio: (…); NaN where the curves share no accuracies.
        low, high: the shared range of accuracies, (…); NaN as `ratio`.
    """

    ratio: Array
    low: Array
    high: Array


def inverse_curves(sizes: ArrayLike, accuracies: ArrayLike) -> InverseCurves:
    """The inverses of curves that never fall.

    A level stretch from size x₁ to x₂ is a jump of the inverse. The inverse ends at x₁ below that accuracy and goes on
    from x₂ above it.

    Args:
        sizes: positive and rising, (K,).
        accuracies: never falling along the last axis, (…, K).

    Raises:
        ValueError: there are no points, a size does not rise, or an accuracy falls.
    """
    x, y = np.log10(np.asarray(sizes, dtype=np.float64)), np.asarray(accuracies, dtype=np.float64)
    if len(x) == 0 or np.any(np.diff(x) <= 0) or np.any(np.diff(y) < 0):
        raise ValueError("a curve to invert has rising sizes and accuracies that never fall")
    width = np.diff(y)
    secant = np.divide(np.diff(x), width, out=np.zeros_like(width), where=width > 0)
    # A piece of width 0 on either side stands for "there is none": the curve begins, ends or jumps there.
    ends = [(0, 0)] * (y.ndim - 1) + [(1, 1)]
    width, secant = np.pad(width, ends), np.pad(secant, ends)
    before, own, after = ((width[..., part], secant[..., part]) for part in (slice(-2), slice(1, -1), slice(2, None)))
    return InverseCurves(x, y, _slope(own, before, after), _slope(own, after, before))


def _slope(own: tuple[Array, Array], here: tuple[Array, Array], there: tuple[Array, Array]) -> Array:
    """The slope of pieces at one of their ends. All secants rise, which leaves out PCHIP's cases of other signs.

    Args:
        own: width and secant of each piece.
        here: those of its neighbour at this end.
        there: those of its neighbour at the other end.
    """
    (h, m), (h_here, m_here), (h_there, m_there) = own, here, there
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = 2 * h + h_here, h + 2 * h_here
        inside = (first + second) / (first / m_here + second / m)
        outside = np.maximum(((2 * h + h_there) * m - h * m_there) / (h + h_there), 0.0)
    slope = np.where(h_here > 0, inside, np.where(h_there > 0, outside, m))
    return np.where(h > 0, slope, 0.0)


def size_ratios(test: InverseCurves, anchor: InverseCurves) -> SizeRatios:
    """The mean size ratios over the accuracies that both curves pass through.

    Args:
        test, anchor: curves of as many replicates.
    """
    low, high = np.maximum(test.low, anchor.low), np.minimum(test.high, anchor.high)
    shared = low < high
    low, high = np.where(shared, low, np.nan), np.where(shared, high, np.nan)
    mean = (test.integral(low, high) - anchor.integral(low, high)) / (high - low)
    return SizeRatios(10.0**mean, low, high)
