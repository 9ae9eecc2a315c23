"""Seeds that collapse, study against baseline: a change in their share that a change of the mean may not show."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.statistics.collapses import CollapsedShare, collapsed, expected_accuracy, more_collapses_p
from capacity_analysis.types import Array

# The share of seeds that may collapse in an unchanged project.
TOLERATED = 0.01
# The part of the level of "worse" that the test of collapses has. The test of the mean has the rest (Bonferroni).
PART = 0.1


@dataclass(frozen=True)
class CollapseCheck:
    """How many seeds of a curve collapsed at some size.

    Attributes:
        before, after: in the baseline and in the study, both by what the baseline leads to expect.
        p: of "no more often than is tolerated, nor more often than before".
        level: that "worse" is claimed at.
    """

    before: CollapsedShare
    after: CollapsedShare
    p: float
    level: float

    @property
    def more(self) -> bool:
        """Whether a larger share of seeds collapsed, shown or not."""
        return self.after.count * self.before.seeds > self.before.count * self.after.seeds

    @property
    def worse(self) -> bool:
        """Whether more collapses are shown at the level."""
        return self.shown(self.level)

    def shown(self, level: float) -> bool:
        """Whether more collapses are shown at some level."""
        return self.more and self.p <= level

    @property
    def words(self) -> str:
        """What was counted: "2 of 5 seeds collapsed, 0 of 5 before"."""
        after, before = self.after, self.before
        return f"{after.count} of {after.seeds} seeds collapsed, {before.count} of {before.seeds} before"


def collapse_check(new: Array, old: Array, answers: NDArray[np.int64], level: float) -> CollapseCheck:
    """Counts the collapsed seeds of a curve and tests whether there are more.

    A seed draws prompts and projections for all sizes at once, so it counts once, however many sizes it lost.

    Args:
        new, old: accuracies of study and baseline, seeds × sizes.
        answers: behind an accuracy of each size.
        level: of this test.
    """
    expected = np.array([expected_accuracy(column) for column in old.T])
    before, after = (CollapsedShare.of(np.any(collapsed(a, expected, answers), axis=1)) for a in (old, new))
    return CollapseCheck(before, after, more_collapses_p(before, after, TOLERATED), level)
