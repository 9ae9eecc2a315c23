"""Thresholds of curves and ratios between them, for many data sets at once.

`capacity threshold`, its null calibration and its calibration share this.

Everything is log10 of a size. A data set is a curve's mean accuracies relative to the target with their covariance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.statistics.hill_profile import INNER, Crossings, Fits, Limits, crossings, fit_curves
from capacity_analysis.statistics.monotone import Brackets, brackets
from capacity_analysis.statistics.spread import Spread, combined_df
from capacity_analysis.types import Array

CONFIDENCE = 0.95
# A Hill curve is believed unless its test of fit rejects it at this level.
FIT_LEVEL = 0.05


@dataclass(frozen=True)
class Relative:
    """A curve's means minus the target.

    Attributes:
        log_sizes: K.
        z: the differences, N × K.
        covariance: of `z`, N × K × K.
        df: of the covariance, N.
        between: the part of the variances of `z` that comes from what differs between seeds, N × K.
        seeds: the deviation of each run from its mean, N × K × S.
    """

    log_sizes: Array
    z: Array
    covariance: Array
    df: Array
    between: Array
    seeds: Array

    @property
    def deviations(self) -> Array:
        """Standard errors, N × K."""
        return np.asarray(np.sqrt(np.einsum("nkk->nk", self.covariance)))


@dataclass(frozen=True)
class CurveEstimates:
    """Both estimators of one curve, and the p-value of the test of fit (NaN: no degrees of freedom to test it with).

    `wide` is the distribution-free interval at the confidence that ratios need of each of their two parts.
    """

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


def t_quantile(confidence: float, df: Array) -> Array:
    """Student's two-sided quantile."""
    from scipy.special import ndtri, stdtrit

    level = 0.5 + confidence / 2
    return np.asarray(np.where(np.isinf(df), ndtri(level), stdtrit(np.where(np.isinf(df), 1.0, df), level)))


def f_tail(value: Array, numerator: float, denominator: Array) -> Array:
    """P(F > value), chi-squared where the denominator is inf."""
    from scipy.special import chdtrc, fdtrc

    finite = np.where(np.isinf(denominator), 1.0, denominator)
    return np.asarray(
        np.where(np.isinf(denominator), chdtrc(numerator, value * numerator), fdtrc(numerator, finite, value))
    )


def estimate_curve(
    relative: Relative, limits: Limits, *, confidence: float = CONFIDENCE, hill: bool = True
) -> CurveEstimates:
    """Both estimators. The Hill curve needs as many sizes as free parameters, and one more for its test of fit."""
    n, k = relative.z.shape
    t = t_quantile(confidence, relative.df)
    deviations = relative.deviations
    monotone = brackets(relative.log_sizes, relative.z, deviations, t)
    wide = brackets(relative.log_sizes, relative.z, deviations, t_quantile((1 + confidence) / 2, relative.df))
    if not hill or k < limits.free:
        return CurveEstimates(None, monotone, wide, np.full(n, np.nan))
    fits = fit_curves(relative.log_sizes, relative.z, relative.covariance, limits)
    curve = crossings(fits, _critical(relative, fits, confidence))
    spare = k - limits.free
    p = f_tail(curve.sum_of_squares / spare, spare, relative.df) if spare else np.full(n, np.nan)
    return CurveEstimates(curve, monotone, wide, p)


def _critical(relative: Relative, fits: Fits, confidence: float) -> Array:
    """Critical value of the profile of one curve, N."""
    influence = np.nan_to_num(fits.influence)
    modelled = np.einsum("nk,nkl,nl->n", influence, relative.covariance, influence)
    implied = ((influence**2) * relative.between).sum(1)
    return _scattered(modelled, implied, _by_seed(influence, relative), relative.df, confidence)


def _by_seed(influence: Array, relative: Relative) -> Array:
    """Each seed's own deviation of log10 of the threshold, N × S: its deviations weighted as they enter it."""
    return np.asarray(np.einsum("nk,nks->ns", influence, np.nan_to_num(relative.seeds)))


