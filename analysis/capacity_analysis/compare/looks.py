"""A comparison that adds seeds until its main contrast is decided: what each look says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from capacity.plan.looks import CONTRAST, Looks
from capacity.runs.study import Run
from capacity.spec.run import RunSpec
from capacity_analysis.compare.comparison import Comparison
from capacity_analysis.compare.result import compare_runs
from capacity_analysis.data.cell_results import CellResult, difference
from capacity_analysis.statistics.crossed import Crossed
from capacity_analysis.statistics.error_spending import LookError
from capacity_analysis.statistics.estimate import Estimate, accuracy_estimate, estimate_of
from capacity_analysis.words import minus

Outcome = Literal["higher", "lower", "equal", "open"]
_SAYS: dict[Outcome, str] = {
    "higher": "decided: {0} scores higher than {1}",
    "lower": "decided: {1} scores higher than {0}",
    "equal": "decided: {0} and {1} differ by less than the margin of {2:g} points",
    "open": "not decided: {0} and {1} cannot be told apart",
}


@dataclass(frozen=True)
class Look:
    """What the main contrast is after some seeds.

    Attributes:
        seeds: how many seeds each method was to have.
        estimate: of the contrast, with an interval that is valid at every look; None if no seed has both runs.
        outcome: which method scores higher, or that they are equal within the margin; "open" if neither is shown.
    """

    seeds: int
    estimate: Estimate | None
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "seeds_planned": self.seeds,
            "outcome": self.outcome,
            "nominal_confidence": None if self.estimate is None else self.estimate.confidence,
            **({} if self.estimate is None else self.estimate.to_json()),
        }


def look_at(folder: Path, runs: Sequence[Run], specs: Sequence[RunSpec], looks: Looks, seeds: int) -> Look:
    """Looks at a comparison after some seeds.

    Args:
        folder: of the study.
        runs: the complete ones.
        specs: what was planned for this look.
        looks: the schedule.
        seeds: the number of seeds of this look.

    Raises:
        DataError: as `compare_runs`.
    """
    return look_of(repeated(compare_runs(folder, runs, specs), looks, seeds), looks, seeds)


def look_of(comparison: Comparison, looks: Looks, seeds: int) -> Look:
    """What a comparison with repeated intervals says of the main contrast."""
    found = (d.estimate for d in comparison.differences if (d.first, d.second) == CONTRAST)
    estimate = next(found, None)
    return Look(seeds, estimate, "open" if estimate is None else outcome_of(estimate, looks.margin))


def outcome_of(estimate: Estimate, margin: float | None) -> Outcome:
    """What the interval of the contrast shows. One seed shows nothing."""
    if estimate.low is None or estimate.high is None or estimate.seeds < 2:
        return "open"
    if estimate.sign:
        return "higher" if estimate.sign > 0 else "lower"
    within = margin is not None and -margin < estimate.low and estimate.high < margin
    return "equal" if within else "open"


def repeated(comparison: Comparison, looks: Looks, seeds: int) -> Comparison:
    """The comparison with intervals that are valid at every look, for its differences, gains and cells.

    They rest on the seeds of the two methods alone: the variance between seeds is neither dropped nor pooled.

    Args:
        comparison: with the intervals of a study that is looked at once.
        looks: the schedule.
        seeds: the number of seeds; between two looks the interval is that of the earlier look.
    """
    place = max((i for i, count in enumerate(looks.seeds) if count <= seeds), default=0)
    at = _At(LookError(looks.seeds, place, looks.confidence))
    cells = {compared.name: compared.cell for compared in comparison.cells}
    return replace(
        comparison,
        cells=tuple(
            replace(
                compared,
                cell=at.cell(compared.cell),
                gain=at.estimate(compared.gain),
                gain_over_best_temperature=at.estimate(compared.gain_over_best_temperature),
            )
            for compared in comparison.cells
        ),
        differences=tuple(
            replace(d, estimate=at.estimate(difference(cells[d.first], cells[d.second])) or d.estimate)
            for d in comparison.differences
        ),
    )


@dataclass(frozen=True)
class _At:
    """Intervals of one look."""

    look: LookError

    def estimate(self, estimate: Estimate | None) -> Estimate | None:
        """A difference with the interval of this look."""
        if estimate is None or estimate.crossed is None or estimate.items is None:
            return estimate
        return replace(
            look_estimate(estimate.value, estimate.crossed, estimate.seeds, estimate.items, self.look.confidence),
            look=self.look,
        )

    def cell(self, cell: CellResult) -> CellResult:
        """A cell whose accuracy has the interval of this look."""
        if cell.shares is None:
            return cell
        accuracy = accuracy_estimate(cell.shares, self.look.confidence, keep_seeds=True)
        return replace(cell, accuracy=replace(accuracy, look=self.look))


def look_estimate(mean: float, crossed: Crossed, seeds: int, items: int, confidence: float) -> Estimate:
    """A difference with an interval whose component between seeds is never dropped; the arguments of `estimate_of`."""
    return estimate_of(mean, replace(crossed, keeps_seeds=True), seeds, items, confidence)


def looks_sentence(found: Sequence[Look], looks: Looks) -> str:
    """How the study ended, in a sentence: "After 5 of at most 10 seeds it is decided: …"."""
    last = found[-1]
    margin = 100 * (looks.margin or 0.0)
    said = _SAYS[last.outcome].format(*CONTRAST, margin)
    number = "" if last.estimate is None else f", {minus(' − '.join(CONTRAST))} {last.estimate.points()} points"
    return f"After {last.seeds} of at most {looks.most} seeds the comparison is {said}{number}."
