"""Accuracy against the size of the update, in trained parameters and in bits."""

from capacity_analysis.data.absent import Absent
from capacity_analysis.statistics.estimate import labels
from capacity_reports.blocks import Block, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import joined
from capacity_reports.sections.accuracy_chart import Chart, charts
from capacity_reports.sections.demonstrations import demonstrations_figures
from capacity_reports.views import Analysis

_COLUMNS = (
    Column("method", "method"),
    Column("adapter", "adapter"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("update_bits", "payload, bits", "count"),
    Column("learning_rate", "rate", "number"),
    Column("accuracy", "accuracy, %", "percent"),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("seeds", "seeds", "count"),
    Column("by_seed", "each seed, %"),
)


def accuracy_sections(analysis: Analysis) -> tuple[Section, Section]:
    """The sections that show accuracy against trained parameters and against bits."""
    return (
        _section(analysis, "accuracy", "Accuracy against trained parameters", bits=False),
        _section(analysis, "accuracy-bits", "Accuracy against bits", bits=True),
    )


def _section(analysis: Analysis, name: str, title: str, *, bits: bool) -> Section:
    blocks: list[Block] = []
    reasons: list[str] = []
    points = analysis.source.points
    for found in analysis.update_bytes if bits else analysis.parameters:
        if isinstance(found, Absent) or isinstance(points, Absent):
            reasons.append(found.reason if isinstance(found, Absent) else "")
            continue
        if bits and found.unit != "bytes":
            reasons.append("sizes in bytes are not recorded")
            continue
        if not bits:
            blocks += demonstrations_figures(found, str(found.task) if len(analysis.parameters) > 1 else "")
        drawn = charts(points, found, analysis.views, bits=bits)
        if bits and drawn and all(chart.single for chart in drawn):
            reasons.append("all updates of a model have one size, and the figure over trained parameters shows them")
            continue
        blocks += [accuracy_figure(name, chart) for chart in drawn]
    figures = [block for block in blocks if isinstance(block, Figure)]
    if not figures:
        return Section(name, title, (), "; ".join(dict.fromkeys(reasons)) or "no trained runs are complete")
    blocks += [Text((f"Not shown: {reason}.",)) for reason in dict.fromkeys(reasons)]
    intro = (
        "Means over seeds with their intervals; small marks are single seeds. Lines are the fits that thresholds are "
        "read from: a Hill curve with its pointwise 95 % band for fresh seeds on these items, or a monotone fit "
        "without one. Thin lines join the means of methods without a fit."
    )
    if bits:
        intro = "The payload of an update in its storage dtype, without the header of its file."
    return Section(name, title, (Text((intro,)), *blocks))


def accuracy_figure(name: str, chart: Chart) -> Figure:
    """The figure of a chart; its name begins with `name`."""
    data = _table(slug(name, chart.label, chart.model), chart)
    over = f" on {chart.where}" if chart.where else ""
    return Figure(
        data.name,
        chart.where or "All rows",
        " ".join([f"Bars: {labels(p.estimate for p in chart.places)}.", *_captions(chart)]),
        f"Accuracy against {chart.size}{over}: {_words(chart)}",
        data,
        chart.draw,
    )


def _table(name: str, chart: Chart) -> Table:
    rows = []
    bits = chart.scale > 1
    for p in chart.places:
        c = p.known
        seeds = ", ".join(f"{100 * a:.1f}" for a in chart.dots.get(p.cell, ()))
        rows.append(
            (
                c["method"],
                c.get("adapter"),
                c["trained_parameters"],
                chart.scale * p.size if bits else None,
                c.get("learning_rate"),
                p.accuracy,
                p.low,
                p.high,
                p.seeds,
                seeds or None,
            )
        )
    drop = () if bits else ("update_bits",)
    keep = [i for i, column in enumerate(_COLUMNS) if column.key not in drop]
    return Table(
        name,
        "Accuracy by configuration",
        tuple(_COLUMNS[i] for i in keep),
        tuple(tuple(row[i] for i in keep) for row in rows),
    )


def _captions(chart: Chart) -> list[str]:
    texts = []
    if chart.levels:
        texts.append("Lines across: " + joined([f"{x.name} {100 * x.accuracy:.1f} %" for x in chart.levels]) + ".")
    if chart.evidence is not None and chart.evidence.target.ceiling is not None:
        texts.append(f"The ceiling is {chart.evidence.target.ceiling_from}.")
    if chart.thresholds:
        texts.append(f"Open marks on the target line are thresholds; their bars: {chart.thresholds[0].interval}.")
        censored = [c.curve for c in chart.thresholds if c.threshold.censored != "none"]
        if censored:
            texts.append(f"No mark for {joined(censored)}: censored.")
        flat = [c.curve for c in chart.thresholds if c.estimator != "hill"]
        if flat:
            texts.append(f"Monotone fits: {joined(flat)}.")
    if chart.collapses:
        told = [f"{share} of {label}" for label, share in chart.collapses.items()]
        texts.append(
            f"Seeds that collapsed: {joined(told)}. They are among the marks, not in the lines and thresholds."
        )
    return texts


def _words(chart: Chart) -> str:
    parts = []
    for method in chart.methods:
        own = chart.of_method(method)
        first, last = own[0], own[-1]
        text = f"{method} {100 * first.accuracy:.1f} % at {chart.scale * first.size:,.0f}"
        if len(own) > 1:
            text += f", {100 * last.accuracy:.1f} % at {chart.scale * last.size:,.0f}"
        parts.append(text)
    parts += [f"{level.name} {100 * level.accuracy:.1f} %" for level in chart.levels]
    return "; ".join(parts) + "."
