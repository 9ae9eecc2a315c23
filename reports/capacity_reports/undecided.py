"""What the data leave open about the main contrast, and what would decide it: seeds, items or sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from capacity_analysis.statistics.detectable import smallest_detectable
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.thresholds.ratios import Ratio
from capacity_reports.decided import learns, seeds_of
from capacity_reports.figures import joined
from capacity_reports.main_contrast import MainContrast
from capacity_reports.views import Analysis

_MOST_SEEDS = 100
_FIVE_POINTS = 0.05


def undecided(analysis: Analysis, main: MainContrast) -> str | None:
    """One line: how much is not decided, and what would decide it. None if all is, or nothing was compared."""
    if main.ratios:
        left, asked, what = len(main.open_ratios), len(main.ratios), "ratios of sizes"
    else:
        left, asked, what = len(main.open_differences), len(main.differences), "differences"
    if left == 0:
        return None
    said = f"Not decided: {left} of {asked} {what} between {main.name}."
    ways = [*_seeds(analysis, main), *_sizes(analysis, [r.ratio for r in main.open_ratios])]
    if not ways:
        return said
    text = joined(ways)
    return f"{said} {text[0].upper()}{text[1:]} would decide more."


def _seeds(analysis: Analysis, main: MainContrast) -> Iterator[str]:
    """What further seeds would show."""
    counts = seeds_of(analysis)
    if not counts:
        return
    if counts == {1}:
        yield "a second seed per cell (one allows no claim about methods)"
        return
    estimates = [d.difference.estimate for d in main.open_differences]
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
            if not found.answer or (found.model, found.curve) not in of or not learns(found.method):
                continue
            if found.threshold.censored == "right":
                above[found.method] = max(above.get(found.method, 0), found.sizes[-1])
            elif found.threshold.censored == "left":
                below[found.method] = min(below.get(found.method, np.inf), found.sizes[0])
    if above:
        yield f"updates larger than {max(above.values()):,.0f} for {joined(list(above))}"
    if below:
        yield f"updates smaller than {min(below.values()):,.0f} for {joined(list(below))}"