def _scattered(modelled: Array, implied: Array, by_seed: Array, df: Array, confidence: float) -> Array:
    """t² for a variance, enlarged where whole seeds scatter more than the pooled variances of single sizes imply, N.

    A seed may be early or late at every size, and the spread may sit where the curve is steep. Then the variance
    between the seeds' own deviations, with its S − 1 degrees of freedom, takes the place of the part that the pooled
    variances imply.

    Args:
        modelled: variance of log10 of a threshold or ratio.
        implied: the part of it that comes from seeds.
        by_seed: N × S, of each seed its own deviation.
        df: of the pooled variances.
        confidence: two-sided.
    """
    usual = t_quantile(confidence, df) ** 2
    seeds = by_seed.shape[1]
    if seeds < 2:
        return usual
    whole = (by_seed**2).sum(1) / ((seeds - 1) * seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = modelled - implied + whole
        own = np.where(whole > 0, (seeds - 1) * (total / whole) ** 2, np.inf)
        wider = t_quantile(confidence, np.minimum(own, 1e6)) ** 2 * total / modelled
    return np.asarray(np.where((whole > implied) & (modelled > 0), np.maximum(wider, usual), usual))


def hill_ratio(
    numerator: Relative,
    denominator: Relative,
    n: Crossings,
    d: Crossings,
    cross: Array,
    paired: Array,
    confidence: float = CONFIDENCE,
) -> Ratios:
    """The ratio of two Hill thresholds from their profiles.

    Each end of the interval is as far from the estimate as the two parts can get. Their excesses of the sum of squares
    may add up to no more than the critical value. That is √(a² + b²) for two parabolas (MOVER: Zou & Donner, Statistics
    in Medicine 2008). It is a + b for two steps, whose profiles are flat between two sizes. Each profile is a power law
    between its ends at three levels. Correlation ρ of the two thresholds, which share the target, items and seeds,
    enters as in the former case: √(a² + b² − 2ρab). A curve that does not pass the target in the tested sizes takes
    part with the outermost of them. Then at most one end is finite, and there is no estimate.

    Args:
        numerator, denominator: the data, their seeds in the same order if they have the same.
        n, d: their thresholds.
        cross: N × K × L, covariance of the two curves' `z`.
        paired: N × K × L, the part of `cross` that comes from common seeds.
        confidence: two-sided.
    """
    a, b = (np.clip(c.size, r.log_sizes[0], r.log_sizes[-1]) for c, r in ((n, numerator), (d, denominator)))
    estimated = np.isfinite(n.size) & np.isfinite(d.size)
    with np.errstate(invalid="ignore"):
        estimate = np.where(estimated, n.size - d.size, np.nan)
    rho, critical = _together(numerator, denominator, n, d, cross, paired, confidence)
    profiles = {
        "n low": _Profile.of(a - n.low, a - n.inner_low, n.critical, a - numerator.log_sizes[0]),
        "n high": _Profile.of(n.high - a, n.inner_high - a, n.critical, numerator.log_sizes[-1] - a),
        "d low": _Profile.of(b - d.low, b - d.inner_low, d.critical, b - denominator.log_sizes[0]),
        "d high": _Profile.of(d.high - b, d.inner_high - b, d.critical, denominator.log_sizes[-1] - b),
    }
    down = _reach(profiles["n low"], profiles["d high"], critical, rho)
    up = _reach(profiles["n high"], profiles["d low"], critical, rho)
    return Ratios(estimate, a - b - down, a - b + up)


@dataclass(frozen=True)
class _Profile:
    """How far from the estimate a profile has risen to c: a power law between the levels at which it was cut.

    `log_levels` and `log_distances` are knots × N, `room` is the distance to the outermost tested size.
    """

    log_levels: Array
    log_distances: Array
    room: Array
    open_ended: NDArray[np.bool_]

    @classmethod
    def of(cls, outer: Array, inner: Array, critical: Array, room: Array) -> "_Profile":
        """From the distances at the critical value, N, and at the shares `INNER` of it, levels × N."""
        open_ended = np.isinf(outer)
        levels = np.log(np.array([*INNER, 1.0]))[:, None] + np.log(critical)
        distances = np.concatenate([inner, outer[None]])
        distances = np.maximum.accumulate(np.where(open_ended, 1.0, distances), axis=0)
        return cls(levels, np.log(np.maximum(distances, 1e-9)), room, open_ended)

    @property
    def power(self) -> Array:
        """Over all levels: ½ for a parabola, 0 for a step."""
        rise = self.log_distances[-1] - self.log_distances[0]
        return np.asarray(rise / (self.log_levels[-1] - self.log_levels[0]))

    def at(self, critical: Array) -> Array:
        """Distances at critical values of shape (…, N); inf beyond the tested sizes."""
        c = np.log(np.maximum(critical, 1e-6))
        slopes = np.diff(self.log_distances, axis=0) / np.diff(self.log_levels, axis=0)
        # Below the innermost level the profile is taken for a parabola, unless it is flatter there.
        out = self.log_distances[0] + np.minimum(slopes[0], 0.5) * np.minimum(c - self.log_levels[0], 0.0)
        knots = list(self.log_levels)
        top = knots[-1]
        for slope, low, high in zip(slopes, knots[:-1], knots[1:], strict=True):
            beyond = c if high is top else np.minimum(c, high)
            out = out + slope * np.maximum(beyond - low, 0.0)
        distance = np.exp(out)
        return np.where(self.open_ended | (distance > self.room + 0.02), np.inf, distance)


def _reach(first: _Profile, second: _Profile, critical: Array, rho: Array) -> Array:
    """The largest sum of two distances whose excesses add up to `critical`; inf if one of them is open."""
    share = np.linspace(0.0, 1.0, 41)[:, None]
    sums = (first.at(share * critical) + second.at((1 - share) * critical)).max(0)
    a, b = first.at(critical), second.at(critical)
    open_ended = np.isinf(sums) | np.isinf(a) | np.isinf(b)
    a, b = np.where(open_ended, 1.0, a), np.where(open_ended, 1.0, b)
    # The delta method's correlation means something for parabolas (power ½), nothing for steps (power 0).
    rho = np.minimum(rho, 1.9 * rho * np.clip(np.minimum(first.power, second.power), 0.0, 0.5))
    apart = np.maximum(a * a + b * b, 1e-18)
    return np.where(open_ended, np.inf, sums * np.sqrt(np.maximum(1 - 2 * rho * a * b / apart, 0.0)))


def _together(
    numerator: Relative,
    denominator: Relative,
    n: Crossings,
    d: Crossings,
    cross: Array,
    paired: Array,
    confidence: float,
) -> tuple[Array, Array]:
    """Correlation of two thresholds by the delta method, and the critical value of their difference; N-vectors."""
    left, right = np.nan_to_num(n.influence), np.nan_to_num(d.influence)
    own = [np.einsum("nk,nkl,nl->n", i, r.covariance, i) for i, r in ((left, numerator), (right, denominator))]
    implied = [((i**2) * r.between).sum(1) for i, r in ((left, numerator), (right, denominator))]
    both, from_seeds = (np.einsum("nk,nkl,nl->n", left, c, right) for c in (cross, paired))
    scale = np.sqrt(own[0] * own[1])
    rho = np.clip(np.divide(both, scale, out=np.zeros_like(both), where=scale > 0), -0.95, 0.95)
    first, second = _by_seed(left, numerator), _by_seed(right, denominator)
    modelled, seeds = own[0] + own[1] - 2 * rho * scale, implied[0] + implied[1] - 2 * from_seeds
    if first.shape[1] != second.shape[1]:
        return rho, t_quantile(confidence, np.minimum(numerator.df, denominator.df)) ** 2
    return rho, _scattered(modelled, seeds, first - second, numerator.df + denominator.df, confidence)


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


def against_target(
    log_sizes: Array,
    spread: Spread,
    target: Array,
    target_variance: Array,
    with_target: Array | None = None,
    items: Array | None = None,
) -> Relative:
    """A curve's means minus an estimated target, with the covariance that follows.

    Args:
        log_sizes: K.
        spread: of the curve's means, N × K.
        target, target_variance: N, the target and its variance over seeds.
        with_target: N × K, covariance over seeds of each mean with the target: not 0 where the ceiling is one of the
            curve's own sizes.
        items: N × K × K, covariance over items of the differences; None if the items are fixed.
    """
    k = len(log_sizes)
    known = spread.rounding.mean(1)
    if items is not None:
        known = known + np.einsum("nkk->n", items) / k
    df = combined_df(spread.between.mean(1), spread.between_df, known)
    covariance = spread.variance[:, :, None] * np.eye(k) + target_variance[:, None, None]
    if with_target is not None:
        covariance = covariance - with_target[:, :, None] - with_target[:, None, :]
    if items is not None:
        covariance = covariance + items
    return Relative(log_sizes, spread.mean - target[:, None], covariance, df, spread.between, spread.deviations)


def cross_covariance(
    first: Array,
    second: Array,
    target_variance: Array,
    seeds: Array | None = None,
    items: Array | None = None,
) -> Array:
    """Covariance of two curves' differences from the target, N × K × L.

    Args:
        first, second: N × K and N × L, covariance of each curve's means with the target over seeds.
        target_variance: N, of the target over seeds.
        seeds: N × K × L, covariance of the two curves' means through common seeds.
        items: N × K × L, covariance of the differences over items.
    """
    out = target_variance[:, None, None] - first[:, :, None] - second[:, None, :]
    for part in (seeds, items):
        if part is not None:
            out = out + part
    return out
