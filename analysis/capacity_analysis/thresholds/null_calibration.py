"""What this design would say if two methods were the same. It keeps its sizes, items, seeds and spread.

Two identical curves are simulated. Both have the accuracies of one curve of the study: its Hill curve where that is
believed, its isotonic fit otherwise. Each has the spread of its own seeds. On every simulated pair the naive way
(divide the sizes at which the mean accuracies first pass the target) and our own interval are applied.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.statistics.monotone import isotonic, passing
from capacity_analysis.statistics.spread import spread_of_seeds
from capacity_analysis.thresholds.differences import Aim, differences
from capacity_analysis.thresholds.estimators import believes_hill, estimate_curve, hill_ratio, monotone_ratio
from capacity_analysis.thresholds.evidence import Evidence

_TEN, _HUNDRED = 1.0, 2.0


@dataclass(frozen=True)
class NullCalibration:
    """Shares of simulated studies of two identical curves.

    Attributes:
        model, numerator, denominator: whose design it is.
        simulations: how many; `standard_error` of a share of 5 % among them.
        naive_above_10, naive_above_100: the naive ratio or its inverse exceeds that; a crossing that is never made
            exceeds everything.
        excludes_1: the interval of the ratio excludes 1.
        claims_10: its low end is at or above 10: a false claim.
        one_sided: the interval is open on a side.
        held_fixed: whether all runs share one draw of their answers. It is held fixed, as it moves equal curves alike.
    """

    model: str | None
    numerator: str
    denominator: str
    simulations: int
    standard_error: float
    naive_above_10: float
    naive_above_100: float
    excludes_1: float
    claims_10: float
    one_sided: float
    held_fixed: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def null_calibration(evidence: Evidence, n: int, d: int, simulations: int, rng: np.random.Generator) -> NullCalibration:
    """Simulates the design of one pair of curves with both equal to the denominator.

    Args:
        evidence: of the study.
        n, d: positions of numerator and denominator.
        simulations: how many pairs.
        rng: of the simulation.
    """
    target, question, curves = evidence.target, evidence.question, evidence.curves
    log_sizes = np.log10(curves[d].sizes)
    truth = _truth(evidence, d)
    spreads = []
    for i in (n, d):
        seeds = int((~np.isnan(curves[i].accuracy)).sum(1).max())
        between = np.interp(log_sizes, np.log10(curves[i].sizes), evidence.spreads[i].between[0])
        draws = truth[:, None] + np.sqrt(between * seeds)[:, None] * rng.normal(size=(simulations, len(truth), seeds))
        answers = curves[d].answers
        if answers is not None:
            # Whole answers. Where between two of them a curve lies is chance, and all seeds share it.
            chance = rng.spawn(1)[0].uniform(size=(simulations, len(truth), 1))
            draws = (np.rint(draws * answers[:, None] + chance) - chance) / answers[:, None]
        spreads.append(spread_of_seeds(np.clip(draws, 0.0, 1.0), answers))
    goal, last = np.full(simulations, target.accuracy), 2 * len(truth) - 1
    if target.moves and target.base is not None:
        goal = target.base + target.moves * (spreads[1].mean[:, -1] - target.base)
    limits = limits_around(goal, question.lower, question.upper)
    found = differences([log_sizes] * 2, spreads, [None, None], Aim(goal, target.moves, last, target.of_base))
    estimates = first, second = tuple(estimate_curve(found.take(i), limits) for i in (0, 1))
    both = monotone_ratio(first, second)
    low, high = both.low, both.high
    if first.hill is not None and second.hill is not None:
        by_hill = hill_ratio(found, limits, first, second)
        use = believes_hill(*estimates)
        low, high = np.where(use, by_hill.low, low), np.where(use, by_hill.high, high)
    naive = [_naive(log_sizes, found.take(i).z) for i in (0, 1)]
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(naive[0] - naive[1]), nan=0.0, posinf=np.inf)
    return NullCalibration(
        model=evidence.design.model,
        numerator=evidence.curves[n].label,
        denominator=evidence.curves[d].label,
        simulations=simulations,
        standard_error=float(np.sqrt(0.05 * 0.95 / simulations)),
        naive_above_10=float(np.mean(apart > _TEN + 1e-9)),
        naive_above_100=float(np.mean(apart > _HUNDRED + 1e-9)),
        excludes_1=float(np.mean((low > 0) | (high < 0))),
        claims_10=float(np.mean(low >= _TEN)),
        one_sided=float(np.mean(np.isinf(low) | np.isinf(high))),
        held_fixed=evidence.design.draws == "common",
    )


def _truth(evidence: Evidence, place: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    curve, spread = evidence.curves[place], evidence.spreads[place]
    if bool(believes_hill(evidence.estimates[place])[0]):
        return np.clip(evidence.fit(place).curve.accuracy(curve.sizes), 0.0, 1.0)
    return isotonic(spread.mean[0], 1.0 / spread.variance[0])


def _naive(log_sizes: Any, z: Any) -> Any:
    """log10 of where the means first pass the target, linear between the two sizes around it."""
    return passing(log_sizes, np.maximum.accumulate(z, axis=1))
