"""A ratio of threshold sizes with an interval of another confidence, for claims that are judged together."""

from dataclasses import replace

from capacity_analysis.thresholds.answers import ThresholdStudy
from capacity_analysis.thresholds.estimators import estimate_curve, hill_ratio, monotone_ratio
from capacity_analysis.thresholds.evidence import Evidence
from capacity_analysis.thresholds.ratios import Ratio
from capacity_analysis.thresholds.result import plain


def at_confidence(study: ThresholdStudy, ratio: Ratio, confidence: float) -> Ratio:
    """The same ratio by the same estimator, with its interval made anew at another confidence.

    Args:
        study: the study that the ratio belongs to.
        ratio: one of its ratios.
        confidence: two-sided. At 0.95 the interval is that of `ratio`.

    Returns:
        The ratio without an interval if the study knows no variance, or if no Hill curve can be fitted anew.
    """
    evidence = next(e for e in study.evidence if e.design.model == ratio.model)
    return made_anew(evidence, ratio, confidence)


def made_anew(evidence: Evidence, ratio: Ratio, confidence: float) -> Ratio:
    """A ratio of some evidence with its interval at another confidence; for arguments see `at_confidence`."""
    nothing = replace(ratio, low=None, high=None)
    if not evidence.known:
        return nothing
    labels = [curve.label for curve in evidence.curves]
    places = labels.index(ratio.numerator), labels.index(ratio.denominator)
    n, d = (estimate_curve(evidence.differences.take(i), evidence.limits, confidence=confidence) for i in places)
    if ratio.estimator == "monotone":
        found = monotone_ratio(n, d)
    elif n.hill is None or d.hill is None:
        return nothing
    else:
        found = hill_ratio(evidence.differences.take(*places), evidence.limits, n, d, confidence)
    return replace(ratio, low=plain(float(found.low[0])), high=plain(float(found.high[0])))
