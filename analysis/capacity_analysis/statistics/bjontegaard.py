"""How much smaller one arm's updates are than another's at equal accuracy, averaged over the accuracies both reach.

Bjøntegaard's delta rate (ITU-T VCEG-M33, 2001), with update sizes in place of bit rates and accuracy in place of signal
to noise: the mean over the shared range of accuracies of log10 R_test − log10 R_anchor, given back as the ratio
10^mean. The curves here are first made monotone (isotonic regression), because accuracies are noisy; where a curve is
level, its inverse jumps, and the interpolation is made on each side of the jump.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import interpolate

from capacity.errors import DataError
from capacity_analysis.types import Array

Interpolation = Literal["pchip", "cubic", "akima"]


@dataclass(frozen=True)
class Segment:
    """A stretch of log10 size as a function of accuracy, from `low` to `high`, by its antiderivative."""

    low: float
    high: float
    antiderivative: Callable[[float], float]


@dataclass(frozen=True)
class InverseCurve:
    """log10 size as a function of accuracy: segments that meet, or between which the size jumps.

    `low` to `high` is the range of accuracies; `low == high` is a curve without any rise.
    """

    low: float
    high: float
    segments: tuple[Segment, ...]

    def integral(self, low: float, high: float) -> float:
        """∫ log10 size over accuracies from `low` to `high`, both inside the curve's range."""
        total = 0.0
        for segment in self.segments:
            a, b = max(low, segment.low), min(high, segment.high)
            if a < b:
                total += segment.antiderivative(b) - segment.antiderivative(a)
        return total


@dataclass(frozen=True)
class SizeRatio:
    """Size of `test` over size of `anchor` at equal accuracy, averaged from `low` to `high` accuracy. 0.5: half."""

    ratio: float
    low: float
    high: float


def isotonic(values: Array, weights: Array) -> Array:
    """The non-decreasing sequence nearest to each row of `values` in weighted squares.

    By the min–max formula (Robertson, Wright & Dykstra 1988, section 1.4), for all rows at once.

    Args:
        values: (..., n).
        weights: (n,), positive.

    Returns:
        (..., n).
    """
    n = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values * weights, axis=-1)], axis=-1)
    masses = np.concatenate([[0.0], np.cumsum(weights)])
    fitted = np.empty_like(values)
    lower = np.full((*values.shape[:-1], n), -np.inf)  # max over i ≤ k of the least mean of i..j, j ≥ k
    for i in range(n):
        means = (sums[..., i + 1 :] - sums[..., i : i + 1]) / (masses[i + 1 :] - masses[i])
        least = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        lower[..., i:] = np.maximum(lower[..., i:], least)
    fitted[...] = lower
    return fitted


def inverse_curve(sizes: ArrayLike, accuracies: ArrayLike, interpolation: Interpolation = "pchip") -> InverseCurve:
    """The inverse of a non-decreasing curve.

    A level stretch from size x₁ to x₂ is a jump of the inverse: below its accuracy the curve ends at x₁, above it goes
    on from x₂. Segments of two points are straight.

    Args:
        sizes: positive, rising, (n,).
        accuracies: non-decreasing, (n,).
        interpolation: of each segment: PCHIP (monotone), one cubic polynomial by least squares (Bjøntegaard's own), or
            Akima.

    Raises:
        ValueError: no points, sizes that do not rise, accuracies that fall.
    """
    x, y = np.log10(np.asarray(sizes, dtype=np.float64)), np.asarray(accuracies, dtype=np.float64)
    if len(x) == 0 or np.any(np.diff(x) <= 0) or np.any(np.diff(y) < 0):
        raise ValueError("a curve to invert has rising sizes and accuracies that never fall")
    segments, start = [], 0
    for end in range(1, len(x) + 1):
        if end < len(x) and y[end] > y[end - 1]:
            continue
        if end - start > 1:
            antiderivative = _antiderivative(y[start:end], x[start:end], interpolation)
            segments.append(Segment(float(y[start]), float(y[end - 1]), antiderivative))
        start = end
    return InverseCurve(float(y[0]), float(y[-1]), tuple(segments))


def _antiderivative(y: Array, x: Array, interpolation: Interpolation) -> Callable[[float], float]:
    """Of x as a function of y; y rising, at least two points."""
    if interpolation == "cubic":
        found: Callable[[float], float] = np.polynomial.Polynomial.fit(y, x, min(3, len(y) - 1)).integ()
        return found
    if len(y) == 2:
        return interpolate.PPoly(np.array([[(x[1] - x[0]) / (y[1] - y[0])], [x[0]]]), y).antiderivative()  # type: ignore[no-any-return]
    maker = interpolate.PchipInterpolator if interpolation == "pchip" else interpolate.Akima1DInterpolator
    return maker(y, x).antiderivative()  # type: ignore[no-any-return]


def size_ratio(test: InverseCurve, anchor: InverseCurve) -> SizeRatio | None:
    """The mean size ratio over the accuracies that both curves pass through; None if there are none."""
    low, high = max(test.low, anchor.low), min(test.high, anchor.high)
    if not low < high:
        return None
    mean = (test.integral(low, high) - anchor.integral(low, high)) / (high - low)
    return SizeRatio(10.0**mean, low, high)


def delta_rate(
    anchor_sizes: ArrayLike,
    anchor_accuracies: ArrayLike,
    test_sizes: ArrayLike,
    test_accuracies: ArrayLike,
    interpolation: Interpolation = "pchip",
) -> SizeRatio:
    """The size ratio of two curves given as points in any order, each at distinct sizes and made monotone.

    Raises:
        DataError: the curves share no range of accuracies.
    """
    curves = []
    for sizes, accuracies in ((test_sizes, test_accuracies), (anchor_sizes, anchor_accuracies)):
        order = np.argsort(np.asarray(sizes, dtype=np.float64))
        x, y = np.asarray(sizes, dtype=np.float64)[order], np.asarray(accuracies, dtype=np.float64)[order]
        curves.append(inverse_curve(x, isotonic(y, np.ones(len(y))), interpolation))
    found = size_ratio(curves[0], curves[1])
    if found is None:
        raise DataError("the two curves share no range of accuracies, so there is no saving at equal accuracy")
    return found
