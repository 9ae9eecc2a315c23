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
        covariance: of all sizes of all curves, stacked; None if the items are fixed and no draw is common. What is in
            the variance between seeds as well is not counted here.
        instead: whether it stands in for the variance between seeds, which one seed does not show.
        basis: what the intervals are for; "" if the covariance is None and no draw is left out.
    """

    covariance: Array | None
    instead: bool
    basis: str

    @classmethod
    def of(
        cls,
        design: Design,
        question: Question,
        curves: tuple[Curve, ...],
        between: tuple[Array, ...],
        target: Target,
        ceiling: int,
    ) -> "ItemShare":
        """What items and common draws contribute to the curves of a design.

        Args:
            design: the design.
            question: what is asked.
            curves: those of the design that have a threshold.
            between: the variance of each of their means through what differs between seeds.
            target: the target.
            ceiling: the place of the ceiling among all sizes of the curves.
        """
        shared = design.draws == "common"
        if question.items == "these" and not shared:
            return cls(None, False, "")
        goal = _goal_by_item(design, question, target)
        if goal is not None and all(curve.outcomes is not None for curve in curves):
            outcomes = [curve.outcomes for curve in curves if curve.outcomes is not None]
            rows = np.concatenate([np.nanmean(own, axis=1) for own in outcomes]) - goal
            single = all((~np.isnan(curve.accuracy)).sum() == len(curve.sizes) for curve in curves)
            rest = [residual_variance(size[~np.isnan(size).any(1)]) for own in outcomes for size in own]
            covariance = np.cov(rows) / rows.shape[1]
            if not single:  # the binomial variance of one seed is the items' own
                moved = np.eye(len(rows))
                moved[:, ceiling] -= target.moves
                covariance = covariance - moved @ np.diag(np.minimum(rest, np.concatenate(between))) @ moved.T
            what = "items" if question.items == "population" else "answers, one draw for all runs"
            basis = f"95 %, fresh {what}, one seed, the spread between seeds is unknown"
            if not single:
                basis = f"95 %, fresh seeds and {what}, variance between seeds pooled over sizes"
            return cls(covariance, single, basis)
        if any(curve.answers is None for curve in curves) or (design.base is not None and design.base.answers is None):
            if question.items == "these":
                return cls(None, False, _UNCOUNTED)
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
        return cls(covariance[0], False, basis)


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
