"""Threshold size against model size: log T = α + β log N + family effect + error, from thresholds known to an interval.

A threshold is rarely a number: the tested sizes bracket it, or it lies below or above all of them. Each observation is
therefore an interval (low, high] and contributes the probability of that interval (Tobin 1958; accelerated failure
time regression with log-normal errors). Thresholds given as single numbers make it ordinary least squares. Logarithms
are to base 10, sizes in whatever unit the thresholds have.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, special

from capacity.errors import DataError
from capacity_analysis.data.absent import Absent
from capacity_analysis.types import Array

Method = Literal["least squares", "interval-censored normal", "lines through all intervals"]


@dataclass(frozen=True)
class ModelThreshold:
    """The threshold of one model, known to lie in (low, high].

    Attributes:
        model: its name.
        model_parameters: N.
        low: a size that does not reach the target; 0 if even the smallest one tested reaches it (left-censored).
        high: a size that reaches it; infinite if none tested does (right-censored). `low == high` is an exact number.
        family: models of one family share an intercept.
    """

    model: str
    model_parameters: float
    low: float
    high: float
    family: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.high and self.high > 0 and math.isfinite(self.low)):
            raise DataError(f"threshold of {self.model}: {self.low:g} to {self.high:g} is not an interval of sizes")
        if not 0 < self.model_parameters < math.inf:
            raise DataError(f"threshold of {self.model}: the model's number of parameters is not known")


@dataclass(frozen=True)
class Coefficient:
    """An estimate with its two-sided interval; None where the data give no single number, infinite where unbounded."""

    estimate: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """The threshold of a model that was not measured.

    Attributes:
        model_parameters: N₀.
        estimate: None where the data give no single number.
        low: lower end of the prediction interval, 0 if unbounded.
        high: upper end, infinite if unbounded.
        doublings: how far N₀ lies outside the measured range, log₂; 0 inside.
    """

    model_parameters: float
    estimate: float | None
    low: float
    high: float
    doublings: float

    @property
    def far(self) -> bool:
        """Whether this is extrapolated beyond one doubling: to be drawn hatched, and to be doubted."""
        return self.doublings > 1


@dataclass(frozen=True)
class ScalingFit:
    """A fitted scaling law.

    Attributes:
        method: how it was fitted.
        slope: β, decades of threshold a decade of model size; −1 means that ten times the model needs a tenth.
        families: names, the first one being the reference.
        effects: log10 offset of each other family from the reference.
        sigma: standard deviation of log10 T around the line, corrected for the fitted coefficients; None if the
            data cannot show it.
        df: degrees of freedom behind every interval: bounded observations − coefficients.
        t: Student's quantile used, infinite at df 0.
        n: observations.
        log_likelihood: natural logarithm, at the maximum (densities of log10 T for exact thresholds); None for
            "lines through all intervals".
        confidence: two-sided, of all intervals.
        smallest, largest: model sizes measured.
        coefficients: α of the reference family, β, effects; at log10 N = `centre`.
        covariance: theirs, before Student's quantile.
        bounds: design, log10 low and log10 high of all observations.
    """

    method: Method
    slope: Coefficient
    families: tuple[str, ...]
    effects: tuple[Coefficient, ...]
    sigma: float | None
    df: int
    t: float
    n: int
    log_likelihood: float | None
    confidence: float
    smallest: float
    largest: float
    centre: float
    coefficients: Array
    covariance: Array
    bounds: tuple[Array, Array, Array]

    def predict(self, model_parameters: float, family: str | None = None) -> Prediction:
        """Where the threshold of a new model lies: half-width t·√(σ² + variance of the line there).

        Raises:
            DataError: a family that was not measured, when there are several.
        """
        name = self.families[0] if family is None or len(self.families) == 1 else family
        if name not in self.families:
            raise DataError(f"no model of family {name!r} was measured: only {', '.join(self.families)}")
        row = _row(math.log10(model_parameters) - self.centre, self.families.index(name), len(self.families))
        below, above = math.log2(self.smallest / model_parameters), math.log2(model_parameters / self.largest)
        outside = max(0.0, below, above)
        if self.sigma is None:
            found = _extremes(row, self.bounds)
            return Prediction(model_parameters, None, _power(found[0]), _power(found[1]), outside)
        middle = float(row @ self.coefficients)
        spread = math.sqrt(self.sigma**2 + float(row @ self.covariance @ row))
        half = self.t * spread if math.isfinite(self.t) else math.inf
        return Prediction(model_parameters, _power(middle), _power(middle - half), _power(middle + half), outside)


def _power(exponent: float) -> float:
    """10 to an exponent that may be infinite or too large."""
    return math.inf if exponent > 300 else 10.0**exponent


def _row(x: float, family: int, families: int) -> Array:
    """Design of one observation: 1, log10 N, indicators of all families but the first."""
    return np.array([1.0, x, *(float(family == i) for i in range(1, families))])


def fit_scaling(thresholds: Sequence[ModelThreshold], confidence: float = 0.95) -> ScalingFit | Absent:
    """Fits the scaling law.

    For small samples, σ² is corrected by n/(n − coefficients), and every interval takes Student's quantile.
    Observations that are censored on one side shape the line but give no degree of freedom. Three exact thresholds
    leave one degree of freedom, t = 12.7. If a line passes through all intervals, the likelihood has its maximum at σ =
    0 and no scatter can be seen. Then slope and predictions are the range of all such lines, a statement without
    probability.

    Args:
        thresholds: one a model; several models of one size are welcome.
        confidence: two-sided.

    Returns:
        The fit, or why there is none.
    """
    if len({t.model_parameters for t in thresholds}) < 2:
        return Absent("the thresholds are of one model size only")
    families = tuple(dict.fromkeys(t.family for t in thresholds))
    logs = np.log10([t.model_parameters for t in thresholds])
    centre = float(logs.mean())
    design = np.array(
        [_row(x - centre, families.index(t.family), len(families)) for x, t in zip(logs, thresholds, strict=True)]
    )
    with np.errstate(divide="ignore"):
        low, high = np.log10([t.low for t in thresholds]), np.log10([t.high for t in thresholds])
    bounded = np.isfinite(low) & np.isfinite(high)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return Absent("no family has models of two sizes, so size and family cannot be told apart")
    if np.linalg.matrix_rank(design[bounded]) < design.shape[1]:
        return Absent(
            f"only {int(bounded.sum())} of {len(thresholds)} thresholds are bracketed by tested sizes, too few for "
            f"{design.shape[1]} coefficients"
        )
    df = int(bounded.sum()) - design.shape[1]
    t = float(special.stdtrit(df, 0.5 + confidence / 2)) if df > 0 else math.inf
    try:
        return _fitted(thresholds, families, logs, (design, low, high), df, t, confidence)
    except (ValueError, np.linalg.LinAlgError):  # a likelihood without a maximum, as intervals that hardly scatter have
        return Absent("the likelihood of the line has no maximum that can be found")


def _fitted(
    thresholds: Sequence[ModelThreshold],
    families: tuple[str, ...],
    logs: Array,
    bounds: tuple[Array, Array, Array],
    df: int,
    t: float,
    confidence: float,
) -> ScalingFit:
    """The line with its intervals.

    Raises:
        ValueError, LinAlgError: the likelihood has no maximum that can be found.
    """
    design, low, high = bounds
    bounded = np.isfinite(low) & np.isfinite(high)
    exact = bool((low == high).all())
    sigma: float | None
    likelihood: float | None
    if exact:
        method: Method = "least squares"
        coefficients, sigma, covariance, likelihood = _least_squares(design, low)
    elif _line_through(design, low, high):
        method, sigma, likelihood = "lines through all intervals", None, None
        coefficients, covariance = np.full(design.shape[1], np.nan), np.full((design.shape[1],) * 2, np.nan)
    else:
        method = "interval-censored normal"
        found = interval_regression(design, low, high)
        coefficients, likelihood = found.coefficients, found.log_likelihood
        inflation = bounded.sum() / max(df, 1)
        sigma, covariance = found.sigma * math.sqrt(inflation), found.covariance * inflation
    parts = [_coefficient(i, coefficients, covariance, t, bounds) for i in range(1, design.shape[1])]
    return ScalingFit(
        method=method,
        slope=parts[0],
        families=families,
        effects=tuple(parts[1:]),
        sigma=sigma,
        df=df,
        t=t,
        n=len(thresholds),
        log_likelihood=likelihood,
        confidence=confidence,
        smallest=min(m.model_parameters for m in thresholds),
        largest=max(m.model_parameters for m in thresholds),
        centre=float(logs.mean()),
        coefficients=coefficients,
        covariance=covariance,
        bounds=bounds,
    )


def _coefficient(
    index: int, coefficients: Array, covariance: Array, t: float, bounds: tuple[Array, Array, Array]
) -> Coefficient:
    if np.isnan(coefficients[index]):
        row = np.zeros(len(coefficients))
        row[index] = 1.0
        return Coefficient(None, *_extremes(row, bounds))
    half = t * math.sqrt(covariance[index, index]) if math.isfinite(t) else math.inf
    value = float(coefficients[index])
    return Coefficient(value, value - half, value + half)


# Exact thresholds


def _least_squares(design: Array, y: Array) -> tuple[Array, float, Array, float | None]:
    """Coefficients, σ with n − p degrees of freedom (0 if none), their covariance, log-likelihood."""
    coefficients, *_ = np.linalg.lstsq(design, y)
    n, p = design.shape
    squares = float(((y - design @ coefficients) ** 2).sum())
    variance = squares / (n - p) if n > p else 0.0
    likelihood = -n / 2 * (math.log(2 * math.pi * squares / n) + 1) if squares > 0 else None
    covariance: Array = variance * np.linalg.inv(design.T @ design).astype(np.float64)
    return coefficients.astype(np.float64), math.sqrt(variance), covariance, likelihood


# Lines through all intervals: a linear programme


def _line_through(design: Array, low: Array, high: Array) -> bool:
    found = _solve(np.zeros(design.shape[1]), (design, low, high))
    return bool(found.status == 0)


def _extremes(direction: Array, bounds: tuple[Array, Array, Array]) -> tuple[float, float]:
    """Least and greatest direction · coefficients over all lines through the intervals; infinite if unbounded."""
    least, greatest = _solve(direction, bounds), _solve(-direction, bounds)
    return (
        float(least.fun) if least.status == 0 else -math.inf,
        -float(greatest.fun) if greatest.status == 0 else math.inf,
    )


def _solve(direction: Array, bounds: tuple[Array, Array, Array]) -> optimize.OptimizeResult:
    design, low, high = bounds
    left, right = np.isfinite(low), np.isfinite(high)
    rows = np.concatenate([design[right], -design[left]])
    limits = np.concatenate([high[right], -low[left]])
    return optimize.linprog(direction, A_ub=rows, b_ub=limits, bounds=(None, None), method="highs")


# Maximum likelihood


@dataclass(frozen=True)
class IntervalRegression:
    """Maximum-likelihood fit: coefficients, σ (not corrected), covariance of the coefficients, log-likelihood."""

    coefficients: Array
    sigma: float
    covariance: Array
    log_likelihood: float


def interval_regression(design: Array, low: Array, high: Array) -> IntervalRegression:
    """Normal regression of values known to lie in [low, high]; equal ends are an exact value, infinite ends open.

    Args:
        design: (n, p), of full rank.
        low: (n,), −∞ for left-censored.
        high: (n,), ∞ for right-censored.

    Returns:
        The maximum; the covariance is the inverse of the observed information, by central differences.
    """

    def loss(theta: Array) -> float:
        return -float(_log_likelihood(theta, design, low, high).sum())

    middle = np.where(np.isfinite(low) & np.isfinite(high), (low + high) / 2, np.where(np.isfinite(low), low, high))
    start, *_ = np.linalg.lstsq(design, middle)
    spread = float(np.std(middle - design @ start))
    theta = np.append(start, math.log(max(spread, 0.1 * float(np.std(middle)), 1e-3)))
    for _ in range(5):  # a simplex finds the way from afar; started anew it leaves false minima
        found = optimize.minimize(
            loss, theta, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-11, "maxiter": 20_000}
        )
        settled = bool(np.allclose(found.x, theta, atol=1e-5))
        theta = found.x
        if settled:
            break
    information = _hessian(loss, theta)
    covariance: Array = np.linalg.inv(information)[:-1, :-1].astype(np.float64)
    return IntervalRegression(theta[:-1], math.exp(theta[-1]), covariance, -loss(theta))


def _log_likelihood(theta: Array, design: Array, low: Array, high: Array) -> Array:
    """Log-density of exact values, log-probability of intervals. `theta`: coefficients, then log σ. Shape (n,)."""
    log_sigma = theta[-1]
    mean = design @ theta[:-1]
    z_low, z_high = (low - mean) * math.exp(-log_sigma), (high - mean) * math.exp(-log_sigma)
    flip = z_low > 0  # the upper tail is the lower one's mirror image, and keeps its digits there
    a, b = np.where(flip, -z_high, z_low), np.where(flip, -z_low, z_high)
    log_a, log_b = special.log_ndtr(a), special.log_ndtr(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = log_b + np.log1p(-np.exp(np.minimum(log_a - log_b, 0.0)))
    exact = low == high
    density = -0.5 * np.where(exact, z_low, 0.0) ** 2 - 0.5 * math.log(2 * math.pi) - log_sigma
    return np.asarray(np.where(exact, density, np.maximum(between, -1e10)))


def _hessian(loss: Callable[[Array], float], theta: Array, step: float = 1e-4) -> Array:
    p = len(theta)
    moves = step * np.maximum(1.0, np.abs(theta))[:, None] * np.eye(p)
    hessian = np.empty((p, p))
    for i in range(p):
        for j in range(i, p):
            corners = [loss(theta + s * moves[i] + t * moves[j]) * s * t for s in (1, -1) for t in (1, -1)]
            hessian[i, j] = hessian[j, i] = sum(corners) / (4 * moves[i, i] * moves[j, j])
    return hessian
