"""The adapter of zeros beside the untrained model: what the adapter's path through the engine changes by itself."""

from dataclasses import dataclass

from capacity_analysis.data.cell_results import CellResult, changed_items, difference
from capacity_analysis.statistics.estimate import Estimate


@dataclass(frozen=True)
class ZeroControl:
    """An adapter of zeros in the place of the trained ones. It is a control, and nothing judges it as a method.

    Attributes:
        cell: what was measured.
        over_base: its accuracy minus that of the untrained model under the same protocol; None without that run.
        changed: how many of `answered` were graded otherwise than those of the untrained model. This is the noise floor
            of comparisons with the base. None if the answers are not known.
        answered: the items of all seeds that both have.
    """

    cell: CellResult
    over_base: Estimate | None
    changed: int | None
    answered: int

    @property
    def sentence(self) -> str:
        """The difference to the base with the noise floor, as one sentence."""
        if self.over_base is None:
            return "The adapter of zeros has no run of the untrained model to compare with."
        value, bracket, ends = self.over_base.points().partition(" (")
        floor = "" if self.changed is None else f"; noise floor: {self.changed:,} of {self.answered:,} items differ"
        return f"Adapter of zeros minus base: {value} points{bracket}{ends}{floor}."


def zero_control(cell: CellResult, base: CellResult | None) -> ZeroControl:
    """Returns the control of an adapter of zeros.

    Args:
        cell: of the adapter of zeros.
        base: the untrained model under the same protocol; None if it has no run.

    Raises:
        DataError: the cells answered different items.
    """
    if base is None:
        return ZeroControl(cell, None, None, 0)
    return ZeroControl(cell, difference(cell, base), *changed_items(cell, base))
