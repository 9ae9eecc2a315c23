"""All that `capacity threshold` reports about a points table: thresholds, ratios, null calibration, their limits."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from capacity.errors import CapacityError, DataError
from capacity_analysis.checklist import ThresholdFacts
from capacity_analysis.data.select import Design, Selection, designs
from capacity_analysis.data.table import Points
from capacity_analysis.scaling.curves import ScalingCurve
from capacity_analysis.thresholds.evidence import Curve, Evidence, Question, curves, gather, why_not_hill
from capacity_analysis.thresholds.null_calibration import NullCalibration, null_calibration
from capacity_analysis.thresholds.ratios import Ratio, pairs, ratios, sentence


@dataclass(frozen=True)
class ThresholdStudy:
    """The result. `unsupported`: what the data do not say, each a sentence; `seed` is that of all random draws."""

    source: str
    question: Question
    seed: int
    unit: str
    evidence: tuple[Evidence, ...]
    curves: tuple[Curve, ...]
    ratios: tuple[Ratio, ...]
    null: tuple[NullCalibration, ...]
    unsupported: tuple[str, ...]

    def design_of(self, ratio: Ratio) -> Design:
        """The design that a ratio belongs to."""
        return next(e.design for e in self.evidence if e.design.model == ratio.model)

    def sentences(self) -> tuple[str, ...]:
        """One a pair, by the estimator to believe."""
        return tuple(
            (f"{r.model}: " if r.model else "") + sentence(r, self.design_of(r)) for r in self.ratios if r.answer
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; null is unbounded, or an estimate that is censored."""
        return {
            "source": self.source,
            "unit": self.unit,
            "items": self.question.items,
            "replicates": self.question.replicates,
            "seed": self.seed,
            "targets": [{"model": e.design.model, **asdict(e.target)} for e in self.evidence],
            "curves": [_curve_json(curve) for curve in self.curves],
            "ratios": [
                asdict(ratio) | {"against_target": [asdict(a) for a in ratio.against_target]} for ratio in self.ratios
            ],
            "null_calibration": {
                "simulations": self.null[0].simulations if self.null else 0,
                "pairs": [pair.to_json() for pair in self.null],
            },
            "not_supported": list(self.unsupported),
        }


def study_thresholds(
    points: Points, selection: Selection, question: Question, *, seed: int = 0, null: int = 400
) -> ThresholdStudy:
    """Thresholds of every model and method, ratios of every pair.

    Args:
        points: as read.
        selection: which rows.
        question: target and method.
        seed: of all random draws.
        null: simulated studies of the null calibration of each pair; 0 for none.

    Raises:
        CapacityError: nothing can be estimated; one model that cannot only adds to `unsupported`.
    """
    gathered, failed = [], []
    for place, design in enumerate(designs(points, selection)):
        try:
            gathered.append(gather(design, question, np.random.default_rng([seed, place])))
        except DataError as error:
            failed.append(error)
    if not gathered:
        raise CapacityError(f"{points.source}: " + "; ".join(str(error) for error in failed))
    found_curves = tuple(c for e in gathered for c in curves(e))
    found_ratios = tuple(r for e in gathered for r in ratios(e))
    calibrated = tuple(
        null_calibration(e, n, d, null, np.random.default_rng([seed, 1, place]))
        for e in gathered
        if e.known and null
        for place, (n, d) in enumerate(pairs(e))
    )
    return ThresholdStudy(
        points.source,
        question,
        seed,
        selection.unit,
        tuple(gathered),
        found_curves,
        found_ratios,
        calibrated,
        tuple(str(error) for error in failed) + _unsupported(gathered, found_curves, found_ratios),
    )


