"""Threshold sizes before and after a change, at one target: what a drop means for the update that is needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity.errors import CapacityError
from capacity_analysis.thresholds.result import Threshold
from capacity_analysis.types import Array

SHARE = 0.5


@dataclass(frozen=True)
class ThresholdShift:
    """Trained parameters at which the target is reached, see `capacity_analysis.thresholds.result`.

    `target`: the accuracy halfway from the untrained model to the best size, both as the baseline has them.
    """

    target: float
    before: Threshold
    after: Threshold


def threshold_shift(
    sizes: Sequence[int],
    old: Array,
    new: Array,
    answers: NDArray[np.int64],
    base: float | None,
    generator: np.random.Generator,
) -> ThresholdShift | None:
    """Thresholds of the two curves, or None if there is nothing to look for.

    Reasons are one size only, two cells of one size, and no untrained model under the same protocol. Others are a
    baseline that gains nothing on it, and a threshold that cannot be estimated.

    Args:
        sizes: trained parameters, rising.
        old: seeds × sizes, accuracies.
        new: seeds × sizes.
        answers: behind an accuracy, of each size.
        base: accuracy of the untrained model in the baseline.
        generator: of the resampling behind `fraction_not_reached`.
    """
    # They import pandas.
    from capacity_analysis.data.select import Curve, Design
    from capacity_analysis.thresholds.evidence import gather
    from capacity_analysis.thresholds.question import Question
    from capacity_analysis.thresholds.result import thresholds

    best = float(old.mean(0).max())
    if len(set(sizes)) < max(2, len(sizes)) or base is None or best <= base:
        return None
    target = base + SHARE * (best - base)
    curves = tuple(
        Curve(
            name, np.array(sizes, dtype=float), matrix.T.copy(), tuple(range(len(matrix))), answers.astype(float), None
        )
        for name, matrix in (("before", old), ("after", new))
    )
    design = Design(None, None, None, None, None, "parameters", None, curves, ("before", float(sizes[-1])), "given")
    try:
        found = thresholds(gather(design, Question(target=target, replicates=200), generator))
    except CapacityError:
        return None
    by_name = {own.curve: own.threshold for own in found if own.answer}
    return ThresholdShift(target, by_name["before"], by_name["after"]) if len(by_name) == 2 else None
