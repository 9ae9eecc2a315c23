"""Ratios of threshold sizes between methods at the same target, with intervals, and whether one number describes them.

A single ratio exists only for parallel curves (equal limits and slope), so parallelism is tested and the ratio is
also given against the target. `sft` is the numerator wherever it takes part.
"""

import math
from dataclasses import dataclass

import numpy as np

from capacity_analysis.data.select import Design
from capacity_analysis.statistics.hill import fit_parallel
from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.thresholds.estimators import (
    ArmEstimates,
    Ratios,
    Relative,
    believes_hill,
    estimate_arm,
    f_tail,
    hill_ratio,
    monotone_ratio,
)
from capacity_analysis.thresholds.evidence import Estimator, Evidence, plain

# Shares of the gain at which the ratio is drawn.
TARGETS = tuple(round(0.1 * i, 1) for i in range(1, 10))
_FIRST = "sft"


@dataclass(frozen=True)
class RatioAt:
    """The ratio at one accuracy; None as in `Ratio`."""

    target: float
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Ratio:
    """Threshold of `numerator` over that of `denominator` on one model.

    Attributes:
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
    estimator: Estimator
    estimate: float | None
    low: float | None
    high: float | None
    censored: str
    answer: bool
    parallel_p: float | None
    against_target: tuple[RatioAt, ...]


def ratios(evidence: Evidence) -> tuple[Ratio, ...]:
    """Every pair of arms by both estimators, the one to believe first."""
    found = []
    at_targets: dict[int, tuple[Relative, ArmEstimates]] = {}
    for n, d in pairs(evidence):
        arms = evidence.estimates[n], evidence.estimates[d]
        believed = bool(believes_hill(*arms)[0]) and evidence.known
        options: list[tuple[Estimator, Ratios, bool]] = [("monotone", monotone_ratio(*arms), not believed)]
        if arms[0].hill is not None and arms[1].hill is not None:
            options.append(("hill", _hill(evidence, n, d, arms, evidence.relatives), believed))
        sizes = tuple(evidence.arms[i].sizes for i in (n, d))
        for name, result, answer in sorted(options, key=lambda option: not option[2]):
            low, high = (plain(float(x[0])) if evidence.known else None for x in (result.low, result.high))
            censored = _censoring(*(evidence.estimates[i].hill if name == "hill" else evidence.estimates[i].monotone
                                    for i in (n, d)))  # fmt: skip
            found.append(
                Ratio(
                    model=evidence.design.model,
                    numerator=evidence.arms[n].method,
                    denominator=evidence.arms[d].method,
                    estimator=name,
                    estimate=plain(float(result.estimate[0])) if censored == "none" else None,
                    low=low,
                    high=high,
                    censored=censored,
                    answer=answer,
                    parallel_p=parallel_test(evidence, n, d) if name == "hill" and len(sizes) == 2 else None,
                    against_target=_against_target(evidence, n, d, at_targets) if name == "hill" else (),
                )
            )
    return tuple(found)


def pairs(evidence: Evidence) -> list[tuple[int, int]]:
    """Positions of numerator and denominator: sft first, then by name."""
    order = sorted(
        range(len(evidence.arms)), key=lambda i: (evidence.arms[i].method != _FIRST, evidence.arms[i].method)
    )
    return [(order[i], order[j]) for i in range(len(order)) for j in range(i + 1, len(order))]


def _hill(
    evidence: Evidence, n: int, d: int, arms: tuple[ArmEstimates, ArmEstimates], relatives: tuple[Relative, ...]
) -> Ratios:
    first, second = arms[0].hill, arms[1].hill
    assert first is not None
    assert second is not None
    empty = np.zeros((1, relatives[n].z.shape[1], relatives[d].z.shape[1]))
    cross, paired = evidence.cross.get((n, d), empty), evidence.paired.get((n, d), empty)
    return hill_ratio(relatives[n], relatives[d], first, second, cross, paired)


def _censoring(numerator: object, denominator: object) -> str:
    """Of the ratio, from where the two estimates lie."""
    n, d = (float(x.size[0]) for x in (numerator, denominator))  # type: ignore[attr-defined]
    up, down = n == math.inf or d == -math.inf, n == -math.inf or d == math.inf
    return "both" if up and down else "right" if up else "left" if down else "none"


def parallel_test(evidence: Evidence, n: int, d: int) -> float | None:
    """p-value of the F test of curves that differ only in their midpoints, as parallel curves of bioassay do (Ritz et
    al., PLoS ONE 2015); None where it cannot be made.
    """
    if not evidence.known:
        return None
    q, data = evidence.question, []
    for i in (n, d):
        spread = evidence.spreads[i]
        data.append((evidence.arms[i].sizes, spread.mean[0], spread.variance[0]))
    shared = sum(limit is None for limit in (q.lower, q.upper)) + 1
    if any(len(sizes) < shared + 1 or np.ptp(mean) == 0 for sizes, mean, _ in data):
        return None
    single = [evidence.fit(i) for i in (n, d)]
    apart = sum(fit.sum_of_squares for fit in single)
    _, together = fit_parallel(data, single, lower=q.lower, upper=q.upper)
    df = evidence.spreads[n].df + evidence.spreads[d].df
    return float(f_tail(np.array([max(together - apart, 0.0) / shared]), shared, df)[0])


def _against_target(
    evidence: Evidence, n: int, d: int, known: dict[int, tuple[Relative, ArmEstimates]]
) -> tuple[RatioAt, ...]:
    """The Hill ratio at shares of the gain, each with the uncertainty that the main target has.

    `known`: arms that an earlier pair has estimated; more are added.
    """
    target = evidence.target
    if target.base is None or target.ceiling is None or not evidence.known:
        return ()
    base, ceiling, count = target.base, target.ceiling, len(TARGETS)
    goals = base + np.array(TARGETS) * (ceiling - base)
    limits = limits_around(goals, evidence.question.lower, evidence.question.upper)
    for i in (n, d):
        if i in known:
            continue
        own = evidence.relatives[i]
        z = own.z + target.accuracy - goals[:, None]
        repeated = (np.repeat(x, count, axis=0) for x in (own.covariance, own.df, own.variance, own.seeds))
        relative = Relative(own.log_sizes, z, *repeated)
        known[i] = relative, estimate_arm(relative, limits)
    first, second = known[n][1].hill, known[d][1].hill
    assert first is not None
    assert second is not None
    cross, paired = (np.repeat(x[n, d], count, axis=0) for x in (evidence.cross, evidence.paired))
    result = hill_ratio(known[n][0], known[d][0], first, second, cross, paired)
    return tuple(
        RatioAt(float(goal), *(plain(float(x)) for x in values))
        for goal, *values in zip(goals, result.estimate, result.low, result.high, strict=True)
    )


def sentence(ratio: Ratio, design: Design) -> str:
    """ "sft needs 12× (3–50) the parameters of grpo", "≥ 30×" if only a bound is known."""
    unit = design.unit
    what = f"the {unit} that {ratio.denominator} needs"
    if ratio.estimate is not None:
        if ratio.low is None and ratio.high is None:
            return f"{ratio.numerator} needs {times(ratio.estimate)} {what}, without an interval"
        low = times(ratio.low)[:-1] if ratio.low is not None else "0"
        high = times(ratio.high)[:-1] if ratio.high is not None else "∞"
        return f"{ratio.numerator} needs {times(ratio.estimate)} ({low}–{high}) {what}"
    if ratio.low is not None:
        return f"{ratio.numerator} needs ≥ {times(ratio.low)} {what}"
    if ratio.high is not None:
        return f"{ratio.numerator} needs ≤ {times(ratio.high)} {what}"
    return f"nothing can be said about {ratio.numerator} against {ratio.denominator}: no bound of their ratio is finite"


def times(value: float) -> str:
    """A ratio with two digits: 12×, 0.35×."""
    return f"{float(f'{value:.2g}'):,.12g}×"
