"""The result of `capacity check` for a terminal, as Markdown for a job page, and as JUnit XML."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # scipy takes half a second
    from capacity_analysis.check.result import Check, CurveCheck, Size
    from capacity_analysis.thresholds.evidence import Threshold

_HEADINGS = ("size", "before %", "after %", "change, points", "")


def check_view(check: "Check", notes: tuple[str, ...] = ()) -> RenderableType:
    """The check for a terminal: a table of each curve, notes, and the verdict."""
    parts: list[RenderableType] = []
    for curve in check.curves:
        table = Table(title=curve.name, title_justify="left", box=None, pad_edge=False)
        for heading in _HEADINGS:
            table.add_column(heading, justify="left" if heading in ("size", "") else "right", no_wrap=True)
        for row in _rows(curve):
            table.add_row(*row)
        parts += [table, Text("")]
    parts += [Text(line) for line in (*describe(check), *notes)]
    return Group(*parts, Text(""), Text(check.verdict, style="bold"))


def check_markdown(check: "Check", notes: tuple[str, ...] = ()) -> str:
    """The check as Markdown, for a job page or a comment."""
    lines = [f"## capacity check: {check.outcome}", "", check.verdict, ""]
    for curve in check.curves:
        lines += [
            f"### {curve.name}: {curve.outcome}",
            "",
            "| " + " | ".join(_HEADINGS) + " |",
            "|---|---|---|---|---|",
        ]
        lines += ["| " + " | ".join(row) + " |" for row in _rows(curve)]
        lines.append("")
    lines += [f"- {line}" for line in (*describe(check), *notes)]
    return "\n".join(lines) + "\n"


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
        rows = "\n".join("  ".join(row).rstrip() for row in _rows(curve))
        if curve.outcome in fails:
            ElementTree.SubElement(case, "failure", type=curve.outcome, message=message).text = rows
        elif curve.outcome == "inconclusive":
            ElementTree.SubElement(case, "skipped", message=message)
        ElementTree.SubElement(case, "system-out").text = f"{message}\n{rows}"
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def describe(check: "Check") -> Iterator[str]:
    """What a check found besides its verdict, one line a finding."""
    confidence = f"{100 * (1 - check.alpha):g} %"
    yield f"Intervals of sizes hold for all sizes of a curve together ({confidence}); a star marks sizes that moved."
    if check.environment != "nothing":
        yield f"Environment since the baseline: {check.environment}."
    for curve in check.curves:
        yield from _design_lines(curve)
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


def _threshold(threshold: "Threshold") -> str:
    """ "136 (100 to 1,000)", "more than 10,000"; an open end is said in words."""
    low, high = (None if end is None else f"{end:,.3g}" if end < 1000 else f"{end:,.0f}"
                 for end in (threshold.low, threshold.high))  # fmt: skip
    if threshold.censored == "right" or threshold.estimate is None:
        return (
            f"at most {high}" if threshold.censored == "left" else f"more than {low}" if low else "an unknown number of"
        )
    interval = f"{low or 'fewer'} to {high or 'more'}"
    estimate = threshold.estimate
    return f"{estimate:,.0f} ({interval})" if estimate >= 10 else f"{estimate:.2g} ({interval})"


def _rows(curve: "CurveCheck") -> Iterator[tuple[str, str, str, str, str]]:
    for size in curve.sizes:
        yield (size.label, f"{100 * size.before:.1f}", f"{100 * size.after:.1f}", _change(size), _mark(size))
    if curve.change is not None:
        e, low, high = (100 * x for x in (curve.change.estimate, curve.change.low, curve.change.high))
        interval = "" if curve.outcome == "identical" else f" ({low:+.1f} to {high:+.1f})"
        before, after = (sum(getattr(s, n) for s in curve.sizes) / len(curve.sizes) for n in ("before", "after"))
        yield ("mean", f"{100 * before:.1f}", f"{100 * after:.1f}", f"{e:+.1f}{interval}", curve.outcome)
    else:
        yield ("mean", "", "", "", curve.outcome)


def _change(size: "Size") -> str:
    if size.identical:
        return "identical"
    shift = f"{100 * (size.after - size.before):+.1f}"
    return shift if size.change is None else f"{shift} ({100 * size.change.low:+.1f} to {100 * size.change.high:+.1f})"


def _mark(size: "Size") -> str:
    return "" if size.moved == "no" else f"* {size.moved}"
