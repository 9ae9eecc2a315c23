"""What the scripts on finished studies share: runs gathered into arms, intervals as text, Markdown tables."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity.runs.study import Run
from capacity_analysis.compare.comparison import outcome_matrix
from capacity_analysis.statistics.intervals import Interval, difference_interval


@dataclass(frozen=True)
class Arm:
    """The runs of one model, method, style and size, by seed. `style`: bits and shift; None where none is seen."""

    model: str
    method: str
    style: tuple[float, float] | None
    parameters: int
    runs: tuple[Run, ...]

    @property
    def outcomes(self) -> NDArray[np.float64]:
        """Seeds × items."""
        return outcome_matrix(self.runs)

    def over(self, other: "Arm") -> Interval:
        """By how much it is more accurate than another arm, paired by seed and item."""
        return difference_interval(self.outcomes, other.outcomes)


def arms_of(runs: Iterable[Run]) -> list[Arm]:
    """The arms on the test split, and of each model its base (0 parameters) at temperature 1."""
    found: dict[tuple[str, str, tuple[float, float] | None, int], list[Run]] = {}
    for run in runs:
        spec, options = run.spec, run.spec.task.options
        if spec.evaluation.split == "test" and (spec.training is not None or spec.evaluation.temperature == 1):
            style = (float(options["style_bits"]), float(options["style_shift"])) if options else None
            key = (spec.model, spec.method, style, int(run.result.trained_parameters))
            found.setdefault(key, []).append(run)
    return [Arm(*key, tuple(sorted(rs, key=lambda r: r.spec.seed))) for key, rs in found.items()]


def percent(interval: Interval) -> str:
    """An accuracy with its interval."""
    return f"{100 * interval.estimate:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def points(interval: Interval) -> str:
    """A difference with its interval, percentage points."""
    return f"{100 * interval.estimate:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
