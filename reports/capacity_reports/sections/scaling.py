"""Threshold against model size, with the published points beside ours."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from capacity_analysis.data.absent import Absent
from capacity_analysis.data.published import CITATION, Crossing, first_crossings, read_raw, reference_points
from capacity_analysis.scaling.curves import ScalingResult, scaling_report
from capacity_analysis.scaling.fit import Prediction, ScalingFit
from capacity_analysis.thresholds.answers import ThresholdStudy, thresholds_on_models
from capacity_analysis.thresholds.result import CurveThreshold
from capacity_analysis.words import minus
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import FAINT, joined, legend, line_styles, log_axis, moved, numbers
from capacity_reports.sections.published import PUBLISHED_TASK
from capacity_reports.sources import attempt
from capacity_reports.views import Analysis, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = (
    Column("kind", "what"),
    Column("method", "curve"),
    Column("model", "model"),
    Column("model_parameters", "model parameters", "count"),
    Column("estimate", "estimate", "count", ends=("low", "high")),
    Column("low", "95 % low", "count", "0"),
    Column("high", "95 % high", "count", "∞"),
    Column("remark", ""),
)

_INTRO = Text(
    (
        "log threshold = α + β log model size, fitted to intervals. The gap between base and ceiling shrinks as models "
        "grow, so thresholds at a share of the gain and at one accuracy scale differently: `--target` asks for the "
        "other.",
    )
)


def scaling_section(analysis: Analysis, *, published: bool) -> Section:
    """The section of thresholds against model size, a figure a view; `published` adds the published first crossings."""
    blocks: list[Block] = []
    reasons: list[str] = []
    for view, study in analysis.thresholds:
        found = attempt(partial(_results, study))
        if isinstance(found, Absent):
            reasons.append(found.reason)
            continue
        drawn = [r for r in found if r.thresholds]
        if not drawn or len({t.model for r in drawn for t in r.thresholds}) < 2:
            reasons.append("it needs thresholds on at least two models")
            continue
        blocks.append(_figure(view, study, drawn, _published(study) if published else ()))
        blocks.append(_slopes(drawn))
    title = "Threshold against model size"
    if not blocks:
        why = "; ".join(dict.fromkeys(reasons)) or "there are no thresholds"
        return Section("scaling", title, (), why)
    return Section("scaling", title, (_INTRO, *blocks))


def scaling_blocks(study: ThresholdStudy, results: Sequence[ScalingResult]) -> list[Block]:
    """Thresholds and predictions as a table, and the slope of every curve."""
    return [_INTRO, _table(study, results), _slopes(results)]


def _table(
    study: ThresholdStudy, results: Sequence[ScalingResult], further: Sequence[tuple[Cell, ...]] = (), label: str = ""
) -> Table:
    rows = (*_measured(study, results), *_predicted(results), *further)
    targets = joined(list(dict.fromkeys(r.target for r in results if r.target)))
    title = f"Thresholds and predictions, {study.unit}{f', at {targets}' if targets else ''}"
    return Table(slug("scaling", label), title, _COLUMNS, rows)


def _slopes(results: Sequence[ScalingResult]) -> Text:
    lines = [f"{r.curve}: {_slope(r)}" for r in results]
    return Text((*lines, *dict.fromkeys(remark for r in results for remark in r.remarks)), bullets=True)


def _results(study: ThresholdStudy) -> tuple[ScalingResult, ...]:
    return scaling_report(thresholds_on_models(study))


def _slope(result: ScalingResult) -> str:
    fit = result.fit
    if isinstance(fit, Absent):
        return f"no line: {fit.reason}."
    low, high = (minus(f"{end:+.2f}") if np.isfinite(end) else "open" for end in (fit.slope.low, fit.slope.high))
    unit = "decades of threshold a decade of model size"
    if fit.slope.estimate is None:
        return f"slopes from {low} to {high} {unit} are possible ({fit.method}; {fit.n} models)."
    slope = minus(f"{fit.slope.estimate:+.2f}")
    return f"slope {slope}, 95 % from {low} to {high} {unit} ({fit.method}; {fit.n} models)."


def _published(study: ThresholdStudy) -> tuple[Crossing, ...]:
    gain = study.evidence[0].target.gain
    if gain is None:
        return ()
    found = first_crossings(reference_points("tinylora-table2"), (gain,))
    return tuple(c for c in found if c.task == PUBLISHED_TASK)


def _figure(
    view: View, study: ThresholdStudy, results: Sequence[ScalingResult], published: Sequence[Crossing]
) -> Figure:
    raw = read_raw("tinylora-table2") if published else None
    sizes = {} if raw is None else dict(zip(raw["backbone"], raw["backbone_parameters"], strict=True))
    remarks = {"left": "already at the smallest size", "right": "not below the full update"}
    further = [
        (
            "published",
            "grpo",
            c.model,
            int(sizes[c.model]),
            c.trained_parameters,
            None,
            None,
            remarks.get(c.censored, ""),
        )
        for c in published
    ]
    data = _table(study, results, further, view.label)
    target = results[0].target

    def draw(axes: "Axes") -> None:
        for result in results:
            _draw(axes, result, study)
        for c in published:
            if c.trained_parameters is not None:
                axes.plot(
                    [sizes[c.model]],
                    [c.trained_parameters],
                    ls="",
                    marker="*",
                    ms=10,
                    mfc="none",
                    mec=FAINT,
                    mew=1.3,
                    label="published grpo, GSM8K",
                )
        log_axis(axes, "x", "model parameters")
        log_axis(axes, "y", f"threshold, {study.unit}")
        legend(axes, 2)

    df = [f"{r.curve} {r.fit.df}" for r in results if isinstance(r.fit, ScalingFit) and r.fit.sigma is not None]
    words = "; ".join(f"{r[1]} on {r[2]}: {_words(r)}" for r in _measured(study, results))
    caption = (
        f"Thresholds at {target}. Bars: {study.thresholds[0].interval}; arrows: open ends. Bands: 95 % prediction of a "
        "new model, hatched beyond one doubling, where they are extrapolations to be doubted."
    )
    ranges = [r.curve for r in results if isinstance(r.fit, ScalingFit) and r.fit.sigma is None]
    if ranges:
        caption += (
            f" For {joined(ranges)} the band is the range of all lines through the intervals, without a probability."
        )
    if df:
        caption += f" Degrees of freedom: {', '.join(df)}; with three models there is 1 and Student's quantile is 12.7."
    if published:
        caption += f" Stars: first crossings of published curves ({CITATION}, table 2), means without intervals."
    return Figure(
        data.name,
        f"Thresholds of several models{f', {view.label}' if view.label else ''}",
        caption,
        f"Threshold against model size, {target}: {words}.",
        data,
        draw,
        height=4.0,
    )


def _words(row: tuple[Cell, ...]) -> str:
    estimate, low, high = row[4], row[5], row[6]
    if isinstance(estimate, float | int):
        return f"{estimate:,.3g}"
    ends = [
        f"above {low:,.3g}" if isinstance(low, float | int) else "",
        f"below {high:,.3g}" if isinstance(high, float | int) else "",
    ]
    return " and ".join(e for e in ends if e) or "unknown"


def _estimate(study: ThresholdStudy, model: str, curve: str) -> float | None:
    found = _answer(study, model, curve)
    return None if found is None else found.threshold.estimate


def _answer(study: ThresholdStudy, model: str, curve: str) -> CurveThreshold | None:
    """The threshold to believe of a curve of a model."""
    return next((t for t in study.thresholds if t.answer and (t.model or "") == model and t.curve == curve), None)


def _measured(study: ThresholdStudy, results: Sequence[ScalingResult]) -> list[tuple[Cell, ...]]:
    return [
        (
            "measured",
            r.curve,
            t.model,
            t.model_parameters,
            _estimate(study, t.model, r.curve),
            t.low or None,
            t.high if np.isfinite(t.high) else None,
            "",
        )
        for r in results
        for t in r.thresholds
    ]


def _predicted(results: Sequence[ScalingResult]) -> list[tuple[Cell, ...]]:
    return [
        (
            "predicted",
            r.curve,
            family or None,
            p.model_parameters,
            _finite(p.estimate),
            _finite(p.low) or None,
            _finite(p.high),
            "extrapolated beyond one doubling" if p.far else "extrapolated" if p.doublings else "",
        )
        for r in results
        for family, p in r.predictions
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _draw(axes: "Axes", result: ScalingResult, study: ThresholdStudy) -> None:
    curves = list(dict.fromkeys(t.curve for t in study.thresholds))
    colour, marker, style = line_styles(curves)[result.curve]
    place = curves.index(result.curve)
    shift = 1.06 ** (place - 1)  # side by side at equal model sizes
    for t in result.thresholds:
        x = t.model_parameters * shift
        estimate = _estimate(study, t.model, result.curve)
        found = _answer(study, t.model, result.curve)
        assert found is not None
        low, high = t.low or found.sizes[0], t.high if np.isfinite(t.high) else found.sizes[-1]
        axes.plot([x, x], [low, high], color=colour, lw=1.2)
        if t.low == 0:
            moved(axes, axes.plot([x], [low], marker="$↓$", ms=7, color=colour, ls="", clip_on=False), up=-7)
        if not np.isfinite(t.high):
            moved(axes, axes.plot([x], [high], marker="$↑$", ms=7, color=colour, ls="", clip_on=False), up=7)
        middle = estimate or (low * high) ** 0.5
        axes.plot(
            [x], [middle], marker=marker, color=colour, mfc=colour if estimate else "none", ls="", label=result.curve
        )
    fit = result.fit
    if not isinstance(fit, ScalingFit):
        return
    smallest, largest = (f(t.model_parameters for t in result.thresholds) for f in (min, max))
    inside, beyond = np.geomspace(smallest, 2 * largest, 30), np.geomspace(2 * largest, 10 * largest, 10)
    for sizes, far in ((inside, False), (beyond, True)):
        drawn = [fit.predict(float(n)) for n in sizes]
        if drawn[0].estimate is not None:
            axes.plot(sizes, numbers(p.estimate for p in drawn), color=colour, ls=":" if far else style, lw=1.2)
        _band(axes, sizes, drawn, colour, far=far)


def _band(
    axes: "Axes",
    sizes: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    drawn: Sequence[Prediction],
    colour: str,
    *,
    far: bool,
) -> None:
    low, high = np.array([p.low for p in drawn]), np.array([p.high for p in drawn])
    if not (np.isfinite(high).all() and (low > 0).all()) or (high / low > 1e12).any():
        return  # unbounded: the table says so
    axes.fill_between(sizes, low, high, color=colour, alpha=0.1, lw=0)
    if far:  # apart from the tint, whose opacity would be the hatch's too
        axes.fill_between(sizes, low, high, facecolor="none", edgecolor=colour, linewidth=0, hatch="////")
