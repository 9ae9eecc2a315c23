"""What a figure of accuracy against the size of the update shows, gathered once and drawn on paper or on a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from capacity_analysis.bits.frontier import FrontierPoint
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.recipes import UNSEEN
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import at_chosen_rates
from capacity_analysis.statistics.collapses import CollapsedShare
from capacity_analysis.thresholds.answers import ThresholdStudy
from capacity_analysis.thresholds.evidence import Evidence
from capacity_analysis.thresholds.fitted_line import Line, line
from capacity_analysis.thresholds.result import CurveThreshold
from capacity_reports.figures import FAINT, INK, legend, line_styles, log_axis, method_style, moved, percent_axis
from capacity_reports.sources import attempt, ordered
from capacity_reports.views import Analysis, TaskCells, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = 3.0  # points between the marks of two methods at one size


@dataclass(frozen=True)
class Level:
    """A horizontal line at an accuracy that needs no update, or at one that is to be reached."""

    name: str
    accuracy: float
    dashes: str


@dataclass(frozen=True)
class Chart:
    """Accuracy against size of one model.

    Attributes:
        model: its name, "" if the source does not tell.
        label: what tells the rows from other views of the source, "" for the only one.
        size: what the horizontal axis counts.
        scale: by what the sizes of places are multiplied to be in that unit.
        places: the configurations, by method and size.
        dots: the accuracies of the seeds of each cell.
        collapsed: the places among these of seeds that collapsed and are set aside, of each cell that has some.
        lines: the fitted line of each curve, by its label.
        thresholds: the answers that are drawn on the target.
        evidence: what they rest on; None without thresholds.
        levels: the lines across.
    """

    model: str
    label: str
    size: str
    scale: int
    places: tuple[FrontierPoint, ...]
    dots: Mapping[str, tuple[float, ...]]
    collapsed: Mapping[str, tuple[int, ...]]
    lines: tuple[tuple[str, Line], ...]
    thresholds: tuple[CurveThreshold, ...]
    evidence: Evidence | None
    levels: tuple[Level, ...]

    @property
    def where(self) -> str:
        """The model, and what tells the rows from others."""
        return ", ".join(part for part in (self.model, self.label) if part)

    @property
    def collapses(self) -> dict[str, CollapsedShare]:
        """How many seeds are set aside from each line because they collapsed, where there are any, by label."""
        return {t.curve: t.collapsed for t in self.thresholds if t.collapsed is not None and t.collapsed.count}

    @property
    def methods(self) -> list[str]:
        """The methods in the order in which they are always shown."""
        return list(dict.fromkeys(str(p.known["method"]) for p in self.places))

    @property
    def single(self) -> bool:
        """Whether all updates have one size; methods then stand side by side, as they would hide one another."""
        return len({p.size for p in self.places}) == 1

    def of_method(self, method: str) -> list[FrontierPoint]:
        """The configurations of one method, by size."""
        return [p for p in self.places if p.known["method"] == method]

    def draw(self, axes: "Axes") -> None:
        """Draws means with intervals, seeds, fitted lines, thresholds and levels. Without a fit, means are joined."""
        if not self.single:
            log_axis(axes, "x", self.size)
        methods = self.methods
        for number, method in enumerate(methods):
            own = self.of_method(method)
            at = [float(number) if self.single else self.scale * p.size for p in own]
            beside = 0.0 if self.single else _APART * (number - (len(methods) - 1) / 2)
            _draw_arm(axes, method, own, [self.dots.get(p.cell, ()) for p in own], at, beside)
        for method in methods if not self.single else ():
            if not any(label.partition(" ")[0] == method for label, _ in self.lines):
                own = self.of_method(method)
                sizes, means = [self.scale * p.size for p in own], [p.accuracy for p in own]
                axes.plot(sizes, means, color=method_style(method)[0], lw=0.7, alpha=0.6)
        styles = line_styles([label for label, _ in self.lines])
        for label, fitted in self.lines:
            _draw_line(axes, label, fitted, styles[label], self.collapses.get(label))
        for curve in self.thresholds:
            _draw_threshold(axes, curve, self.evidence)
        for level in self.levels:
            axes.axhline(
                level.accuracy, color=INK if level.name == "target" else FAINT, ls=level.dashes, lw=1, label=level.name
            )
        if self.single:
            axes.set_xticks(range(len(methods)), methods)
            axes.set_xlim(-0.5, len(methods) - 0.5)
            axes.set_xlabel(f"{self.size}: {self.scale * self.places[0].size:,.0f}")
        percent_axis(axes)
        legend(axes, 3)


def charts(points: Points, found: TaskCells, views: Sequence[View], *, bits: bool) -> list[Chart]:
    """The charts of every view and model of one task, see `chart_of`."""
    models = list(dict.fromkeys(str(p.known.get("model", "")) for p in found.places))
    rows = _reported(points, found.task)
    made = [chart_of(points, rows, found, v, m, bits=bits) for v in views if v.task == found.task for m in models]
    return [chart for chart in made if chart is not None]


def parameter_charts(analysis: Analysis) -> list[Chart]:
    """The charts of a source over trained parameters, in the order of the page."""
    points = analysis.source.points
    if isinstance(points, Absent):
        return []
    tasks = [found for found in analysis.parameters if isinstance(found, TaskCells)]
    return [chart for found in tasks for chart in charts(points, found, analysis.views, bits=False)]


def chart_of(
    points: Points, rows: pd.DataFrame, found: TaskCells, view: View, model: str, *, bits: bool
) -> Chart | None:
    """Gathers the chart of one view and model; None if it has no configuration.

    Args:
        points: the rows of the source.
        rows: those that are reported of the task.
        found: its configurations, in the unit of the chart.
        view: rows that may be compared.
        model: the model.
        bits: sizes are payloads in bits.
    """
    places = places_of(found, view, model)
    if not places:
        return None
    lines, marked, evidence = ([], [], None) if bits else _fits(view, model)
    return Chart(
        model,
        view.label,
        "payload, bits" if bits else "trained parameters",
        8 if bits else 1,
        tuple(places),
        _seeds(rows),
        _collapsed(rows, evidence),
        tuple(lines),
        tuple(marked),
        evidence,
        (*levels_of(points, view, model), *_asked(evidence)),
    )


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


def _reported(points: Points, task: str | None) -> pd.DataFrame:
    """The rows of one task that a result may be reported on; none if nothing chose between its learning rates."""
    own = (points.frame["split"] != "validation").fillna(True).astype(bool)
    if task is not None:
        own &= (points.frame["task"] == task).fillna(False).astype(bool)
    keep = attempt(lambda: at_chosen_rates(points, own))
    return points.frame.iloc[:0] if isinstance(keep, Absent) else points.frame[keep]


def _seeds(rows: pd.DataFrame) -> dict[str, tuple[float, ...]]:
    """The accuracies of all seeds, by cell."""
    return {str(cell): tuple(map(float, accuracies)) for cell, accuracies in rows.groupby("cell")["accuracy"]}


def _collapsed(rows: pd.DataFrame, evidence: Evidence | None) -> dict[str, tuple[int, ...]]:
    """The places of the seeds that are set aside among all seeds of their cell, by cell."""
    if evidence is None or not evidence.aside:
        return {}
    found = rows.groupby("cell")["seed"]
    places = {str(c): tuple(i for i, seed in enumerate(seeds) if (c, seed) in evidence.aside) for c, seeds in found}
    return {cell: own for cell, own in places.items() if own}


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
        elif len(chosen) and levels and validation["protocol"].nunique() > 1:
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


def _draw_line(
    axes: "Axes", label: str, fitted: Line, style: tuple[str, str, str], collapses: CollapsedShare | None
) -> None:
    """Draws the line of a curve. The key names it if its label says more than its method, or if seeds collapsed."""
    colour, _, dashed = style
    name = label if " " in label else None
    if collapses is not None:
        name = f"{label} without {collapses.count} of {collapses.seeds} seeds"
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
