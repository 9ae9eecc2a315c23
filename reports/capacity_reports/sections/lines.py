"""What is drawn through the accuracies of an arm: the curve that answers for it, as `capacity threshold` fits it."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from capacity_analysis.statistics.monotone import isotonic
from capacity_analysis.thresholds.evidence import Curve, Evidence
from capacity_analysis.types import Array


@dataclass(frozen=True)
class Line:
    """A line through accuracies, with its pointwise 95 % band for fresh seeds; a monotone fit has no band."""

    estimator: str
    sizes: Array
    accuracies: Array
    low: Array | None
    high: Array | None


def line(evidence: Evidence, curve: Curve, points: int = 60) -> Line:
    """The line of one arm: its Hill curve where that answers, else its isotonic fit.

    Args:
        evidence: the evidence for the curve's model.
        curve: the estimate that answers for the arm.
        points: the number of points of a smooth line.
    """
    place = next(i for i, arm in enumerate(evidence.arms) if arm.method == curve.method)
    arm, spread = evidence.arms[place], evidence.spreads[place]
    if curve.estimator != "hill":
        weights = 1 / spread.variance[0] if spread.known else None
        return Line("monotone", arm.sizes, isotonic(spread.mean[0], weights), None, None)
    fit = evidence.fit(place)
    sizes = np.geomspace(arm.sizes[0], arm.sizes[-1], points)
    middle = fit.curve.accuracy(sizes)
    quantile = float(stdtrit(spread.df[0], 0.975) if np.isfinite(spread.df[0]) else ndtri(0.975))
    half = quantile * fit.standard_errors(sizes)
    return Line("hill", sizes, middle, np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1))
