"""Ratios of threshold sizes between curves at the same target, with intervals, and whether one number describes them.

The headline of a pair is the ratio by the estimator to believe (`Ratio.answer`); the other estimator stands beside it
under its name. A single ratio exists only for parallel curves (equal limits and slope), so parallelism is tested and
the ratio is also given against the target. `sft` is the numerator wherever it takes part: sft : grpo.
"""

import math
from dataclasses import dataclass

import numpy as np

from capacity_analysis.data.curves import differ_in, pairs_of
from capacity_analysis.data.select import Design
from capacity_analysis.statistics.hill import fit_parallel
from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.statistics.tails import f_tail
from capacity_analysis.thresholds.estimators import (
    CurveEstimates,
    Ratios,
    believes_hill,
    estimate_curve,
    hill_ratio,
    monotone_ratio,
)
from capacity_analysis.thresholds.evidence import Evidence
from capacity_analysis.thresholds.result import Estimator, plain
from capacity_analysis.words import times

# Shares of the gain at which the ratio is drawn.
TARGETS = tuple(round(0.1 * i, 1) for i in range(1, 10))
WORDS: dict[Estimator, str] = {"hill": "Hill curves", "monotone": "the monotone estimator"}


@dataclass(frozen=True)
class RatioAt:
    """The ratio at one accuracy; None as in `Ratio`."""

    target: float
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Ratio:
    """Threshold of one curve over that of another on one model.

    Attributes:
        numerator, denominator: their labels.
        differ: the one field in which they differ, such as the method.
        estimate: None if one of the two is censored.
        low, high: ends of the interval; None is unbounded.
        censored: right, the ratio is at least `low`; left, at most `high`; both, nothing is known.
        answer: whether this estimator is the one to believe.
        parallel_p: test of equal limits and slopes of the two Hill curves; None if it cannot be made.
        against_target: the Hill ratio at further accuracies between base and ceiling; empty without both.
    """

    model: str | None
    numerator: str
    denominator: str
    differ: tuple[str, ...]
    estimator: Estimator
    estimate: float | None
    low: float | None
    high: float | None
    censored: str
    answer: bool
    parallel_p: float | None
    against_target: tuple[RatioAt, ...]


def ratios(evidence: Evidence) -> tuple[Ratio, ...]:
    """Every pair of curves that differ in one thing, by both estimators, the one to believe first."""
    found = []
    at_targets: dict[int, CurveEstimates] = {}
    for n, d in pairs(evidence):
        both = evidence.estimates[n], evidence.estimates[d]
        believed = bool(believes_hill(*both)[0]) and evidence.known
        options: list[tuple[Estimator, Ratios, bool]] = [("monotone", monotone_ratio(*both), not believed)]
        if both[0].hill is not None and both[1].hill is not None:
            options.append(("hill", hill_ratio(evidence.differences.take(n, d), evidence.limits, *both), believed))
        for name, result, answer in sorted(options, key=lambda option: not option[2]):
            low, high = (plain(float(x[0])) if evidence.known else None for x in (result.low, result.high))
            censored = _censoring(*(evidence.estimates[i].hill if name == "hill" else evidence.estimates[i].monotone
                                    for i in (n, d)))  # fmt: skip
            found.append(
                Ratio(
                    model=evidence.design.model,
                    numerator=evidence.curves[n].label,
                    denominator=evidence.curves[d].label,
                    differ=differ_in(evidence.curves[n].told, evidence.curves[d].told),
                    estimator=name,
                    estimate=plain(float(result.estimate[0])) if censored == "none" else None,
                    low=low,
                    high=high,
                    censored=censored,
                    answer=answer,
                    parallel_p=parallel_test(evidence, n, d) if name == "hill" else None,
                    against_target=_against_target(evidence, n, d, at_targets) if name == "hill" else (),
                )
            )
    return tuple(found)


def pairs(evidence: Evidence) -> list[tuple[int, int]]:
    """Positions of numerator and denominator of the curves that differ in one thing."""
    told = [curve.told for curve in evidence.curves]
    return [(n, d) for n, d in pairs_of(told) if len(differ_in(told[n], told[d])) == 1]


