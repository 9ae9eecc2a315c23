"""The threshold of each curve: the smallest update that reaches the target, with interval and censoring."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from capacity_analysis.statistics import monotone
from capacity_analysis.statistics.collapses import CollapsedShare
from capacity_analysis.statistics.hill_profile import Crossings
from capacity_analysis.statistics.monotone import Brackets
from capacity_analysis.thresholds.estimators import FIT_LEVEL, believes_hill
from capacity_analysis.thresholds.evidence import Evidence
from capacity_analysis.types import Array

Censoring = Literal["none", "left", "right"]
Estimator = Literal["hill", "monotone"]


@dataclass(frozen=True)
class Threshold:
    """A size with its interval. None is unbounded, or for the estimate: censored.

    `censored`: right, not reached in the tested range; left, already reached at the smallest. `fraction_not_reached`:
    of resampled data sets whose isotonic fit reaches the target nowhere; None without a variance.
    """

    estimate: float | None
    low: float | None
    high: float | None
    censored: Censoring
    fraction_not_reached: float | None


@dataclass(frozen=True)
class CurveThreshold:
    """The threshold of one curve by one estimator.

    Attributes:
        curve: its label.
        method: that trained its cells.
        answer: whether this estimator is the one to believe: the Hill curve unless its fit is rejected or untestable.
        interval: what the interval rests on, or why there is none.
        fit_p: p-value of the test of fit of the Hill curve; None if there is nothing left to test it with.
        first_crossing, stays_above: tested sizes, of the mean accuracies as they are.
        left_out: tested sizes that the Hill curve is not fitted to, because accuracy falls there at the ends.
        sizes, accuracies: K tested sizes with their means over seeds.
        seeds: the most that a size has, without those that collapsed.
        collapsed: how many seeds collapsed and are set aside; None if nothing tells.
    """

    model: str | None
    curve: str
    method: str
    estimator: Estimator
    threshold: Threshold
    answer: bool
    interval: str
    fit_p: float | None
    first_crossing: float | None
    stays_above: float | None
    left_out: tuple[float, ...]
    sizes: tuple[float, ...]
    accuracies: tuple[float, ...]
    seeds: int
    collapsed: CollapsedShare | None


def thresholds(evidence: Evidence) -> tuple[CurveThreshold, ...]:
    """Both estimators of every curve, the one to believe first."""
    found = []
    for place, curve in enumerate(evidence.curves):
        estimates = evidence.estimates[place]
        believed = bool(believes_hill(estimates)[0]) and evidence.known
        fit_p = float(estimates.fit_p[0])
        means = evidence.spreads[place].mean[0]
        options: list[tuple[Estimator, Brackets | Crossings, bool]] = [("monotone", estimates.monotone, not believed)]
        if estimates.hill is not None:
            options.append(("hill", estimates.hill, believed))
        for name, result, answer in sorted(options, key=lambda option: not option[2]):
            found.append(
                CurveThreshold(
                    model=evidence.design.model,
                    curve=curve.label,
                    method=curve.method,
                    estimator=name,
                    threshold=_threshold(curve.sizes, result.size[0], result.low[0], result.high[0], evidence, place),
                    answer=answer,
                    interval=evidence.basis,
                    fit_p=None if math.isnan(fit_p) or not evidence.known else fit_p,
                    first_crossing=monotone.first_crossing(curve.sizes, means, evidence.target.accuracy - 1e-12),
                    stays_above=monotone.stays_above(curve.sizes, means, evidence.target.accuracy - 1e-12),
                    left_out=tuple(float(s) for s in curve.sizes[~evidence.used(place)]) if name == "hill" else (),
                    sizes=tuple(float(s) for s in curve.sizes),
                    accuracies=tuple(float(m) for m in means),
                    seeds=int((~np.isnan(curve.accuracy)).sum(1).max()),
                    collapsed=evidence.collapses.get(curve.label),
                )
            )
    return tuple(found)


def why_not_hill(found: CurveThreshold, free: int) -> str | None:
    """Why the Hill curve is not the answer for a curve; None if it is."""
    if found.answer and found.estimator == "hill":
        return None
    if found.fit_p is not None and found.fit_p < FIT_LEVEL:
        return f"a Hill curve does not fit (p = {found.fit_p:.2g})"
    if len(found.sizes) <= free:
        return f"{len(found.sizes)} sizes leave nothing to test a Hill curve of {free} parameters with"
    return "the fit of a Hill curve cannot be tested"


def _threshold(sizes: Array, size: float, low: float, high: float, evidence: Evidence, place: int) -> Threshold:
    censored: Censoring = "none" if math.isfinite(size) else "right" if size > 0 else "left"
    if not evidence.known:
        return Threshold(plain(size, sizes), None, None, censored, None)
    return Threshold(plain(size, sizes), plain(low, sizes), plain(high, sizes), censored, evidence.fractions[place])


def plain(log_size: float, sizes: Array | tuple[float, ...] = ()) -> float | None:
    """A size from its log10, exactly the tested size where it is one; None if it is not finite."""
    if not math.isfinite(log_size):
        return None
    value = 10.0**log_size
    return next((float(s) for s in sizes if abs(value / s - 1) < 1e-9), value)
