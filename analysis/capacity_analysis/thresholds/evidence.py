"""The curves of one design against a target: what thresholds and ratios are estimated from."""

from dataclasses import dataclass, field, replace

import numpy as np

from capacity.errors import DataError
from capacity_analysis.data.select import Curve, Design
from capacity_analysis.statistics.hill import HillFit, fit_hill
from capacity_analysis.statistics.hill_profile import Limits, limits_around
from capacity_analysis.statistics.resampling import item_shifts, not_reached, seed_shifts
from capacity_analysis.statistics.spread import Basis, Spread, seed_correlation, spread_of_seeds
from capacity_analysis.thresholds.estimators import (
    CurveEstimates,
    Relative,
    against_target,
    cross_covariance,
    estimate_curve,
)
from capacity_analysis.thresholds.items import ItemShare
from capacity_analysis.thresholds.question import Question, Target, target_of
from capacity_analysis.types import Array

_BASIS: dict[Basis, str] = {
    "seeds": "95 %, fresh seeds on these items, variance pooled over sizes",
    "counts": "95 %, fresh answers of one seed (binomial), the spread between seeds is unknown",
    "nothing": "none: neither counts nor seeds that differ",
}


@dataclass(frozen=True)
class Evidence:
    """The curves of a design against the target: N = 1 data set each, in the order of `curves`.

    Attributes:
        curves: those with at least two sizes; `left_out` says why others are not among them.
        relatives: their means minus the target.
        estimates: both estimators.
        cross, paired: covariance of each pair of curves, and the part from common seeds; keys are positions.
        known: whether there is a variance; without, only estimates are given.
    """

    design: Design
    question: Question
    target: Target
    curves: tuple[Curve, ...]
    spreads: tuple[Spread, ...]
    relatives: tuple[Relative, ...]
    limits: Limits
    estimates: tuple[CurveEstimates, ...]
    cross: dict[tuple[int, int], Array]
    paired: dict[tuple[int, int], Array]
    fractions: tuple[float | None, ...]
    known: bool
    basis: str
    left_out: tuple[str, ...]
    _fits: dict[int, HillFit] = field(default_factory=dict, repr=False, compare=False)

    def fit(self, place: int) -> HillFit:
        """The Hill curve of an curve's means by itself, with the limits of the question; fitted once.

        Raises:
            DataError: fewer sizes than free parameters, or equal means.
        """
        if place not in self._fits:
            q, spread = self.question, self.spreads[place]
            sizes, variance = self.curves[place].sizes, spread.variance[0]
            self._fits[place] = fit_hill(sizes, spread.mean[0], variance, lower=q.lower, upper=q.upper)
        return self._fits[place]


def gather(design: Design, question: Question, rng: np.random.Generator) -> Evidence:
    """Everything that thresholds and ratios of one design are made from.

    Raises:
        DataError: what is asked cannot be estimated from this design; says why.
    """
    curves = tuple(curve for curve in design.curves if len(curve.sizes) > 1)
    left_out = tuple(
        f"{_who(design, curve)}: one size only ({curve.sizes[0]:g}); a threshold needs at least two"
        for curve in design.curves
        if len(curve.sizes) == 1
    )
    if not curves:
        raise DataError("thresholds cannot be estimated: " + "; ".join(left_out))
    spreads = {curve.label: spread_of_seeds(curve.accuracy[None], curve.answers) for curve in design.curves}
    target = target_of(design, question, spreads)
    own = [spreads[curve.label] for curve in curves]
    items = ItemShare.of(design, question, curves, target)
    known = all(s.known for s in own)
    relatives, covariances = [], []
    targets, variance = np.array([target.accuracy]), np.array([target.variance + items.of_target])
    for place, (curve, spread) in enumerate(zip(curves, own, strict=True)):
        with_target = np.zeros_like(spread.mean)
        if target.gain is not None and question.ceiling is None and curve.label == design.ceiling[0]:
            top = int(np.flatnonzero(curve.sizes == design.ceiling[1])[0])
            with_target[0, top] = target.gain * spread.variance[0, top]
        between = np.maximum(spread.between - items.twice[place], 0.0) if known else np.full_like(spread.mean, 1e-4)
        relatives.append(
            against_target(
                np.log10(curve.sizes), replace(spread, between=between), targets, variance if known else np.zeros(1),
                with_target if known else None, items.block(place, place),
            )
        )  # fmt: skip
        covariances.append(with_target)
    limits = limits_around(targets, question.lower, question.upper)
    try:
        estimates = tuple(estimate_curve(r, limits, hill=bool(np.ptp(r.z) > 0)) for r in relatives)
    except np.linalg.LinAlgError:
        raise DataError(
            "thresholds for fresh items cannot be estimated: seeds vary less than their answers to single items imply; "
            "use --items these"
        ) from None
    cross, paired = {}, {}
    for i, first in enumerate(curves):
        for j, second in enumerate(curves):
            if i != j and known:
                paired[i, j] = _paired(first, second, own[i], own[j])
                cross[i, j] = cross_covariance(
                    covariances[i], covariances[j], variance, paired[i, j], items.block(i, j)
                )
    fractions = _fractions(relatives, own, items, target, question, rng) if known else tuple(None for _ in curves)
    basis = items.basis or _BASIS[next(s.basis for s in own if known or not s.known)]
    return Evidence(
        design, question, target, curves, tuple(own), tuple(relatives), limits, estimates, cross, paired, fractions,
        known, basis, left_out,
    )  # fmt: skip


def _who(design: Design, curve: Curve) -> str:
    return f"{curve.label} on {design.model}" if design.model else curve.label


def _paired(first: Curve, second: Curve, one: Spread, two: Spread) -> Array:
    """1 × K × L: covariance of two curves' means through the seeds that they share, at equal sizes."""
    out = np.zeros((1, len(first.sizes), len(second.sizes)))
    if first.seeds is None or second.seeds is None:
        return out
    sizes, rows, columns = np.intersect1d(first.sizes, second.sizes, return_indices=True)
    seeds, left, right = np.intersect1d(first.seeds, second.seeds, return_indices=True)
    if not len(sizes) or not len(seeds):
        return out
    rho = seed_correlation(one.deviations[:, rows][:, :, left], two.deviations[:, columns][:, :, right])
    out[0, rows, columns] = rho[0] * np.sqrt(one.between[0, rows] * two.between[0, columns])
    return out


def _fractions(
    relatives: list[Relative],
    own: list[Spread],
    items: ItemShare,
    target: Target,
    question: Question,
    rng: np.random.Generator,
) -> tuple[float | None, ...]:
    """Share of replicates that reach the target nowhere, by curve."""
    n = question.replicates
    moved = None if items.centred is None else item_shifts(items.centred, n, rng)
    goal = seed_shifts(np.array([target.variance + items.of_target]), float(relatives[0].df[0]), n, rng)[:, 0]
    found: list[float | None] = []
    for place, relative in enumerate(relatives):
        variance = relative.between[0] + own[place].rounding[0]
        if moved is None and items.covariance is not None:
            variance = variance + np.diag(items.block(place, place)[0])  # type: ignore[index]
        means = relative.z + seed_shifts(variance, float(relative.df[0]), n, rng)
        if moved is not None:
            start = items.starts[place]
            means = means + moved[:, start : start + len(relative.log_sizes)]
        found.append(not_reached(means, goal, 1.0 / relative.deviations[0] ** 2))
    return tuple(found)