def _censoring(numerator: object, denominator: object) -> str:
    """Of the ratio, from where the two estimates lie."""
    n, d = (float(x.size[0]) for x in (numerator, denominator))  # type: ignore[attr-defined]
    up, down = n == math.inf or d == -math.inf, n == -math.inf or d == math.inf
    return "both" if up and down else "right" if up else "left" if down else "none"


def parallel_test(evidence: Evidence, n: int, d: int) -> float | None:
    """p-value of the F test of curves that differ only in their midpoints, as parallel curves of bioassay do; None
    where it cannot be made (Ritz et al., PLoS ONE 2015).
    """
    if not evidence.known:
        return None
    q, data = evidence.question, []
    for i in (n, d):
        spread, used = evidence.spreads[i], evidence.used(i)
        data.append((evidence.curves[i].sizes[used], spread.mean[0][used], spread.variance[0][used]))
    shared = sum(limit is None for limit in (q.lower, q.upper)) + 1
    if any(len(sizes) < shared + 1 or np.ptp(mean) == 0 for sizes, mean, _ in data):
        return None
    single = [evidence.fit(i) for i in (n, d)]
    apart = sum(fit.sum_of_squares for fit in single)
    _, together = fit_parallel(data, single, lower=q.lower, upper=q.upper)
    df = evidence.spreads[n].df + evidence.spreads[d].df
    return float(f_tail(np.array([max(together - apart, 0.0) / shared]), shared, df)[0])


def _against_target(evidence: Evidence, n: int, d: int, known: dict[int, CurveEstimates]) -> tuple[RatioAt, ...]:
    """The Hill ratio at shares of the gain, each with the uncertainty that the main target has.

    `known`: curves that an earlier pair has estimated; more are added.
    """
    target = evidence.target
    if target.base is None or target.ceiling is None or not evidence.known:
        return ()
    goals = target.base + np.array(TARGETS) * (target.ceiling - target.base)
    limits = limits_around(goals, evidence.question.lower, evidence.question.upper)
    moved = evidence.differences.moved(target.accuracy - goals)
    for i in (n, d):
        if i not in known:
            known[i] = estimate_curve(moved.take(i), limits)
    result = hill_ratio(moved.take(n, d), limits, known[n], known[d])
    return tuple(
        RatioAt(float(goal), *(plain(float(x)) for x in values))
        for goal, *values in zip(goals, result.estimate, result.low, result.high, strict=True)
    )


def sentence(ratio: Ratio, other: Ratio | None, design: Design) -> str:
    """ "sft needs 12× (3–50) the parameters that grpo needs, by Hill curves; by the monotone estimator 9× (2–60)".

    Args:
        ratio: the headline of a pair.
        other: the same pair by the other estimator, if it has one.
        design: of the pair.
    """
    words = in_words(ratio)
    beside = f"; by {WORDS[other.estimator]} {in_words(other) or 'no bound'}" if other is not None else ""
    if words is None:
        pair = f"{ratio.numerator} against {ratio.denominator}"
        return (
            f"nothing can be said about {pair}: no bound of their ratio is finite, by {WORDS[ratio.estimator]}{beside}"
        )
    what = f"the {design.unit} that {ratio.denominator} needs"
    return f"{ratio.numerator} needs {words} {what}, by {WORDS[ratio.estimator]}{beside}"


def in_words(ratio: Ratio) -> str | None:
    """ "12× (3–50)", "12× without an interval", "≥ 30×"; None if no bound is finite."""
    if ratio.estimate is not None:
        if ratio.low is None and ratio.high is None:
            return f"{times(ratio.estimate)} without an interval"
        low = times(ratio.low)[:-1] if ratio.low is not None else "0"
        high = times(ratio.high)[:-1] if ratio.high is not None else "∞"
        return f"{times(ratio.estimate)} ({low}–{high})"
    if ratio.low is not None:
        return f"≥ {times(ratio.low)}"
    return None if ratio.high is None else f"≤ {times(ratio.high)}"
