"""What items contribute to the variance of curves if the items are random too."""

from dataclasses import dataclass

import numpy as np

from capacity.errors import DataError
from capacity_analysis.data.select import Curve, Design
from capacity_analysis.statistics.spread import residual_variance
from capacity_analysis.thresholds.question import Question, Target
from capacity_analysis.types import Array


@dataclass(frozen=True)
class ItemShare:
    """What items contribute if they are random: covariances of the curves' differences from the target over items.

    Attributes:
        covariance: of all sizes of all curves, stacked; None for these items.
        centred: rows of outcomes minus target by item, for the crossed bootstrap; None without per-item outcomes.
        twice: by curve, the part of the seeds' variance that is in the items' as well.
        of_target: variance of the target over items, where it is not in `covariance`.
        starts: first row of each curve.
    """

    covariance: Array | None
    centred: Array | None
    twice: tuple[Array, ...]
    of_target: float
    starts: tuple[int, ...]
    basis: str

    def block(self, i: int, j: int) -> Array | None:
        """1 × K × L: of curves i and j."""
        if self.covariance is None:
            return None
        ends = (*self.starts[1:], len(self.covariance))
        return self.covariance[None, self.starts[i] : ends[i], self.starts[j] : ends[j]]

    @classmethod
    def of(cls, design: Design, question: Question, curves: tuple[Curve, ...], target: Target) -> "ItemShare":
        """What items contribute to the curves of a design; nothing, where the question is of these items."""
        sizes = [len(curve.sizes) for curve in curves]
        starts = tuple(int(s) for s in np.cumsum([0, *sizes[:-1]]))
        none = tuple(np.zeros(n) for n in sizes)
        if question.items == "these":
            return cls(None, None, none, 0.0, starts, "")
        goal = _goal_by_item(design, question, target)
        if goal is not None and all(curve.outcomes is not None for curve in curves):
            rows = (
                np.concatenate([np.nanmean(curve.outcomes, axis=1) for curve in curves if curve.outcomes is not None])
                - goal
            )
            twice = tuple(
                np.array([residual_variance(o[~np.isnan(o).any(1)]) for o in curve.outcomes])
                for curve in curves
                if curve.outcomes is not None
            )
            single = all((~np.isnan(curve.accuracy)).sum() == len(curve.sizes) for curve in curves)
            if single:  # the binomial variance of one seed is the items' own
                twice = tuple(np.full(n, np.inf) for n in sizes)
            basis = "95 %, fresh items, one seed, the spread between seeds is unknown"
            if not single:
                basis = "95 %, fresh seeds and items, variance between seeds pooled over sizes"
            return cls(np.cov(rows) / rows.shape[1], rows, twice, 0.0, starts, basis)
        if any(curve.answers is None for curve in curves) or (design.base is not None and design.base.answers is None):
            raise DataError(
                "--items population needs per-item outcomes (a study folder) or counts (n_items, n_correct)"
            )
        p, n = (
            np.concatenate([np.nanmean(curve.accuracy, axis=1) for curve in curves]),
            np.concatenate([curve.answers for curve in curves if curve.answers is not None]),
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
    reference = design.curves[0].outcomes
    if reference is None:
        return None
    if target.gain is None:
        return np.full(reference.shape[2], target.accuracy)
    if design.base is None or design.base.outcomes is None:
        return None
    base = np.nanmean(design.base.outcomes[0], axis=0)
    if question.ceiling is not None:
        return np.asarray(base + target.gain * (question.ceiling - base))
    curve = next(c for c in design.curves if c.label == design.ceiling[0])
    if curve.outcomes is None:
        return None
    top = np.nanmean(curve.outcomes[int(np.flatnonzero(curve.sizes == design.ceiling[1])[0])], axis=0)
    return np.asarray(base + target.gain * (top - base))
