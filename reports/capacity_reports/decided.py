"""What the data decide, and what would decide the rest.

A ratio of sizes is decided if its interval excludes 1. A difference of accuracies is decided if its interval excludes
0. Neither is with a single seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from capacity.spec.methods import METHODS, MethodFacts, place
from capacity_analysis.compare.comparison import ComparedCell, Comparison, Difference
from capacity_analysis.data.absent import Absent
from capacity_analysis.statistics.detectable import smallest_detectable
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.thresholds.answers import ThresholdStudy
from capacity_analysis.thresholds.ratios import Ratio
from capacity_reports.figures import joined
from capacity_reports.views import Analysis, View

_MOST_SEEDS = 100
_FIVE_POINTS = 0.05


@dataclass(frozen=True)
class DecidedRatio:
    """A ratio of threshold sizes whose interval excludes 1, with the rows that it belongs to."""

    view: View
    study: ThresholdStudy
    ratio: Ratio


@dataclass(frozen=True)
class DecidedDifference:
    """A difference of accuracies whose interval excludes 0, with the size and model that it belongs to."""

    comparison: Comparison
    difference: Difference


def decides(ratio: Ratio) -> bool:
    """Tells whether the interval of a ratio excludes 1."""
    return (ratio.low is not None and ratio.low > 1) or (ratio.high is not None and ratio.high < 1)


def ratios_of(analysis: Analysis) -> Iterator[DecidedRatio]:
    """Yields the headline ratio of every pair of methods, decided or not, each once."""
    for view, study in analysis.thresholds:
        for ratio in study.headlines:
            yield DecidedRatio(view, study, ratio)


def decided_ratios(analysis: Analysis) -> list[DecidedRatio]:
    """The decided ratios, those that a reader asks for first at the beginning."""
    if seeds_of(analysis) == {1}:
        return []
    found = [r for r in ratios_of(analysis) if decides(r.ratio)]
    return sorted(found, key=lambda r: _interest(r.ratio.numerator, r.ratio.denominator))


def differences_of(analysis: Analysis) -> Iterator[DecidedDifference]:
    """Yields every paired difference of accuracies, decided or not."""
    if isinstance(analysis.comparisons, Absent):
        return
    for comparison in analysis.comparisons:
        for difference in comparison.differences:
            yield DecidedDifference(comparison, difference)


def decided_differences(analysis: Analysis) -> list[DecidedDifference]:
    """The decided differences, those that a reader asks for first at the beginning, the largest first."""
    found = [d for d in differences_of(analysis) if d.difference.estimate.seeds > 1 and d.difference.estimate.sign]
    return sorted(
        found,
        key=lambda d: (_interest(d.difference.first, d.difference.second), -abs(d.difference.estimate.value)),
    )


def gains_of(analysis: Analysis) -> list[tuple[Comparison, ComparedCell, Estimate]]:
    """The cells that gain over the untrained model, by an interval that excludes 0; the largest gain first."""
    if isinstance(analysis.comparisons, Absent):
        return []
    found = [(c, cell, cell.gain) for c in analysis.comparisons for cell in c.cells if cell.gain is not None]
    return sorted((f for f in found if f[2].sign > 0), key=lambda f: -f[2].value)


def _interest(first: str, second: str) -> tuple[bool, int]:
    """Sorts pairs of methods: sft and grpo first, controls last."""
    names = [text.partition(" ")[0] for text in (first, second)]
    control = any(name in METHODS and not facts.meant_to_learn for name in names for facts in [_facts(name)])
    wanted = (("grpo", "sft"), ("rft", "sft"), ("grpo", "rft"))
    pair = tuple(sorted(names))
    return control, wanted.index(pair) if pair in wanted else len(wanted) + sum(map(place, names))


def _facts(name: str) -> MethodFacts:
    return next(facts for method, facts in METHODS.items() if method == name)


def seeds_of(analysis: Analysis) -> set[int]:
    """The numbers of seeds that trained cells have."""
    if isinstance(analysis.comparisons, Absent):
        return set()
    return {c.cell.accuracy.seeds for comparison in analysis.comparisons for c in comparison.cells}


def undecided(analysis: Analysis) -> str | None:
    """One line: how much is not decided, and what would decide it. None if all is, or nothing was compared."""
    ratios = list(ratios_of(analysis))
    if ratios:
        known, open_pairs = len(decided_ratios(analysis)), [r.ratio for r in ratios if not decides(r.ratio)]
        if known == len(ratios):
            return None
        what = f"{len(ratios) - known} of {len(ratios)} ratios of sizes"
    else:
        differences = list(differences_of(analysis))
        known, open_pairs = len(decided_differences(analysis)), []
        if not differences or known == len(differences):
            return None
        what = f"{len(differences) - known} of {len(differences)} differences between methods"
    ways = [*_seeds(analysis), *_sizes(analysis, open_pairs)]
    if not ways:
        return f"Not decided: {what}."
    text = joined(ways)
    return f"Not decided: {what}. {text[0].upper()}{text[1:]} would decide more."


def _seeds(analysis: Analysis) -> Iterator[str]:
    """What further seeds would show."""
    counts = seeds_of(analysis)
    if not counts:
        return
    if counts == {1}:
        yield "a second seed per cell (one allows no claim about methods)"
        return
    estimates = [d.difference.estimate for d in differences_of(analysis) if not d.difference.estimate.sign]
    wanted = [seeds_to_show(e, _FIVE_POINTS) or np.inf for e in estimates]
    needed = float(np.quantile(wanted, 0.5, method="higher")) if wanted else np.inf
    now = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    if max(counts) < needed < np.inf:
        yield f"more seeds (now {now}; {needed:.0f} would show half of the true differences of 5 points)"
    else:
        yield f"more seeds or more items (now {now} seeds)"


def seeds_to_show(difference: Estimate, size: float) -> int | None:
    """How many seeds a study needs to show a true difference of `size` in four of five cases.

    The variances are those that `difference` found. None if they are not known, or if 100 seeds are too few.
    """
    crossed = difference.crossed
    if difference.seeds < 2 or crossed is None:
        return None
    for seeds in range(2, _MOST_SEEDS + 1):
        expected = crossed.with_seeds(seeds, difference.seeds)
        # A quick bound first: the half-width alone must not exceed the difference.
        if expected.half_width(difference.confidence) > size:
            continue
        shown = smallest_detectable(replace(difference, seeds=seeds, crossed=expected))
        if shown is not None and shown <= size:
            return seeds
    return None


def _sizes(analysis: Analysis, ratios: Sequence[Ratio]) -> Iterator[str]:
    """Which sizes would bring thresholds that were not found into the tested range."""
    above: dict[str, float] = {}
    below: dict[str, float] = {}
    of = {(r.model, label) for r in ratios for label in (r.numerator, r.denominator)}
    for _, study in analysis.thresholds:
        for found in study.thresholds:
            if not found.answer or (found.model, found.curve) not in of or not _learns(found.method):
                continue
            if found.threshold.censored == "right":
                above[found.method] = max(above.get(found.method, 0), found.sizes[-1])
            elif found.threshold.censored == "left":
                below[found.method] = min(below.get(found.method, np.inf), found.sizes[0])
    if above:
        yield f"updates larger than {max(above.values()):,.0f} for {joined(list(above))}"
    if below:
        yield f"updates smaller than {min(below.values()):,.0f} for {joined(list(below))}"


def _learns(method: str) -> bool:
    """Tells whether a method is meant to learn: of controls no size reaches a target."""
    return all(facts.meant_to_learn for name, facts in METHODS.items() if name == method)
