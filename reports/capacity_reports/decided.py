"""What the data decide, each statement by itself.

A ratio of sizes is decided if its interval excludes 1. A difference of accuracies is decided if its interval excludes
0. Neither is with a single seed. Each interval stands alone here, unless a function says "together":
`capacity_reports.main_contrast` tells which statements are judged together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from capacity.spec.methods import METHODS, place
from capacity_analysis.compare.comparison import ComparedCell, Comparison, Difference
from capacity_analysis.data.absent import Absent
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.statistics.multiplicity import holm_claims
from capacity_analysis.thresholds.answers import ThresholdStudy
from capacity_analysis.thresholds.confidence import at_confidence
from capacity_analysis.thresholds.ratios import Ratio
from capacity_reports.views import Analysis, View


@dataclass(frozen=True)
class AskedRatio:
    """A ratio of threshold sizes, with the rows that it belongs to."""

    view: View
    study: ThresholdStudy
    ratio: Ratio

    @property
    def methods(self) -> tuple[str, str]:
        """Of numerator and denominator."""
        return _methods(self.ratio.numerator, self.ratio.denominator)


@dataclass(frozen=True)
class AskedDifference:
    """A difference of accuracies, with the size and model that it belongs to."""

    comparison: Comparison
    difference: Difference

    @property
    def methods(self) -> tuple[str, str]:
        """Of the first and the second cell."""
        return _methods(self.difference.first, self.difference.second)


def decides(ratio: Ratio) -> bool:
    """Tells whether the interval of a ratio excludes 1."""
    return (ratio.low is not None and ratio.low > 1) or (ratio.high is not None and ratio.high < 1)


def decided_together(ratios: Sequence[tuple[ThresholdStudy, Ratio]]) -> list[bool]:
    """Which ratios exclude 1 when all of them are judged together (Holm), with at most 5 % for any false claim.

    Args:
        ratios: each with the study that it belongs to.
    """
    return holm_claims([partial(_excludes_one, study, ratio) for study, ratio in ratios])


def _excludes_one(study: ThresholdStudy, ratio: Ratio, error: float) -> bool:
    # An interval of more confidence is wider, so one that does not decide at 95 % needs no second estimate.
    return decides(ratio) and not study.of_one_seed(ratio) and decides(at_confidence(study, ratio, 1 - error))


def ratios_of(analysis: Analysis) -> Iterator[AskedRatio]:
    """Yields the headline ratio of every pair of methods, decided or not, each once."""
    for view, study in analysis.thresholds:
        for ratio in study.headlines:
            yield AskedRatio(view, study, ratio)


def decided_ratios(analysis: Analysis) -> list[AskedRatio]:
    """The decided ratios, those that a reader asks for first at the beginning."""
    if seeds_of(analysis) == {1}:
        return []
    found = [r for r in ratios_of(analysis) if decides(r.ratio)]
    return sorted(found, key=lambda r: interest(*r.methods))


def differences_of(analysis: Analysis) -> Iterator[AskedDifference]:
    """Yields every paired difference of accuracies, decided or not."""
    if isinstance(analysis.comparisons, Absent):
        return
    for comparison in analysis.comparisons:
        for difference in comparison.differences:
            yield AskedDifference(comparison, difference)


def decided_differences(analysis: Analysis) -> list[AskedDifference]:
    """The decided differences, those that a reader asks for first at the beginning, the largest first."""
    found = [d for d in differences_of(analysis) if d.difference.estimate.seeds > 1 and d.difference.estimate.sign]
    return sorted(
        found,
        key=lambda d: (interest(*d.methods), -abs(d.difference.estimate.value)),
    )


def gains_of(analysis: Analysis) -> list[tuple[Comparison, ComparedCell, Estimate]]:
    """The cells that gain over the untrained model, judged together (Holm); the largest gain first."""
    if isinstance(analysis.comparisons, Absent):
        return []
    found = [(c, cell, cell.gain) for c in analysis.comparisons for cell in c.cells if cell.gain is not None]
    stand = holm_claims([partial(_stands, gain) for *_, gain in found])
    known = [f for f, stands in zip(found, stand, strict=True) if stands and f[2].value > 0]
    return sorted(known, key=lambda f: -f[2].value)


def _stands(gain: Estimate, error: float) -> bool:
    return gain.excludes_zero(1 - error)


def interest(first: str, second: str) -> tuple[bool, int]:
    """Sorts pairs of methods: sft and grpo first, controls last."""
    pair = tuple(sorted((first, second)))
    wanted = (("grpo", "sft"), ("rft", "sft"), ("grpo", "rft"))
    return not all(map(learns, pair)), wanted.index(pair) if pair in wanted else len(wanted) + sum(map(place, pair))


def learns(method: str) -> bool:
    """Tells whether a method is meant to learn: of controls no size reaches a target."""
    return all(facts.meant_to_learn for name, facts in METHODS.items() if name == method)


def _methods(first: str, second: str) -> tuple[str, str]:
    """The methods of two curves or cells, whose names begin with them."""
    return first.partition(" ")[0], second.partition(" ")[0]


def seeds_of(analysis: Analysis) -> set[int]:
    """The numbers of seeds that trained cells have."""
    if isinstance(analysis.comparisons, Absent):
        return set()
    return {c.cell.accuracy.seeds for comparison in analysis.comparisons for c in comparison.cells}
