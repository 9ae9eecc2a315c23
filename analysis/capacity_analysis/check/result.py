"""What `capacity check` found: the study, its curves, their sizes and the untrained model, as values."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from capacity_analysis.statistics.seed_tests import MeanChange, Permutation, SizeChange
from capacity_analysis.thresholds.shift import ThresholdShift

Outcome = Literal["identical", "non-inferior", "worse", "inconclusive"]


@dataclass(frozen=True)
class Size:
    """One size of a curve. `change` is None with one seed; `identical`: every answer is the same."""

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
class Design:
    """What this check could have shown, from the standard error that it found.

    `smallest_drop`: called "worse" four times in five (None: no drop at all); `power`: of a drop of 5 points;
    `seeds_needed`: for four times in five at 5 points (None: more than 50).
    """

    level: float
    smallest_drop: float | None
    power: float
    seeds_needed: int | None


@dataclass(frozen=True)
class CurveCheck:
    """One curve against its baseline. `change` and what follows from it are None with fewer than two seeds."""

    name: str
    outcome: Outcome
    reason: str
    sizes: tuple[Size, ...]
    seeds_before: tuple[int, ...]
    seeds_after: tuple[int, ...]
    change: MeanChange | None
    permutation: Permutation | None
    dispersion: float | None
    design: Design | None
    thresholds: ThresholdShift | None


@dataclass(frozen=True)
class BaseCheck:
    """The untrained model, which has no seeds: answers lost and gained, exact McNemar test.

    `same_protocol`: it was evaluated as the trained runs are, not at another temperature or on other items.
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
    """The result of `capacity check`. `level`: that "worse" may be claimed at, over all curves together."""

    outcome: Outcome
    margin: float
    alpha: float
    level: float
    curves: tuple[CurveCheck, ...]
    bases: tuple[BaseCheck, ...]
    environment: str
    remarks: tuple[str, ...]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types; shares of 1 throughout."""
        raw = asdict(self)
        for curve, check in zip(raw["curves"], self.curves, strict=True):
            for row, size in zip(curve["sizes"], check.sizes, strict=True):
                row["moved"] = size.moved
        return raw
