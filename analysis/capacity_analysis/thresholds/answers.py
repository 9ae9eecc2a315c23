"""All that `capacity threshold` reports about a points table: thresholds, ratios, null calibration, their limits."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from capacity.errors import CapacityError, DataError
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.select import Design, Selection, designs
from capacity_analysis.data.table import Points
from capacity_analysis.scaling.curves import ThresholdOnModel
from capacity_analysis.thresholds.evidence import Evidence, gather
from capacity_analysis.thresholds.null_calibration import NullCalibration, null_calibration
from capacity_analysis.thresholds.question import Question
from capacity_analysis.thresholds.ratios import Ratio, pairs, ratios, sentence
from capacity_analysis.thresholds.result import CurveThreshold, thresholds, why_not_hill
from capacity_analysis.types import Items


@dataclass(frozen=True)
class ThresholdStudy:
    """The result. `unsupported`: what the data do not say, each a sentence; `seed` is that of all random draws."""

    source: str
    question: Question
    seed: int
    unit: str
    evidence: tuple[Evidence, ...]
    thresholds: tuple[CurveThreshold, ...]
    ratios: tuple[Ratio, ...]
    null: tuple[NullCalibration, ...]
    unsupported: tuple[str, ...]

    def design_of(self, ratio: Ratio) -> Design:
        """The design that a ratio belongs to."""
        return next(e.design for e in self.evidence if e.design.model == ratio.model)

    def sentences(self) -> tuple[str, ...]:
        """One a pair, by the estimator to believe, with the other beside it. One seed allows no claim about methods."""
        return tuple(
            (f"{r.model}: " if r.model else "")
            + ("one seed, no claim about methods; in these runs " if self.of_one_seed(r) else "")
            + sentence(r, self.other(r), self.design_of(r))
            for r in self.headlines
        )

    def of_one_seed(self, ratio: Ratio) -> bool:
        """Tells whether a curve of the pair has counts, but no second seed at any size. Then no claim is made."""
        evidence = next(e for e in self.evidence if e.design.model == ratio.model)
        pair = (ratio.numerator, ratio.denominator)
        spreads = [s for curve, s in zip(evidence.curves, evidence.spreads, strict=True) if curve.label in pair]
        return evidence.known and any(spread.basis == "counts" for spread in spreads)

    @property
    def headlines(self) -> tuple[Ratio, ...]:
        """The ratio of each pair, by the estimator to believe."""
        return tuple(ratio for ratio in self.ratios if ratio.answer)

    def other(self, ratio: Ratio) -> Ratio | None:
        """The ratio of the same pair by the other estimator."""
        pair = (ratio.model, ratio.numerator, ratio.denominator)
        alike = (r for r in self.ratios if (r.model, r.numerator, r.denominator) == pair)
        return next((r for r in alike if r.estimator != ratio.estimator), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; null is unbounded, or an estimate that is censored."""
        return {
            "source": self.source,
            "unit": self.unit,
            "items": self.question.items,
            "replicates": self.question.replicates,
            "seed": self.seed,
            "targets": [{"model": e.design.model, **asdict(e.target)} for e in self.evidence],
            "curves": [_threshold_json(found) for found in self.thresholds],
            "ratios": [
                asdict(ratio)
                | {"differ": list(ratio.differ), "against_target": [asdict(a) for a in ratio.against_target]}
                for ratio in self.ratios
            ],
            "null_calibration": {
                "simulations": self.null[0].simulations if self.null else 0,
                "pairs": [pair.to_json() for pair in self.null],
            },
            "not_supported": list(self.unsupported),
        }


@dataclass(frozen=True)
class ThresholdFacts:
    """What an analysis of thresholds knows about itself. None: it was not done.

    Attributes:
        target: accuracy asked of every curve.
        censoring: "none", "left" or "right", by curve.
        null_calibrated: whether the design's own null calibration was computed.
        fit_tested: whether goodness of fit was tested.
        parallel_tested: whether parallelism of the two curves was tested.
        ratio: lower and upper end of the ratio's interval; infinite or 0 where it is open.
    """

    target: float | None = None
    censoring: tuple[tuple[str, str], ...] | None = None
    null_calibrated: bool = False
    fit_tested: bool = False
    parallel_tested: bool = False
    ratio: tuple[float, float] | None = None