def scaling_curves(study: ThresholdStudy) -> tuple[ScalingCurve, ...]:
    """The thresholds to believe, as `scaling_report` takes them; without intervals, the tested sizes around each.

    Raises:
        DataError: a model whose number of parameters is not in the table.
    """
    found = []
    for evidence in study.evidence:
        design, target = evidence.design, evidence.target
        if design.model_parameters is None:
            raise DataError(f"{study.source}: scaling needs the column model_parameters, missing for {design.model}")
        named = f"{100 * target.gain:g} % of the gain" if target.gain else f"accuracy {100 * target.accuracy:g} %"
        for curve in study.curves:
            if curve.model != design.model or not curve.answer:
                continue
            low, high = curve.threshold.low, curve.threshold.high
            if not evidence.known:
                high = curve.first_crossing
                below = [s for s in curve.sizes if high is None or s < high]
                low = below[-1] if below else None
            found.append(
                ScalingCurve(
                    design.model or "", curve.method, design.model_parameters, low or 0.0,
                    math.inf if high is None else high, design.family or "", named,
                )
            )  # fmt: skip
    return tuple(found)


def facts(study: ThresholdStudy) -> ThresholdFacts:
    """What the checklist asks about this analysis; the ratio is the first pair's."""
    answer = next((r for r in study.ratios if r.answer), None)
    return ThresholdFacts(
        target=study.evidence[0].target.accuracy,
        censoring=tuple(
            (f"{c.method} on {c.model}" if c.model else c.method, c.threshold.censored)
            for c in study.curves
            if c.answer
        ),
        null_calibrated=bool(study.null),
        fit_tested=any(c.fit_p is not None for c in study.curves),
        parallel_tested=any(r.parallel_p is not None for r in study.ratios),
        ratio=None
        if answer is None or (answer.low is None and answer.high is None)
        else (answer.low or 0.0, math.inf if answer.high is None else answer.high),
    )


def _curve_json(curve: Curve) -> dict[str, Any]:
    return {
        "model": curve.model,
        "method": curve.method,
        "estimator": curve.estimator,
        "threshold": asdict(curve.threshold),
        "answer": curve.answer,
        "interval": curve.interval,
        "fit_p": curve.fit_p,
        "first_crossing": curve.first_crossing,
        "stays_above": curve.stays_above,
        "sizes": list(curve.sizes),
        "accuracies": list(curve.accuracies),
        "seeds": curve.seeds,
    }


def _unsupported(
    gathered: Sequence[Evidence], found: Sequence[Curve], pairs_of_arms: Sequence[Ratio]
) -> tuple[str, ...]:
    """What a reader might take from the table and must not."""
    said: list[str] = []
    for evidence in gathered:
        where = f" on {evidence.design.model}" if evidence.design.model else ""
        said += evidence.left_out
        if not evidence.known:
            said.append(f"no intervals{where}: the table has neither counts nor several seeds, and none are invented")
        elif any(np.isinf(s.df).any() for s in evidence.spreads):
            said.append(f"one seed{where}: intervals leave out the spread between seeds, which is unknown")
        for curve in found:
            if curve.model != evidence.design.model or not curve.answer:
                continue
            who = f"{curve.method}{where}"
            why = why_not_hill(curve, evidence.limits.free) if evidence.known else None
            if why is not None:
                said.append(f"{who}: {why}, so the monotone estimator answers, whose ends are tested sizes")
            if curve.threshold.censored == "right":
                said.append(
                    f"{who}: the target is not reached at the sizes tested, so there is no threshold, only a bound"
                )
            if curve.threshold.censored == "left":
                said.append(
                    f"{who}: the target is reached at the smallest size tested, so there is only an upper bound"
                )
            if curve.first_crossing != curve.stays_above:
                said.append(f"{who}: the means are not monotone at the target; first crossing and staying above differ")
    for ratio in pairs_of_arms:
        name = f"{ratio.numerator} : {ratio.denominator}" + (f" on {ratio.model}" if ratio.model else "")
        if ratio.answer and ratio.low is not None and ratio.low < 10 and (ratio.high is None or ratio.high > 10):
            said.append(f"{name}: a ratio of 10 is neither shown nor excluded")
        if ratio.parallel_p is not None and ratio.parallel_p < 0.05:
            said.append(
                f"{name}: curves not parallel (p = {ratio.parallel_p:.2g}), so the ratio holds at this target only"
            )
    return tuple(dict.fromkeys(said))
