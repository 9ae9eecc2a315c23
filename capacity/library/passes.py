"""One or two evaluations of a model: two show what drifts while nothing is trained."""

from dataclasses import dataclass
from typing import Any, Literal

from capacity.errors import SpecError
from capacity.library.measured import Measured
from capacity_analysis.statistics.estimate import Estimate, accuracy_estimate, difference_estimate
from capacity_analysis.types import Array
from capacity_analysis.words import minus

Control = Literal["off", "zero"]
CONTROL_NAMES: dict[Control, str] = {"off": "adapter off", "zero": "adapter of zeros"}


@dataclass(frozen=True)
class Passes:
    """The evaluations of one model, in the order of time.

    Attributes:
        first: the first.
        second: the second, after other evaluations; None if there is one.
    """

    first: Measured
    second: Measured | None = None

    @property
    def shares(self) -> Array:
        """One row: the share of correct samples of each item over the passes."""
        one = self.first.shares("correct")
        return one if self.second is None else (one + self.second.shares("correct")) / 2

    def gain_over(self, other: "Passes") -> Estimate:
        """The difference of accuracy to another model, over the passes of each, paired by item."""
        return difference_estimate(self.shares, other.shares)

    @property
    def accuracy(self) -> Estimate:
        """The share of correct samples over the passes."""
        return accuracy_estimate(self.shares)

    @property
    def drift(self) -> Estimate | None:
        """The accuracy of the second pass minus that of the first, paired by item; None if there is one pass."""
        return None if self.second is None else self.second.gain_over(self.first)

    @property
    def changed(self) -> int:
        """How many samples are graded differently in the second pass."""
        if self.second is None:
            return 0
        pairs = zip(self.first.evaluation.outcomes, self.second.evaluation.outcomes, strict=True)
        return sum(a != b for one, two in pairs for a, b in zip(one.correct, two.correct, strict=True))

    def drift_json(self) -> dict[str, Any] | None:
        """The drift as plain JSON types, with the second pass; None if there is one pass."""
        drift = self.drift
        if self.second is None or drift is None:
            return None
        return {
            "drift": drift.value,
            "drift_low": drift.low,
            "drift_high": drift.high,
            "changed_samples": self.changed,
            "second_pass": self.second.to_json(),
        }

    def drift_words(self) -> str:
        """The drift in words."""
        found = self.drift
        if not self.changed or found is None:
            return "none: both passes graded every sample alike"
        return f"{gain_words(found)}; samples graded differently: {self.changed:,}"


def gain_words(gain: Estimate) -> str:
    """A difference of accuracies in points, with its interval."""
    low, high = (100 * (end or 0.0) for end in (gain.low, gain.high))
    return minus(f"{100 * gain.value:+.1f} points ({low:+.1f} to {high:+.1f})")


def gain_json(passes: Passes, base: Passes) -> dict[str, float | None]:
    """The gain over a control as plain JSON types."""
    gain = passes.gain_over(base)
    return {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}


def check_control(control: object, drift: bool) -> None:
    """Checks which control is asked for.

    Raises:
        SpecError: no such control, or a drift without one.
    """
    if control is not None and control not in CONTROL_NAMES:
        raise SpecError(f"--control {control}: choose off or zero")
    if drift and control is None:
        raise SpecError("--drift compares an adapter with a control twice: give --control off or zero")