def study_thresholds(
    points: Points,
    selection: Selection,
    question: Question,
    *,
    seed: int = 0,
    null: int = 400,
    on_pair: Callable[[int, int], None] | None = None,
) -> ThresholdStudy:
    """Thresholds of every curve, ratios of every pair that differs in one thing.

    Args:
        points: as read.
        selection: which rows.
        question: target and method.
        seed: of all random draws.
        null: simulated studies of the null calibration of each pair; 0 for none.
        on_pair: called with how many pairs have their null calibration, and how many pairs there are.

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
    found = tuple(t for e in gathered for t in thresholds(e))
    found_ratios = tuple(r for e in gathered for r in ratios(e))
    wanted = [(e, n, d, place) for e in gathered if e.known and null for place, (n, d) in enumerate(pairs(e))]
    calibrated = []
    for done, (e, n, d, place) in enumerate(wanted, start=1):
        calibrated.append(null_calibration(e, n, d, null, np.random.default_rng([seed, 1, place])))
        if on_pair is not None:
            on_pair(done, len(wanted))
    return ThresholdStudy(
        points.source,
        question,
        seed,
        selection.unit,
        tuple(gathered),
        found,
        found_ratios,
        tuple(calibrated),
        tuple(str(error) for error in failed) + points.lacking + _unsupported(gathered, found, found_ratios),
    )


def headline_ratios(points: Points, items: Items = "these") -> ThresholdStudy | Absent:
    """The thresholds and ratios that `capacity threshold` gives of a table unless told otherwise, or why none."""
    try:
        return study_thresholds(points, Selection(), Question(items=items), null=0)
    except CapacityError as error:
        return Absent(str(error).removeprefix(f"{points.source}: "))


def thresholds_on_models(study: ThresholdStudy) -> tuple[ThresholdOnModel, ...]:
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
        for own in study.thresholds:
            if own.model != design.model or not own.answer:
                continue
            low, high = own.threshold.low, own.threshold.high
            if not evidence.known:
                high = own.first_crossing
                below = [s for s in own.sizes if high is None or s < high]
                low = below[-1] if below else None
            found.append(
                ThresholdOnModel(
                    design.model or "", own.curve, design.model_parameters, low or 0.0,
                    math.inf if high is None else high, design.family or "", named,
                )
            )  # fmt: skip
    return tuple(found)


def facts(study: ThresholdStudy) -> ThresholdFacts:
    """What the checklist asks about this analysis; the ratio is the first pair's."""
    answer = next(iter(study.headlines), None)
    return ThresholdFacts(
        target=study.evidence[0].target.accuracy,
        censoring=tuple(
            (f"{t.curve} on {t.model}" if t.model else t.curve, t.threshold.censored)
            for t in study.thresholds
            if t.answer
        ),
        null_calibrated=bool(study.null),
        fit_tested=any(t.fit_p is not None for t in study.thresholds),
        parallel_tested=any(r.parallel_p is not None for r in study.ratios),
        ratio=None
        if answer is None or (answer.low is None and answer.high is None)
        else (answer.low or 0.0, math.inf if answer.high is None else answer.high),
    )


def _threshold_json(found: CurveThreshold) -> dict[str, Any]:
    return {
        **asdict(found),
        "sizes": list(found.sizes),
        "left_out": list(found.left_out),
        "accuracies": list(found.accuracies),
    }


def _unsupported(
    gathered: Sequence[Evidence], found: Sequence[CurveThreshold], of_pairs: Sequence[Ratio]
) -> tuple[str, ...]:
    """What a reader might take from the table and must not."""
    said: list[str] = []
    for evidence in gathered:
        where = f" on {evidence.design.model}" if evidence.design.model else ""
        said += evidence.left_out
        if not evidence.known:
            said.append(f"no intervals{where}: the table has neither counts nor several seeds, and none are invented")
        elif any(s.basis == "counts" for s in evidence.spreads):
            said.append(f"one seed{where}: intervals leave out the spread between seeds, which is unknown")
        for own in found:
            if own.model != evidence.design.model or not own.answer:
                continue
            said += _unsupported_by_curve(own, f"{own.curve}{where}", evidence)
    for ratio in of_pairs:
        name = f"{ratio.numerator} : {ratio.denominator}" + (f" on {ratio.model}" if ratio.model else "")
        if ratio.answer and ratio.low is not None and ratio.low < 10 and (ratio.high is None or ratio.high > 10):
            said.append(f"{name}: a ratio of 10 is neither shown nor excluded")
        if ratio.parallel_p is not None and ratio.parallel_p < 0.05:
            said.append(
                f"{name}: curves not parallel (p = {ratio.parallel_p:.2g}), so the ratio holds at this target only"
            )
    return tuple(dict.fromkeys(said))


def _unsupported_by_curve(own: CurveThreshold, who: str, evidence: Evidence) -> Iterator[str]:
    """Yields what one threshold does not say."""
    why = why_not_hill(own, evidence.limits.free) if evidence.known else None
    if why is not None:
        yield f"{who}: {why}, so the monotone estimator answers, whose ends are tested sizes"
    if own.collapsed is not None and own.collapsed.count:
        yield f"{who}: {own.collapsed} seeds collapsed; the curve and its intervals are those of the other seeds"
    if own.left_out:
        sizes = ", ".join(f"{size:,g}" for size in own.left_out)
        yield f"{who}: the Hill curve leaves out {sizes}, where accuracy falls as the update grows"
    if own.threshold.censored == "right":
        yield f"{who}: the target is not reached at the sizes tested, so there is no threshold, only a bound"
    if own.threshold.censored == "left":
        yield f"{who}: the target is reached at the smallest size tested, so there is only an upper bound"
    if own.first_crossing != own.stays_above:
        yield f"{who}: the means are not monotone at the target; first crossing and staying above differ"
