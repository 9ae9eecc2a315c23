"""Scaling of thresholds with model size, curve by curve: fits, predictions, and what they cannot say."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from capacity_analysis.data.absent import Absent
from capacity_analysis.scaling.fit import ModelThreshold, Prediction, ScalingFit, fit_scaling


@dataclass(frozen=True)
class ThresholdOnModel:
    """The threshold of one curve on one model.

    Attributes:
        model: name.
        curve: its label.
        model_parameters: N.
        low: lower end of the threshold; 0 if left-censored.
        high: upper end; infinite if right-censored.
        family: of the model, "" if not known.
        target: what was asked for, in words: "accuracy 90 %", "80 % of the gain". Each is fitted apart: the gap between
            base and ceiling shrinks with the model, so the two kinds of target scale differently.
    """

    model: str
    curve: str
    model_parameters: float
    low: float
    high: float
    family: str = ""
    target: str = ""


@dataclass(frozen=True)
class ScalingResult:
    """One curve at one kind of target: its thresholds, the fit or why there is none, predictions, remarks."""

    curve: str
    target: str
    thresholds: tuple[ModelThreshold, ...]
    fit: ScalingFit | Absent
    predictions: tuple[tuple[str, Prediction], ...]
    remarks: tuple[str, ...]


def scaling_report(
    found: Sequence[ThresholdOnModel], ahead: Sequence[float] = (2.0, 10.0)
) -> tuple[ScalingResult, ...]:
    """Fits every curve and kind of target.

    Args:
        found: thresholds; those with no finite end at all say nothing and are left out.
        ahead: predictions beyond the largest model, as multiples of it; every measured size is predicted too.

    Raises:
        DataError: a threshold that is no interval.
    """
    results = []
    for curve, target in dict.fromkeys((t.curve, t.target) for t in found):
        thresholds = tuple(
            ModelThreshold(t.model, t.model_parameters, t.low, t.high, t.family)
            for t in found
            if (t.curve, t.target) == (curve, target) and (t.low > 0 or isfinite(t.high))
        )
        fit = fit_scaling(thresholds)
        predictions: list[tuple[str, Prediction]] = []
        if isinstance(fit, ScalingFit):
            sizes = sorted({t.model_parameters for t in thresholds})
            for size in [*sizes, *(factor * sizes[-1] for factor in ahead)]:
                predictions.extend((family, fit.predict(size, family)) for family in fit.families)
        results.append(ScalingResult(curve, target, thresholds, fit, tuple(predictions), _remarks(fit)))
    return tuple(results)


def _remarks(fit: ScalingFit | Absent) -> tuple[str, ...]:
    if isinstance(fit, Absent):
        return ()
    found = []
    if fit.method == "lines through all intervals":
        found.append(
            "Straight lines pass through all intervals, so the scatter between models cannot be seen: slope and "
            "predictions are the range of those lines, not confidence intervals."
        )
    elif fit.df == 0:
        found.append(
            "As many thresholds as coefficients: the line leaves nothing to judge it by, every interval is open."
        )
    elif fit.df <= 2:
        word = "degree" if fit.df == 1 else "degrees"
        found.append(f"{fit.n} thresholds leave {fit.df} {word} of freedom: Student's quantile is {fit.t:.1f}.")
    found.append("Predictions more than one doubling outside the measured models are extrapolations to be doubted.")
    return tuple(found)


def to_json(results: Sequence[ScalingResult]) -> list[dict[str, Any]]:
    """Plain JSON types; null stands for an open end, and `reason` says why there is no fit."""
    return [_result_json(result) for result in results]


def _result_json(result: ScalingResult) -> dict[str, Any]:
    head: dict[str, Any] = {
        "method": result.curve,
        "target": result.target,
        "thresholds": [
            {
                "model": t.model,
                "model_parameters": t.model_parameters,
                "family": t.family or None,
                "low": t.low or None,
                "high": _finite(t.high),
            }
            for t in result.thresholds
        ],
        "remarks": list(result.remarks),
    }
    fit = result.fit
    if isinstance(fit, Absent):
        return head | {"slope": None, "reason": fit.reason, "predictions": []}
    return head | {
        "slope": {"estimate": fit.slope.estimate, "low": _finite(fit.slope.low), "high": _finite(fit.slope.high)},
        "reason": None,
        "estimator": fit.method,
        "families": list(fit.families) if len(fit.families) > 1 else [],
        "effects": [{"estimate": e.estimate, "low": _finite(e.low), "high": _finite(e.high)} for e in fit.effects],
        "sigma": fit.sigma,
        "df": fit.df,
        "t": _finite(fit.t),
        "n": fit.n,
        "confidence": fit.confidence,
        "predictions": [
            {
                "model_parameters": p.model_parameters,
                "family": family or None,
                "estimate": p.estimate,
                "low": p.low or None,
                "high": _finite(p.high),
                "doublings_outside": p.doublings,
                "extrapolated": p.far,
            }
            for family, p in result.predictions
        ],
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
