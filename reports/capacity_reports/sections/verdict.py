"""Arms against each other: a table of contrasts, and the paragraph for a pull request."""

from capacity_analysis.verdict.verdict import ArmsVerdict
from capacity_reports.blocks import Block, Cell, Column, Section, Table, Text
from capacity_reports.render.page import section_markdown

_COLUMNS = (
    Column("task", "task"),
    Column("second", "arm"),
    Column("first", "against"),
    Column("before", "reference, %", "percent"),
    Column("after", "arm, %", "percent"),
    Column("difference", "difference, points", "points", ends=("low", "high")),
    Column("low", "low, points", "points"),
    Column("high", "high, points", "points"),
    Column("lost", "lost", "count"),
    Column("gained", "gained", "count"),
    Column("p", "p", "p"),
    Column("adjusted_p", "p with all", "p"),
    Column("detectable", "could have shown, points", "percent"),
    Column("seeds", "seeds", "count"),
    Column("finding", "finding"),
)


def verdict_blocks(found: ArmsVerdict) -> tuple[Block, ...]:
    """The table and the paragraph, which comes last, next to the prompt of a terminal."""
    return _table(found), Text((found.paragraph,), strong=True)


def verdict_markdown(found: ArmsVerdict) -> str:
    """The verdict as Markdown, for a pull request. The paragraph comes first."""
    return section_markdown(Section("verdict", "Verdict", (Text((found.paragraph,)), _table(found))))


def _table(found: ArmsVerdict) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for c in found.contrasts:
        difference = (c.estimate.value, c.estimate.low, c.estimate.high)
        tests = (c.lost, c.gained, c.p, c.adjusted_p)
        accuracies = (c.before, c.after)
        rows.append(
            (
                c.task or None,
                c.second,
                c.first,
                *accuracies,
                *difference,
                *tests,
                c.detectable,
                c.estimate.seeds,
                c.finding,
            )
        )
    note = (
        f"Each interval stands alone ({100 * (1 - found.alpha):g} %, fresh items). Findings rest on p with all: "
        f"the chance of any false better or worse is at most {100 * found.alpha:g} % (Holm). Could have shown: the "
        "smallest true difference that four of five studies of this design would tell from 0."
    )
    if found.margin is not None:
        note += (
            f" Equivalent: the {100 * (1 - 2 * found.alpha):g} % interval lies within {100 * found.margin:g} points on "
            "either side of 0 (two one-sided tests)."
        )
    return Table("verdict", "Paired differences of accuracy", _COLUMNS, tuple(rows), note)
