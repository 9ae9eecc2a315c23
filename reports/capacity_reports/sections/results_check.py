"""Results of other programs against their baseline: for a terminal, a job page, and as JUnit XML."""

from xml.etree import ElementTree

from capacity_analysis.verdict.guard import ResultsCheck
from capacity_reports.blocks import Block, Cell, Column, Section, Table, Text
from capacity_reports.render.page import section_markdown

_COLUMNS = (
    Column("task", "task"),
    Column("before", "before %", "percent"),
    Column("after", "after %", "percent"),
    Column("change", "change, points", "points", ends=("low", "high")),
    Column("low", "low, points", "points"),
    Column("high", "high, points", "points"),
    Column("lost", "lost", "count"),
    Column("gained", "gained", "count"),
    Column("outcome", ""),
)


def results_check_blocks(found: ResultsCheck) -> tuple[Block, ...]:
    """The table and the verdict, which comes last, next to the prompt of a terminal."""
    return _table(found), Text((found.verdict,), strong=True)


def results_check_markdown(found: ResultsCheck) -> str:
    """The check as Markdown, for a job page. The verdict comes first."""
    blocks = (Text((found.verdict,), strong=True), _table(found))
    return section_markdown(Section("check", f"capacity check: {found.outcome}", blocks))


def results_check_junit(found: ResultsCheck, *, inconclusive_fails: bool) -> str:
    """The check as JUnit XML, a test case a task. Worse fails; inconclusive fails, or is skipped if it only warns."""
    fails = {"worse", "inconclusive"} if inconclusive_fails else {"worse"}
    suite = ElementTree.Element(
        "testsuite",
        name="capacity check",
        tests=str(len(found.tasks)),
        failures=str(sum(task.outcome in fails for task in found.tasks)),
        errors="0",
    )
    for task in found.tasks:
        case = ElementTree.SubElement(suite, "testcase", classname="capacity.check", name=task.contrast.task or "items")
        message = f"{task.outcome}: {task.reason}"
        if task.outcome in fails:
            ElementTree.SubElement(case, "failure", type=task.outcome, message=message)
        elif task.outcome == "inconclusive":
            ElementTree.SubElement(case, "skipped", message=message)
        ElementTree.SubElement(case, "system-out").text = message
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _table(found: ResultsCheck) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task in found.tasks:
        c = task.contrast
        change = (c.estimate.value, c.estimate.low, c.estimate.high)
        rows.append((c.task or None, c.before, c.after, *change, c.lost, c.gained, task.outcome))
    note = f"Intervals: {100 * (1 - 2 * found.alpha):g} %, fresh items; each end errs with probability {found.alpha:g}."
    return Table("check", "Results against their baseline", _COLUMNS, tuple(rows), note)
