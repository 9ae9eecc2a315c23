"""The curves of one design against a target: what thresholds and ratios are estimated from."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from capacity.errors import DataError
from capacity_analysis.data.select import Curve, Design
from capacity_analysis.statistics.collapses import CollapsedShare
from capacity_analysis.statistics.hill import HillFit, fit_hill
from capacity_analysis.statistics.hill_profile import Limits, limits_around
from capacity_analysis.statistics.monotone import not_reached
from capacity_analysis.statistics.spread import Basis, Spread, spread_of_seeds
from capacity_analysis.thresholds.differences import Aim, Differences, differences
from capacity_analysis.thresholds.estimators import CurveEstimates, estimate_curve
from capacity_analysis.thresholds.items import ItemShare
from capacity_analysis.thresholds.question import Question, Target, target_of
from capacity_analysis.thresholds.set_aside import CellSeeds, without_collapsed

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
        differences: their means minus the target, with the covariance of all errors.
        estimates: both estimators.
        known: whether there is a variance; without, only estimates are given.
        collapses: how many seeds collapsed, by label of the curve. They are set aside: no curve holds them.
        aside: the runs of these seeds, as cell and seed.
    """

    design: Design
    question: Question
    target: Target
    curves: tuple[Curve, ...]
    spreads: tuple[Spread, ...]
    differences: Differences
    limits: Limits
    estimates: tuple[CurveEstimates, ...]
    fractions: tuple[float | None, ...]
    known: bool
    basis: str
    left_out: tuple[str, ...]
    collapses: Mapping[str, CollapsedShare]
    aside: CellSeeds
    _fits: dict[int, HillFit] = field(default_factory=dict, repr=False, compare=False)

    def used(self, place: int) -> NDArray[np.bool_]:
        """The sizes of a curve that its Hill curve is fitted to, K; all where it is not fitted."""
        used = self.estimates[place].used[0]
        return used if used.any() else np.ones(len(used), dtype=bool)

    def fit(self, place: int) -> HillFit:
        """The Hill curve of a curve's means by itself, with the limits of the question; fitted once.

        Raises:
            DataError: fewer sizes than free parameters, or equal means.
        """
        if place not in self._fits:
            q, spread = self.question, self.spreads[place]
            used = self.used(place)
            sizes, mean, variance = self.curves[place].sizes[used], spread.mean[0][used], spread.variance[0][used]
            self._fits[place] = fit_hill(sizes, mean, variance, lower=q.lower, upper=q.upper)
        return self._fits[place]


def gather(design: Design, question: Question, rng: np.random.Generator) -> Evidence:
    """Everything that thresholds and ratios of one design are made from.

    Raises:
        DataError: what is asked cannot be estimated from this design; says why.
    """
    design, collapses, aside = without_collapsed(design)
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
    known = all(s.known for s in own)
    # A ceiling that is a curve of one size has no threshold, but its error is the target's.
    apart = [c for c in design.curves if c.label == design.ceiling[0] and c not in curves and target.moves]
    every = (*curves, *apart)
    top = _place(every, design) if target.moves else 0
    between = tuple(spreads[c.label].between[0] for c in every)
    items = ItemShare.of(design, question, every, between, target, top)
    aim = Aim(np.array([target.accuracy]))
    if not known:
        between = tuple(np.full_like(part, 1e-4) for part in between)
    else:
        aim = Aim(np.array([target.accuracy]), target.moves, top, target.of_base)
        if items.instead:
            between = tuple(np.zeros_like(part) for part in between)
    found = differences(
        [np.log10(c.sizes) for c in every],
        [replace(spreads[c.label], between=part[None]) for c, part in zip(every, between, strict=True)],
        [c.seeds for c in every],
        aim,
        None if items.covariance is None or not known else items.covariance[None],
    )
    limits = limits_around(np.array([target.accuracy]), question.lower, question.upper)
    try:
        estimates = tuple(
            estimate_curve(one, limits, hill=bool(np.ptp(one.z) > 0))
            for one in (found.take(place) for place in range(len(curves)))
        )
    except np.linalg.LinAlgError:
        raise DataError(
            "thresholds for fresh items cannot be estimated: seeds vary less than their answers to single items imply; "
            "use --items these"
        ) from None
    fractions = _fractions(found, len(curves), question, rng) if known else tuple(None for _ in curves)
    basis = items.basis or _BASIS[next(s.basis for s in own if known or not s.known)]
    return Evidence(
        design,
        question,
        target,
        curves,
        tuple(own),
        found,
        limits,
        estimates,
        fractions,
        known,
        basis,
        left_out,
        collapses,
        aside,
    )


def _place(curves: tuple[Curve, ...], design: Design) -> int:
    """The place of the ceiling among all sizes of the curves."""
    label, size = design.ceiling
    before = 0
    for curve in curves:
        if curve.label == label:
            return before + int(np.flatnonzero(curve.sizes == size)[0])
        before += len(curve.sizes)
    raise ValueError(f"no curve {label}")


def _who(design: Design, curve: Curve) -> str:
    return f"{curve.label} on {design.model}" if design.model else curve.label


def _fractions(
    found: Differences, curves: int, question: Question, rng: np.random.Generator
) -> tuple[float | None, ...]:
    """The share of replicates that reach the target nowhere, by curve. Replicates are multivariate t."""
    n, m = question.replicates, found.z.shape[1]
    root = np.linalg.cholesky(found.covariance[0] + 1e-18 * np.eye(m))
    shifts = rng.normal(size=(n, m)) @ root.T
    df = float(found.size_df[0])
    if np.isfinite(df):
        shifts *= np.sqrt(df / rng.chisquare(df, size=(n, 1)))
    ends = np.cumsum([0, *(len(sizes) for sizes in found.log_sizes)])
    deviations = found.deviations[0]
    return tuple(
        not_reached(found.z[:, a:b] + shifts[:, a:b], np.zeros(n), 1.0 / deviations[a:b] ** 2)
        for a, b in itertools.pairwise(ends[: curves + 1])
    )
