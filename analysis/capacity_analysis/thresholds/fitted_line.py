"""The line through the accuracies of a curve: the fit that answers for it, as `capacity threshold` has it."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from capacity_analysis.statistics.monotone import isotonic
from capacity_analysis.thresholds.evidence import Evidence
from capacity_analysis.thresholds.result import CurveThreshold
from capacity_analysis.types import Array


@dataclass(frozen=True)
class Line:
    """A line through accuracies, with its pointwise 95 % band for fresh seeds; a monotone fit has no band."""

    estimator: str
    sizes: Array
    accuracies: Array
    low: Array | None
    high: Array | None


def line(evidence: Evidence, found: CurveThreshold, points: int = 60) -> Line:
    """The line of one curve: its Hill curve where that answers, else its isotonic fit.

    Args:
        evidence: the evidence for the curve's model.
        found: the threshold that answers for the curve.
        points: the number of points of a smooth line.
    """
    place = next(i for i, curve in enumerate(evidence.curves) if curve.label == found.curve)
    tested, spread = evidence.curves[place].sizes, evidence.spreads[place]
    if found.estimator != "hill":
        weights = 1 / spread.variance[0] if spread.known else None
        return Line("monotone", tested, isotonic(spread.mean[0], weights), None, None)
    fit = evidence.fit(place)
    fitted = tested[evidence.used(place)]
    sizes = np.geomspace(fitted[0], fitted[-1], points)
    middle = fit.curve.accuracy(sizes)
    quantile = float(stdtrit(spread.df[0], 0.975) if np.isfinite(spread.df[0]) else ndtri(0.975))
    half = quantile * fit.standard_errors(sizes)
    return Line("hill", sizes, middle, np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1))
