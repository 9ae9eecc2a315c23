"""Thresholds of curves and ratios between them, for many data sets at once.

`capacity threshold`, its null calibration and its calibration share this. Everything is log10 of a size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.statistics.hill_profile import Crossings, Fits, Limits, crossings, fit_curves, whitener
from capacity_analysis.statistics.hill_ratio import Pair, distances
from capacity_analysis.statistics.monotone import Brackets, brackets
from capacity_analysis.statistics.tails import f_tail, t_quantile
from capacity_analysis.thresholds.differences import Differences
from capacity_analysis.types import Array

CONFIDENCE = 0.95
# A Hill curve is believed unless its test of fit rejects it at this level.
FIT_LEVEL = 0.05
Places = NDArray[np.intp]


@dataclass(frozen=True)
class CurveEstimates:
    """Both estimators of one curve.

    Attributes:
        fits: the best Hill curves; None if there are too few sizes.
        used: the sizes that the Hill curve is fitted to, N × K.
        hill: their thresholds with intervals.
        monotone: the distribution-free thresholds with intervals.
        wide: the latter's intervals at the confidence that ratios need of each of their two parts.
        fit_p: the p-value of the test of fit, N; NaN: no degrees of freedom to test it with.
    """

    fits: Fits | None
    used: NDArray[np.bool_]
    hill: Crossings | None
    monotone: Brackets
    wide: Brackets
    fit_p: Array


@dataclass(frozen=True)
class Ratios:
    """log10 of numerator over denominator, N-vectors: NaN where there is no estimate, ±inf where it is open."""

    estimate: Array
    low: Array
    high: Array


def estimate_curve(
    own: Differences, limits: Limits, *, confidence: float = CONFIDENCE, hill: bool = True
) -> CurveEstimates:
    """Both estimators of one curve.

    The Hill curve needs as many sizes as free parameters, and one more for its test of fit.
    """
    (log_sizes,) = own.log_sizes
    n, k = own.z.shape
    df, deviations = own.size_df, own.deviations
    monotone = brackets(log_sizes, own.z, deviations, t_quantile(confidence, df))
    wide = brackets(log_sizes, own.z, deviations, t_quantile((1 + confidence) / 2, df))
    if not hill or k < limits.free:
        return CurveEstimates(None, np.zeros((n, k), dtype=bool), None, monotone, wide, np.full(n, np.nan))
    used, p = _window(own, limits, monotone, confidence)
    data = own.without(~used)
    fits = fit_curves(log_sizes, data.z, data.covariance, limits)
    critical = _critical(data, fits.influence, fits.steps, confidence)
    return CurveEstimates(fits, used, crossings(fits, critical), monotone, wide, p)


def _window(own: Differences, limits: Limits, monotone: Brackets, confidence: float) -> tuple[NDArray[np.bool_], Array]:
    """The sizes that a Hill curve is fitted to, N × K, and the p-value of its test of fit, N.

    They are all sizes unless the test rejects that. A Hill curve rises, so ends that fall are not its own: sizes before
    the lowest mean and after the highest are left out where the fall is significant, with that mean itself if need be.
    The sizes of the distribution-free interval are kept, and one more size than the curve has free parameters.
    """
    (log_sizes,) = own.log_sizes
    n, k = own.z.shape
    used = np.ones((n, k), dtype=bool)
    p = _fit_p(own, limits, np.full(n, k))
    first, last = _rising(own, log_sizes, monotone, t_quantile(confidence, own.size_df))
    place = np.arange(k)
    for left, right in ((0, 0), (1, 0), (0, 1), (1, 1)):
        # A curve that falls to its last size leaves no size after its lowest mean; `enough` then says no.
        start = np.minimum(first + left * (first > 0), k - 1)
        end = np.maximum(last - right * (last < k - 1), 0)
        keeps = (log_sizes[start] <= monotone.low) & (monotone.high <= log_sizes[end])
        enough = (end - start + 1 > limits.free) & (end - start + 1 < k)
        rows = np.flatnonzero((p < FIT_LEVEL) & keeps & enough)
        if not len(rows):
            continue
        window = (place >= start[rows, None]) & (place <= end[rows, None])
        found = _fit_p(own.rows(rows).without(~window), limits.take(rows), window.sum(1))
        better = found >= FIT_LEVEL
        used[rows[better]], p[rows[better]] = window[better], found[better]
    return used, p


def _rising(own: Differences, log_sizes: Array, monotone: Brackets, t: Array) -> tuple[Places, Places]:
    """The places between which a curve rises, N each: its lowest mean below the target and its highest above.

    They are the first and the last size where the curve does not fall significantly before or after.
    """
    rows, k = np.arange(len(own.z)), len(log_sizes)
    below = np.where(log_sizes <= monotone.low[:, None], own.z, np.inf)
    above = np.where(log_sizes >= monotone.high[:, None], own.z, -np.inf)
    lowest, highest = below.argmin(1), k - 1 - above[:, ::-1].argmax(1)
    before = np.where(np.arange(k) < lowest[:, None], own.z, -np.inf).argmax(1)
    after = np.where(np.arange(k) > highest[:, None], own.z, np.inf).argmin(1)
    covariance = own.covariance

    def falls(high: Places, low: Places) -> NDArray[np.bool_]:
        spread = covariance[rows, high, high] + covariance[rows, low, low] - 2 * covariance[rows, high, low]
        return np.asarray(own.z[rows, high] - own.z[rows, low] > t * np.sqrt(spread))

    first = np.where((before < lowest) & falls(before, lowest), lowest, 0)
    last = np.where((after > highest) & falls(highest, after), highest, k - 1)
    return first, last


def _fit_p(own: Differences, limits: Limits, sizes: Places) -> Array:
    """The p-value of the test of fit to so many sizes, N; NaN where nothing is left to test with."""
    spare = np.asarray(sizes - limits.free, dtype=float)
    if (spare < 1).any():
        return np.full(len(own.z), np.nan)
    fits = fit_curves(own.log_sizes[0], own.z, own.covariance, limits)
    return f_tail(fits.sum_of_squares / spare, spare, own.size_df)


def _critical(data: Differences, weights: Array, steps: NDArray[np.bool_], confidence: float) -> Array:
    """The critical value of a profile, N: t² for the variance of Σ weights · z, on the scale of the covariance.

    Args:
        data: of the curves.
        weights: the influence of each mean, N × M.
        steps: where a curve is a step. Its weights say little, so the value is at least that of a known variance, N.
        confidence: two-sided.
    """
    variance, df, implied = data.variance(np.nan_to_num(weights))
    scale = np.divide(variance, implied, out=np.ones_like(variance), where=implied > 0)
    known = t_quantile(confidence, np.full(len(df), np.inf)) ** 2
    critical = t_quantile(confidence, np.where(implied > 0, df, data.size_df)) ** 2 * scale
    return np.where(steps, np.maximum(critical, known), critical)


def hill_ratio(
    pair: Differences, limits: Limits, n: CurveEstimates, d: CurveEstimates, confidence: float = CONFIDENCE
) -> Ratios:
    """The ratio of two Hill thresholds from their joint profile.

    Args:
        pair: the data of both curves, the numerator first.
        limits: of both.
        n, d: the estimates of the single curves, both with a Hill curve.
        confidence: two-sided.
    """
    assert n.fits is not None and d.fits is not None and n.hill is not None and d.hill is not None  # noqa: PT018
    pair = pair.without(~np.concatenate([n.used, d.used], axis=1))
    weights = np.concatenate([n.fits.influence, -d.fits.influence], axis=1)
    critical = _critical(pair, weights, n.fits.steps | d.fits.steps, confidence)
    first, second = pair.log_sizes
    ends = [np.clip(end, x[0], x[-1]) for c, x in ((n.hill, first), (d.hill, second)) for end in (c.low, c.high)]
    data = Pair((first, second), pair.z, whitener(pair.covariance), limits, np.stack(ends, axis=1))
    low, high = distances(data, (n.fits, d.fits), (n.hill, d.hill), critical)
    with np.errstate(invalid="ignore"):
        estimated = np.isfinite(n.hill.size) & np.isfinite(d.hill.size)
        estimate = np.where(estimated, n.hill.size - d.hill.size, np.nan)
    return Ratios(estimate, low, high)


def monotone_ratio(numerator: CurveEstimates, denominator: CurveEstimates) -> Ratios:
    """The ratio of two distribution-free thresholds: each end from two bounds at half the error (Bonferroni)."""
    n, d = numerator.wide, denominator.wide
    with np.errstate(invalid="ignore"):
        low, high = n.low - d.high, n.high - d.low
        estimate = numerator.monotone.size - denominator.monotone.size
    finite = np.isfinite(numerator.monotone.size) & np.isfinite(denominator.monotone.size)
    return Ratios(np.where(finite, estimate, np.nan), low, high)


def believes_hill(*curves: CurveEstimates) -> NDArray[np.bool_]:
    """Whether the Hill curve is the answer: fitted for all curves, its fit tested and not rejected."""
    if any(curve.hill is None for curve in curves):
        return np.zeros(len(curves[0].fit_p), dtype=bool)
    return np.asarray(np.logical_and.reduce([curve.fit_p >= FIT_LEVEL for curve in curves]))
