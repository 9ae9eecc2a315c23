"""Threshold sizes of the arms of one design: the smallest update that reaches a target, with interval and censoring."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from capacity.errors import DataError, SpecError
from capacity_analysis.data.select import Arm, Design
from capacity_analysis.statistics import monotone
from capacity_analysis.statistics.hill import HillFit, fit_hill
from capacity_analysis.statistics.hill_profile import Crossings, Limits, limits_around
from capacity_analysis.statistics.monotone import Brackets
from capacity_analysis.statistics.resampling import item_shifts, not_reached, seed_shifts
from capacity_analysis.statistics.spread import Basis, Spread, residual_variance, seed_correlation, spread_of_seeds
from capacity_analysis.thresholds.estimators import (
    FIT_LEVEL,
    ArmEstimates,
    Relative,
    against_target,
    believes_hill,
    cross_covariance,
    estimate_arm,
)
from capacity_analysis.types import Array, Items

Censoring = Literal["none", "left", "right"]
Estimator = Literal["hill", "monotone"]
_BASIS: dict[Basis, str] = {
    "seeds": "95 %, fresh seeds on these items, variance pooled over sizes",
    "counts": "95 %, fresh answers of one seed (binomial), the spread between seeds is unknown",
    "nothing": "none: neither counts nor a second seed",
}


@dataclass(frozen=True)
class Question:
    """What is asked of a design.

    Attributes:
        target: an absolute accuracy; None: `gain`.
        gain: share of the way from the base to the ceiling.
        ceiling: its accuracy; None: measured.
        lower, upper: fixed limits of the Hill curves.
        items: `these`, only seeds are random; `population`, items too.
        replicates: of the resampling behind `fraction_not_reached`.
    """

    target: float | None = None
    gain: float = 0.8
    ceiling: float | None = None
    lower: float | None = None
    upper: float | None = None
    items: Items = "these"
    replicates: int = 1000

    def __post_init__(self) -> None:
        for name in ("target", "gain", "ceiling", "lower", "upper"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SpecError(f"--{name} {value:g} is not a share from 0 to 1 (percent?)")
        if self.target is None and not 0 < self.gain < 1:
            raise SpecError(f"--gain {self.gain:g}: a share of the gain lies between 0 and 1, ends excluded")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise SpecError(f"--lower {self.lower:g} is not below --upper {self.upper:g}")


@dataclass(frozen=True)
class Target:
    """The accuracy asked of every arm.

    Attributes:
        accuracy: as estimated.
        variance: of that estimate over seeds; 0 for an absolute target.
        gain, base, ceiling: what it was made from; None for an absolute target.
        ceiling_from: method, size and reason, or "given".
    """

    accuracy: float
    variance: float
    gain: float | None
    base: float | None
    ceiling: float | None
    ceiling_from: str


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
class Curve:
    """The threshold of one arm by one estimator.

    Attributes:
        answer: whether this estimator is the one to believe: the Hill curve unless its fit is rejected or untestable.
        interval: what the interval rests on, or why there is none.
        fit_p: p-value of the test of fit of the Hill curve; None if there is nothing left to test it with.
        first_crossing, stays_above: tested sizes, of the mean accuracies as they are.
        sizes, accuracies: K tested sizes with their means over seeds.
        seeds: the most that a size has.
    """

    model: str | None
    method: str
    estimator: Estimator
    threshold: Threshold
    answer: bool
    interval: str
    fit_p: float | None
    first_crossing: float | None
    stays_above: float | None
    sizes: tuple[float, ...]
    accuracies: tuple[float, ...]
    seeds: int


@dataclass(frozen=True)
class Evidence:
    """The arms of a design against the target: N = 1 data set each, in the order of `arms`.

    Attributes:
        arms: those with at least two sizes; `left_out` says why others are not among them.
        relatives: their means minus the target.
        estimates: both estimators.
        cross, paired: covariance of each pair of arms, and the part from common seeds; keys are positions.
        known: whether there is a variance; without, only estimates are given.
    """

    design: Design
    question: Question
    target: Target
    arms: tuple[Arm, ...]
    spreads: tuple[Spread, ...]
    relatives: tuple[Relative, ...]
    limits: Limits
    estimates: tuple[ArmEstimates, ...]
    cross: dict[tuple[int, int], Array]
    paired: dict[tuple[int, int], Array]
    fractions: tuple[float | None, ...]
    known: bool
    basis: str
    left_out: tuple[str, ...]
    _fits: dict[int, HillFit] = field(default_factory=dict, repr=False, compare=False)

    def fit(self, place: int) -> HillFit:
        """The Hill curve of an arm's means by itself, with the limits of the question; fitted once.

        Raises:
            DataError: fewer sizes than free parameters, or equal means.
        """
        if place not in self._fits:
            q, spread = self.question, self.spreads[place]
            sizes, variance = self.arms[place].sizes, spread.variance[0]
            self._fits[place] = fit_hill(sizes, spread.mean[0], variance, lower=q.lower, upper=q.upper)
        return self._fits[place]


def gather(design: Design, question: Question, rng: np.random.Generator) -> Evidence:
    """Everything that thresholds and ratios of one design are made from.

    Raises:
        DataError: what is asked cannot be estimated from this design; says why.
    """
    arms = tuple(arm for arm in design.arms if len(arm.sizes) > 1)
    left_out = tuple(
        f"{_who(design, arm)}: one size only ({arm.sizes[0]:g}); a threshold needs at least two"
        for arm in design.arms
        if len(arm.sizes) == 1
    )
    if not arms:
        raise DataError("thresholds cannot be estimated: " + "; ".join(left_out))
    spreads = {arm.method: spread_of_seeds(arm.accuracy[None], arm.answers) for arm in design.arms}
    target = _target(design, question, spreads)
    own = [spreads[arm.method] for arm in arms]
    items = _Items.of(design, question, arms, target)
    known = all(s.known for s in own)
    relatives, covariances = [], []
    targets, variance = np.array([target.accuracy]), np.array([target.variance + items.of_target])
    for place, (arm, spread) in enumerate(zip(arms, own, strict=True)):
        with_target = np.zeros_like(spread.mean)
        if target.gain is not None and question.ceiling is None and arm.method == design.ceiling[0]:
            top = int(np.flatnonzero(arm.sizes == design.ceiling[1])[0])
            with_target[0, top] = target.gain * spread.variance[0, top]
        seeds = np.maximum(spread.variance - items.twice[place], 0.0) if known else np.full_like(spread.mean, 1e-4)
        relatives.append(
            against_target(
                np.log10(arm.sizes), spread.mean, seeds, spread.df, targets,
                variance if known else np.zeros(1), spread.deviations, with_target if known else None,
                items.block(place, place),
            )
        )  # fmt: skip
        covariances.append(with_target)
    limits = limits_around(targets, question.lower, question.upper)
    estimates = tuple(estimate_arm(r, limits, hill=bool(np.ptp(r.z) > 0)) for r in relatives)
    cross, paired = {}, {}
    for i, first in enumerate(arms):
        for j, second in enumerate(arms):
            if i != j and known:
                paired[i, j] = _paired(first, second, own[i], own[j])
                cross[i, j] = cross_covariance(
                    covariances[i], covariances[j], variance, paired[i, j], items.block(i, j)
                )
    fractions = _fractions(relatives, items, target, question, rng) if known else tuple(None for _ in arms)
    basis = items.basis or _BASIS[next(s.basis for s in own if known or not s.known)]
    return Evidence(
        design, question, target, arms, tuple(own), tuple(relatives), limits, estimates, cross, paired, fractions,
        known, basis, left_out,
    )  # fmt: skip


def curves(evidence: Evidence) -> tuple[Curve, ...]:
    """Both estimators of every arm, the one to believe first."""
    found = []
    for place, arm in enumerate(evidence.arms):
        estimates = evidence.estimates[place]
        believed = bool(believes_hill(estimates)[0]) and evidence.known
        fit_p = float(estimates.fit_p[0])
        means = evidence.spreads[place].mean[0]
        options: list[tuple[Estimator, Brackets | Crossings, bool]] = [("monotone", estimates.monotone, not believed)]
        if estimates.hill is not None:
            options.append(("hill", estimates.hill, believed))
        for name, result, answer in sorted(options, key=lambda option: not option[2]):
            found.append(
                Curve(
                    model=evidence.design.model,
                    method=arm.method,
                    estimator=name,
                    threshold=_threshold(arm.sizes, result.size[0], result.low[0], result.high[0], evidence, place),
                    answer=answer,
                    interval=evidence.basis,
                    fit_p=None if math.isnan(fit_p) or not evidence.known else fit_p,
                    first_crossing=monotone.first_crossing(arm.sizes, means, evidence.target.accuracy - 1e-12),
                    stays_above=monotone.stays_above(arm.sizes, means, evidence.target.accuracy - 1e-12),
                    sizes=tuple(float(s) for s in arm.sizes),
                    accuracies=tuple(float(m) for m in means),
                    seeds=int((~np.isnan(arm.accuracy)).sum(1).max()),
                )
            )
    return tuple(found)


def why_not_hill(curve: Curve, free: int) -> str | None:
    """Why the Hill curve is not the answer for an arm; None if it is."""
    if curve.answer and curve.estimator == "hill":
        return None
    if curve.fit_p is not None and curve.fit_p < FIT_LEVEL:
        return f"a Hill curve does not fit (p = {curve.fit_p:.2g})"
    if len(curve.sizes) <= free:
        return f"{len(curve.sizes)} sizes leave nothing to test a Hill curve of {free} parameters with"
    return "the fit of a Hill curve cannot be tested"


def _who(design: Design, arm: Arm) -> str:
    return f"{arm.method} on {design.model}" if design.model else arm.method


def _target(design: Design, question: Question, spreads: dict[str, Spread]) -> Target:
    if question.target is not None:
        return Target(question.target, 0.0, None, None, None, "")
    where = f" on {design.model}" if design.model else ""
    if design.base is None:
        raise DataError(
            f"a share of the gain{where} cannot be estimated: no row of the untrained base (method base, "
            "trained_parameters 0) under the same task, protocol and split; give --target instead"
        )
    untrained = spread_of_seeds(design.base.accuracy[None], design.base.answers)
    base = float(untrained.mean[0, 0])
    # A single run of the base is what it is on these items; between several, seeds are random as elsewhere.
    base_variance = float(untrained.variance[0, 0]) if np.isfinite(untrained.df[0]) else 0.0
    if question.ceiling is not None:
        ceiling, ceiling_variance, source = question.ceiling, 0.0, "given"
    else:
        method, size = design.ceiling
        arm = next(a for a in design.arms if a.method == method)
        place = int(np.flatnonzero(arm.sizes == size)[0])
        ceiling, ceiling_variance = float(spreads[method].mean[0, place]), float(spreads[method].variance[0, place])
        source = f"{method} at {size:,.0f} {design.unit}, {design.ceiling_reason}"
    if ceiling <= base:
        raise DataError(
            f"a share of the gain{where} cannot be estimated: the ceiling ({ceiling:.4f}, {source}) is not above "
            f"the base ({base:.4f}); give --target or --ceiling"
        )
    q = question.gain
    variance = (1 - q) ** 2 * base_variance + q**2 * np.nan_to_num(ceiling_variance)
    return Target(base + q * (ceiling - base), float(variance), q, base, ceiling, source)


@dataclass(frozen=True)
class _Items:
    """What items contribute if they are random: covariances of the arms' differences from the target over items.

    Attributes:
        covariance: of all sizes of all arms, stacked; None for these items.
        centred: rows of outcomes minus target by item, for the crossed bootstrap; None without per-item outcomes.
        twice: by arm, the part of the seeds' variance that is in the items' as well.
        of_target: variance of the target over items, where it is not in `covariance`.
        starts: first row of each arm.
    """

    covariance: Array | None
    centred: Array | None
    twice: tuple[Array, ...]
    of_target: float
    starts: tuple[int, ...]
    basis: str

    def block(self, i: int, j: int) -> Array | None:
        """1 × K × L: of arms i and j."""
        if self.covariance is None:
            return None
        ends = (*self.starts[1:], len(self.covariance))
        return self.covariance[None, self.starts[i] : ends[i], self.starts[j] : ends[j]]

    @classmethod
    def of(cls, design: Design, question: Question, arms: tuple[Arm, ...], target: Target) -> "_Items":
        sizes = [len(arm.sizes) for arm in arms]
        starts = tuple(int(s) for s in np.cumsum([0, *sizes[:-1]]))
        none = tuple(np.zeros(n) for n in sizes)
        if question.items == "these":
            return cls(None, None, none, 0.0, starts, "")
        goal = _goal_by_item(design, question, target)
        if goal is not None and all(arm.outcomes is not None for arm in arms):
            rows = np.concatenate([np.nanmean(arm.outcomes, axis=1) for arm in arms if arm.outcomes is not None]) - goal
            twice = tuple(
                np.array([residual_variance(o[~np.isnan(o).any(1)]) for o in arm.outcomes])
                for arm in arms
                if arm.outcomes is not None
            )
            single = all((~np.isnan(arm.accuracy)).sum() == len(arm.sizes) for arm in arms)
            if single:  # the binomial variance of one seed is the items' own
                twice = tuple(np.full(n, np.inf) for n in sizes)
            basis = "95 %, fresh items, one seed, the spread between seeds is unknown"
            if not single:
                basis = "95 %, fresh seeds and items, variance between seeds pooled over sizes"
            return cls(np.cov(rows) / rows.shape[1], rows, twice, 0.0, starts, basis)
        if any(arm.answers is None for arm in arms) or (design.base is not None and design.base.answers is None):
            raise DataError(
                "--items population needs per-item outcomes (a study folder) or counts (n_items, n_correct)"
            )
        p, n = (
            np.concatenate([np.nanmean(arm.accuracy, axis=1) for arm in arms]),
            np.concatenate([arm.answers for arm in arms if arm.answers is not None]),
        )
        of_target = 0.0
        if target.gain is not None and target.base is not None and target.ceiling is not None:
            q, least = target.gain, float(n.min())
            parts = (1 - q) ** 2 * target.base * (1 - target.base) + q**2 * target.ceiling * (1 - target.ceiling)
            of_target = parts / least
        basis = (
            "95 %, fresh seeds, and items as if drawn afresh for every run: an approximation, as there are no per-item "
            "outcomes"
        )
        return cls(np.diag(p * (1 - p) / n), None, none, of_target, starts, basis)


def _goal_by_item(design: Design, question: Question, target: Target) -> Array | None:
    """The target item by item; None if per-item outcomes are missing."""
    reference = design.arms[0].outcomes
    if reference is None:
        return None
    if target.gain is None:
        return np.full(reference.shape[2], target.accuracy)
    if design.base is None or design.base.outcomes is None:
        return None
    base = np.nanmean(design.base.outcomes[0], axis=0)
    if question.ceiling is not None:
        return np.asarray(base + target.gain * (question.ceiling - base))
    arm = next(a for a in design.arms if a.method == design.ceiling[0])
    if arm.outcomes is None:
        return None
    top = np.nanmean(arm.outcomes[int(np.flatnonzero(arm.sizes == design.ceiling[1])[0])], axis=0)
    return np.asarray(base + target.gain * (top - base))


def _paired(first: Arm, second: Arm, one: Spread, two: Spread) -> Array:
    """1 × K × L: covariance of two arms' means through the seeds that they share, at equal sizes."""
    out = np.zeros((1, len(first.sizes), len(second.sizes)))
    if first.seeds is None or second.seeds is None:
        return out
    sizes, rows, columns = np.intersect1d(first.sizes, second.sizes, return_indices=True)
    seeds, left, right = np.intersect1d(first.seeds, second.seeds, return_indices=True)
    if not len(sizes) or not len(seeds):
        return out
    rho = seed_correlation(one.deviations[:, rows][:, :, left], two.deviations[:, columns][:, :, right])
    out[0, rows, columns] = rho[0] * np.sqrt(one.variance[0, rows] * two.variance[0, columns])
    return out


def _fractions(
    relatives: list[Relative], items: _Items, target: Target, question: Question, rng: np.random.Generator
) -> tuple[float | None, ...]:
    """Share of replicates that reach the target nowhere, by arm."""
    n = question.replicates
    moved = None if items.centred is None else item_shifts(items.centred, n, rng)
    goal = seed_shifts(np.array([target.variance + items.of_target]), float(relatives[0].df[0]), n, rng)[:, 0]
    found: list[float | None] = []
    for place, relative in enumerate(relatives):
        variance = relative.variance[0].copy()
        if moved is None and items.covariance is not None:
            variance += np.diag(items.block(place, place)[0])  # type: ignore[index]
        means = relative.z + seed_shifts(variance, float(relative.df[0]), n, rng)
        if moved is not None:
            start = items.starts[place]
            means = means + moved[:, start : start + len(relative.log_sizes)]
        found.append(not_reached(means, goal, 1.0 / relative.deviations[0] ** 2))
    return tuple(found)


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
