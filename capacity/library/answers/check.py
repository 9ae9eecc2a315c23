"""What a check found, in a few lines: the verdict, what changed of the environment, and a row a curve."""

from capacity.library.answers import answer
from capacity_analysis.check.result import Check, CurveCheck
from capacity_reports.blocks import Block, Cell, Column, Table

_COLUMNS = (
    Column("curve", "curve"),
    Column("outcome", "outcome"),
    Column("before", "before, %", "percent"),
    Column("after", "after, %", "percent"),
    Column("change", "change, points", "points", ends=("low", "high")),
    Column("low", "low, points", "points"),
    Column("high", "high, points", "points"),
)


def check_answer(check: Check) -> tuple[Block, ...]:
    """The verdict, the changes of the environment if there are some, and the mean over sizes of each curve."""
    lines = [check.verdict]
    if check.environment != "nothing":
        lines.append(f"Environment since the baseline: {check.environment}.")
    note = "Each row is the mean over the sizes of a curve; the change has its own interval."
    return answer(lines, Table("curves", "Curves", _COLUMNS, tuple(map(_row, check.curves)), note))


def _row(curve: CurveCheck) -> tuple[Cell, ...]:
    before, after = (sum(getattr(s, name) for s in curve.sizes) / len(curve.sizes) for name in ("before", "after"))
    change = curve.change
    if change is None:
        return curve.name, curve.outcome, before, after, after - before, None, None
    ends = (None, None) if curve.outcome == "identical" else (change.low, change.high)
    return curve.name, curve.outcome, before, after, change.estimate, *ends
