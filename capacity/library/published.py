"""Published figures: the first crossings that follow from them, and what does not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from capacity.errors import CapacityError
from capacity.library.shown import Shown
from capacity_analysis.data.published import (
    GAINS,
    REMARKS,
    Crossing,
    first_crossings,
    supported_lines,
)
from capacity_analysis.data.read import read_points
from capacity_analysis.data.select import Selection
from capacity_analysis.data.table import Points
from capacity_analysis.data.where import conditions, where
from capacity_analysis.thresholds.answers import study_thresholds
from capacity_analysis.thresholds.question import Question
from capacity_reports.blocks import Block
from capacity_reports.sections.published import published_blocks


@dataclass(frozen=True, repr=False)
class Published(Shown):
    """What published figures say.

    Attributes:
        name: of the figures.
        points: the figures.
        question: what is asked of curves where they have base, sizes and full update.
        gains: shares of the gain that crossings are given for.
        crossings: the first size that reaches each; none where no curve is published.
        supported: what the figures support, a sentence each.
    """

    name: str
    points: Points
    question: Question
    gains: tuple[float, ...]
    crossings: tuple[Crossing, ...]
    supported: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What they do not support, and what to know of them."""
        return REMARKS[self.name]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the thresholds task by task where there are any."""
        curves, failed = self._curves()
        return {
            "source": f"reference:{self.name}",
            "unit": "parameters",
            "curves": curves,
            "ratios": [],
            "null_calibration": {"simulations": 0, "pairs": []},
            "crossings": [asdict(crossing) for crossing in self.crossings],
            "supported": list(self.supported),
            "not_supported": [*self.remarks, *failed],
        }

    @property
    def line(self) -> str:
        """Their name, and how many crossings follow."""
        return f"reference:{self.name}, {len(self.crossings)} first crossings"

    @property
    def blocks(self) -> Sequence[Block]:
        """The crossings, and what is supported and what is not."""
        return published_blocks(self.name, self.points, self.gains, self.question.gain)

    def _curves(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Thresholds task by task and protocol by protocol, and why some have none."""
        curves: list[dict[str, Any]] = []
        failed: list[str] = []
        frame = self.points.frame
        for task, protocol in dict.fromkeys(zip(frame["task"], frame["protocol"], strict=True)):
            try:
                some = where(self.points, conditions(task=task, protocol=protocol))
                study = study_thresholds(some, Selection(), self.question, null=0)
            except CapacityError as error:
                failed.append(str(error))
                continue
            curves += [{"task": task, "protocol": protocol, **curve} for curve in study.to_json()["curves"]]
        return curves, failed


def published(name: str, question: Question | None = None) -> Published:
    """Reads published figures: first crossings at the gain asked for and at the usual ones.

    Raises:
        SpecError: no such figures.
    """
    asked, points = question or Question(), read_points(f"reference:{name}")
    gains = tuple(sorted({*GAINS, asked.gain}))
    crossings = tuple(first_crossings(points, gains))
    supported = tuple(supported_lines(points, asked.gain)) if crossings else ()
    return Published(name, points, asked, gains, crossings, supported)
