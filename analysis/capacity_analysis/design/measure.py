"""The intervals that an adaptive design stops by: those of `capacity threshold` on all results so far."""

import math
from collections.abc import Sequence

import numpy as np

from capacity.errors import CapacityError
from capacity_analysis.data.select import Selection, designs
from capacity_analysis.data.table import Points
from capacity_analysis.design.state import Measured
from capacity_analysis.thresholds.evidence import gather
from capacity_analysis.thresholds.question import Question
from capacity_analysis.thresholds.ratios import ratios
from capacity_analysis.thresholds.result import thresholds

_OPEN = (-math.inf, math.inf)


def measure(points: Points, methods: Sequence[str], question: Question, *, ratio: bool) -> Measured:
    """The interval of each threshold, and of the ratio sft : grpo if it is asked for; open where nothing is known.

    Args:
        points: all runs of the study, which are of one model.
        methods: those that are compared.
        question: the target.
        ratio: measure the ratio too, which takes as long again.
    """
    open_ends = dict.fromkeys(methods, _OPEN)
    try:
        (design,) = designs(points, Selection())
        evidence = gather(design, question, np.random.default_rng(0))
    except CapacityError:
        return Measured(open_ends, _OPEN if ratio else None, dict.fromkeys(methods, True))
    answers = {t.method: t for t in thresholds(evidence) if t.answer and t.method in methods}
    found = (
        [r for r in ratios(evidence) if r.answer and (r.numerator, r.denominator) == ("sft", "grpo")] if ratio else []
    )
    return Measured(
        {**open_ends, **{m: _logs(t.threshold.low, t.threshold.high) for m, t in answers.items()}},
        (_logs(found[0].low, found[0].high) if found else _OPEN) if ratio else None,
        {m: t.estimator == "hill" for m, t in answers.items()},
    )


def _logs(low: float | None, high: float | None) -> tuple[float, float]:
    """The ends of an interval as log10; an end that is None is open."""
    return (-math.inf if not low else math.log10(low)), (math.inf if high is None else math.log10(high))
