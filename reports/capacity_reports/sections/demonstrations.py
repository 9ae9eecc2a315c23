"""The figures of a study of several styles of demonstrations: accuracy against size, one line a style."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capacity_analysis.bits.frontier import FrontierPoint
from capacity_analysis.data.recipes import UNSEEN
from capacity_analysis.statistics.estimate import labels
from capacity_reports.blocks import Column, Figure, Table, slug
from capacity_reports.figures import dashes, legend, levels, log_axis, percent_axis
from capacity_reports.views import TaskCells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = (
    Column("demonstrations", "demonstrations"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("learning_rate", "rate", "number"),
    Column("accuracy", "accuracy, %", "percent"),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("seeds", "seeds", "count"),
)


def demonstrations_figures(found: TaskCells, task: str) -> list[Figure]:
    """A figure for each model, method and dtype that was trained on several styles; `task` is named if it tells."""
    arms: dict[tuple[str, ...], list[FrontierPoint]] = {}
    for place in found.places:
        if _style(place) != UNSEEN:
            names = ("model", "method", "storage_dtype")
            arms.setdefault((task, *(str(place.known.get(name, "")) for name in names)), []).append(place)
    several = [(arm, places) for arm, places in arms.items() if len(set(map(_style, places))) > 1]
    return [_figure(arm, sorted(places, key=lambda p: (_style(p), p.size))) for arm, places in several]


def _style(place: FrontierPoint) -> str:
    return str(place.known.get("demonstrations", UNSEEN))


def _figure(arm: Sequence[str], places: Sequence[FrontierPoint]) -> Figure:
    styles = list(dict.fromkeys(map(_style, places)))

    def draw(axes: "Axes") -> None:
        for number, (style, colour) in enumerate(zip(styles, levels(len(styles)), strict=True)):
            own = [p for p in places if _style(p) == style]
            sizes, accuracies = [p.size for p in own], [p.accuracy for p in own]
            axes.plot(sizes, accuracies, color=colour, ls=dashes(number), lw=1.2, marker=".", label=style)
            for p in own:
                if p.low is not None and p.high is not None:
                    axes.plot([p.size, p.size], [p.low, p.high], color=colour, lw=0.6)
        log_axis(axes, "x", "trained parameters")
        percent_axis(axes)
        legend(axes, 1)

    where = " ".join(part for part in arm if part)
    largest = max(p.size for p in places)
    words = "; ".join(f"{_style(p)} {100 * p.accuracy:.1f} %" for p in places if p.size == largest)
    name = slug("accuracy-by-demonstrations", *arm)
    rows = tuple(
        (
            _style(p),
            p.known["trained_parameters"],
            p.known.get("learning_rate"),
            p.accuracy,
            p.low,
            p.high,
            p.seeds,
        )
        for p in places
    )
    return Figure(
        name,
        f"By demonstrations, {where}",
        f"One line a style of demonstrations, through the means. Bars: {labels(p.estimate for p in places)}.",
        f"Accuracy against trained parameters by style of demonstrations, {where}; at {largest:,.0f}: {words}.",
        Table(name, "Accuracy by demonstrations", _COLUMNS, rows),
        draw,
        height=4.0 + 0.12 * len(styles),
    )
