"""How much smaller one arm's updates are than another's at equal accuracy, averaged over the accuracies both reach.

This is Bjøntegaard's delta rate (ITU-T VCEG-M33, 2001) with update sizes in place of bit rates and accuracies in place
of signal-to-noise ratios. The ratio is 10 to the mean of log10 R_test − log10 R_anchor over the shared range of
accuracies. Curves must never fall: accuracies are noisy, so callers make them monotone first (`monotone.isotonic`).
Where a curve is level, its inverse jumps, and each side of the jump is interpolated by itself (PCHIP).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import interpolate


@dataclass(frozen=True)
class Segment:
    """log10 size as a function of accuracy from `low` to `high`, stored as its antiderivative."""

    low: float
    high: float
    antiderivative: Callable[[float], float]


@dataclass(frozen=True)
class InverseCurve:
    """log10 size as a function of accuracy, in segments. Where two segments do not meet, the size jumps.

    The accuracies go from `low` to `high`. `low == high` means that the curve does not rise.
    """

    low: float
    high: float
    segments: tuple[Segment, ...]

    def integral(self, low: float, high: float) -> float:
        """The integral of log10 size over accuracies from `low` to `high`, both inside the curve's range."""
        total = 0.0
        for segment in self.segments:
            a, b = max(low, segment.low), min(high, segment.high)
            if a < b:
                total += segment.antiderivative(b) - segment.antiderivative(a)
        return total


@dataclass(frozen=True)
class SizeRatio:
    """Size of `test` over size of `anchor`, averaged over equal accuracies from `low` to `high`; 0.5 means half."""

    ratio: float
    low: float
    high: float


def inverse_curve(sizes: ArrayLike, accuracies: ArrayLike) -> InverseCurve:
    """The inverse of a curve that never falls.

    A level stretch from size x₁ to x₂ is a jump of the inverse. The inverse ends at x₁ below that accuracy and goes on
    from x₂ above it.

    Args:
        sizes: positive and rising, (n,).
        accuracies: never falling, (n,).

    Raises:
        ValueError: there are no points, a size does not rise, or an accuracy falls.
    """
    x, y = np.log10(np.asarray(sizes, dtype=np.float64)), np.asarray(accuracies, dtype=np.float64)
    if len(x) == 0 or np.any(np.diff(x) <= 0) or np.any(np.diff(y) < 0):
        raise ValueError("a curve to invert has rising sizes and accuracies that never fall")
    segments, start = [], 0
    for end in range(1, len(x) + 1):
        if end < len(x) and y[end] > y[end - 1]:
            continue
        if end - start > 1:
            # Of two points PCHIP makes a straight line.
            antiderivative = interpolate.PchipInterpolator(y[start:end], x[start:end]).antiderivative()
            segments.append(Segment(float(y[start]), float(y[end - 1]), antiderivative))
        start = end
    return InverseCurve(float(y[0]), float(y[-1]), tuple(segments))


def size_ratio(test: InverseCurve, anchor: InverseCurve) -> SizeRatio | None:
    """The mean size ratio over the accuracies that both curves pass through; None if they share none."""
    low, high = max(test.low, anchor.low), min(test.high, anchor.high)
    if not low < high:
        return None
    mean = (test.integral(low, high) - anchor.integral(low, high)) / (high - low)
    return SizeRatio(10.0**mean, low, high)
