"""The intervals that an adaptive design stops by: those of `capacity threshold` on all results so far."""

import math
from collections.abc import Sequence

import numpy as np

from capacity.errors import CapacityError
from capacity_analysis.data.select import Selection, designs
from capacity_analysis.data.table import Points
from capacity_analysis.design.state import Measured
from capacity_analysis.thresholds.confidence import made_anew
from capacity_analysis.thresholds.evidence import Evidence, gather
from capacity_analysis.thresholds.question import Question
from capacity_analysis.thresholds.ratios import ratios
from capacity_analysis.thresholds.result import thresholds

_OPEN = (-math.inf, math.inf)


def measure(points: Points, methods: Sequence[str], question: Question, *, confidence: float | None) -> Measured:
    """The interval of each threshold, and of the ratio sft : grpo if it is asked for; open where nothing is known.

    Args:
        points: all runs of the study, which are of one model.
        methods: those that are compared.
        question: the target.
        confidence: that of the interval of the ratio; None: the ratio is not asked for.
    """
    open_ends = dict.fromkeys(methods, _OPEN)
    try:
        (design,) = designs(points, Selection())
        evidence = gather(design, question, np.random.default_rng(0))
    except CapacityError:
        return Measured(open_ends, None if confidence is None else _OPEN, dict.fromkeys(methods, True))
    answers = {t.method: t for t in thresholds(evidence) if t.answer and t.method in methods}
    return Measured(
        {**open_ends, **{m: _logs(t.threshold.low, t.threshold.high) for m, t in answers.items()}},
        None if confidence is None else _ratio(evidence, confidence),
        {m: t.estimator == "hill" for m, t in answers.items()},
    )


def _ratio(evidence: Evidence, confidence: float) -> tuple[float, float]:
    """The interval of log10 of sft : grpo."""
    found = [r for r in ratios(evidence) if r.answer and (r.numerator, r.denominator) == ("sft", "grpo")]
    if not found:
        return _OPEN
    judged = made_anew(evidence, found[0], confidence)
    return _logs(judged.low, judged.high)


def _logs(low: float | None, high: float | None) -> tuple[float, float]:
    """The ends of an interval as log10; an end that is None is open."""
    return (-math.inf if not low else math.log10(low)), (math.inf if high is None else math.log10(high))
