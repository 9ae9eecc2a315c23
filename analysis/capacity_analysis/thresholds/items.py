"""What all runs share: their items, if those are random too, and the evaluation draw, if it is common to all runs."""

from dataclasses import dataclass

import numpy as np

from capacity.errors import DataError
from capacity_analysis.data.select import Curve, Design
from capacity_analysis.statistics.spread import residual_variance
from capacity_analysis.thresholds.question import Question, Target
from capacity_analysis.thresholds.shared_draws import shared_draw_covariance
from capacity_analysis.types import Array

_UNCOUNTED = (
    "95 %, fresh seeds on these items; the one draw that all runs share is left out, as answers are not counted"
)


@dataclass(frozen=True)
class ItemShare:
    """The covariance of the curves' differences from the target through items, or through a draw that all runs share.

    The error of a common draw cannot be told from that of the items, unless several draws were made. So it is taken to
    be as large as both together.

    Attributes:
        covariance: of all sizes of all curves, stacked; None if the items are fixed and no draw is common.
        twice: by curve, the part of the seeds' variance that is in the items' as well.
    """

    covariance: Array | None
    twice: tuple[Array, ...]
    basis: str

    @classmethod
    def of(
        cls, design: Design, question: Question, curves: tuple[Curve, ...], target: Target, ceiling: int
    ) -> "ItemShare":
        """What items and common draws contribute to the curves of a design.

        Args:
            design: the design.
            question: what is asked.
            curves: those of the design that have a threshold.
            target: the target.
            ceiling: the place of the ceiling among all sizes of the curves.
        """
        sizes = [len(curve.sizes) for curve in curves]
        none = tuple(np.zeros(n) for n in sizes)
        shared = design.draws == "common"
        if question.items == "these" and not shared:
            return cls(None, none, "")
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
            what = "items" if question.items == "population" else "answers, one draw for all runs"
            basis = f"95 %, fresh {what}, one seed, the spread between seeds is unknown"
            if not single:
                basis = f"95 %, fresh seeds and {what}, variance between seeds pooled over sizes"
            return cls(np.cov(rows) / rows.shape[1], twice, basis)
        if any(curve.answers is None for curve in curves) or (design.base is not None and design.base.answers is None):
            if question.items == "these":
                return cls(None, none, _UNCOUNTED)
            raise DataError(
                "--items population needs per-item outcomes (a study folder) or counts (n_items, n_correct)"
            )
        means = np.concatenate([np.nanmean(curve.accuracy, axis=1) for curve in curves])[None]
        answers = np.concatenate([curve.answers for curve in curves if curve.answers is not None])
        base = None if target.base is None else np.array([target.base])
        covariance = shared_draw_covariance(means, base, answers, target.gain or 0.0, ceiling if target.moves else -1)
        basis = (
            "95 %, fresh seeds, and a bound for what items and draws share: an approximation, as there are no per-item "
            "outcomes"
        )
        return cls(covariance[0], none, basis)


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
