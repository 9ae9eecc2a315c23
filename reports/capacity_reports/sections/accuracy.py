"""Accuracy against the size of the update, in trained parameters and in bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from capacity_analysis.bits.frontier import FrontierPoint
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.recipes import UNSEEN
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import reported_rows
from capacity_analysis.statistics.estimate import labels
from capacity_analysis.thresholds.answers import ThresholdStudy
from capacity_analysis.thresholds.evidence import Evidence
from capacity_analysis.thresholds.fitted_line import Line, line
from capacity_analysis.thresholds.result import CurveThreshold
from capacity_reports.blocks import Block, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import (
    FAINT,
    INK,
    joined,
    legend,
    line_styles,
    log_axis,
    method_style,
    moved,
    percent_axis,
)
from capacity_reports.sections.demonstrations import demonstrations_figures
from capacity_reports.sources import attempt, ordered
from capacity_reports.views import Analysis, TaskCells, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = 3.0  # points between the marks of two methods at one size
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


@dataclass(frozen=True)
class Level:
    """A horizontal line at an accuracy that needs no update, or at one that is to be reached."""

    name: str
    accuracy: float
    dashes: str


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
        for view in [v for v in analysis.views if v.task == found.task]:
            for model in dict.fromkeys(str(p.known.get("model", "")) for p in found.places):
                figure = _figure(name, points, found, view, model, bits=bits)
                if figure is not None:
                    blocks.append(figure)
    for reason in dict.fromkeys(reasons):
        blocks.append(Text((f"Not shown: {reason}.",)))
    if not any(isinstance(b, Figure) for b in blocks):
        return Section(name, title, (), "; ".join(dict.fromkeys(reasons)) or "no trained runs are complete")
    intro = (
        "Means over seeds with their intervals; small marks are single seeds. Lines are the fits that thresholds are "
        "read from: a Hill curve with its pointwise 95 % band for fresh seeds on these items, or a monotone fit "
        "without one."
    )
    if bits:
        intro = "The payload of an update in its storage dtype, without the header of its file."
    return Section(name, title, (Text((intro,)), *blocks))


def places_of(found: TaskCells, view: View, model: str) -> list[FrontierPoint]:
    """The configurations of one view and model, in the order of their methods and sizes."""
    wanted = [
        p
        for p in found.places
        if str(p.known.get("model", "")) == model
        and p.known.get("demonstrations", UNSEEN) in (UNSEEN, view.demonstrations)
        and (view.storage_dtype is None or p.known.get("storage_dtype") == view.storage_dtype)
    ]
    rank = {m: i for i, m in enumerate(ordered([str(p.known["method"]) for p in wanted]))}
    return sorted(wanted, key=lambda p: (rank[str(p.known["method"])], p.size))


def _figure(name: str, points: Points, found: TaskCells, view: View, model: str, *, bits: bool) -> Figure | None:
    places = places_of(found, view, model)
    if not places:
        return None
    dots = _seeds(points)
    data = _table(slug(name, view.label, model), places, dots, bits=bits)
    lines, marked, evidence = ([], [], None) if bits else _fits(view, model)
    drawn = [*levels_of(points, view, model), *_asked(evidence)]
    size = "payload, bits" if bits else "trained parameters"
    where = ", ".join(part for part in (model, view.label) if part)

    methods = list(dict.fromkeys(str(p.known["method"]) for p in places))
    single = len({p.size for p in places}) == 1  # methods side by side: at one size they would hide one another

    def draw(axes: "Axes") -> None:
        scale = 8 if bits else 1
        if not single:
            log_axis(axes, "x", size)
        for number, method in enumerate(methods):
            own = [p for p in places if p.known["method"] == method]
            at = [float(number) if single else scale * p.size for p in own]
            beside = 0.0 if single else _APART * (number - (len(methods) - 1) / 2)
            _draw_arm(axes, method, own, [dots.get(p.cell, ()) for p in own], at, beside)
        for (label, fitted), style in zip(lines, line_styles([label for label, _ in lines]).values(), strict=True):
            _draw_line(axes, label, fitted, style)
        for curve in marked:
            _draw_threshold(axes, curve, evidence)
        for level in drawn:
            axes.axhline(
                level.accuracy, color=INK if level.name == "target" else FAINT, ls=level.dashes, lw=1, label=level.name
            )
        if single:
            axes.set_xticks(range(len(methods)), methods)
            axes.set_xlim(-0.5, len(methods) - 0.5)
            axes.set_xlabel(f"{size}: {scale * places[0].size:,.0f}")
        percent_axis(axes)
        legend(axes, 3)

    return Figure(
        slug(name, view.label, model),
        where or "All rows",
        " ".join([f"Bars: {labels(p.estimate for p in places)}.", *_captions(drawn, marked, evidence)]),
        f"Accuracy against {size}{f' on {where}' if where else ''}: " + _words(places, drawn, scale=8 if bits else 1),
        data,
        draw,
    )


def _table(name: str, places: Sequence[FrontierPoint], dots: dict[str, tuple[float, ...]], *, bits: bool) -> Table:
    rows = []
    for p in places:
        c = p.known
        seeds = ", ".join(f"{100 * a:.1f}" for a in dots.get(p.cell, ()))
        rows.append(
            (
                c["method"],
                c.get("adapter"),
                c["trained_parameters"],
                8 * p.size if bits else None,
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


def _seeds(points: Points) -> dict[str, tuple[float, ...]]:
    """The accuracies of all seeds, by cell."""
    keep = attempt(lambda: reported_rows(points))
    if isinstance(keep, Absent):
        return {}
    found = points.frame[keep].groupby("cell")["accuracy"]
    return {str(cell): tuple(float(a) for a in accuracies) for cell, accuracies in found}


def levels_of(points: Points, view: View, model: str) -> list[Level]:
    """The lines of the untrained model: under the protocol of the runs, and at its best temperature on validation."""
    frame = points.frame
    own = frame[(frame["model"].fillna("") == model)]
    own = own if view.task is None else own[(own["task"] == view.task).fillna(False)]
    trained = own[(own["trained_parameters"] > 0) & (own["split"] != "validation").fillna(True)]
    base = own[own["method"] == "base"]
    test = base[(base["split"] != "validation").fillna(True)]
    protocol = trained["protocol"].iloc[0] if len(trained) else pd.NA
    same = test if pd.isna(protocol) else test[(test["protocol"] == protocol).fillna(False)]
    levels = []
    if len(same):
        levels.append(Level("base", float(same["accuracy"].mean()), "--"))
    validation = base[(base["split"] == "validation").fillna(False)].sort_values("protocol", kind="stable")
    if len(validation):
        best = validation[validation["accuracy"] == validation["accuracy"].max()].iloc[-1]["protocol"]
        chosen = test[(test["protocol"] == best).fillna(False)]
        if len(chosen) and best != protocol:
            temperature = str(best).split("-")[0].removeprefix("T")
            levels.append(Level(f"base, best T = {temperature}", float(chosen["accuracy"].mean()), "-."))
        elif len(chosen) and levels:
            levels[0] = Level("base (its best T)", levels[0].accuracy, "--")
    return levels


def _fits(view: View, model: str) -> tuple[list[tuple[str, Line]], list[CurveThreshold], Evidence | None]:
    if not isinstance(view.thresholds, ThresholdStudy):
        return [], [], None
    evidence = next((e for e in view.thresholds.evidence if (e.design.model or "") == model), None)
    if evidence is None:
        return [], [], None
    answers = [t for t in view.thresholds.thresholds if (t.model or "") == model and t.answer]
    return [(t.curve, line(evidence, t)) for t in answers], answers, evidence


def _asked(evidence: Evidence | None) -> list[Level]:
    if evidence is None:
        return []
    found = [Level("target", evidence.target.accuracy, ":")]
    if evidence.target.ceiling is not None:
        found.insert(0, Level("ceiling", evidence.target.ceiling, (0, (6, 2))))  # type: ignore[arg-type]
    return found


def _draw_arm(
    axes: "Axes",
    method: str,
    places: Sequence[FrontierPoint],
    dots: Sequence[Sequence[float]],
    at: Sequence[float],
    beside: float,
) -> None:
    """Draws means with intervals at the places `at` and seeds as small marks, all `beside` points to the right."""
    colour, marker, _ = method_style(method)
    drawn = []
    for x, p, seeds in zip(at, places, dots, strict=True):
        if len(seeds) > 1:
            drawn += axes.plot([x] * len(seeds), seeds, ls="", marker=marker, ms=2.5, color=colour, alpha=0.5)
        if p.low is not None and p.high is not None:
            drawn += axes.plot([x, x], [p.low, p.high], color=colour, lw=1)
    means = [p.accuracy for p in places]
    drawn += axes.plot(at, means, ls="", marker=marker, color=colour, label=method)
    moved(axes, drawn, right=beside)


def _draw_line(axes: "Axes", label: str, fitted: Line, style: tuple[str, str, str]) -> None:
    """Draws the line of a curve. The key names it if its label says more than its method."""
    colour, _, dashed = style
    name = label if " " in label else None
    axes.plot(fitted.sizes, fitted.accuracies, color=colour, ls=dashed, lw=1.3, label=name)
    if fitted.low is not None and fitted.high is not None:
        axes.fill_between(fitted.sizes, fitted.low, fitted.high, color=colour, alpha=0.15, lw=0)


def _draw_threshold(axes: "Axes", curve: CurveThreshold, evidence: Evidence | None) -> None:
    """Draws the threshold with its interval on the line of the target."""
    if evidence is None or curve.threshold.estimate is None:
        return
    colour, marker, _ = method_style(curve.method)
    t, y = curve.threshold, evidence.target.accuracy
    low, high = t.low or curve.sizes[0], t.high or curve.sizes[-1]
    axes.plot([low, high], [y, y], color=colour, lw=4, alpha=0.35, solid_capstyle="butt")
    axes.plot([curve.threshold.estimate], [y], marker=marker, ms=8, mfc="none", mec=colour, mew=1.4, ls="")


def _captions(levels: Sequence[Level], curves: Sequence[CurveThreshold], evidence: Evidence | None) -> list[str]:
    texts = []
    if levels:
        texts.append("Lines across: " + joined([f"{x.name} {100 * x.accuracy:.1f} %" for x in levels]) + ".")
    if evidence is not None and evidence.target.ceiling is not None:
        texts.append(f"The ceiling is {evidence.target.ceiling_from}.")
    if curves:
        texts.append(f"Open marks on the target line are thresholds; their bars: {curves[0].interval}.")
        censored = [c.curve for c in curves if c.threshold.censored != "none"]
        if censored:
            texts.append(f"No mark for {joined(censored)}: censored.")
        flat = [c.curve for c in curves if c.estimator != "hill"]
        if flat:
            texts.append(f"Monotone fits: {joined(flat)}.")
    return texts


def _words(places: Sequence[FrontierPoint], levels: Sequence[Level], scale: float) -> str:
    parts = []
    for method in dict.fromkeys(str(p.known["method"]) for p in places):
        own = [p for p in places if p.known["method"] == method]
        first, last = own[0], own[-1]
        text = f"{method} {100 * first.accuracy:.1f} % at {scale * first.size:,.0f}"
        if len(own) > 1:
            text += f", {100 * last.accuracy:.1f} % at {scale * last.size:,.0f}"
        parts.append(text)
    parts += [f"{level.name} {100 * level.accuracy:.1f} %" for level in levels]
    return "; ".join(parts) + "."
