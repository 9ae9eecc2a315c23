"""What `capacity check` found: the study, its curves, their sizes and the untrained model, as values."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from capacity_analysis.check.alarms import Level
from capacity_analysis.check.collapses import CollapseCheck
from capacity_analysis.statistics.seed_tests import MeanChange, Permutation, SizeChange
from capacity_analysis.thresholds.shift import ThresholdShift

CheckOutcome = Literal["identical", "non-inferior", "worse", "inconclusive"]


@dataclass(frozen=True)
class SizeCheck:
    """One size of a curve against its baseline, accuracies as shares of 1.

    Attributes:
        label: trained parameters, and what else tells it apart.
        before, after: mean accuracies.
        identical: every answer is the same.
        change: None with one seed.
    """

    label: str
    trained_parameters: int
    before: float
    after: float
    identical: bool
    change: SizeChange | None

    @property
    def moved(self) -> Literal["up", "down", "no"]:
        """Where the size went, if its interval (all sizes together) excludes no change."""
        if self.change is None or self.identical or self.change.low <= 0 <= self.change.high:
            return "no"
        return "up" if self.change.low > 0 else "down"


@dataclass(frozen=True)
class CheckDesign:
    """What a check could have shown, from the standard error that it found.

    Attributes:
        level: that "worse" is claimed at by the mean.
        smallest_drop: called "worse" four times in five, a share of 1; None if no drop at all is.
        power: of a drop of 5 points.
        seeds_needed: for four times in five at 5 points; None if more than 50.
    """

    level: float
    smallest_drop: float | None
    power: float
    seeds_needed: int | None


@dataclass(frozen=True)
class CurveCheck:
    """One curve against its baseline. `change` and what follows from it are None with fewer than two seeds."""

    name: str
    outcome: CheckOutcome
    reason: str
    sizes: tuple[SizeCheck, ...]
    seeds_before: tuple[int, ...]
    seeds_after: tuple[int, ...]
    change: MeanChange | None
    permutation: Permutation | None
    dispersion: float | None
    design: CheckDesign | None
    thresholds: ThresholdShift | None
    collapses: CollapseCheck | None


@dataclass(frozen=True)
class BaseCheck:
    """The untrained model, which has no seeds: answers lost and gained, exact McNemar test.

    Attributes:
        same_protocol: it was evaluated as the trained runs are, not at another temperature or on other items.
        before, after: accuracies, shares of 1.
        lost, gained: answers.
        p: two-sided.
    """

    name: str
    same_protocol: bool
    before: float
    after: float
    lost: int
    gained: int
    p: float


@dataclass(frozen=True)
class Check:
    """The result of `capacity check`.

    Attributes:
        margin: the largest tolerated drop, a share of 1.
        alpha: one-sided error of each claim.
        level: that "worse" may be claimed at, over all curves together.
        environment: what changed of it since the baseline.
        remarks: what a reader should know besides the outcome.
        verdict: the outcome in one sentence.
        history: the level that a history gave; None without one.
    """

    outcome: CheckOutcome
    margin: float
    alpha: float
    level: float
    curves: tuple[CurveCheck, ...]
    bases: tuple[BaseCheck, ...]
    environment: str
    remarks: tuple[str, ...]
    verdict: str
    history: Level | None = None

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types; shares of 1 throughout."""
        raw = asdict(self)
        for curve, check in zip(raw["curves"], self.curves, strict=True):
            for row, size in zip(curve["sizes"], check.sizes, strict=True):
                row["moved"] = size.moved
        return raw
