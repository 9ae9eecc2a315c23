"""Learning rates: what was tried on validation for every method and size, and whether the best lies inside."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capacity.plan.rates import TunedRate, rate_remarks, rate_taken
from capacity.runs.study import Run
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.tuning import RateTrials, edge_remarks, rate_trials
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import dashes, legend, levels, log_axis, percent_axis
from capacity_reports.views import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = (
    Column("tuning", "tuning"),
    Column("method", "method"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("rate", "rate", "number"),
    Column("accuracy", "validation accuracy, %", "percent"),
    Column("runs", "runs", "count"),
    Column("best", ""),
)


def rates_section(analysis: Analysis) -> Section:
    """The section of learning rates, one figure a model and method."""
    points = analysis.source.points
    title = "Learning rates"
    if isinstance(points, Absent):
        return Section("rates", title, (), points.reason)
    trials = rate_trials(points)
    if not trials:
        shipped = _of_shipped(analysis.source.trained)
        said = (Text(shipped, bullets=True),) if shipped else ()
        return Section("rates", title, said, "there are no validation rows: the rates were not tuned in this study")
    remarks = edge_remarks(trials)
    flattery = [t.flattery for t in trials if t.flattery is not None]
    lines = [
        f"{len(trials)} tunings were made on validation items; the checklist says which seeds served them.",
        f"At the edge of the rates tried: {len(remarks)}."
        if remarks
        else "Every best rate lies inside the rates tried.",
    ]
    if flattery:
        lines.append(
            f"The best of equal trials would look better than it is by up to {100 * max(flattery):.1f} "
            "points on validation; "
            "test results do not carry this."
        )
    blocks: list[Block] = [Text(tuple(lines))]
    if remarks:
        blocks.append(Text(tuple(remarks), bullets=True))
    for model, method in dict.fromkeys((t.model or "", t.method) for t in trials):
        own = [t for t in trials if (t.model or "", t.method) == (model, method)]
        blocks.append(_figure(model, method, sorted(own, key=lambda t: t.trained_parameters)))
    return Section("rates", title, tuple(blocks))


def _of_shipped(runs: Sequence[Run]) -> tuple[str, ...]:
    """What to know of the shipped rates that runs took."""
    found: dict[str, TunedRate] = {}
    for run in runs:
        spec, size = run.spec, run.result.trained_parameters
        rate = rate_taken(spec, size)
        if rate is not None:
            found[f"{spec.method} ({spec.model}, {spec.adapter.kind} of {size:,})"] = rate
    return rate_remarks(found)


def _figure(model: str, method: str, trials: Sequence[RateTrials]) -> Figure:
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (t.name, t.method, t.trained_parameters, rate, accuracy, runs, _mark(t, rate))
        for t in trials
        for rate, accuracy, runs in zip(t.rates, t.accuracies, t.runs, strict=True)
    )

    def draw(axes: "Axes") -> None:
        for place, (t, colour) in enumerate(zip(trials, levels(len(trials)), strict=True)):
            axes.plot(
                t.rates,
                t.accuracies,
                color=colour,
                marker=".",
                ls=dashes(place),
                lw=1.2,
                label=f"{t.trained_parameters:,}",
            )
            axes.plot(
                [t.best],
                [t.accuracies[t.rates.index(t.best)]],
                marker="X" if t.at_edge else "o",
                ms=7,
                color=colour,
                ls="",
            )
        log_axis(axes, "x", "learning rate")
        percent_axis(axes, "validation accuracy, %")
        legend(axes, 4)

    edge = sum(t.at_edge for t in trials)
    words = "; ".join(
        f"{t.trained_parameters:,} parameters best at {t.best:g}{' (edge)' if t.at_edge else ''}" for t in trials
    )
    name = slug("rates", model, method)
    where = " ".join(part for part in (model, method) if part)
    return Figure(
        name,
        where,
        "One line a size in trained parameters. Large dot: best; cross: best, at the edge of the rates "
        f"tried ({edge} of {len(trials)}).",
        f"Validation accuracy against learning rate, {where}: {words}.",
        Table(name, "Rates tried", _COLUMNS, rows),
        draw,
    )


def _mark(trial: RateTrials, rate: float) -> str:
    return "" if rate != trial.best else "best, at the edge" if trial.at_edge else "best"
