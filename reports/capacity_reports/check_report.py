"""The result of `capacity check` as blocks, which give its text for a terminal and for a job page, and as JUnit XML."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from capacity_reports.blocks import Block, Cell, Column, Section, Table, Text, slug
from capacity_reports.render.page import section_markdown

if TYPE_CHECKING:  # scipy takes half a second
    from capacity_analysis.check.collapses import CollapseCheck
    from capacity_analysis.check.result import Check, CurveCheck
    from capacity_analysis.thresholds.result import Threshold

_COLUMNS = (
    Column("size", "size"),
    Column("before", "before %", "percent", absent=""),
    Column("after", "after %", "percent", absent=""),
    Column("change", "change, points", "points", absent="", ends=("low", "high")),
    Column("low", "low, points", "points"),
    Column("high", "high, points", "points"),
    Column("moved", ""),
)


def check_blocks(check: "Check") -> tuple[Block, ...]:
    """A table of each curve, what else was found, and the verdict. It comes last, next to the prompt of a terminal."""
    return (
        *map(curve_table, check.curves),
        Text(tuple(describe(check)), bullets=True),
        Text((check.verdict,), strong=True),
    )


def check_markdown(check: "Check") -> str:
    """The check as Markdown, for a job page or a comment. The verdict comes first."""
    *found, verdict = check_blocks(check)
    return section_markdown(Section("check", f"capacity check: {check.outcome}", (verdict, *found)))


def check_junit(check: "Check", *, inconclusive_fails: bool) -> str:
    """The check as JUnit XML, a test case a curve. Worse fails; inconclusive fails, or is skipped if it only warns."""
    fails = {"worse", "inconclusive"} if inconclusive_fails else {"worse"}
    suite = ElementTree.Element(
        "testsuite",
        name="capacity check",
        tests=str(len(check.curves)),
        failures=str(sum(curve.outcome in fails for curve in check.curves)),
        skipped=str(sum(curve.outcome == "inconclusive" for curve in check.curves) if not inconclusive_fails else 0),
        errors="0",
    )
    for curve in check.curves:
        case = ElementTree.SubElement(suite, "testcase", classname="capacity.check", name=curve.name)
        message = f"{curve.outcome}: {curve.reason}"
        rows = "\n".join("  ".join(row).rstrip() for row in curve_table(curve).texts())
        if curve.outcome in fails:
            ElementTree.SubElement(case, "failure", type=curve.outcome, message=message).text = rows
        elif curve.outcome == "inconclusive":
            ElementTree.SubElement(case, "skipped", message=message)
        ElementTree.SubElement(case, "system-out").text = f"{message}\n{rows}"
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def curve_table(curve: "CurveCheck") -> Table:
    """The sizes of a curve and their mean. Intervals of sizes hold together, that of the mean alone."""
    rows: list[tuple[Cell, ...]] = []
    for size in curve.sizes:
        change = "identical" if size.identical else size.after - size.before
        ends = (None, None) if size.identical or size.change is None else (size.change.low, size.change.high)
        moved = "" if size.moved == "no" else f"* {size.moved}"
        rows.append((size.label, size.before, size.after, change, *ends, moved))
    mean: tuple[Cell, ...] = (None, None, None, None, None)
    if curve.change is not None:
        before, after = (sum(getattr(size, n) for size in curve.sizes) / len(curve.sizes) for n in ("before", "after"))
        ends = (None, None) if curve.outcome == "identical" else (curve.change.low, curve.change.high)
        mean = (before, after, curve.change.estimate, *ends)
    rows.append(("mean", *mean, curve.outcome))
    return Table(slug("check", curve.name), f"{curve.name}: {curve.outcome}", _COLUMNS, tuple(rows))


def describe(check: "Check") -> Iterator[str]:
    """What a check found besides its verdict, one line a finding."""
    confidence = f"{100 * (1 - check.alpha):g} %"
    yield f"Intervals of sizes hold for all sizes of a curve together ({confidence}); a star marks sizes that moved."
    if check.environment != "nothing":
        yield f"Environment since the baseline: {check.environment}."
    for curve in check.curves:
        yield from _design_lines(curve)
        if curve.collapses is not None and (curve.outcome != "identical" or curve.collapses.before.count):
            yield _collapse_line(curve.name, curve.collapses)
    for base in check.bases:
        yield (
            f"{base.name}, untrained: {100 * base.before:.1f} % before, {100 * base.after:.1f} % after, "
            f"{base.lost} answers lost, {base.gained} gained (McNemar p = {base.p:.2g})."
        )
    yield from check.remarks


def _design_lines(curve: "CurveCheck") -> Iterator[str]:
    change, design, permutation = curve.change, curve.design, curve.permutation
    if curve.outcome == "identical" or change is None or design is None or permutation is None:
        return
    smallest = "no drop at all" if design.smallest_drop is None else f"{100 * design.smallest_drop:.1f} points"
    yield (
        f"{curve.name}: with {change.seeds} seeds of this spread, the smallest drop called worse four times in five is "
        f"{smallest}; power for 5 points {design.power:.2f}."
    )
    if curve.thresholds is not None:
        before, after = (_threshold(t) for t in (curve.thresholds.before, curve.thresholds.after))
        yield (
            f"{curve.name}: {100 * curve.thresholds.target:.1f} %, half of the baseline's gain, takes {before} trained "
            f"parameters before, {after} after."
        )
    spread = "" if curve.dispersion is None else f"; variance between seeds {curve.dispersion:.2f} × binomial"
    yield (
        f"{curve.name}: {change.method}, {change.df:.1f} degrees of freedom, p of a drop {change.p_worse:.2g}; "
        f"exchanging seeds p = {permutation.p:.2g} (at least {permutation.smallest:.2g} with these seeds){spread}."
    )


def _collapse_line(name: str, collapses: "CollapseCheck") -> str:
    return (
        f"{name}: {collapses.after} seeds collapsed, {collapses.before} before; 1 % is tolerated, "
        f"p = {collapses.p:.2g}. A seed has collapsed if it lies 10 points or more below the median of the baseline."
    )


def _threshold(threshold: "Threshold") -> str:
    """A threshold with its interval, "136 (100 to 1,000)", or "more than 10,000"; an open end is said in words."""
    low, high = (None if end is None else f"{end:,.3g}" if end < 1000 else f"{end:,.0f}"
                 for end in (threshold.low, threshold.high))  # fmt: skip
    if threshold.censored == "right" or threshold.estimate is None:
        return (
            f"at most {high}" if threshold.censored == "left" else f"more than {low}" if low else "an unknown number of"
        )
    interval = f"{low or 'fewer'} to {high or 'more'}"
    estimate = threshold.estimate
    return f"{estimate:,.0f} ({interval})" if estimate >= 10 else f"{estimate:.2g} ({interval})"
